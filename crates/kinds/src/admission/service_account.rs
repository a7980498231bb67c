//! Pods run as a service account that exists, and get its token (`plugin/pkg/admission/serviceaccount`).

use meta::{Object, Status, Value};
use resource::{Context, Operation};
use serde_json::{Map, json};

use super::{Plugin, find, forbidden, is_mirror, namespace};
use crate::strategy::fill;

const TOKENS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const PREFIX: &str = "kube-api-access-";
/// A little more than an hour, by which nodes tell tokens of this plugin from those users ask for.
const EXPIRATION_SECONDS: i64 = 3607;

pub(super) struct ServiceAccount;

impl Plugin for ServiceAccount {
    const NAME: &'static str = "ServiceAccount";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        resource == "pods" && operation == Operation::Create && subresource.is_empty()
    }

    fn mutate(&self, cx: &Context<'_>, pod: &mut Object, _: Option<&Object>) -> Result<(), Status> {
        if is_mirror(pod) {
            return Ok(());
        }
        if pod.str(&["spec", "serviceAccountName"]).is_none_or(str::is_empty) {
            pod.set(&["spec", "serviceAccountName"], "default");
            pod.set(&["spec", "serviceAccount"], "default");
        }
        let account = account(cx, pod)?;
        let automount = pod
            .bool(&["spec", "automountServiceAccountToken"])
            .or_else(|| account.bool(&["automountServiceAccountToken"]))
            .unwrap_or(true);
        if automount {
            mount_token(cx, pod.map_at(&["spec"]));
        }
        if pod.list(&["spec", "imagePullSecrets"]).is_empty() {
            let secrets = account.list(&["imagePullSecrets"]);
            if !secrets.is_empty() {
                pod.set(&["spec", "imagePullSecrets"], secrets.to_vec());
            }
        }
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, pod: &Object, _: Option<&Object>) -> Result<(), Status> {
        let named = pod.str(&["spec", "serviceAccountName"]).is_some_and(|name| !name.is_empty());
        if is_mirror(pod) {
            let why = "a mirror pod may not reference service accounts";
            return if named { Err(forbidden(cx, pod.name(), why)) } else { Ok(()) };
        }
        account(cx, pod).map(|_| ())
    }
}

fn account(cx: &Context<'_>, pod: &Object) -> Result<Object, Status> {
    let name = pod.str(&["spec", "serviceAccountName"]).unwrap_or_default();
    let found = find(cx, "", "serviceaccounts", namespace(cx), name)?;
    found.ok_or_else(|| {
        let place = namespace(cx);
        let why =
            format!("error looking up service account {place}/{name}: serviceaccount \"{name}\" not found");
        forbidden(cx, pod.name(), &why)
    })
}

/// Mounts the token in every container that does not mount something there, and adds its volume if any
/// container needs it.
fn mount_token(cx: &Context<'_>, spec: &mut Map<String, Value>) {
    let known = volume_name(spec);
    let name = known.clone().unwrap_or_else(|| format!("{PREFIX}{}", cx.random.suffix(5)));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter_map(Value::as_object_mut) {
            fill(container, "volumeMounts", json!([]));
            let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) else {
                continue;
            };
            if mounts.iter().all(|mount| mount.get("mountPath") != Some(&json!(TOKENS))) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKENS}));
                needed = true;
            }
            if mounts.is_empty() {
                container.remove("volumeMounts");
            }
        }
    }
    if needed && known.is_none() {
        fill(spec, "volumes", json!([]));
        if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
            volumes.push(json!({"name": name, "projected": projection()}));
        }
    }
}

fn volume_name(spec: &Map<String, Value>) -> Option<String> {
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let named = volumes.filter(|volume| volume.get("projected").is_some());
    named.filter_map(|volume| volume.get("name")?.as_str()).find(|n| n.starts_with(PREFIX)).map(str::to_owned)
}

fn projection() -> Value {
    let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": EXPIRATION_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
        ],
    })
}
