//! `storage.k8s.io/v1`.

use resource::Resource;

use crate::{
    columns::AGE,
    entry::Group,
    strategy::{CsiNode, Rules, StorageClass},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group.cluster("CSIDriver", "csidrivers").columns(&[AGE]).strategy(Rules::new().conditional()).done(),
        group.cluster("CSINode", "csinodes").columns(&[AGE]).strategy(CsiNode).done(),
        group
            .namespaced("CSIStorageCapacity", "csistoragecapacities")
            .columns(&[AGE])
            .strategy(Rules::new().conditional())
            .done(),
        group
            .cluster("StorageClass", "storageclasses")
            .short("sc")
            .columns(&[AGE])
            .strategy(StorageClass)
            .done(),
        group
            .cluster("VolumeAttachment", "volumeattachments")
            .columns(&[AGE])
            .strategy(Rules::new().conditional())
            .status()
            .done(),
        group
            .cluster("VolumeAttributesClass", "volumeattributesclasses")
            .short("vac")
            .columns(&[AGE])
            .strategy(Rules::new())
            .done(),
    ]
}
