//! The pod of a member: one container, not root, on a read-only root, with probes that ask the engine.

use serde_json::{Map, Value, json};

use super::Names;
use crate::{
    engine::{CONFIG_PATH, Traits, script},
    validate::Valid,
};

/// Name of the volume with the data.
pub(crate) const DATA: &str = "data";
/// Name of the container.
pub(crate) const CONTAINER: &str = "database";

/// What a member was started with and cannot see changing: a new value restarts it.
pub(crate) fn annotations(valid: &Valid, secret_version: &str) -> Value {
    json!({
        "databases.database-operator.io/config": fingerprint(&valid.engine.traits(valid)),
        "databases.database-operator.io/credentials": secret_version,
    })
}

/// FNV-1a over the files: not a secret, and not meant to resist anyone.
fn fingerprint(traits: &Traits) -> String {
    let text = traits.files.iter().flat_map(|(name, content)| [*name, "\0", content.as_str(), "\0"]);
    let hash = text.flat_map(str::bytes).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

pub(crate) fn spec(valid: &Valid) -> Value {
    let traits = valid.engine.traits(valid);
    let mut volumes = vec![json!({"name": "config", "configMap": {"name": Names::config(&valid.name)}})];
    if valid.storage.is_none() {
        volumes.push(json!({"name": DATA, "emptyDir": {}}));
    }
    volumes.extend(
        traits
            .scratch
            .iter()
            .map(|(name, _)| json!({"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}})),
    );
    json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": traits.grace_seconds,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": traits.uid, "runAsGroup": traits.gid, "fsGroup": traits.gid,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchLabels": super::selector(valid)},
            },
        }]}},
        "containers": [container(valid, &traits)],
        "volumes": volumes,
    })
}

fn container(valid: &Valid, traits: &Traits) -> Value {
    let mut mounts = vec![
        json!({"name": DATA, "mountPath": traits.mount}),
        json!({"name": "config", "mountPath": CONFIG_PATH, "readOnly": true}),
    ];
    mounts.extend(traits.scratch.iter().map(|(name, path)| json!({"name": name, "mountPath": path})));
    let mut container = json!({
        "name": CONTAINER,
        "image": valid.image,
        "ports": [{"name": "database", "containerPort": traits.port, "protocol": "TCP"}],
        "env": env(valid, traits),
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        // Recovery after a crash may take long: an hour, in which nothing is restarted.
        "startupProbe": probe(traits.alive, 5, 720, 1),
        "livenessProbe": probe(traits.alive, 10, 6, 1),
        "readinessProbe": probe(traits.ready, 5, 3, 1),
        "lifecycle": {"preStop": script(traits.stop)},
    });
    let map = container.as_object_mut();
    if let Some(map) = map {
        insert_lists(map, traits);
        if !valid.requests.is_empty() || !valid.limits.is_empty() {
            let mut resources = Map::new();
            for (name, quantities) in [("requests", &valid.requests), ("limits", &valid.limits)] {
                if !quantities.is_empty() {
                    resources.insert(name.to_owned(), json!(quantities));
                }
            }
            map.insert("resources".to_owned(), resources.into());
        }
    }
    container
}

fn insert_lists(container: &mut Map<String, Value>, traits: &Traits) {
    for (name, list) in [("command", &traits.command), ("args", &traits.args)] {
        if !list.is_empty() {
            container.insert(name.to_owned(), json!(list));
        }
    }
}

fn probe(name: &str, period: i32, failures: i32, successes: i32) -> Value {
    let mut probe = script(name);
    if let Some(map) = probe.as_object_mut() {
        map.insert("periodSeconds".to_owned(), period.into());
        map.insert("failureThreshold".to_owned(), failures.into());
        map.insert("successThreshold".to_owned(), successes.into());
        map.insert("timeoutSeconds".to_owned(), 10.into());
    }
    probe
}

/// The engine's own first, then the user's; a user's variable of the same name takes its place.
fn env(valid: &Valid, traits: &Traits) -> Vec<Value> {
    let secret = valid.password.key();
    let mut env: Vec<Value> =
        traits.env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    env.push(json!({
        "name": traits.password_variable,
        "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}},
    }));
    for given in &valid.env {
        let same = |present: &Value| present.get("name").and_then(Value::as_str) == Some(&given.name);
        env.retain(|present| !same(present));
        env.push(json!(given));
    }
    env
}
