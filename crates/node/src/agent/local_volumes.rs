//! Removing the directories of released volumes that the local-path provisioner made on this node.
//!
//! Guarantees: only volumes that carry the finalizer and whose node affinity names this node are
//! touched; only directories strictly below the configured root are removed (the host refuses
//! everything else); the finalizer goes after the directory is gone.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::watcher::{self, watcher},
};
use serde_json::json;

use super::{Agent, pods::paced};

/// Finalizer of volumes whose directory the node has to remove.
pub const LOCAL_PATH_FINALIZER: &str = "keelson.dev/local-path-cleanup";
/// Pause before a clean-up that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

pub(super) async fn run(agent: Arc<Agent>) {
    let volumes: Api<PersistentVolume> = Api::all(client(&agent));
    let mut changes = paced(Arc::clone(&agent), watcher(volumes, watcher::Config::default()));
    let mut failed: Vec<PersistentVolume> = Vec::new();
    loop {
        let pause = if failed.is_empty() { Duration::MAX } else { RETRY };
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(watcher::Event::Apply(volume) | watcher::Event::InitApply(volume))) => {
                    failed.extend(tend(&agent, volume).await);
                }
                Some(Ok(watcher::Event::Delete(_) | watcher::Event::Init | watcher::Event::InitDone)) => {}
                Some(Err(error)) => tracing::warn!(error = reconcile::text(&error), "cannot watch PersistentVolumes"),
                None => return,
            },
            () = tokio::time::sleep(pause) => {
                for volume in std::mem::take(&mut failed) {
                    failed.extend(tend(&agent, volume).await);
                }
            }
        }
    }
}

/// Who may change volumes: a node by itself may not.
fn client(agent: &Agent) -> kube::Client {
    agent.options.local_volumes.clone().unwrap_or_else(|| agent.client.clone())
}

/// Cleans up after `volume` if that is for this node to do; gives it back when it has to be tried again.
async fn tend(agent: &Agent, volume: PersistentVolume) -> Option<PersistentVolume> {
    let path = to_remove(&volume, &agent.options.name)?;
    let name = volume.metadata.name.clone().unwrap_or_default();
    if let Err(error) = agent.options.host.remove_local_volume(&path).await {
        tracing::error!(volume = name, path = %path.display(), %error, "cannot remove the directory of a released volume");
        return Some(volume);
    }
    let had = volume.metadata.finalizers.clone().unwrap_or_default();
    let left: Vec<&String> = had.iter().filter(|finalizer| *finalizer != LOCAL_PATH_FINALIZER).collect();
    // The resource version makes it fail when somebody changed the finalizers meanwhile; the watch
    // then brings the newer object.
    let patch =
        json!({ "metadata": { "finalizers": left, "resourceVersion": volume.metadata.resource_version } });
    let volumes: Api<PersistentVolume> = Api::all(client(agent));
    match volumes.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => {
            tracing::info!(volume = name, path = %path.display(), "removed the directory of a released volume");
            None
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => None,
        Err(error) => {
            tracing::warn!(
                volume = name,
                error = reconcile::text(&error),
                "cannot take the finalizer off a released volume"
            );
            Some(volume)
        }
    }
}

/// The directory to remove; `None` when there is nothing to do for the node called `node`.
fn to_remove(volume: &PersistentVolume, node: &str) -> Option<PathBuf> {
    let ours = volume.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == LOCAL_PATH_FINALIZER);
    let spec = volume.spec.as_ref()?;
    let released = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released");
    let doomed = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    let over = volume.metadata.deletion_timestamp.is_some() || (released && doomed);
    if !ours || !over || !is_on(volume, node) {
        return None;
    }
    let path = match (&spec.host_path, &spec.local) {
        (Some(host_path), _) => &host_path.path,
        (None, Some(local)) => &local.path,
        (None, None) => return None,
    };
    Some(PathBuf::from(path))
}

/// Whether the volume's node affinity names this node, and no other.
fn is_on(volume: &PersistentVolume, node: &str) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    let terms = affinity.map(|required| required.node_selector_terms.as_slice()).unwrap_or_default();
    let mut requirements = terms
        .iter()
        .flat_map(|term| term.match_expressions.iter().flatten().chain(term.match_fields.iter().flatten()));
    requirements.any(|requirement| {
        matches!(requirement.key.as_str(), "kubernetes.io/hostname" | "metadata.name")
            && requirement.operator == "In"
            && requirement.values.as_deref() == Some(&[node.to_owned()])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_directory_is_removed() {
        let volume =
            |finalizer: &str, phase: &str, policy: &str, deleting: bool, node: &str| -> PersistentVolume {
                let mut value = json!({
                    "metadata": { "name": "pv", "finalizers": [finalizer] },
                    "spec": { "hostPath": { "path": "/root/pv" }, "persistentVolumeReclaimPolicy": policy,
                        "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                            { "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] }] } } },
                    "status": { "phase": phase }
                });
                if deleting {
                    value["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
                }
                serde_json::from_value(value).unwrap()
            };
        for (volume, expected) in [
            (volume(LOCAL_PATH_FINALIZER, "Released", "Delete", false, "n1"), true),
            (volume(LOCAL_PATH_FINALIZER, "Bound", "Delete", true, "n1"), true),
            (volume(LOCAL_PATH_FINALIZER, "Released", "Retain", false, "n1"), false),
            (volume(LOCAL_PATH_FINALIZER, "Bound", "Delete", false, "n1"), false),
            (volume(LOCAL_PATH_FINALIZER, "Released", "Delete", false, "n2"), false),
            (volume("kubernetes.io/pv-protection", "Released", "Delete", true, "n1"), false),
        ] {
            assert_eq!(to_remove(&volume, "n1").is_some(), expected, "{volume:?}");
        }
    }
}
