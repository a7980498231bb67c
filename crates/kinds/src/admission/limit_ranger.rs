//! LimitRanges give containers their defaults and keep pods and claims within bounds
//! (`plugin/pkg/admission/limitranger`).

use meta::{Object, Status, Value};
use resource::{Context, Operation};
use serde_json::{Map, json};

use super::{
    Plugin, forbidden,
    limits::{Asked, Bound, of_pod},
    list, namespace,
};
use crate::{quota::amounts, strategy::fill};

const ANNOTATION: [&str; 3] = ["metadata", "annotations", "kubernetes.io/limit-ranger"];

pub(super) struct LimitRanger;

impl Plugin for LimitRanger {
    const NAME: &'static str = "LimitRanger";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        match (resource, subresource) {
            ("pods", "") => operation == Operation::Create,
            ("pods", "resize") => operation == Operation::Update,
            ("persistentvolumeclaims", "") => matches!(operation, Operation::Create | Operation::Update),
            _ => false,
        }
    }

    fn mutate(&self, cx: &Context<'_>, object: &mut Object, _: Option<&Object>) -> Result<(), Status> {
        // What a pod asks for is settled when it is made: a resize is only held to the bounds.
        if cx.attributes.resource.resource != "pods" || cx.attributes.operation != Operation::Create {
            return Ok(());
        }
        for range in list(cx, "", "limitranges", Some(namespace(cx)))? {
            let mut notes = Vec::new();
            for limit in range.list(&["spec", "limits"]).iter().filter(|l| l["type"] == "Container") {
                default_containers(object, limit, &mut notes);
            }
            if !notes.is_empty() {
                let note = format!("LimitRanger plugin set: {}", notes.join("; "));
                object.set(&ANNOTATION, note);
            }
        }
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, object: &Object, _: Option<&Object>) -> Result<(), Status> {
        if object.is_deleting() {
            return Ok(());
        }
        for range in list(cx, "", "limitranges", Some(namespace(cx)))? {
            let mut wrong = Vec::new();
            for limit in range.list(&["spec", "limits"]) {
                check(cx, object, limit, &mut wrong);
            }
            let why = match wrong.as_slice() {
                [] => continue,
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            return Err(forbidden(cx, object.name(), &why));
        }
        Ok(())
    }
}

fn default_containers(pod: &mut Object, limit: &Value, notes: &mut Vec<String>) {
    for (containers, what) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.get_mut(&["spec", containers]).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            for (side, from, word) in
                [("requests", "defaultRequest", "request"), ("limits", "default", "limit")]
            {
                let Some(defaults) = limit.get(from).and_then(Value::as_object) else { continue };
                let set = fill_amounts(container, side, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
}

/// Adds amounts that are not given; returns their names.
fn fill_amounts(
    container: &mut Map<String, Value>,
    side: &str,
    defaults: &Map<String, Value>,
) -> Vec<String> {
    fill(container, "resources", json!({}));
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else {
        return Vec::new();
    };
    fill(resources, side, json!({}));
    let Some(given) = resources.get_mut(side).and_then(Value::as_object_mut) else { return Vec::new() };
    let mut set = Vec::new();
    for (name, amount) in defaults {
        if !given.contains_key(name) {
            given.insert(name.clone(), amount.clone());
            set.push(name.clone());
        }
    }
    set.sort();
    set
}

/// Why a bound is not kept.
type Test = fn(&Bound<'_>, &Asked<'_>) -> Option<String>;

/// Compares an object with one limit of a LimitRange.
fn check(cx: &Context<'_>, object: &Object, limit: &Value, wrong: &mut Vec<String>) {
    let of = limit.get("type").and_then(Value::as_str).unwrap_or_default();
    let claim = cx.attributes.resource.resource == "persistentvolumeclaims";
    let mut compare = |asked: &Asked<'_>| {
        for (field, test) in [
            ("min", (|bound, asked| bound.min(asked)) as Test),
            ("max", |bound, asked| bound.max(asked)),
            ("maxLimitRequestRatio", |bound, asked| bound.ratio(asked)),
        ] {
            let bounds = limit.get(field).and_then(Value::as_object).into_iter().flatten();
            let bounds = bounds.map(|(resource, enforced)| Bound { of, resource, enforced });
            wrong.extend(bounds.filter_map(|bound| test(&bound, asked)));
        }
    };
    match of {
        "PersistentVolumeClaim" if claim => {
            let requests = amounts(object.get(&["spec", "resources", "requests"]));
            compare(&Asked { requests: &requests, limits: &requests, has_limits: false });
        }
        "Pod" if !claim => {
            let (requests, limits) = (of_pod(object, "requests"), of_pod(object, "limits"));
            compare(&Asked { requests: &requests, limits: &limits, has_limits: true });
        }
        "Container" if !claim => {
            for containers in ["containers", "initContainers"] {
                for container in object.list(&["spec", containers]) {
                    let side = |side: &str| amounts(container.get("resources").and_then(|r| r.get(side)));
                    let (requests, limits) = (side("requests"), side("limits"));
                    compare(&Asked { requests: &requests, limits: &limits, has_limits: true });
                }
            }
        }
        _ => {}
    }
}
