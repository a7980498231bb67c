//! Schemas for tests, written as OpenAPI definitions.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "fixtures of tests")]

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::{
    Format, ListType, MapType, Node, PatchStrategy, Property, Schema, Shape, TypeId, TypeSet,
    openapi::object_meta,
};

/// Reads definitions that refer to each other as `{"$ref": NAME}`; ObjectMeta is built in.
pub(crate) fn read(definitions: &Value, root: &str) -> Schema {
    let mut set = TypeSet::new();
    object_meta(&mut set);
    let map = definitions.as_object().unwrap();
    for name in map.keys() {
        set.add(Node { name: Some(name.as_str().into()), ..Node::default() });
    }
    for (name, json) in map {
        let mut node = node(&mut set, json);
        node.name = Some(name.as_str().into());
        let id = set.find(name).unwrap();
        set.replace(id, node);
    }
    let root = set.find(root).unwrap();
    Schema::new(Arc::new(set), root)
}

fn of(set: &mut TypeSet, json: &Value) -> TypeId {
    if let Some(name) = json["$ref"].as_str() {
        return set.find(name).unwrap_or_else(|| panic!("no type {name}"));
    }
    let node = node(set, json);
    set.add(node)
}

fn node(set: &mut TypeSet, json: &Value) -> Node {
    let format = match json["format"].as_str() {
        Some("int32") => Format::Int32,
        Some("int64") => Format::Int64,
        Some("byte") => Format::Byte,
        Some("date-time") => Format::DateTime,
        Some("quantity") => Format::Quantity,
        _ => Format::None,
    };
    let map_type =
        if json["x-kubernetes-map-type"] == "atomic" { MapType::Atomic } else { MapType::Granular };
    let shape = match json["type"].as_str() {
        Some("string") => Shape::String(format),
        Some("integer") => Shape::Integer(format),
        Some("number") => Shape::Number(format),
        Some("boolean") => Shape::Boolean,
        Some("int-or-string") => Shape::IntOrString,
        Some("array") => {
            let keys = json["x-kubernetes-list-map-keys"].as_array();
            Shape::List {
                items: of(set, &json["items"]),
                list_type: match json["x-kubernetes-list-type"].as_str() {
                    Some("set") => ListType::Set,
                    Some("map") => {
                        ListType::Map(keys.unwrap().iter().map(|k| k.as_str().unwrap().into()).collect())
                    }
                    _ => ListType::Atomic,
                },
            }
        }
        Some("object") if json.get("additionalProperties").is_some() => {
            Shape::Map { values: of(set, &json["additionalProperties"]), map_type }
        }
        Some("object") => {
            let mut properties: BTreeMap<Arc<str>, Property> = BTreeMap::new();
            for (name, json) in json["properties"].as_object().into_iter().flatten() {
                let strategy = json["x-kubernetes-patch-strategy"].as_str().map(|strategy| PatchStrategy {
                    merge: strategy.contains("merge"),
                    retain_keys: strategy.contains("retainKeys"),
                    merge_key: json["x-kubernetes-patch-merge-key"].as_str().map(Arc::from),
                });
                let default = json.get("default").map(|default| Arc::new(default.clone()));
                let of = of(set, json);
                properties
                    .insert(name.as_str().into(), Property { of, default, patch: strategy, protobuf: 0 });
            }
            Shape::Struct {
                properties,
                required: json["required"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|n| n.as_str().unwrap().into())
                    .collect(),
                preserve_unknown: json["x-kubernetes-preserve-unknown-fields"] == true,
                embedded: false,
                map_type,
            }
        }
        _ => Shape::Any,
    };
    Node { shape, nullable: json["nullable"] == true, ..Node::default() }
}

