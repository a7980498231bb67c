//! `storage.k8s.io/v1`.

use resource::Resource;

use crate::{columns::AGE, entry::Group};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group.cluster("CSIDriver", "csidrivers").columns(&[AGE]).done(),
        group.cluster("CSINode", "csinodes").columns(&[AGE]).done(),
        group.namespaced("CSIStorageCapacity", "csistoragecapacities").columns(&[AGE]).done(),
        group.cluster("StorageClass", "storageclasses").short("sc").columns(&[AGE]).done(),
        group.cluster("VolumeAttachment", "volumeattachments").columns(&[AGE]).status().done(),
        group.cluster("VolumeAttributesClass", "volumeattributesclasses").short("vac").columns(&[AGE]).done(),
    ]
}
