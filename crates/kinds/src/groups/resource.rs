//! `resource.k8s.io/v1`: devices for pods. Served and stored; nothing allocates a device yet.

use resource::Resource;

use crate::{
    columns::{AGE, RESOURCE_CLAIM, RESOURCE_SLICE},
    entry::Group,
    strategy::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group.cluster("DeviceClass", "deviceclasses").columns(&[AGE]).strategy(DeviceClass).done(),
        group
            .namespaced("ResourceClaim", "resourceclaims")
            .columns(RESOURCE_CLAIM)
            .strategy(ResourceClaim)
            .status()
            .done(),
        group
            .namespaced("ResourceClaimTemplate", "resourceclaimtemplates")
            .columns(&[AGE])
            .strategy(ResourceClaimTemplate)
            .done(),
        group
            .cluster("ResourceSlice", "resourceslices")
            .columns(RESOURCE_SLICE)
            .selectable(&[("spec.driver", ""), ("spec.nodeName", "")])
            .strategy(ResourceSlice)
            .done(),
    ]
}
