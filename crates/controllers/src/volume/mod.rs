//! PersistentVolumes: binding claims to volumes, making local ones, taking them back, protecting those
//! in use (upstream `pkg/controller/volume`).
//!
//! The local-path contract. StorageClass `provisioner: keelson.dev/local-path`; for a claim the
//! provisioner makes a PersistentVolume with `hostPath: {path: <root>/<namespace>_<name>_<uid>, type:
//! DirectoryOrCreate}`, node affinity to one node (the selected one, or any ready one for Immediate),
//! and the finalizer [`CLEANUP`]. The node agent makes the directory when a pod first mounts it (that is
//! what DirectoryOrCreate means). When the PersistentVolume is being deleted, the agent of the node its
//! affinity names deletes the directory and then removes the finalizer; nobody else does, except that
//! the finalizer of a volume whose node is gone is removed here, its data being gone with the node.

mod attributes;
mod claim;
mod ephemeral;
mod expand;
mod local_path;
mod matching;
mod protection;
mod quantity;
mod reclaim;
#[cfg(test)]
mod tests;

pub use attributes::AttributesClassProtection;
pub use claim::ClaimBinder;
pub use ephemeral::EphemeralVolumes;
pub use expand::VolumeExpander;
pub use local_path::LocalPathProvisioner;
pub use protection::{ClaimProtection, VolumeProtection};
pub use reclaim::VolumeBinder;

/// The provisioner's name, in StorageClasses.
pub const PROVISIONER: &str = "keelson.dev/local-path";
/// Finalizer of local-path volumes; the node agent removes it after deleting the directory.
pub const CLEANUP: &str = "keelson.dev/local-path-cleanup";

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const STORAGE_PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
const HOSTNAME: &str = "kubernetes.io/hostname";
