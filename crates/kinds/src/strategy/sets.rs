//! StatefulSets and DaemonSets.

use meta::{FieldError, Object, Value, names};
use resource::{Context, Strategy};
use serde_json::{Map, json};

use super::{maps_mut, replicas};
use crate::validate::{At, Errors, at_most_all, count_or_percent, is_none_of, label_selector, pod_template};

/// Behaviour of `apps/v1` StatefulSet.
pub(crate) struct StatefulSet;

/// What may change after creation.
const CHANGEABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Object) {
        replicas::template_defaults(object);
        if object.get(&["spec", "updateStrategy", "type"]).is_none() {
            object.set(
                &["spec", "updateStrategy"],
                json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}),
            );
        }
        for claim in maps_mut(object, &["spec", "volumeClaimTemplates"]) {
            claim.entry("apiVersion").or_insert(json!("v1"));
            claim.entry("kind").or_insert(json!("PersistentVolumeClaim"));
        }
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let spec = At::root(new, "spec");
        let strategy = spec.get("updateStrategy");
        if strategy.get("type").text() == "OnDelete" && strategy.get("rollingUpdate").is_set() {
            strategy.get("rollingUpdate").invalid(errors, "only allowed for updateStrategy 'RollingUpdate'");
        }
        let rolling = strategy.get("rollingUpdate");
        rolling.get("partition").not_negative(errors);
        let unavailable = rolling.get("maxUnavailable");
        if unavailable.is_set() {
            count_or_percent(&unavailable, errors);
            if is_none_of(&unavailable) {
                unavailable.invalid(errors, "cannot be 0");
            }
            at_most_all(&unavailable, errors);
        }
        replicas::counts(&spec, &["replicas", "minReadySeconds", "revisionHistoryLimit"], errors);
        spec.at(&["ordinals", "start"]).not_negative(errors);
        let service = spec.get("serviceName");
        if old.is_none() && !service.is_empty() {
            service.all(errors, names::dns1123_label);
        }
        replicas::selector(&spec, "statefulset", errors);
        replicas::matches_selector(&spec, errors);
        let template = with_claims(&spec);
        let template = At::new("spec.template", &template);
        pod_template(&template, errors);
        replicas::runs_for_ever(&template, "StatefulSet", errors);
        if let Some(old) = old
            && fixed(new) != fixed(old)
        {
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
                              'template', 'updateStrategy', 'revisionHistoryLimit', \
                              'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            errors.push(FieldError::forbidden("spec", detail));
        }
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// The template as its pods will be: with a volume for each claim template.
fn with_claims(spec: &At<'_>) -> Value {
    let mut template = spec.get("template").value().clone();
    let claims: Vec<Value> = spec
        .get("volumeClaimTemplates")
        .items()
        .map(|claim| {
            let name = claim.at(&["metadata", "name"]).text();
            json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
        })
        .collect();
    let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) else { return template };
    pod.remove("hostname");
    pod.remove("subdomain");
    if !claims.is_empty() {
        let replaced = |volume: &Value| claims.iter().any(|claim| claim["name"] == volume["name"]);
        let had = pod.get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
        let kept = had.into_iter().filter(|volume| !replaced(volume));
        let volumes: Vec<Value> = claims.iter().cloned().chain(kept).collect();
        pod.insert("volumes".to_owned(), Value::Array(volumes));
    }
    template
}

fn fixed(set: &Object) -> Map<String, Value> {
    let mut spec = set.get(&["spec"]).and_then(Value::as_object).cloned().unwrap_or_default();
    spec.retain(|key, _| !CHANGEABLE.contains(&key.as_str()));
    // The status of a claim template means nothing and clients send it or not.
    for claim in super::pod_defaults::maps(&mut spec, "volumeClaimTemplates") {
        claim.remove("status");
    }
    spec
}

/// Behaviour of `apps/v1` DaemonSet.
pub(crate) struct DaemonSet;

impl Strategy for DaemonSet {
    fn default(&self, object: &mut Object) {
        replicas::template_defaults(object);
        if object.str(&["spec", "updateStrategy", "type"]) == Some("RollingUpdate") {
            object.set_default(&["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"], 1);
            object.set_default(&["spec", "updateStrategy", "rollingUpdate", "maxSurge"], 0);
        }
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let spec = At::root(new, "spec");
        let selector = spec.get("selector");
        label_selector(&selector, errors);
        if !selector.is_set() {
            selector.required(errors, "");
        } else if selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty() {
            selector.invalid(errors, "empty selector is invalid for daemonset");
        }
        replicas::matches_selector(&spec, errors);
        pod_template(&spec.get("template"), errors);
        replicas::runs_for_ever(&spec.get("template"), "DaemonSet", errors);
        replicas::counts(&spec, &["minReadySeconds", "revisionHistoryLimit"], errors);
        let strategy = spec.get("updateStrategy");
        if strategy.get("type").text() == "RollingUpdate" {
            rolling(&strategy.get("rollingUpdate"), errors);
        }
        if let Some(old) = old {
            selector.immutable(errors, &At::root(old, "spec").get("selector"));
        }
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn rolling(at: &At<'_>, errors: &mut Errors) {
    let (unavailable, surge) = (at.get("maxUnavailable"), at.get("maxSurge"));
    for field in [&unavailable, &surge] {
        count_or_percent(field, errors);
        at_most_all(field, errors);
    }
    match (is_none_of(&unavailable), is_none_of(&surge)) {
        (false, false) => surge.invalid(errors, "may not be set when maxUnavailable is non-zero"),
        (true, true) => unavailable.required(errors, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}
