//! Services.

use serde_json::{Value, json};

use super::{Base, put};
use crate::types::ServiceSettings;

fn ports(list: &[(&str, u16)]) -> Vec<Value> {
    let port = |(name, port): &(&str, u16)| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"});
    list.iter().map(port).collect()
}

pub(crate) fn service(
    base: &Base<'_>,
    kind: &str,
    settings: Option<&ServiceSettings>,
    list: &[(&str, u16)],
) -> Value {
    let settings = settings.cloned().unwrap_or_default();
    let mut metadata = base.metadata(base.name);
    put(
        &mut metadata,
        "annotations",
        (!settings.annotations.is_empty()).then(|| json!(settings.annotations)),
    );
    let mut spec = json!({"type": kind, "selector": base.selector(), "ports": ports(list)});
    let ranges = &settings.load_balancer_source_ranges;
    put(&mut spec, "loadBalancerSourceRanges", (!ranges.is_empty()).then(|| json!(ranges)));
    put(&mut spec, "externalTrafficPolicy", settings.external_traffic_policy.map(Value::from));
    put(&mut spec, "loadBalancerClass", settings.load_balancer_class.map(Value::from));
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// Gives every pod a name of its own.
pub(crate) fn headless(base: &Base<'_>, name: &str, list: &[(&str, u16)]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": base.metadata(name),
        "spec": {"clusterIP": "None", "selector": base.selector(), "ports": ports(list)},
    })
}
