//! Pod templates. All but the worker run without any right; its parts have what builds need.

use serde_json::{Map, Value, json};

use super::{Base, CONFIG_HASH, put};

/// User of everything but workers: `nonroot` of the images' base.
const USER: i64 = 65_532;

/// What a component adds to a pod.
pub(crate) struct Pod {
    pub(crate) config_map: String,
    pub(crate) config_hash: String,
    pub(crate) init: Vec<Value>,
    pub(crate) containers: Vec<Value>,
    pub(crate) volumes: Vec<Value>,
    /// Whether it may do without root.
    pub(crate) unprivileged: bool,
    pub(crate) grace_seconds: i64,
}

/// The main container of a component.
pub(crate) struct Container<'a> {
    pub(crate) name: &'a str,
    pub(crate) image: &'a str,
    pub(crate) file: String,
    pub(crate) ports: &'a [(&'a str, u16)],
    pub(crate) env: Vec<Value>,
    pub(crate) mounts: Vec<Value>,
    pub(crate) probes: Value,
    pub(crate) unprivileged: bool,
}

/// `/-/healthy` answers once a program has read its configuration and opened its ports.
pub(crate) fn probes(port: u16, readiness: bool) -> Value {
    let get = |period: i32, failures: i32| {
        json!({
            "httpGet": {"path": "/-/healthy", "port": port},
            "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 5,
        })
    };
    if readiness {
        json!({"startupProbe": get(2, 150), "readinessProbe": get(5, 3), "livenessProbe": get(10, 6)})
    } else {
        let mut alive = get(10, 6);
        put(&mut alive, "initialDelaySeconds", Some(60.into()));
        json!({"livenessProbe": alive})
    }
}

pub(crate) fn container(base: &Base<'_>, parts: Container<'_>) -> Value {
    let Container { name, image, file, ports, mut env, mut mounts, probes, unprivileged } = parts;
    let common = base.common;
    mounts.insert(0, json!({"name": "configs", "mountPath": "/config/", "readOnly": true}));
    mounts.extend(common.extra_volume_mounts.iter().cloned());
    env.extend(common.extra_env.iter().cloned());
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"}))
        .collect();
    let mut out = json!({
        "name": name, "image": common.image.as_deref().unwrap_or(image),
        "args": [format!("/config/{file}")], "ports": ports, "volumeMounts": mounts,
    });
    put(&mut out, "env", (!env.is_empty()).then(|| env.into()));
    put(&mut out, "resources", common.resources.clone());
    put(&mut out, "imagePullPolicy", common.image_pull_policy.clone().map(Value::from));
    let locked = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    });
    put(
        &mut out,
        "securityContext",
        common.container_security_context.clone().or(unprivileged.then_some(locked)),
    );
    if let (Some(out), Value::Object(probes)) = (out.as_object_mut(), probes) {
        out.extend(probes);
    }
    out
}

pub(crate) fn template(base: &Base<'_>, pod: Pod) -> Value {
    let Pod { config_map, config_hash, init, containers, mut volumes, unprivileged, grace_seconds } = pod;
    let common = base.common;
    volumes.insert(0, json!({"name": "configs", "configMap": {"name": config_map}}));
    volumes.extend(common.extra_volumes.iter().cloned());
    let mut labels = base.labels();
    labels.extend(common.pod_labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())));
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": common.termination_grace_period_seconds.unwrap_or(grace_seconds),
        "containers": containers,
        "volumes": volumes,
    });
    let locked = json!({
        "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    });
    put(&mut spec, "securityContext", common.pod_security_context.clone().or(unprivileged.then_some(locked)));
    put(&mut spec, "initContainers", (!init.is_empty()).then(|| init.into()));
    let list = |list: &Vec<Value>| (!list.is_empty()).then(|| Value::from(list.clone()));
    put(&mut spec, "imagePullSecrets", list(&common.image_pull_secrets));
    put(&mut spec, "tolerations", list(&common.tolerations));
    put(&mut spec, "topologySpreadConstraints", list(&common.topology_spread_constraints));
    put(&mut spec, "nodeSelector", (!common.node_selector.is_empty()).then(|| json!(common.node_selector)));
    put(&mut spec, "affinity", common.affinity.clone());
    put(&mut spec, "priorityClassName", common.priority_class_name.clone().map(Value::from));
    put(&mut spec, "serviceAccountName", common.service_account_name.clone().map(Value::from));
    if common.service_account_name.is_some() {
        // Who names one wants its token.
        put(&mut spec, "automountServiceAccountToken", Some(true.into()));
    }
    json!({"metadata": {"labels": labels, "annotations": annotations(base, &config_hash)}, "spec": spec})
}

fn annotations(base: &Base<'_>, config_hash: &str) -> Map<String, Value> {
    let mut annotations = Map::new();
    annotations.insert(CONFIG_HASH.to_owned(), config_hash.into());
    if base.common.scraped() {
        for (key, value) in [("scrape", "true"), ("port", "9980"), ("path", "/metrics")] {
            annotations.insert(format!("prometheus.io/{key}"), value.into());
        }
    }
    annotations
        .extend(base.common.pod_annotations.iter().map(|(key, value)| (key.clone(), value.as_str().into())));
    annotations
}
