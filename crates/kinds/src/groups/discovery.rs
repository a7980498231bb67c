//! `discovery.k8s.io/v1`.

use resource::Resource;

use crate::{columns::AGE, entry::Group, strategy::EndpointSlice};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![group.namespaced("EndpointSlice", "endpointslices").columns(&[AGE]).strategy(EndpointSlice).done()]
}
