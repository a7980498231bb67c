//! What `pods/resize` may change (`ValidatePodResize` and `dropNonResizeUpdates`, KEP-1287): cpu and memory of
//! containers and sidecars, within the pod's quality of service.

use meta::{FieldError, Object, Value};
use serde_json::{Map, json};

use super::pod::qos_class;
use crate::validate::Errors;

const LISTS: [&str; 2] = ["containers", "initContainers"];
const RESIZABLE: [&str; 2] = ["cpu", "memory"];
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The pod as it was, with the resources and resize policies of the request. Everything else of the request is left
/// aside, as upstream; containers are found by their place and must have kept their names.
pub(super) fn taken(new: &Object, old: &Object) -> Object {
    let mut taken = old.clone();
    for list in LISTS {
        let asked = new.list(&["spec", list]);
        let containers = taken.get_mut(&["spec", list]).and_then(Value::as_array_mut);
        for (at, container) in containers.into_iter().flatten().enumerate() {
            let Some(asked) = asked.get(at).filter(|asked| asked.get("name") == container.get("name")) else {
                continue;
            };
            let Some(map) = container.as_object_mut() else { continue };
            for field in ["resources", "resizePolicy"] {
                match asked.get(field) {
                    Some(value) => map.insert(field.to_owned(), value.clone()),
                    None => map.remove(field),
                };
            }
        }
    }
    // The revision that the client decided on stays what it said.
    if let Some(version) = new.get(&["metadata", "resourceVersion"]) {
        taken.set(&["metadata", "resourceVersion"], version.clone());
    }
    taken
}

/// Checks a resize.
pub(super) fn check(new: &Object, old: &Object, errors: &mut Errors) {
    let refuse = |why: &str| FieldError::forbidden("", why);
    if old.annotation(MIRROR).is_some() {
        errors.push(refuse("static pods cannot be resized"));
        return;
    }
    if old.str(&["spec", "os", "name"]) == Some("windows") {
        errors.push(refuse("windows pods cannot be resized"));
        return;
    }
    let class = qos_class(new);
    if qos_class(old) != class {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", &json!(class), why));
    }
    if !is_supported(old) {
        errors.push(FieldError::forbidden("spec", "Pod running on node without support for resize"));
    }
    for list in LISTS {
        let (have, had) = (new.list(&["spec", list]), old.list(&["spec", list]));
        for (at, (new, old)) in have.iter().zip(had).enumerate() {
            removals(new, old, &format!("spec.{list}[{at}].resources"), errors);
        }
    }
    let (have, sidecars_only) = (restored(new, old, true), restored(new, old, false));
    let was = old.get(&["spec"]).and_then(Value::as_object).cloned().unwrap_or_default();
    if have != was {
        // What differs only where a container that runs to its end was to change has a text of its own.
        let why = if sidecars_only == was {
            "only cpu and memory resources for sidecar containers are mutable"
        } else {
            "only cpu and memory resources are mutable"
        };
        errors.push(FieldError::forbidden("spec", format!("{why}\n{}", changes(&have, &was))));
    }
}

/// What is asked for may change, not go.
fn removals(new: &Value, old: &Value, path: &str, errors: &mut Errors) {
    for side in ["limits", "requests"] {
        let amount = |of: &Value, name: &str| of.get("resources")?.get(side)?.get(name).cloned();
        if RESIZABLE.iter().any(|name| amount(old, name).is_some() && amount(new, name).is_none()) {
            let why = format!("resource {side} cannot be removed");
            errors.push(FieldError::forbidden(format!("{path}.{side}"), why));
        }
    }
}

/// Whether the node that runs the pod says what its containers have: one that does not could not resize them.
fn is_supported(pod: &Object) -> bool {
    pod.list(&["status", "containerStatuses"]).iter().all(|status| {
        let runs = status.get("state").is_some_and(|state| state.get("running").is_some());
        !runs || status.get("resources").is_some()
    })
}

/// The spec with cpu and memory as they were, of all containers or only of those that may be resized.
fn restored(new: &Object, old: &Object, resizable_only: bool) -> Map<String, Value> {
    let mut spec = new.get(&["spec"]).and_then(Value::as_object).cloned().unwrap_or_default();
    for list in LISTS {
        let was = old.list(&["spec", list]);
        for (at, container) in super::pod_defaults::maps(&mut spec, list).enumerate() {
            let sidecar = container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
            if list == "initContainers" && resizable_only && !sidecar {
                continue;
            }
            let Some(was) = was.get(at).and_then(|was| was.get("resources")) else { continue };
            for side in ["limits", "requests"] {
                let before = was.get(side).and_then(Value::as_object);
                let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else {
                    continue;
                };
                let amounts = resources.entry(side.to_owned()).or_insert_with(|| json!({}));
                let Some(amounts) = amounts.as_object_mut() else { continue };
                for name in RESIZABLE {
                    match before.and_then(|before| before.get(name)) {
                        Some(amount) => amounts.insert(name.to_owned(), amount.clone()),
                        None => amounts.remove(name),
                    };
                }
                if before.is_none() && amounts.is_empty() {
                    resources.remove(side);
                }
            }
        }
    }
    spec
}

/// What else was to change, for the reader of the error.
fn changes(have: &Map<String, Value>, was: &Map<String, Value>) -> String {
    let line = |sign: char, key: &String, value: Option<&Value>| {
        value.map(|value| format!("{sign} {key}: {value}\n")).unwrap_or_default()
    };
    let differs = |key: &&String| have.get(*key) != was.get(*key);
    let keys: std::collections::BTreeSet<&String> = have.keys().chain(was.keys()).filter(differs).collect();
    keys.into_iter().map(|key| line('-', key, was.get(key)) + &line('+', key, have.get(key))).collect()
}
