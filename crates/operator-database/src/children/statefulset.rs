//! The StatefulSet, and the PodDisruptionBudget beside it.

use serde_json::{Value, json};

use super::{Names, labels, metadata, pod, selector};
use crate::{types::Database, validate::Valid};

/// What is known of the world that the StatefulSet depends on.
pub(crate) struct Facts<'a> {
    /// Version of the Secret with the password: another one restarts members.
    pub(crate) secret_version: &'a str,
    /// The volume templates that are there: they cannot be changed.
    pub(crate) volume_templates: Option<Value>,
}

pub(crate) fn stateful_set(database: &Database, valid: &Valid, facts: &Facts<'_>) -> Value {
    let mut spec = json!({
        "serviceName": Names::headless(&valid.name),
        "replicas": valid.replicas,
        "selector": {"matchLabels": selector(valid)},
        // A member that cannot start must not keep a corrected spec from reaching it.
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "template": {
            "metadata": {
                "labels": labels(valid),
                "annotations": pod::annotations(valid, facts.secret_version),
            },
            "spec": pod::spec(valid),
        },
    });
    if let (Some(templates), Some(spec)) = (volume_templates(valid, facts), spec.as_object_mut()) {
        spec.insert("volumeClaimTemplates".to_owned(), templates);
    }
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": metadata(database, valid, &valid.name),
        "spec": spec,
    })
}

fn volume_templates(valid: &Valid, facts: &Facts<'_>) -> Option<Value> {
    let volume = valid.storage.as_ref()?;
    if let Some(present) = &facts.volume_templates {
        return Some(present.clone());
    }
    let mut claim = json!({
        "accessModes": [volume.access_mode],
        "resources": {"requests": {"storage": volume.size}},
    });
    if let (Some(class), Some(claim)) = (&volume.class, claim.as_object_mut()) {
        claim.insert("storageClassName".to_owned(), class.as_str().into());
    }
    Some(json!([{
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": pod::DATA, "labels": selector(valid)}, "spec": claim,
    }]))
}

/// Evictions stop one member at a time.
pub(crate) fn disruption_budget(database: &Database, valid: &Valid) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": metadata(database, valid, &valid.name),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(valid)}},
    })
}
