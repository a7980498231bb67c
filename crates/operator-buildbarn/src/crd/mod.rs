//! The CustomResourceDefinitions. Rules stand here as well as in `validate`, so that a bad spec is refused where the
//! user types it, with or without the operator running.

mod fields;
mod specs;
mod status;

use serde_json::{Value, json};

use crate::types::{GROUP, VERSION};

/// The five CRDs as JSON, ready to be applied.
pub fn crds() -> Vec<Value> {
    vec![
        crd("BuildbarnStorage", "Shards of a farm's storage.", specs::storage(), true),
        crd("BuildbarnScheduler", "A farm's scheduler.", specs::scheduler(), false),
        crd("BuildbarnWorker", "A pool of workers.", specs::worker(), true),
        crd("BuildbarnFrontend", "What clients of a farm talk to.", specs::frontend(), true),
        crd("BuildbarnBrowser", "A farm's web interface.", specs::browser(), true),
    ]
}

fn crd(kind: &str, description: &str, spec: Value, scales: bool) -> Value {
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    let mut subresources = json!({"status": {}});
    if scales && let Some(map) = subresources.as_object_mut() {
        let scale = json!({
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        });
        map.insert("scale".to_owned(), scale);
    }
    let ready = |what: &str| format!(".status.conditions[?(@.type=='Ready')].{what}");
    let (reason, message) = (ready("reason"), ready("message"));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": singular,
                "categories": ["buildbarn"],
            },
            "versions": [{
                "name": VERSION, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "description": description,
                    "properties": {
                        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
                        "spec": spec, "status": status::status(),
                    },
                }},
                "subresources": subresources,
                "additionalPrinterColumns": [
                    {"name": "State", "type": "string", "jsonPath": ".status.state"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".status.replicas"},
                    {"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas"},
                    {"name": "Reason", "type": "string", "jsonPath": reason},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    {"name": "Message", "type": "string", "jsonPath": message, "priority": 1},
                ],
            }],
        },
    })
}
