//! The writes that carry out a decision. Each is bounded in time and guarded by the object's UID or
//! version, so that a decision about one object never lands on its successor.

use std::{future::Future, time::Duration};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use meta::{ObjectKey, Timestamp, format_second};
use serde_json::{Value, json};

use crate::{
    pod::PodInfo,
    preempt::Victim,
    volumes::{Bindings, SELECTED_NODE},
};

/// The longest a single write may take; upstream's request timeout.
const WRITE_MAX: Duration = Duration::from_secs(60);

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The API server refused, or was not reached.
    #[error("{what}")]
    Refused {
        /// What was attempted.
        what: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time; it may have happened.
    #[error("{0}: no answer within {WRITE_MAX:?}")]
    Late(String),
    /// The volume was taken meanwhile.
    #[error("volume {0} was taken by another claim")]
    Taken(String),
}

impl WriteError {
    /// The object is not there any more.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::Refused { source, .. } => {
                matches!(&**source, kube::Error::Api(status) if status.code == 404)
            }
            Self::Late(_) | Self::Taken(_) => false,
        }
    }
}

pub(crate) async fn within<T>(
    what: impl FnOnce() -> String,
    write: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, WriteError> {
    match tokio::time::timeout(WRITE_MAX, write).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) => Err(WriteError::Refused { what: what(), source: Box::new(source) }),
        Err(_) => Err(WriteError::Late(what())),
    }
}

/// Binds a pod through its `binding` subresource.
pub(crate) async fn bind(client: &Client, pod: &PodInfo, node: &str) -> Result<(), WriteError> {
    let ObjectKey { namespace, name } = &pod.key;
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": &*pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let parameters = PostParams::default();
    let write = pods.create_subresource::<Value, Value>("binding", name, &parameters, &binding);
    within(|| format!("bind pod {} to node {node}", pod.key), write).await.map(|_| ())
}

/// Marks a pod that has to make room and deletes it; one that is being deleted already is left alone. It is
/// no failure that it is gone.
pub(crate) async fn evict(
    client: &Client,
    pod: &PodInfo,
    victim: &Victim,
    now: Timestamp,
) -> Result<(), WriteError> {
    if victim.deleting {
        return Ok(());
    }
    let ObjectKey { namespace, name } = &victim.key;
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let message = format!("{}: preempting to accommodate a higher priority pod", pod.scheduler_name);
    let patch = json!({"metadata": {"uid": &*victim.uid}, "status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": message, "lastTransitionTime": format_second(now),
    }]}});
    let (parameters, patch) = (PatchParams::default(), Patch::Strategic(&patch));
    let write = pods.patch_status(name, &parameters, &patch);
    let marked = within(|| format!("mark pod {} as target of disruption", victim.key), write).await;
    let preconditions = Preconditions { uid: Some(victim.uid.to_string()), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let deleted = match marked {
        Ok(_) => {
            let write = pods.delete(name, &parameters);
            within(|| format!("delete pod {}", victim.key), write).await.map(|_| ())
        }
        Err(error) => Err(error),
    };
    match deleted {
        Err(error) if error.is_gone() => Ok(()),
        other => other,
    }
}

/// Takes a pod's nomination back; it is no failure that the pod is gone.
pub(crate) async fn forget_nomination(client: &Client, key: &ObjectKey, uid: &str) -> Result<(), WriteError> {
    let pods = Api::<Pod>::namespaced(client.clone(), &key.namespace);
    let patch = json!({"metadata": {"uid": uid}, "status": {"nominatedNodeName": null}});
    let (parameters, patch) = (PatchParams::default(), Patch::Strategic(&patch));
    let write = pods.patch_status(&key.name, &parameters, &patch);
    match within(|| format!("clear the nominated node of pod {key}"), write).await {
        Err(error) if error.is_gone() => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Reserves volumes and asks for provisioning.
pub(crate) async fn write_volumes(
    client: &Client,
    node: &str,
    bindings: &Bindings,
) -> Result<(), WriteError> {
    for (volume, claim, uid) in &bindings.reserve {
        reserve(client, volume, claim, uid).await?;
    }
    for claim in &bindings.provision {
        let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &claim.namespace);
        let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let write = claims.patch_metadata(&claim.name, &parameters, &patch);
        within(|| format!("annotate claim {claim} with node {node}"), write).await?;
    }
    Ok(())
}

async fn reserve(client: &Client, name: &str, claim: &ObjectKey, uid: &str) -> Result<(), WriteError> {
    let volumes = Api::<PersistentVolume>::all(client.clone());
    let volume = within(|| format!("read volume {name}"), volumes.get(name)).await?;
    let holder = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    if let Some(holder) = holder {
        let same = holder.namespace.as_deref() == Some(&claim.namespace)
            && holder.name.as_deref() == Some(&claim.name)
            && holder.uid.as_deref().is_none_or(|u| u.is_empty() || u == uid);
        if !same {
            return Err(WriteError::Taken(name.to_owned()));
        }
    }
    let patch = json!({
        "metadata": {
            "resourceVersion": volume.metadata.resource_version,
            "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"},
        },
        "spec": {"claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": claim.namespace, "name": claim.name, "uid": uid,
        }},
    });
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
    let write = volumes.patch_metadata(name, &parameters, &patch);
    within(|| format!("reserve volume {name} for claim {claim}"), write).await.map(|_| ())
}
