//! The status of all five kinds.

use serde_json::{Value, json};

pub(super) fn status() -> Value {
    let integer = || json!({"type": "integer"});
    let text = || json!({"type": "string"});
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let list = |items: Value| json!({"type": "array", "items": items});
    let shards = || list(object(json!({"key": text(), "weight": integer(), "pods": list(integer())})));
    object(json!({
        "state": text(), "replicas": integer(), "readyReplicas": integer(), "observedGeneration": integer(),
        "selector": text(), "configMap": text(), "storageMap": text(), "draining": integer(),
        "restartPendingSince": text(), "endpoint": text(), "bazelrc": text(),
        "conditions": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object", "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                "properties": {
                    "type": text(), "status": text(), "reason": text(), "message": text(),
                    "lastTransitionTime": {"type": "string", "format": "date-time"}, "observedGeneration": integer(),
                },
            },
        },
        "queues": list(object(json!({
            "instanceNamePrefix": text(), "platform": text(), "sizeClass": integer(), "workers": integer(),
            "executing": integer(), "queued": integer(),
        }))),
        "autoscaling": object(json!({
            "replicas": integer(), "moreSince": text(), "fewerSince": text(), "fewerPeak": integer(),
        })),
        "topology": object(json!({"stage": text(), "shards": shards(), "previous": shards(), "since": text()})),
        "geometry": {"type": "object", "additionalProperties": object(json!({
            "keyLocationMapBytes": integer(), "blocksBytes": integer(), "oldBlocks": integer(),
            "currentBlocks": integer(), "newBlocks": integer(), "spareBlocks": integer(),
        }))},
        "stores": list(object(json!({
            "pod": text(), "store": text(), "retentionHours": integer(), "mapTooFull": integer(),
            "blocksInUse": integer(), "fillPercent": integer(),
        }))),
    }))
}
