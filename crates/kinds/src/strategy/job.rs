//! Jobs: a selector of their own unless told otherwise, and a spec that hardly changes.

use meta::{FieldError, LabelSelector, Object, Status, Value, names};
use resource::{Context, Strategy};
use serde_json::{Map, json};

use super::{label_map, pod_defaults, replicas};
use crate::validate::{At, Errors, label_selector, pod_template};

const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

/// Behaviour of `batch/v1` Job.
pub(crate) struct Job;

impl Strategy for Job {
    fn default(&self, object: &mut Object) {
        spec_defaults(object.map_at(&["spec"]));
        let labels = object.get(&["spec", "template", "metadata", "labels"]).cloned();
        let own = object.get(&["metadata", "labels"]).and_then(Value::as_object);
        if let (Some(labels), true) = (labels.filter(Value::is_object), own.is_none_or(Map::is_empty)) {
            object.set(&["metadata", "labels"], labels);
        }
    }

    fn prepare(&self, _: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        if old.is_none() && new.bool(&["spec", "manualSelector"]) != Some(true) {
            let (name, uid) = (new.name().to_owned(), new.uid().to_owned());
            let labels = new.map_at(&["spec", "template", "metadata", "labels"]);
            for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
                for key in keys {
                    labels.entry(key).or_insert_with(|| json!(value));
                }
            }
            let selector = new.map_at(&["spec", "selector", "matchLabels"]);
            selector.entry(UID_LABELS[1]).or_insert_with(|| json!(uid));
        }
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let at = At::root(new, "spec");
        generated_selector(new, &at, errors);
        spec(&at, errors);
        let selector = at.get("selector");
        if !selector.is_set() {
            selector.required(errors, "");
        } else {
            label_selector(&selector, errors);
        }
        selects_own(&at, errors);
        if let Some(old) = old {
            unchanged(&at, &At::root(old, "spec"), errors);
        }
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let wrong = names::dns1123_label(new.name());
        if old.is_some() || wrong.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; \
             a DNS label is recommended: [{}]",
            wrong.join(" ")
        )]
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// Defaults of a JobSpec, in a Job only: a CronJob's template has just its pod's.
fn spec_defaults(spec: &mut Map<String, Value>) {
    let unset = |spec: &Map<String, Value>, key: &str| spec.get(key).is_none_or(Value::is_null);
    if unset(spec, "completions") && unset(spec, "parallelism") {
        spec.insert("completions".to_owned(), json!(1));
    }
    super::fill(spec, "parallelism", 1);
    super::fill(spec, "completionMode", "NonIndexed");
    super::fill(spec, "suspend", false);
    super::fill(spec, "manualSelector", false);
    let limit = if unset(spec, "backoffLimitPerIndex") { 6 } else { i32::MAX };
    super::fill(spec, "backoffLimit", limit);
    let replace = if unset(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
    super::fill(spec, "podReplacementPolicy", replace);
    if let Some(pod) = spec.get_mut("template").and_then(|t| t.get_mut("spec")).and_then(Value::as_object_mut)
    {
        pod_defaults::pod_spec(pod);
    }
}

/// Nobody else's labels are in a selector that the server made.
fn generated_selector(job: &Object, spec: &At<'_>, errors: &mut Errors) {
    if spec.get("manualSelector").flag() {
        return;
    }
    let labels = spec.at(&["template", "metadata", "labels"]);
    for (keys, wanted) in [(UID_LABELS, job.uid()), (NAME_LABELS, job.name())] {
        for key in keys {
            let at = labels.key(key);
            if !at.is_set() {
                let detail = format!("must be '{wanted}'");
                errors.push(FieldError::required(labels.path(), detail));
            } else if at.text() != wanted {
                labels.invalid(errors, format!("must be '{wanted}'"));
            }
        }
    }
    let selected = spec.at(&["selector", "matchLabels", UID_LABELS[1]]);
    let legacy = spec.at(&["selector", "matchLabels", UID_LABELS[0]]);
    if selected.text() != job.uid() && legacy.text() != job.uid() {
        spec.get("selector").invalid(errors, "`selector` not auto-generated");
    }
}

fn selects_own(spec: &At<'_>, errors: &mut Errors) {
    let found = spec.at(&["template", "metadata", "labels"]);
    let Ok(selector) = LabelSelector::from_value(spec.get("selector").value()) else { return };
    if !selector.matches(&label_map(Some(found.value()))) {
        found.invalid(errors, "`selector` does not match template `labels`");
    }
}

/// Checks a JobSpec, in a Job or in a CronJob's template.
pub(super) fn spec(at: &At<'_>, errors: &mut Errors) {
    let fields = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    replicas::counts(at, &fields, errors);
    if at.get("completionMode").text() == "Indexed" {
        indexed(at, errors);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"] {
            let field = at.get(field);
            if field.is_set() {
                field.invalid(errors, "requires indexed completion mode");
            }
        }
    }
    if at.get("maxFailedIndexes").is_set() && !at.get("backoffLimitPerIndex").is_set() {
        at.get("backoffLimitPerIndex").required(errors, "when maxFailedIndexes is specified");
    }
    if at.get("podFailurePolicy").is_set() {
        let replace = at.get("podReplacementPolicy");
        if replace.text() != "Failed" {
            replace.one_of(errors, &["Failed"]);
        }
    }
    pod_template(&at.get("template"), errors);
    let policy = at.at(&["template", "spec", "restartPolicy"]);
    match policy.text() {
        "" | "Always" => policy.required(errors, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if at.get("podFailurePolicy").is_set() => {
            policy.invalid(errors, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        _ => {}
    }
}

fn indexed(at: &At<'_>, errors: &mut Errors) {
    let (completions, parallelism) = (at.get("completions"), at.get("parallelism"));
    let failed = at.get("maxFailedIndexes");
    if !completions.is_set() {
        completions.required(errors, "when completion mode is Indexed");
    }
    if parallelism.int().is_some_and(|n| n > 100_000) {
        let detail = "must be less than or equal to 100000 when completion mode is Indexed";
        parallelism.invalid(errors, detail);
    }
    if let (Some(failed_max), Some(total)) = (failed.int(), completions.int())
        && failed_max > total
    {
        failed.invalid(errors, "must be less than or equal to completions");
    }
}

fn unchanged(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let completions = new.get("completions");
    let elastic = new.get("completionMode").text() == "Indexed";
    if !elastic {
        completions.immutable(errors, &old.get("completions"));
    } else if completions.value() != old.get("completions").value()
        && completions.int() != new.get("parallelism").int()
    {
        completions.invalid(errors, "can only be modified in tandem with spec.parallelism");
    }
    new.get("selector").immutable(errors, &old.get("selector"));
    // A job that never ran may still be told where its pods go (KEP-2926).
    let free = old.get("suspend").flag();
    let template = |spec: &At<'_>| {
        let mut template = spec.get("template").value().clone();
        if free {
            for (path, keys) in [
                ("/spec", &["nodeSelector", "tolerations", "schedulingGates", "affinity"][..]),
                ("/metadata", &["labels", "annotations"][..]),
            ] {
                if let Some(map) = template.pointer_mut(path).and_then(Value::as_object_mut) {
                    map.retain(|key, _| !keys.contains(&key.as_str()));
                }
            }
        }
        template
    };
    if template(new) != template(old) {
        new.get("template").invalid(errors, "field is immutable");
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        new.get(field).immutable(errors, &old.get(field));
    }
}
