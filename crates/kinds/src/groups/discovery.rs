//! `discovery.k8s.io/v1`.

use resource::Resource;

use crate::{columns::ENDPOINT_SLICE, entry::Group, strategy::EndpointSlice};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .namespaced("EndpointSlice", "endpointslices")
            .columns(ENDPOINT_SLICE)
            .strategy(EndpointSlice)
            .done(),
    ]
}
