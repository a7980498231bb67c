//! The smallest strategic merge patch from the status the API server has to the one it should have.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};

use super::conditions::PASSING;

/// The fields of the status that the node owns. Others (`nominatedNodeName`, `resourceClaimStatuses`,
/// ...) are never touched.
const OWNED: [&str; 13] = [
    "observedGeneration",
    "phase",
    "reason",
    "message",
    "startTime",
    "qosClass",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
];

/// `None` when nothing changed. Conditions are merged by type, so only changed ones are sent; the
/// uid makes the patch fail on a pod that was replaced under the same name.
pub fn patch(pod: &Pod, new: &PodStatus) -> Option<Value> {
    let old = pod.status.clone().unwrap_or_default();
    let old_json = to_map(&old);
    let new_json = to_map(new);
    let mut changes = Map::new();
    for field in OWNED {
        match (old_json.get(field), new_json.get(field)) {
            (old, Some(new)) if old != Some(new) => {
                let replaced = match (field, old) {
                    // Lists merged by key upstream: say what goes as well.
                    ("podIPs" | "hostIPs", Some(Value::Array(had))) => replace_ips(had, new),
                    _ => new.clone(),
                };
                changes.insert(field.to_owned(), replaced);
            }
            (Some(_), None) => {
                changes.insert(field.to_owned(), Value::Null);
            }
            _ => {}
        }
    }
    let moved: Vec<Value> = new
        .conditions
        .iter()
        .flatten()
        .filter(|condition| {
            let had = old.conditions.iter().flatten().find(|had| had.type_ == condition.type_);
            had != Some(*condition)
        })
        .map(|condition| {
            let mut value = json!(condition);
            if let Some(map) = value.as_object_mut() {
                // Merging keeps what is not named: take back what no longer holds.
                for field in ["reason", "message"] {
                    map.entry(field).or_insert(Value::Null);
                }
            }
            value
        })
        .collect();
    let over = old.conditions.iter().flatten().filter(|had| {
        let kept = new.conditions.iter().flatten().any(|condition| condition.type_ == had.type_);
        PASSING.contains(&had.type_.as_str()) && !kept
    });
    let over = over.map(|had| json!({ "type": had.type_, "$patch": "delete" }));
    let moved: Vec<Value> = moved.into_iter().chain(over).collect();
    if !moved.is_empty() {
        changes.insert("conditions".to_owned(), Value::Array(moved));
    }
    (!changes.is_empty()).then(|| json!({ "metadata": { "uid": pod.metadata.uid }, "status": changes }))
}

fn to_map(status: &PodStatus) -> Map<String, Value> {
    match json!(status) {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn replace_ips(had: &[Value], new: &Value) -> Value {
    let mut list: Vec<Value> = new.as_array().cloned().unwrap_or_default();
    let gone: Vec<Value> = had.iter().filter(|ip| !list.contains(ip)).cloned().collect();
    list.extend(gone.into_iter().filter_map(|mut ip| {
        ip.as_object_mut()?.insert("$patch".to_owned(), json!("delete"));
        Some(ip)
    }));
    Value::Array(list)
}
