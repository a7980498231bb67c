//! `flowcontrol.apiserver.k8s.io/v1`.

use resource::Resource;

use crate::{
    columns::{FLOW_SCHEMA, PRIORITY_LEVEL},
    entry::Group,
    strategy::{FlowSchema, PriorityLevel},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group.cluster("FlowSchema", "flowschemas").columns(FLOW_SCHEMA).strategy(FlowSchema).status().done(),
        group
            .cluster("PriorityLevelConfiguration", "prioritylevelconfigurations")
            .columns(PRIORITY_LEVEL)
            .strategy(PriorityLevel)
            .status()
            .done(),
    ]
}
