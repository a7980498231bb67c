//! Deployments, ReplicaSets and ReplicationControllers: copies of one template.

use meta::{FieldError, LabelSelector, Object, Value};
use resource::{Context, Strategy};
use serde_json::json;

use super::{label_map, pod_defaults};
use crate::validate::{
    At, Errors, at_most_all, count_or_percent, is_none_of, label_selector, labels, pod_template,
};

/// Behaviour of `apps/v1` Deployment.
pub(crate) struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Object) {
        template_defaults(object);
        if object.str(&["spec", "strategy", "type"]) == Some("RollingUpdate") {
            for field in ["maxSurge", "maxUnavailable"] {
                object.set_default(&["spec", "strategy", "rollingUpdate", field], "25%");
            }
        }
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let spec = At::root(new, "spec");
        if cx.attributes.subresource == "status" {
            return;
        }
        counts(
            &spec,
            &["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"],
            errors,
        );
        selector(&spec, "deployment", errors);
        template(&spec, "ReplicaSet", errors);
        rollout(&spec.get("strategy"), errors);
        let deadline = spec.get("progressDeadlineSeconds");
        if deadline.int().is_some_and(|deadline| deadline <= spec.get("minReadySeconds").int().unwrap_or(0)) {
            deadline.invalid(errors, "must be greater than minReadySeconds");
        }
        if let Some(old) = old {
            spec.get("selector").immutable(errors, &At::root(old, "spec").get("selector"));
        }
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn rollout(at: &At<'_>, errors: &mut Errors) {
    let rolling = at.get("rollingUpdate");
    match at.get("type").text() {
        "Recreate" if rolling.is_set() => {
            rolling.forbidden(errors, "may not be specified when strategy `type` is 'Recreate'");
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            count_or_percent(&unavailable, errors);
            count_or_percent(&surge, errors);
            if is_none_of(&unavailable) && is_none_of(&surge) {
                unavailable.invalid(errors, "may not be 0 when `maxSurge` is 0");
            }
            at_most_all(&unavailable, errors);
        }
        _ => {}
    }
}

/// Defaults of `spec.template.spec`.
pub(super) fn template_defaults(object: &mut Object) {
    pod_defaults::pod_spec(object.map_at(&["spec", "template", "spec"]));
}

/// Numbers that are not negative.
pub(super) fn counts(spec: &At<'_>, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        spec.get(field).not_negative(errors);
    }
}

/// `spec.selector` is there, well formed and selects something.
pub(super) fn selector(spec: &At<'_>, kind: &str, errors: &mut Errors) {
    let at = spec.get("selector");
    if !at.is_set() {
        return at.required(errors, "");
    }
    label_selector(&at, errors);
    if at.get("matchLabels").is_empty() && at.get("matchExpressions").is_empty() {
        at.invalid(errors, format!("empty selector is invalid for {kind}"));
    }
}

/// `spec.template` is selected by `spec.selector`, is a pod that always restarts, and may run for ever.
pub(super) fn template(spec: &At<'_>, kind: &str, errors: &mut Errors) {
    let at = spec.get("template");
    matches_selector(spec, errors);
    pod_template(&at, errors);
    runs_for_ever(&at, kind, errors);
}

/// The template's labels are selected.
pub(super) fn matches_selector(spec: &At<'_>, errors: &mut Errors) {
    let found = spec.at(&["template", "metadata", "labels"]);
    let selector = spec.get("selector");
    let Ok(selects) = LabelSelector::from_value(selector.value()) else { return };
    if selector.is_set() && !selector.is_empty() && !selects.matches(&label_map(Some(found.value()))) {
        let value = if found.is_set() { found.value().clone() } else { Value::Null };
        let detail = "`selector` does not match template `labels`";
        found.invalid_as(errors, &value, detail);
    }
}

/// Restarts always, without a deadline.
pub(super) fn runs_for_ever(template: &At<'_>, kind: &str, errors: &mut Errors) {
    let policy = template.at(&["spec", "restartPolicy"]);
    policy.one_of(errors, &["Always"]);
    let deadline = template.at(&["spec", "activeDeadlineSeconds"]);
    if deadline.is_set() {
        deadline.forbidden(errors, format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

/// Behaviour of `apps/v1` ReplicaSet.
pub(crate) struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Object) {
        template_defaults(object);
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return status_counts(new, errors);
        }
        let spec = At::root(new, "spec");
        counts(&spec, &["replicas", "minReadySeconds"], errors);
        selector(&spec, "deployment", errors);
        template(&spec, "ReplicaSet", errors);
        if let Some(old) = old {
            spec.get("selector").immutable(errors, &At::root(old, "spec").get("selector"));
        }
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// Counts in a status agree with each other.
fn status_counts(object: &Object, errors: &mut Errors) {
    let status = At::root(object, "status");
    let fields =
        ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    counts(&status, &fields, errors);
    let count = |field: &str| status.get(field).int().unwrap_or(0);
    for (field, than) in [
        ("fullyLabeledReplicas", "replicas"),
        ("readyReplicas", "replicas"),
        ("availableReplicas", "replicas"),
        ("availableReplicas", "readyReplicas"),
    ] {
        if count(field) > count(than) {
            let detail = format!(
                "cannot be greater than {}",
                if than == "replicas" { "status.replicas" } else { than }
            );
            errors.push(FieldError::invalid(format!("status.{field}"), &json!(count(field)), detail));
        }
    }
}

/// Behaviour of `v1` ReplicationController, whose selector is a plain map.
pub(crate) struct ReplicationController;

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Object) {
        template_defaults(object);
        let found = object.get(&["spec", "template", "metadata", "labels"]).cloned();
        let Some(found) = found.filter(Value::is_object) else { return };
        object.set_default(&["spec", "selector"], found.clone());
        object.set_default(&["metadata", "labels"], found);
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return status_counts(new, errors);
        }
        let spec = At::root(new, "spec");
        counts(&spec, &["replicas", "minReadySeconds"], errors);
        let (selector, template) = (spec.get("selector"), spec.get("template"));
        if selector.is_empty() {
            selector.required(errors, "");
        }
        labels(&selector, errors);
        if !template.is_set() {
            return template.required(errors, "");
        }
        let found = label_map(Some(template.at(&["metadata", "labels"]).value()));
        if label_map(Some(selector.value())).iter().any(|(key, value)| found.get(key) != Some(value)) {
            let at = template.at(&["metadata", "labels"]);
            at.invalid(errors, "`selector` does not match template `labels`");
        }
        pod_template(&template, errors);
        runs_for_ever(&template, "ReplicationController", errors);
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}
