//! `metrics.k8s.io/v1beta1`: what nodes and pods use now. Measured by the nodes, never stored.

use resource::Resource;

use crate::{columns::METRICS, entry::Group};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group.cluster("NodeMetrics", "nodes").columns(METRICS).measured().done(),
        group.namespaced("PodMetrics", "pods").columns(METRICS).measured().done(),
    ]
}
