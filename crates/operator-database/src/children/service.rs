//! The Service that clients use, and the headless one that gives members names.

use serde_json::{Value, json};

use super::{Names, metadata, selector};
use crate::{types::Database, validate::Valid};

pub(crate) fn service(database: &Database, valid: &Valid) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata(database, valid, &Names::service(&valid.name)),
        "spec": {
            "type": format!("{:?}", valid.service_type),
            "selector": selector(valid),
            "ports": [port(valid)],
        },
    })
}

/// Members are found before they are ready: they have to find each other to become it.
pub(crate) fn headless(database: &Database, valid: &Valid) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata(database, valid, &Names::headless(&valid.name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": selector(valid),
            "ports": [port(valid)],
        },
    })
}

fn port(valid: &Valid) -> Value {
    json!({"name": "database", "port": valid.engine.traits(valid).port, "targetPort": "database", "protocol": "TCP"})
}