/// Enough of apps/v1 Deployment for every kind of field.
pub(crate) fn deployment() -> Schema {
    let string = json!({"type": "string"});
    let strings = json!({"type": "object", "additionalProperties": string});
    let meta = json!({"$ref": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"});
    read(
        &json!({
            "io.k8s.api.apps.v1.Deployment": {"type": "object", "properties": {
                "apiVersion": string, "kind": string, "metadata": meta,
                "spec": {"$ref": "io.k8s.api.apps.v1.DeploymentSpec"},
                "status": {"$ref": "io.k8s.api.apps.v1.DeploymentStatus"},
            }},
            "io.k8s.api.apps.v1.DeploymentStatus": {"type": "object", "properties": {
                "replicas": {"type": "integer", "format": "int32"},
                "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                    "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "type",
                    "items": {"type": "object", "properties": {"type": string, "status": string, "message": string}}},
            }},
            "io.k8s.api.apps.v1.DeploymentStrategy": {"type": "object", "properties": {
                "type": string,
                "rollingUpdate": {"type": "object", "properties": {
                    "maxSurge": {"type": "int-or-string"}, "maxUnavailable": {"type": "int-or-string"}}},
            }},
            "io.k8s.api.apps.v1.DeploymentSpec": {"type": "object", "properties": {
                "replicas": {"type": "integer", "format": "int32", "default": 1},
                "paused": {"type": "boolean"},
                "selector": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"matchLabels": strings}},
                "strategy": {"$ref": "io.k8s.api.apps.v1.DeploymentStrategy", "x-kubernetes-patch-strategy": "retainKeys"},
                "template": {"$ref": "io.k8s.api.core.v1.PodTemplateSpec"},
            }},
            "io.k8s.api.core.v1.PodTemplateSpec": {"type": "object", "properties": {
                "metadata": meta, "spec": {"$ref": "io.k8s.api.core.v1.PodSpec"}}},
            "io.k8s.api.core.v1.PodSpec": {"type": "object", "required": ["containers"], "properties": {
                "containers": {"type": "array", "items": {"$ref": "io.k8s.api.core.v1.Container"},
                    "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"},
                "volumes": {"type": "array", "items": {"$ref": "io.k8s.api.core.v1.Volume"},
                    "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "x-kubernetes-patch-strategy": "merge,retainKeys", "x-kubernetes-patch-merge-key": "name"},
                "nodeSelector": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": string},
                "restartPolicy": {"type": "string", "default": "Always"},
                "tolerations": {"type": "array", "items": {"type": "object", "properties": {"key": string}}},
            }},
            "io.k8s.api.core.v1.Volume": {"type": "object", "properties": {
                "name": string, "emptyDir": {"type": "object"},
                "hostPath": {"type": "object", "properties": {"path": string}}}},
            "io.k8s.api.core.v1.Container": {"type": "object", "required": ["name"], "properties": {
                "name": string, "image": string,
                "args": {"type": "array", "items": string},
                "env": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
                    "items": {"type": "object", "properties": {"name": string, "value": string}}},
                "ports": {"type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
                    "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "containerPort",
                    "items": {"type": "object", "properties": {"name": string,
                        "containerPort": {"type": "integer", "format": "int32"},
                        "protocol": {"type": "string", "default": "TCP"}}}},
                "resources": {"type": "object", "properties": {
                    "limits": {"type": "object", "additionalProperties": {"type": "string", "format": "quantity"}}}},
            }},
        }),
        "io.k8s.api.apps.v1.Deployment",
    )
}

/// core/v1 ConfigMap.
pub(crate) fn config_map() -> Schema {
    let string = json!({"type": "string"});
    read(
        &json!({"io.k8s.api.core.v1.ConfigMap": {"type": "object", "properties": {
            "apiVersion": string, "kind": string, "immutable": {"type": "boolean"},
            "metadata": {"$ref": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
            "data": {"type": "object", "additionalProperties": string},
            "binaryData": {"type": "object", "additionalProperties": {"type": "string", "format": "byte"}},
        }}}),
        "io.k8s.api.core.v1.ConfigMap",
    )
}
