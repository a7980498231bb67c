//! Deployments and the StatefulSet.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Base, put};
use crate::{config, validate::Vault};

/// One Deployment of the component's name.
pub(crate) fn deployment(base: &Base<'_>, replicas: i32, recreate: bool, template: &Value) -> Value {
    // Two schedulers at a time would be two queues: workers at one, clients at the other.
    let strategy = if recreate {
        json!({"type": "Recreate"})
    } else {
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": base.metadata(base.name),
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": base.selector()}, "strategy": strategy,
            "template": template,
        },
    })
}

/// Tells the templates of a pool apart.
pub(crate) fn template_hash(template: &Value) -> String {
    config::hash_text(&template.to_string())
}

/// A Deployment of one pool with one template. Another template is another Deployment: nothing is ever rolled by
/// the Deployment controller, which would not ask the scheduler what runs.
pub(crate) fn pool(base: &Base<'_>, replicas: i32, template: &Value) -> Value {
    let generation = template_hash(template);
    let mut template = template.clone();
    let mut selector = base.selector();
    selector.insert("buildbarn.io/template".to_owned(), generation.as_str().into());
    if let Some(labels) = template.pointer_mut("/metadata/labels") {
        put(labels, "buildbarn.io/template", Some(generation.as_str().into()));
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": base.metadata(&format!("{}-{generation}", base.name)),
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": selector}, "revisionHistoryLimit": 0,
            "strategy": {"type": "Recreate"}, "template": template,
        },
    })
}

pub(crate) fn stateful_set(
    base: &Base<'_>,
    replicas: i32,
    template: &Value,
    claims: Value,
    retention: Option<&Value>,
) -> Value {
    let mut spec = json!({
        "serviceName": base.name, "replicas": replicas,
        "selector": {"matchLabels": base.selector()},
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "template": template,
    });
    put(&mut spec, "volumeClaimTemplates", (!claims.is_null()).then_some(claims));
    put(&mut spec, "persistentVolumeClaimRetentionPolicy", retention.cloned());
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": base.metadata(base.name), "spec": spec})
}

/// The stores that have claims, by their templates.
pub(crate) fn claim_names(templates: &Value) -> BTreeSet<String> {
    let name = |template: &Value| template.pointer("/metadata/name")?.as_str().map(str::to_owned);
    templates.as_array().into_iter().flatten().filter_map(name).collect()
}

/// The same of a StatefulSet that there is.
pub(crate) fn present_claim_names(set: &StatefulSet) -> BTreeSet<String> {
    let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    templates.map(ResourceExt::name_any).collect()
}

/// One claim for each store; null where data lives as long as the pod.
pub(crate) fn claim_templates(base: &Base<'_>, vault: &Vault, class: Option<&str>) -> Value {
    if vault.ephemeral {
        return Value::Null;
    }
    let claims = vault.stores.iter().map(|store| {
        let given = store.template.as_ref().and_then(|template| template.get("spec")).cloned();
        let mut spec = given.unwrap_or_else(|| {
            json!({
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": amount(store.volume_bytes)}},
            })
        });
        if store.template.is_none() {
            put(&mut spec, "storageClassName", class.map(Value::from));
        }
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": store.name, "labels": base.labels()}, "spec": spec,
        })
    });
    claims.collect()
}

/// Bytes as a user would write them.
pub(crate) fn amount(bytes: i64) -> String {
    meta::Quantity::from_value(bytes).canonical(meta::QuantityForm::BinarySi)
}
