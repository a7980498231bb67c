//! Claims: from a PersistentVolumeClaim to the directory of its volume.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

use super::{Inputs, Kind, VolumeError, not_supported};
use crate::pod;

/// A claim with the volume it is bound to; `None` for what does not exist.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// The claim.
    pub claim: Option<PersistentVolumeClaim>,
    /// Its volume.
    pub volume: Option<PersistentVolume>,
}

pub(super) fn resolve(pod: &Pod, volume: &Volume, name: &str, inputs: &Inputs) -> Result<Kind, VolumeError> {
    let none = Claim::default();
    let Claim { claim, volume: bound } = inputs.claims.get(name).unwrap_or(&none);
    let refuse = |why: String| Err(VolumeError::Claim(why));
    let Some(claim) = claim else {
        return refuse(format!("persistentvolumeclaim {name:?} not found"));
    };
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let Some(volume_name) =
        claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|n| !n.is_empty())
    else {
        return refuse(format!(
            "persistentvolumeclaim {name:?} is not bound to a volume yet (phase {phase})"
        ));
    };
    let Some(spec) = bound.as_ref().and_then(|bound| bound.spec.as_ref()) else {
        return refuse(format!(
            "persistentvolume {volume_name:?} of persistentvolumeclaim {name:?} not found"
        ));
    };
    let is_ours = spec.claim_ref.as_ref().is_some_and(|claimed| {
        claimed.name.as_deref() == Some(name)
            && claimed.namespace.as_deref() == Some(pod::namespace(pod))
            && (claimed.uid.is_none() || claimed.uid == claim.metadata.uid)
    });
    if !is_ours {
        return refuse(format!(
            "persistentvolume {volume_name:?} is not bound to persistentvolumeclaim {name:?}"
        ));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(not_supported(volume, "a block volume"));
    }
    if let Some(local) = &spec.local {
        return Ok(Kind::Persistent { path: PathBuf::from(&local.path), create: false });
    }
    if let Some(host_path) = &spec.host_path {
        let kind = host_path.type_.as_deref().unwrap_or_default();
        return Ok(match kind {
            "" | "Directory" | "DirectoryOrCreate" => {
                Kind::Persistent { path: PathBuf::from(&host_path.path), create: kind != "Directory" }
            }
            other => Kind::HostPath { path: PathBuf::from(&host_path.path), kind: other.to_owned() },
        });
    }
    Err(not_supported(volume, "a claim on this kind of PersistentVolume"))
}
