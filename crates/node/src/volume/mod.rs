//! Volumes of a pod: what has to be on disk before a container can start.
//!
//! Guarantees: [`plan`] is pure, names every file with its mode and owner, and refuses what this node
//! cannot provide by name. Supported: emptyDir, hostPath, configMap, secret, downwardAPI, projected
//! (serviceAccountToken, configMap, secret, downwardAPI), and claims bound to hostPath or local
//! volumes, ephemeral ones too. Everything else (CSI, NFS, images, block mode) is refused. The size
//! limit of an emptyDir bounds a Memory one; on disk it is not enforced.

mod claim;
mod mount;
mod payload;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

pub use claim::Claim;
pub use mount::{Mounting, mounts};
pub use payload::{File, Token, tokens};

use crate::{
    fields::{FieldUnknown, Place},
    pod,
    sources::{Missing, Sources},
};

/// Why a volume cannot be made; the pod waits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// It refers to data that is not there.
    #[error("MountVolume.SetUp failed for volume {volume:?}: {source}")]
    Missing {
        /// Name in the pod.
        volume: String,
        /// What is missing.
        source: Missing,
    },
    /// A key that `items` names is not there.
    #[error("MountVolume.SetUp failed for volume {volume:?}: references non-existent {kind} key: {key}")]
    Key {
        /// Name in the pod.
        volume: String,
        /// `config` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A downward API reference that cannot be resolved.
    #[error("MountVolume.SetUp failed for volume {volume:?}: {source}")]
    Field {
        /// Name in the pod.
        volume: String,
        /// What is wrong.
        source: FieldUnknown,
    },
    /// A path that leads out of the volume.
    #[error("volume {volume:?}: path {path:?} must be relative and must not contain \"..\"")]
    Path {
        /// Name in the pod.
        volume: String,
        /// The path.
        path: String,
    },
    /// The claim is not there or not bound yet.
    #[error("{0}")]
    Claim(String),
    /// This node does not do that.
    #[error("volume {volume:?}: {what} is not supported by this node")]
    NotSupported {
        /// Name in the pod.
        volume: String,
        /// What was asked for.
        what: &'static str,
    },
}

/// One volume to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePlan {
    /// Name in the pod; a DNS label.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// `fsGroup`: who owns the files.
    pub fs_group: Option<i64>,
    /// `fsGroupChangePolicy: OnRootMismatch`.
    pub on_root_mismatch: bool,
}

/// What a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An empty directory.
    Empty {
        /// On tmpfs.
        memory: bool,
        /// Bytes; 0 for no limit.
        size_limit_bytes: u64,
    },
    /// A path of the machine.
    HostPath {
        /// The path.
        path: PathBuf,
        /// `type`; empty for no check.
        kind: String,
    },
    /// A directory of a PersistentVolume.
    Persistent {
        /// The path.
        path: PathBuf,
        /// Whether it may be made: `DirectoryOrCreate`.
        create: bool,
    },
    /// Files with given contents.
    Files(BTreeMap<String, File>),
}

/// All that volumes are made from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Addresses and allocatable for the downward API.
    pub place: Place,
    /// ConfigMaps and Secrets.
    pub sources: Sources,
    /// Tokens by volume and path.
    pub tokens: BTreeMap<Token, String>,
    /// Claims by name.
    pub claims: BTreeMap<String, Claim>,
}

/// The volumes of `pod`, in the order of the spec.
pub fn plan(pod: &Pod, inputs: &Inputs) -> Result<Vec<VolumePlan>, VolumeError> {
    let Some(spec) = &pod.spec else { return Ok(Vec::new()) };
    let context = spec.security_context.as_ref();
    let fs_group = context.and_then(|context| context.fs_group);
    let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
    let on_root_mismatch = policy == Some("OnRootMismatch");
    let volumes = spec.volumes.iter().flatten();
    volumes
        .map(|volume| {
            let kind = kind(pod, volume, inputs)?;
            // A path of the machine keeps its owner, as upstream.
            let fs_group = if matches!(kind, Kind::HostPath { .. }) { None } else { fs_group };
            Ok(VolumePlan { name: volume.name.clone(), kind, fs_group, on_root_mismatch })
        })
        .collect()
}

fn kind(pod: &Pod, volume: &Volume, inputs: &Inputs) -> Result<Kind, VolumeError> {
    if let Some(source) = &volume.empty_dir {
        let size = source.size_limit.as_ref().and_then(|size| size.0.parse::<meta::Quantity>().ok());
        let memory = match source.medium.as_deref() {
            None | Some("") => false,
            Some("Memory") => true,
            Some(_) => return Err(not_supported(volume, "an emptyDir with this medium")),
        };
        let size_limit_bytes = size.and_then(|size| u64::try_from(size.value()).ok()).unwrap_or_default();
        return Ok(Kind::Empty { memory, size_limit_bytes });
    }
    if let Some(source) = &volume.host_path {
        let kind = source.type_.clone().unwrap_or_default();
        return Ok(Kind::HostPath { path: PathBuf::from(&source.path), kind });
    }
    if let Some(source) = &volume.persistent_volume_claim {
        return claim::resolve(pod, volume, &source.claim_name, inputs);
    }
    if volume.ephemeral.is_some() {
        // The ephemeral volume controller makes a claim called POD-VOLUME (KEP-1698).
        return claim::resolve(pod, volume, &format!("{}-{}", pod::name(pod), volume.name), inputs);
    }
    if let Some(files) = payload::files(pod, volume, inputs)? {
        return Ok(Kind::Files(files));
    }
    Err(not_supported(volume, other_source(volume)))
}

fn not_supported(volume: &Volume, what: &'static str) -> VolumeError {
    VolumeError::NotSupported { volume: volume.name.clone(), what }
}

fn other_source(volume: &Volume) -> &'static str {
    if volume.csi.is_some() {
        "a CSI volume"
    } else if volume.nfs.is_some() {
        "an NFS volume"
    } else if volume.image.is_some() {
        "an image volume"
    } else if volume.iscsi.is_some() {
        "an iSCSI volume"
    } else {
        "this kind of volume"
    }
}

/// Names of the claims that `pod` mounts.
pub fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{}-{}", pod::name(pod), volume.name)),
            (None, None) => None,
        })
        .collect()
}

/// Whether the pod has volumes whose contents follow objects of the API and have to be refreshed.
pub fn has_changing_contents(pod: &Pod) -> bool {
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.any(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
    })
}
