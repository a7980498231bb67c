//! The priority levels and flow schemas that are always in effect, stored or not (upstream
//! `apiserver/pkg/apis/flowcontrol/bootstrap`, "mandatory"): the engine falls back on them, the table of kinds
//! begins a cluster with them and keeps them as they are.

use meta::{Object, Value};
use serde_json::json;

/// `exempt` for `system:masters`, whose requests never wait, and `catch-all` for whom nothing else is meant. Levels
/// come before schemas.
pub fn mandatory() -> Vec<Object> {
    let all = ["*"];
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let everything = |subjects: Vec<Value>| {
        json!([{
            "subjects": subjects,
            "resourceRules": [
                {"verbs": all, "apiGroups": all, "resources": all, "namespaces": all, "clusterScope": true},
            ],
            "nonResourceRules": [{"verbs": all, "nonResourceURLs": all}],
        }])
    };
    let everyone = vec![group("system:unauthenticated"), group("system:authenticated")];
    [
        (
            "PriorityLevelConfiguration",
            "exempt",
            json!({
                "type": "Exempt", "exempt": {"lendablePercent": 0, "nominalConcurrencyShares": 0},
            }),
        ),
        (
            "PriorityLevelConfiguration",
            "catch-all",
            json!({
                "type": "Limited",
                "limited": {
                    "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
                },
            }),
        ),
        (
            "FlowSchema",
            "exempt",
            json!({
                "priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 1,
                "rules": everything(vec![group("system:masters")]),
            }),
        ),
        (
            "FlowSchema",
            "catch-all",
            json!({
                "priorityLevelConfiguration": {"name": "catch-all"}, "matchingPrecedence": 10_000,
                "rules": everything(everyone), "distinguisherMethod": {"type": "ByUser"},
            }),
        ),
    ]
    .into_iter()
    .filter_map(|(kind, name, spec)| object(kind, name, spec))
    .collect()
}

/// One that follows the release, as its annotation says.
pub fn object(kind: &str, name: &str, spec: Value) -> Option<Object> {
    let metadata = json!({"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}});
    let value = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec,
    });
    Object::from_value(value).ok()
}
