//! Pods: what the server sets, what may change later, and how long deletion takes
//! (`pkg/registry/core/pod/strategy.go`).

use meta::{Object, Quantity, Status, Value, format_second};
use resource::{Context, Strategy};
use serde_json::json;

use super::{keep, label_map, pod_defaults, pod_resize, pod_update};
use crate::validate::{At, Errors, labels, pod_spec, pod_template, quantity};

/// Behaviour of `v1` Pod.
pub(crate) struct Pod;

impl Strategy for Pod {
    fn default(&self, object: &mut Object) {
        let spec = object.map_at(&["spec"]);
        pod_defaults::pod_spec(spec);
        pod_defaults::pod(spec);
    }

    fn prepare(&self, cx: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        let Some(old) = old else {
            let class = qos_class(new);
            new.set(&["status"], json!({"phase": "Pending", "qosClass": class}));
            gate(cx, new);
            merge_match_label_keys(new);
            return Ok(());
        };
        match cx.attributes.subresource.as_str() {
            // Only the list of ephemeral containers is taken from the request.
            "ephemeralcontainers" => {
                let list = new.remove(&["spec", "ephemeralContainers"]);
                *new = old.clone();
                new.remove(&["spec", "ephemeralContainers"]);
                if let Some(list) = list {
                    new.set(&["spec", "ephemeralContainers"], list);
                }
            }
            "resize" => *new = pod_resize::taken(new, old),
            "status" if old.get(&["status", "qosClass"]).is_some() => {
                keep(new, old, &["status", "qosClass"]);
            }
            _ => {}
        }
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let spec = At::root(new, "spec");
        match (old, cx.attributes.subresource.as_str()) {
            (Some(old), "status") => pod_update::status(new, old, errors),
            // The act itself says which node, and refuses a pod that has one.
            (Some(_), "binding") => {}
            (Some(old), "ephemeralcontainers") => {
                pod_spec(&spec, errors);
                pod_update::ephemeral_containers(new, old, errors);
            }
            (Some(old), "resize") => {
                pod_spec(&spec, errors);
                pod_resize::check(new, old, errors);
            }
            (Some(old), _) => {
                pod_spec(&spec, errors);
                pod_update::spec(new, old, errors);
            }
            (None, _) => pod_spec(&spec, errors),
        }
    }

    fn grace_period(&self, object: &Object, asked: Option<i64>) -> Option<i64> {
        let wanted = asked.or_else(|| object.int(&["spec", "terminationGracePeriodSeconds"])).unwrap_or(0);
        let scheduled = object.str(&["spec", "nodeName"]).is_some_and(|name| !name.is_empty());
        let finished = matches!(object.str(&["status", "phase"]), Some("Failed" | "Succeeded"));
        Some(match wanted {
            _ if !scheduled || finished => 0,
            negative if negative < 0 => 1,
            seconds => seconds,
        })
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// A pod with scheduling gates says so from the start.
fn gate(cx: &Context<'_>, pod: &mut Object) {
    if !pod.list(&["spec", "schedulingGates"]).is_empty() {
        pod.set(
            &["status", "conditions"],
            json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": format_second(cx.clock.now()),
            }]),
        );
    }
}

/// Spread and affinity terms with `matchLabelKeys` get the pod's own values into their selectors
/// (KEP-3633 and KEP-5325: at creation, so that the scheduler sees plain selectors).
fn merge_match_label_keys(pod: &mut Object) {
    let own = label_map(pod.get(&["metadata", "labels"]));
    let add = |term: &mut Value| {
        let Some(selector) = term.get("labelSelector").filter(|s| s.is_object()).cloned() else { return };
        let mut expressions =
            selector.get("matchExpressions").and_then(Value::as_array).cloned().unwrap_or_default();
        for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
            let keys = term.get(list).and_then(Value::as_array).into_iter().flatten();
            for key in keys.filter_map(Value::as_str) {
                if let Some(value) = own.get(key) {
                    expressions.push(json!({"key": key, "operator": operator, "values": [value]}));
                }
            }
        }
        if !expressions.is_empty()
            && let Some(selector) = term.get_mut("labelSelector").and_then(Value::as_object_mut)
        {
            selector.insert("matchExpressions".to_owned(), Value::Array(expressions));
        }
    };
    let spread = pod.get_mut(&["spec", "topologySpreadConstraints"]).and_then(Value::as_array_mut);
    spread.into_iter().flatten().for_each(add);
    for side in ["podAffinity", "podAntiAffinity"] {
        let at = |list| ["spec", "affinity", side, list];
        let required = at("requiredDuringSchedulingIgnoredDuringExecution");
        pod.get_mut(&required).and_then(Value::as_array_mut).into_iter().flatten().for_each(add);
        let preferred = at("preferredDuringSchedulingIgnoredDuringExecution");
        let terms = pod.get_mut(&preferred).and_then(Value::as_array_mut).into_iter().flatten();
        terms.filter_map(|weighted| weighted.get_mut("podAffinityTerm")).for_each(add);
    }
}

/// Guaranteed when every container has equal requests and limits for cpu and memory, BestEffort when none
/// has any, Burstable between (`pkg/apis/core/v1/helper/qos`).
pub(crate) fn qos_class(pod: &Object) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for list in ["containers", "initContainers"] {
        for container in pod.list(&["spec", list]) {
            for name in ["cpu", "memory"] {
                let amount = |side: &str| {
                    let value = container.get("resources")?.get(side)?.get(name)?;
                    quantity(value).filter(|amount| *amount > Quantity::default())
                };
                let (request, limit) = (amount("requests"), amount("limits"));
                any |= request.is_some() || limit.is_some();
                guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Behaviour of `v1` PodTemplate.
pub(crate) struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Object) {
        pod_defaults::pod_spec(object.map_at(&["template", "spec"]));
    }

    fn validate(&self, _: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        let template = At::root(new, "template");
        labels(&template.at(&["metadata", "labels"]), errors);
        pod_template(&template, errors);
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}
