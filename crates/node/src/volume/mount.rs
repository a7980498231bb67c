//! `volumeMounts` of a container as mounts of the runtime.

use std::{collections::BTreeMap, path::PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::action::Propagation;

use super::VolumeError;
use crate::expand::expand;

/// One mount; where it comes from is known once the volume and its sub-path are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounting {
    /// Volume name.
    pub volume: String,
    /// Path inside the volume; empty for its root.
    pub sub_path: String,
    /// In the container.
    pub container_path: String,
    /// Whether it can only be read.
    pub read_only: bool,
    /// Whether later mounts show on the other side.
    pub propagation: Propagation,
}

/// The mounts of `container`, with `subPathExpr` expanded from its environment. `volumes` are those
/// that exist.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    env: &BTreeMap<String, String>,
    volumes: &BTreeMap<String, PathBuf>,
) -> Result<Vec<Mounting>, VolumeError> {
    let not_supported = |volume: &str, what| VolumeError::NotSupported { volume: volume.to_owned(), what };
    if let Some(device) = container.volume_devices.iter().flatten().next() {
        return Err(not_supported(&device.name, "a block volume"));
    }
    let mut list = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        if !volumes.contains_key(&mount.name) {
            return Err(VolumeError::Claim(format!(
                "volume {:?} of pod {} is not mounted",
                mount.name,
                crate::pod::long_name(pod)
            )));
        }
        let sub_path = match (mount.sub_path_expr.as_deref(), mount.sub_path.as_deref()) {
            (Some(expr), _) if !expr.is_empty() => expand(expr, |name| env.get(name).map(String::as_str)),
            (_, path) => path.unwrap_or_default().to_owned(),
        };
        let inside = sub_path.split('/').all(|part| part != "..") && !sub_path.starts_with('/');
        if !inside {
            return Err(VolumeError::Path { volume: mount.name.clone(), path: sub_path });
        }
        if mount.recursive_read_only.as_deref() == Some("Enabled") {
            return Err(not_supported(&mount.name, "recursiveReadOnly: Enabled"));
        }
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::Private,
        };
        let claim_read_only = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| {
            let claim = volume.persistent_volume_claim.as_ref();
            volume.name == mount.name && claim.is_some_and(|claim| claim.read_only.unwrap_or_default())
        });
        list.push(Mounting {
            volume: mount.name.clone(),
            sub_path,
            container_path: absolute(&mount.mount_path),
            read_only: mount.read_only.unwrap_or_default() || claim_read_only,
            propagation,
        });
    }
    // A mount inside another one has to come after it.
    list.sort_by_key(|mounting| mounting.container_path.matches('/').count());
    Ok(list)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}
