//! What may change in a pod after it was made (`ValidatePodUpdate`).

use meta::{FieldError, Object, Value};
use serde_json::{Map, json};

use crate::validate::{At, Errors};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,\
                         `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
                         tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
                         was previously negative)";

/// Checks an update of the pod itself.
pub(super) fn spec(new: &Object, old: &Object, errors: &mut Errors) {
    for list in ["containers", "initContainers"] {
        let (have, had) = (new.list(&["spec", list]), old.list(&["spec", list]));
        if have.len() != had.len() {
            let detail = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(format!("spec.{list}"), detail));
            return;
        }
        for (i, container) in have.iter().enumerate() {
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            if image.trim() != image {
                let detail = "must not have leading or trailing whitespace";
                errors.push(FieldError::invalid(format!("spec.{list}[{i}].image"), &json!(image), detail));
            }
        }
    }
    deadline(new, old, errors);
    tolerations(new, old, errors);
    gates(new, old, errors);
    if munged(new, old) != munged(old, old) {
        let detail =
            format!("pod updates may not change fields other than {UPDATABLE}\n{}", changes(new, old));
        errors.push(FieldError::forbidden("spec", detail));
    }
}

fn deadline(new: &Object, old: &Object, errors: &mut Errors) {
    let at = At::root(new, "spec").get("activeDeadlineSeconds");
    let had = old.int(&["spec", "activeDeadlineSeconds"]);
    match (at.int(), had) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            at.within(errors, 0, i64::from(i32::MAX));
        }
        (Some(seconds), Some(had)) if had < seconds => {
            at.invalid(errors, "must be less than or equal to previous value");
        }
        (None, Some(_)) => at.invalid(errors, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

/// Tolerations are only added; `tolerationSeconds` of an old one may change.
fn tolerations(new: &Object, old: &Object, errors: &mut Errors) {
    let without_seconds = |value: &Value| {
        let mut value = value.clone();
        if let Some(map) = value.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        value
    };
    let have: Vec<Value> = new.list(&["spec", "tolerations"]).iter().map(without_seconds).collect();
    let kept = old.list(&["spec", "tolerations"]).iter().all(|had| have.contains(&without_seconds(had)));
    if !kept {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", detail));
    }
}

/// Scheduling gates are only removed.
fn gates(new: &Object, old: &Object, errors: &mut Errors) {
    let had = old.list(&["spec", "schedulingGates"]);
    for (i, gate) in new.list(&["spec", "schedulingGates"]).iter().enumerate() {
        if !had.contains(gate) {
            let name = gate.get("name").and_then(Value::as_str).unwrap_or_default();
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(FieldError::forbidden(format!("spec.schedulingGates[{i}]"), detail));
        }
    }
}

/// The spec with everything that may change set to what `old` has.
fn munged(pod: &Object, old: &Object) -> Map<String, Value> {
    let mut spec = pod.get(&["spec"]).and_then(Value::as_object).cloned().unwrap_or_default();
    let was = old.get(&["spec"]).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut take = |key: &str| match was.get(key) {
        Some(value) => {
            spec.insert(key.to_owned(), value.clone());
        }
        None => {
            spec.remove(key);
        }
    };
    take("activeDeadlineSeconds");
    take("tolerations");
    take("schedulingGates");
    if !old.list(&["spec", "schedulingGates"]).is_empty() {
        // A gated pod may still be narrowed to fewer nodes.
        take("nodeSelector");
        take("affinity");
    }
    let grace = |spec: &Map<String, Value>| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(&was).is_some_and(|seconds| seconds < 0) && grace(&spec) == Some(1) {
        spec.remove("terminationGracePeriodSeconds");
        if let Some(value) = was.get("terminationGracePeriodSeconds") {
            spec.insert("terminationGracePeriodSeconds".to_owned(), value.clone());
        }
    }
    // Ephemeral containers have their own subresource, but a write of the whole pod carries them.
    for list in ["containers", "initContainers"] {
        for container in super::pod_defaults::maps(&mut spec, list) {
            container.remove("image");
        }
    }
    spec
}

/// The changed fields of the spec, for the reader of the error.
fn changes(new: &Object, old: &Object) -> String {
    let (have, had) = (munged(new, old), munged(old, old));
    let mut keys: Vec<&String> = have.keys().chain(had.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut lines = String::new();
    for key in keys {
        let (was, is) = (had.get(key), have.get(key));
        if was != is {
            for (sign, value) in [('-', was), ('+', is)] {
                if let Some(value) = value {
                    lines.push_str(&format!("{sign} {key}: {value}\n"));
                }
            }
        }
    }
    lines
}

/// Checks an update of `ephemeralcontainers`: old ones stay as they are.
pub(super) fn ephemeral_containers(new: &Object, old: &Object, errors: &mut Errors) {
    let have = new.list(&["spec", "ephemeralContainers"]);
    for was in old.list(&["spec", "ephemeralContainers"]) {
        let name = was.get("name").and_then(Value::as_str).unwrap_or_default();
        let detail = match have.iter().find(|container| container.get("name") == was.get("name")) {
            Some(same) if same == was => continue,
            Some(_) => format!("existing ephemeral containers \"{name}\" may not be changed\n"),
            None => format!("existing ephemeral containers \"{name}\" may not be removed\n"),
        };
        errors.push(FieldError::forbidden("spec.ephemeralContainers", detail));
    }
}

/// Checks an update of `status`: a container that will not restart does not come back.
pub(super) fn status(new: &Object, old: &Object, errors: &mut Errors) {
    if old.str(&["spec", "restartPolicy"]) == Some("Always") {
        return;
    }
    for (list, field) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        for (i, is) in new.list(&["status", list]).iter().enumerate() {
            let terminated =
                |status: &Value| status.get("state").is_some_and(|s| s.get("terminated").is_some());
            let was = old.list(&["status", list]).iter().find(|was| was.get("name") == is.get("name"));
            let Some(was) = was.filter(|was| terminated(was) && !terminated(is)) else { continue };
            let code = was.get("state").and_then(|s| s.get("terminated")?.get("exitCode")?.as_i64());
            let retried = old.str(&["spec", "restartPolicy"]) == Some("OnFailure") && code != Some(0);
            let sidecar = old.list(&["spec", field]).iter().any(|container| {
                container.get("name") == is.get("name") && container.get("restartPolicy").is_some()
            });
            if !retried && !sidecar {
                let detail = "may not be transitioned to non-terminated state";
                errors.push(FieldError::forbidden(format!("status.{list}[{i}].state"), detail));
            }
        }
    }
}
