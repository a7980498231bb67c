//! Tokens that stand in Secrets (type `kubernetes.io/service-account-token`): which of them are used is written down, a
//! day at a time, so that a controller can take away those that nobody uses (KEP-2799, upstream
//! `pkg/serviceaccount/legacy.go` and `pkg/controlplane/controller/legacytokentracking`).
//!
//! Guarantees: one that was marked invalid is refused; a use is in the Secret's label within moments, unless so many
//! others come at once that it waits for the next. Answers wait for neither.

use meta::{GroupResource, Object, ObjectKey, Reason, Status, Timestamp};
use resource::View;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::TokenError;
use crate::rest::{Caller, Duplicates, Rest, Target};

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Says since when uses are written down.
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// Uses that wait to be written down; one that does not fit is seen again.
const WAITING_MAX: usize = 256;

/// Uses that are to be written down, and where they are taken from.
pub fn uses() -> (mpsc::Sender<ObjectKey>, mpsc::Receiver<ObjectKey>) {
    mpsc::channel(WAITING_MAX)
}

fn day(now: Timestamp) -> String {
    now.strftime("%Y-%m-%d").to_string()
}

/// Looks at the Secret of a token that is good otherwise.
pub(super) fn look(
    view: &dyn View,
    now: Timestamp,
    key: &ObjectKey,
    used: Option<&mpsc::Sender<ObjectKey>>,
) -> Result<(), TokenError> {
    let Some(entry) = view.get(&GroupResource::new("", "secrets"), &key.namespace, &key.name) else {
        return Ok(());
    };
    let label = |name: &str| entry.header.labels.get(name);
    let invalid = label(INVALID_SINCE).is_some_and(|since| !since.is_empty());
    if !invalid && (used.is_none() || label(LAST_USED).is_some_and(|last| *last == day(now))) {
        return Ok(());
    }
    // One that cannot be read may be of the type: its mark counts.
    let read = entry.object();
    if read.is_ok_and(|object| object.str(&["type"]) != Some("kubernetes.io/service-account-token")) {
        return Ok(());
    }
    if invalid {
        return Err(TokenError::Invalidated { name: key.name.clone() });
    }
    // Where there is no room the next use is told of.
    drop(used.map(|used| used.try_send(key.clone())));
    Ok(())
}

/// Writes uses down until `stop`. What fails is logged, and tried again when the token is used again.
pub async fn run(rest: Rest, mut used: mpsc::Receiver<ObjectKey>, stop: CancellationToken) {
    if let Err(status) = begin(&rest).await {
        tracing::warn!(%status, "write down since when uses of tokens are known");
    }
    loop {
        let key = tokio::select! {
            () = stop.cancelled() => return,
            key = used.recv() => key,
        };
        let Some(key) = key else { return };
        match note(&rest, &key).await {
            Ok(()) => {}
            // Somebody else wrote it: perhaps another server the same.
            Err(status) if status.reason == Some(Reason::Conflict) => {}
            Err(status) => tracing::warn!(%key, %status, "write down the use of a token"),
        }
    }
}

async fn begin(rest: &Rest) -> Result<(), Status> {
    let Some(resource) = rest.registry().resolve("", "v1", "configmaps") else { return Ok(()) };
    let value = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": TRACKING, "namespace": "kube-system"},
        "data": {"since": day(rest.clock().now())},
    });
    let object = Object::from_value(value).unwrap_or_default();
    match rest.create(&Caller::server(), &resource, "kube-system", object, Duplicates::default()).await {
        Err(status) if status.reason != Some(Reason::AlreadyExists) => Err(status),
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn note(rest: &Rest, key: &ObjectKey) -> Result<(), Status> {
    let Some(resource) = rest.registry().resolve("", "v1", "secrets") else { return Ok(()) };
    let Some(entry) = rest.cache().kind(&resource.stored_as).get(key) else { return Ok(()) };
    let today = day(rest.clock().now());
    if entry.header.labels.get(LAST_USED).is_some_and(|last| *last == today) {
        return Ok(());
    }
    let mut object = entry.object().map_err(Status::internal)?;
    object.set(&["metadata", "labels", LAST_USED], today);
    let target = Target { key: key.clone(), subresource: String::new() };
    rest.update(&Caller::server(), &resource, &target, object, Duplicates::default()).await.map(|_| ())
}
