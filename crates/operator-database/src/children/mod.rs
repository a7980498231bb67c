//! The objects that a Database consists of, each a pure function of the checked spec.

mod config;
mod pod;
mod secret;
mod service;
mod statefulset;

use reconcile::owner_reference;
use serde_json::{Value, json};

pub(crate) use config::config_map;
pub(crate) use secret::credentials;
pub(crate) use service::{headless, service};
pub(crate) use statefulset::{Facts, disruption_budget, stateful_set};

use crate::{types::Database, validate::Valid};

/// Labels by which members are found. They never change: a StatefulSet's selector cannot.
pub(crate) fn selector(valid: &Valid) -> Value {
    json!({
        "app": valid.name,
        "app.kubernetes.io/instance": valid.name,
        "app.kubernetes.io/managed-by": "database-operator",
    })
}

/// Labels of every child.
pub(crate) fn labels(valid: &Valid) -> Value {
    json!({
        "app": valid.name,
        "database-type": valid.engine.traits(valid).label,
        "app.kubernetes.io/name": "database",
        "app.kubernetes.io/instance": valid.name,
        "app.kubernetes.io/managed-by": "database-operator",
    })
}

/// Metadata of a child: named, labelled, owned.
pub(crate) fn metadata(database: &Database, valid: &Valid, name: &str) -> Value {
    json!({
        "name": name,
        "namespace": valid.namespace,
        "labels": labels(valid),
        "ownerReferences": [owner_reference(database)],
    })
}

/// Names of the children.
pub(crate) struct Names;

impl Names {
    pub(crate) fn service(name: &str) -> String {
        format!("{name}-service")
    }

    pub(crate) fn headless(name: &str) -> String {
        format!("{name}-headless")
    }

    pub(crate) fn config(name: &str) -> String {
        format!("{name}-config")
    }

    /// Where clients connect.
    pub(crate) fn host(valid: &Valid) -> String {
        format!("{}.{}.svc.cluster.local", Self::service(&valid.name), valid.namespace)
    }
}
