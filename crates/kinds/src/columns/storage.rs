//! Volumes, claims, classes and drivers.

use meta::{Object, Timestamp, Value};

use super::{AGE, Col, joined, network::named, or};

fn modes(list: &[Value]) -> String {
    let short = |mode: &Value| match mode.as_str()? {
        "ReadWriteOnce" => Some("RWO"),
        "ReadOnlyMany" => Some("ROX"),
        "ReadWriteMany" => Some("RWX"),
        "ReadWriteOncePod" => Some("RWOP"),
        _ => None,
    };
    let found: Vec<&str> = list.iter().filter_map(short).collect();
    ["RWO", "ROX", "RWX", "RWOP"]
        .into_iter()
        .filter(|mode| found.contains(mode))
        .collect::<Vec<_>>()
        .join(",")
}

fn phase(object: &Object, _: Timestamp) -> Value {
    let phase = object.str(&["status", "phase"]).unwrap_or_default();
    if object.is_deleting() { "Terminating".into() } else { phase.into() }
}

fn class(object: &Object, _: Timestamp) -> Value {
    let beta = object.annotation("volume.beta.kubernetes.io/storage-class");
    beta.or_else(|| object.str(&["spec", "storageClassName"])).unwrap_or_default().into()
}

const ATTRIBUTES: Col = Col::text_at("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>");
const MODE: Col = Col::text_at("VolumeMode", "spec.volumeMode", "<unset>").wide();

/// Columns of a PersistentVolume.
pub(crate) const VOLUME: &[Col] = &[
    Col::text_at("Capacity", "spec.capacity.storage", "0"),
    Col::text("Access Modes", |o, _| modes(o.list(&["spec", "accessModes"])).into()),
    Col::text_at("Reclaim Policy", "spec.persistentVolumeReclaimPolicy", ""),
    Col::text("Status", phase),
    Col::text("Claim", |o, _| {
        let text = |field| o.str(&["spec", "claimRef", field]).unwrap_or_default();
        if o.get(&["spec", "claimRef"]).is_none() {
            "".into()
        } else {
            format!("{}/{}", text("namespace"), text("name")).into()
        }
    }),
    Col::text("StorageClass", class),
    ATTRIBUTES,
    Col::text_at("Reason", "status.reason", ""),
    AGE,
    MODE,
];

/// Columns of a PersistentVolumeClaim.
pub(crate) const CLAIM: &[Col] = &[
    Col::text("Status", phase),
    Col::text_at("Volume", "spec.volumeName", ""),
    Col::text("Capacity", |o, _| match bound(o) {
        true => or(o.str(&["status", "capacity", "storage"]), "0").into(),
        false => "".into(),
    }),
    Col::text("Access Modes", |o, _| match bound(o) {
        true => modes(o.list(&["status", "accessModes"])).into(),
        false => "".into(),
    }),
    Col::text("StorageClass", class),
    ATTRIBUTES,
    AGE,
    MODE,
];

fn bound(claim: &Object) -> bool {
    claim.str(&["spec", "volumeName"]).is_some_and(|name| !name.is_empty())
}

/// Columns of a StorageClass; the name says which is the default.
pub(crate) const CLASS: &[Col] = &[
    Col::text("Name", |o, _| named(o, "storageclass.kubernetes.io/is-default-class")),
    Col::text_at("Provisioner", "provisioner", ""),
    Col::text_at("ReclaimPolicy", "reclaimPolicy", "Delete"),
    Col::text_at("VolumeBindingMode", "volumeBindingMode", "Immediate"),
    Col::bool_at("AllowVolumeExpansion", "allowVolumeExpansion"),
    AGE,
];

/// Columns of a CSIDriver.
pub(crate) const DRIVER: &[Col] = &[
    Col::bool_at("AttachRequired", "spec.attachRequired"),
    Col::bool_at("PodInfoOnMount", "spec.podInfoOnMount"),
    Col::bool_at("StorageCapacity", "spec.storageCapacity"),
    Col::text("TokenRequests", |o, _| {
        let audiences = o.list(&["spec", "tokenRequests"]).iter().filter_map(|r| r.get("audience")?.as_str());
        let audiences: Vec<&str> = audiences.collect();
        if o.get(&["spec", "tokenRequests"]).is_none() {
            "<unset>".into()
        } else {
            audiences.join(",").into()
        }
    }),
    Col::bool_at("RequiresRepublish", "spec.requiresRepublish"),
    Col::text("Modes", |o, _| or(Some(&joined(o.list(&["spec", "volumeLifecycleModes"]))), "<none>").into()),
    AGE,
];

/// Columns of a CSINode.
pub(crate) const CSI_NODE: &[Col] =
    &[Col::int("Drivers", |o, _| o.list(&["spec", "drivers"]).len().into()), AGE];

/// Columns of a CSIStorageCapacity.
pub(crate) const CAPACITY: &[Col] = &[
    Col::text_at("StorageClassName", "storageClassName", ""),
    Col::text_at("Capacity", "capacity", "<unset>"),
];

/// Columns of a VolumeAttachment.
pub(crate) const ATTACHMENT: &[Col] = &[
    Col::text_at("Attacher", "spec.attacher", ""),
    Col::text_at("PV", "spec.source.persistentVolumeName", ""),
    Col::text_at("Node", "spec.nodeName", ""),
    Col::bool_at("Attached", "status.attached"),
    AGE,
];

/// Columns of a VolumeAttributesClass.
pub(crate) const ATTRIBUTES_CLASS: &[Col] = &[Col::text_at("DriverName", "driverName", ""), AGE];
