//! Ingresses, PodDisruptionBudgets and NetworkPolicies.

use serde_json::{Value, json};

use super::{Base, put};
use crate::types::Ingress;

pub(crate) fn ingress(base: &Base<'_>, settings: &Ingress, port: &str) -> Value {
    let mut metadata = base.metadata(base.name);
    put(
        &mut metadata,
        "annotations",
        (!settings.annotations.is_empty()).then(|| json!(settings.annotations)),
    );
    let mut spec = json!({"rules": [{"host": settings.host, "http": {"paths": [{
        "path": "/", "pathType": "Prefix",
        "backend": {"service": {"name": base.name, "port": {"name": port}}},
    }]}}]});
    put(&mut spec, "ingressClassName", settings.class_name.clone().map(Value::from));
    let tls = settings
        .tls_secret_name
        .as_ref()
        .map(|secret| json!([{"hosts": [settings.host], "secretName": secret}]));
    put(&mut spec, "tls", tls);
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec})
}

/// `unavailable` is how many pods an eviction may stop where the user says nothing.
pub(crate) fn budget(base: &Base<'_>, unavailable: i32) -> Option<Value> {
    let settings = base.common.pdb.clone().unwrap_or_default();
    if settings.enabled == Some(false) {
        return None;
    }
    let mut spec = json!({"selector": {"matchLabels": base.selector()}});
    match (settings.min_available, settings.max_unavailable) {
        (Some(least), _) => put(&mut spec, "minAvailable", Some(least)),
        (None, given) => put(&mut spec, "maxUnavailable", Some(given.unwrap_or_else(|| unavailable.into()))),
    }
    Some(
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": base.metadata(base.name), "spec": spec}),
    )
}

/// Clients and the web interface stay open; workers' and the operator's ports are for the namespace and for the
/// operator's.
pub(crate) fn network_policy(base: &Base<'_>) -> Value {
    let tcp = |ports: &[u16]| -> Vec<Value> {
        ports.iter().map(|port| json!({"protocol": "TCP", "port": port})).collect()
    };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": base.metadata(base.name),
        "spec": {
            "podSelector": {"matchLabels": base.selector()},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": tcp(&[8982, 7982, 9980])},
                {"ports": tcp(&[8983]), "from": [{"podSelector": {"matchLabels": {"app": "worker"}}}]},
                {"ports": tcp(&[8984]), "from": [
                    {"podSelector": {"matchLabels": {"app": "browser"}}},
                    {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": super::MANAGER}}},
                ]},
            ],
        },
    })
}
