//! `storage.k8s.io/v1`.

use resource::Resource;

use crate::{
    columns::{ATTACHMENT, ATTRIBUTES_CLASS, CAPACITY, CLASS, CSI_NODE, DRIVER},
    entry::Group,
    strategy::{CsiNode, Rules, StorageClass},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group.cluster("CSIDriver", "csidrivers").columns(DRIVER).strategy(Rules::new().conditional()).done(),
        group.cluster("CSINode", "csinodes").columns(CSI_NODE).strategy(CsiNode).done(),
        group
            .namespaced("CSIStorageCapacity", "csistoragecapacities")
            .columns(CAPACITY)
            .strategy(Rules::new().conditional())
            .done(),
        group
            .cluster("StorageClass", "storageclasses")
            .short("sc")
            .columns(CLASS)
            .strategy(StorageClass)
            .done(),
        group
            .cluster("VolumeAttachment", "volumeattachments")
            .columns(ATTACHMENT)
            .strategy(Rules::new().conditional())
            .status()
            .done(),
        group
            .cluster("VolumeAttributesClass", "volumeattributesclasses")
            .short("vac")
            .columns(ATTRIBUTES_CLASS)
            .strategy(Rules::new())
            .done(),
    ]
}
