//! The CustomResourceDefinition: the original's fields, defaults, columns and rules, and where the original
//! had none (`syncInterval`) a rule, so that a bad value is refused where the user types it.

use serde_json::{Value, json};

use crate::{
    types::GROUP,
    validate::{BURST_DEFAULT, RATE_DEFAULT, RATE_MAX, SYNC_INTERVAL_DEFAULT},
};

/// Durations as Go reads them, without sign.
const DURATION: &str = r"^(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|ms|s|m|h))+)$";

/// The CRD as JSON, ready to be applied.
pub fn crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("obsykagents.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "ObsykAgent", "listKind": "ObsykAgentList", "plural": "obsykagents",
                "singular": "obsykagent", "shortNames": ["oa"],
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "Streams the cluster's inventory to an Obsyk platform.",
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": spec(),
                        "status": status(),
                    },
                }},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Cluster", "type": "string", "jsonPath": ".spec.clusterName"},
                    {"name": "Platform", "type": "string", "jsonPath": ".spec.platformURL"},
                    {"name": "Available", "type": "string",
                        "jsonPath": ".status.conditions[?(@.type==\"Available\")].status"},
                    {"name": "Reason", "type": "string",
                        "jsonPath": ".status.conditions[?(@.type==\"Available\")].reason"},
                    {"name": "Degraded", "type": "string", "priority": 1,
                        "jsonPath": ".status.conditions[?(@.type==\"Degraded\")].status"},
                    {"name": "Queue", "type": "integer", "priority": 1, "jsonPath": ".status.stream.queueObjects"},
                    {"name": "Lag", "type": "integer", "priority": 1, "jsonPath": ".status.stream.lagSeconds"},
                    {"name": "Last Sync", "type": "date", "jsonPath": ".status.lastSyncTime"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
            }],
        },
    })
}

fn spec() -> Value {
    let rate = |description: &str, default: i32| {
        json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": RATE_MAX, "default": default,
            "description": description})
    };
    json!({
        "type": "object",
        "required": ["platformURL", "clusterName", "credentialsSecretRef"],
        "properties": {
            "platformURL": {"type": "string", "pattern": "^https?://",
                "description": "Address of the platform, such as https://api.obsyk.ai."},
            "clusterName": {"type": "string", "minLength": 1, "maxLength": 253,
                "description": "Name people know this cluster by. Need not be unique."},
            "credentialsSecretRef": {
                "type": "object", "required": ["name"],
                "description": "Secret in the same namespace with client_id and private_key (EC P-256, PEM).",
                "properties": {"name": {"type": "string", "description": "Name of the Secret."}},
            },
            "syncInterval": {"type": "string", "default": SYNC_INTERVAL_DEFAULT, "maxLength": 64,
                "x-kubernetes-validations": [{"rule": format!("self.matches('{DURATION}')"),
                    "message": "write a duration such as 5m or 30s"}],
                "description": "Time between heartbeats, such as 5m. 0 means the default."},
            "rateLimit": {
                "type": "object", "description": "How fast changes may be sent.",
                "properties": {
                    "eventsPerSecond": rate("Changes per second in the long run.", RATE_DEFAULT),
                    "burstSize": rate("Changes at once.", BURST_DEFAULT),
                },
            },
            "transport": {
                "type": "object", "description": "How the inventory is sent.",
                "properties": {"mode": {"type": "string", "enum": ["auto", "original"], "default": "auto",
                    "description": "auto: batches to a platform that understands them. original: never."}},
            },
        },
    })
}

fn status() -> Value {
    let condition = json!({
        "type": "object", "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": {"type": "string", "maxLength": 316},
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "reason": {"type": "string", "minLength": 1, "maxLength": 1024},
            "message": {"type": "string", "maxLength": 32768},
        },
    });
    let counter = json!({"type": "integer", "format": "int32"});
    let counts: serde_json::Map<String, Value> =
        crate::Kind::ALL.iter().map(|kind| (kind.counter().to_owned(), counter.clone())).collect();
    let number = json!({"type": "integer", "format": "int64"});
    json!({
        "type": "object",
        "properties": {
            "clusterUID": {"type": "string"},
            "conditions": {"type": "array", "items": condition,
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
            "lastSyncTime": {"type": "string", "format": "date-time"},
            "lastSnapshotTime": {"type": "string", "format": "date-time"},
            "observedGeneration": {"type": "integer", "format": "int64"},
            "resourceCounts": {"type": "object", "properties": counts},
            "stream": {"type": "object", "properties": {
                "queueObjects": number, "queueBytes": number, "lagSeconds": number, "queueBytesMax": number, "observed": number, "noop": number,
                "queued": number, "sent": number, "merged": number, "withdrawn": number, "shed": number,
                "retries": number, "annihilated": number, "quarantined": number, "snapshots": number,
                "relists": number, "sessions": number, "epoch": number, "ackedSeq": number,
                "batches": number, "sentBytes": number, "driftRepaired": number, "lastSnapshotReason": {"type": "string"},
            }},
        },
    })
}
