//! The CustomResourceDefinition. Rules stand here as well as in `validate`, so that a bad spec is refused
//! where the user types it, with or without the operator running.

use serde_json::{Value, json};

use crate::types::GROUP;

/// Upstream's form of a quantity.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// The CRD as JSON, ready to be applied.
pub fn crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("databases.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "Database", "listKind": "DatabaseList", "plural": "databases", "singular": "database",
                "shortNames": ["db"],
            },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "A database: PostgreSQL or Redis with its volume, credentials and Service.",
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": spec(),
                        "status": status(),
                    },
                }},
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector",
                    },
                },
                "additionalPrinterColumns": [
                    {"name": "Type", "type": "string", "jsonPath": ".spec.type"},
                    {"name": "Version", "type": "string", "jsonPath": ".spec.version"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                    {"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
            }],
        },
    })
}

fn string(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn quantity(description: &str) -> Value {
    json!({"type": "string", "description": description, "pattern": QUANTITY})
}

fn choice(description: &str, values: &[&str]) -> Value {
    json!({"type": "string", "description": description, "enum": values})
}

fn texts(description: &str) -> Value {
    json!({"type": "object", "description": description, "additionalProperties": {"type": "string"}})
}

fn secret_key(description: &str) -> Value {
    json!({
        "type": "object", "description": description, "required": ["name", "key"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "description": "Name of a Secret in the same namespace."},
            "key": {"type": "string", "minLength": 1, "description": "Key in the Secret."},
        },
    })
}

fn spec() -> Value {
    let engines = ["PostgreSQL", "MongoDB", "Redis", "Elasticsearch", "SQLite"];
    let replicas = "Members of the database. 0 stops it and keeps its data.";
    json!({
        "type": "object",
        "required": ["type", "version"],
        "properties": {
            "type": choice("The engine.", &engines),
            "version": {"type": "string", "minLength": 1, "maxLength": 128,
                "description": "Tag of the engine's official image, such as \"16\"."},
            "replicas": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 10, "default": 1,
                "description": replicas},
            "deletionPolicy": {"type": "string", "enum": ["Retain", "Delete"], "default": "Retain",
                "description": "What becomes of the volume when the Database is deleted."},
            "storage": storage(),
            "resources": {
                "type": "object", "description": "Requests and limits of each member.",
                "properties": {
                    "cpu": quantity("Requested CPU, such as 500m."),
                    "memory": quantity("Requested memory, such as 1Gi."),
                    "cpuLimit": quantity("Most CPU."),
                    "memoryLimit": quantity("Most memory."),
                },
            },
            "postgresql": {
                "type": "object", "description": "Settings for type PostgreSQL.",
                "properties": {
                    "database": string("First database; postgres when absent."),
                    "username": string("Superuser; postgres when absent."),
                    "passwordSecret": secret_key("The superuser's password; generated when absent."),
                    "parameters": texts("Settings of postgresql.conf. A change restarts the server."),
                },
            },
            "redis": {
                "type": "object", "description": "Settings for type Redis.",
                "properties": {
                    "mode": {"type": "string", "enum": ["standalone", "sentinel", "cluster"],
                        "default": "standalone", "description": "How members work together."},
                    "passwordSecret": secret_key("The password; generated when absent."),
                    "parameters": texts("Settings of redis.conf. A change restarts the server."),
                },
            },
            "env": env(),
            "serviceType": {"type": "string", "enum": ["ClusterIP", "NodePort", "LoadBalancer"],
                "default": "ClusterIP", "description": "Type of the Service."},
        },
        "x-kubernetes-validations": [
            {"rule": "self.type == oldSelf.type", "message": "type cannot be changed: create another Database"},
            {"rule": "has(self.storage) == has(oldSelf.storage)",
                "message": "storage cannot be added or removed later: create another Database"},
            {"rule": "self.type == 'PostgreSQL' || !has(self.postgresql)",
                "message": "postgresql is only for type PostgreSQL"},
            {"rule": "self.type == 'Redis' || !has(self.redis)", "message": "redis is only for type Redis"},
        ],
    })
}

fn storage() -> Value {
    json!({
        "type": "object", "required": ["size"],
        "description": "The volume of each member. Without it, data lives as long as the pod.",
        "properties": {
            "size": quantity("Size, such as 10Gi."),
            "storageClassName": string("StorageClass; the default class when absent."),
            "accessMode": {"type": "string", "default": "ReadWriteOnce",
                "enum": ["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"], "description": "Access mode."},
        },
    })
}

fn env() -> Value {
    json!({
        "type": "array", "description": "Further environment of the engine's container.",
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object", "required": ["name"],
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "value": {"type": "string"},
                "valueFrom": {"type": "object", "properties": {"secretKeyRef": secret_key("A key of a Secret.")}},
            },
        },
    })
}

fn status() -> Value {
    let condition = json!({
        "type": "object", "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": {"type": "string"},
            "status": choice("", &["True", "False", "Unknown"]),
            "observedGeneration": {"type": "integer", "format": "int64"},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "reason": {"type": "string"},
            "message": {"type": "string"},
        },
    });
    let phases = ["Pending", "Creating", "Ready", "Failed", "Deleting", "Upgrading"];
    json!({
        "type": "object",
        "properties": {
            "phase": choice("Where it is in its life.", &phases),
            "conditions": {"type": "array", "items": condition,
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
            "readyReplicas": {"type": "integer", "format": "int32"},
            "replicas": {"type": "integer", "format": "int32"},
            "selector": {"type": "string"},
            "serviceName": {"type": "string"},
            "connectionString": {"type": "string"},
            "credentialsSecret": {"type": "string"},
            "observedGeneration": {"type": "integer", "format": "int64"},
            "message": {"type": "string"},
        },
    })
}
