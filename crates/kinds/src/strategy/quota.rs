//! LimitRanges and ResourceQuotas as objects. What they do to other objects is admission's.

use meta::{FieldError, Object, Value};
use resource::{Context, Strategy};
use serde_json::{Map, json};

use super::maps_mut;
use crate::validate::{At, Errors, resource_list};

/// Behaviour of `v1` LimitRange.
pub(crate) struct LimitRange;

impl Strategy for LimitRange {
    fn default(&self, object: &mut Object) {
        for item in maps_mut(object, &["spec", "limits"]) {
            if item.get("type") == Some(&json!("Container")) {
                // Limits come from the maximum, requests from limits, then from the minimum.
                fill_from(item, "default", "max");
                fill_from(item, "defaultRequest", "default");
                fill_from(item, "defaultRequest", "min");
            }
        }
    }

    fn validate(&self, _: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        let mut seen = Vec::new();
        for item in At::root(new, "spec").get("limits").items() {
            let of = item.get("type");
            if of.is_empty() {
                of.required(errors, "");
            } else if seen.contains(&of.text()) {
                of.duplicate_as(errors, of.value());
            }
            seen.push(of.text());
            for field in ["max", "min", "default", "defaultRequest"] {
                resource_list(&item.get(field), errors);
            }
            if of.text() == "Pod" {
                for field in ["default", "defaultRequest"] {
                    if !item.get(field).is_empty() {
                        item.get(field).forbidden(errors, "may not be specified when `type` is 'Pod'");
                    }
                }
            }
        }
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn fill_from(item: &mut Map<String, Value>, to: &str, from: &str) {
    let Some(Value::Object(source)) = item.get(from).cloned() else { return };
    let target = item.entry(to).or_insert_with(|| json!({}));
    if let Some(target) = target.as_object_mut() {
        for (name, amount) in source {
            target.entry(name).or_insert(amount);
        }
    }
}

/// Behaviour of `v1` ResourceQuota.
pub(crate) struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let spec = At::root(new, "spec");
        for (name, amount) in spec.get("hard").entries() {
            hard(name, &amount, errors);
        }
        scopes(&spec, errors);
        if let Some(old) = old {
            At::root(new, "spec").get("scopes").immutable(errors, &At::root(old, "spec").get("scopes"));
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// Amounts without a domain that a quota may limit.
const STANDARD: [&str; 19] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// Those of them that count objects.
const COUNTS: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const COMPUTE: [&str; 6] =
    ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

fn hard(name: &str, amount: &At<'_>, errors: &mut Errors) {
    let at = amount.path().to_owned();
    for message in meta::names::qualified_name(name) {
        errors.push(FieldError::invalid(&at, &json!(name), message));
    }
    let pages = name.strip_prefix("requests.").unwrap_or(name).starts_with("hugepages-");
    if !name.contains('/') && !STANDARD.contains(&name) && !pages {
        errors.push(FieldError::invalid(&at, &json!(name), "must be a standard resource for quota"));
    }
    match crate::validate::quantity(amount.value()) {
        Some(quantity) if quantity < meta::Quantity::default() => {
            amount.invalid(errors, "must be greater than or equal to 0");
        }
        Some(quantity) if COUNTS.contains(&name) && quantity.milli_value() % 1000 != 0 => {
            amount.invalid(errors, "must be an integer");
        }
        Some(_) => {}
        None => amount.invalid(errors, "must be greater than or equal to 0"),
    }
}

/// Whether a quota with this scope may limit the amount; `None` for a scope that is not known.
fn fits(scope: &str, name: &str) -> Option<bool> {
    match scope {
        "BestEffort" => Some(name == "pods"),
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => Some(name == "pods" || COMPUTE.contains(&name)),
        "VolumeAttributesClass" => {
            let claims = matches!(name, "persistentvolumeclaims" | "requests.storage");
            Some(claims || name.contains(".storageclass.storage.k8s.io/"))
        }
        _ => None,
    }
}

fn scopes(spec: &At<'_>, errors: &mut Errors) {
    let list = spec.get("scopes");
    let expressions = spec.get("scopeSelector").get("matchExpressions");
    let named: Vec<&str> = list.items().map(|scope| scope.text()).collect();
    let selected: Vec<At<'_>> = expressions.items().map(|expression| expression.get("scopeName")).collect();
    for (place, scopes) in [(&list, named), (&expressions, selected.iter().map(At::text).collect::<Vec<_>>())]
    {
        for scope in &scopes {
            let mut unfit = false;
            for (name, _) in spec.get("hard").entries() {
                unfit |= fits(scope, name) == Some(false);
            }
            if fits(scope, "pods").is_none() {
                place.invalid(errors, "unsupported scope");
            } else if unfit {
                place.invalid(errors, "unsupported scope applied to resource");
            }
        }
        for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
            if pair.iter().all(|scope| scopes.contains(scope)) {
                place.invalid(errors, "conflicting scopes");
            }
        }
    }
    for expression in expressions.items() {
        let (scope, operator, values) =
            (expression.get("scopeName"), expression.get("operator"), expression.get("values"));
        let chooses = matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass");
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                let detail =
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                values.required(errors, detail);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail =
                    "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
                values.invalid(errors, detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator.invalid(errors, "not a valid selector operator"),
        }
        if !chooses && operator.text() != "Exists" {
            let detail = "must be 'Exist' only operator when scope is any of ResourceQuotaScopeTerminating, \
                          ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort and \
                          ResourceQuotaScopeNotBestEffort";
            operator.invalid(errors, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cx, object};

    fn check(spec: Value, expected: &[&str]) {
        let cx = Cx::new("resourcequotas", "");
        let seen = cx.errors(&ResourceQuota, &object(json!({"metadata": {"name": "q"}, "spec": spec})), None);
        assert_eq!(seen, expected, "{spec}");
    }

    #[test]
    fn amounts_and_scopes() {
        check(json!({"hard": {"pods": "2", "count/jobs.batch": "1", "requests.example.com/gpu": "1"}}), &[]);
        check(
            json!({"hard": {"apples": "2", "pods": "500m", "cpu": "-1"}}),
            &[
                "spec.hard[apples]: Invalid value: \"apples\": must be a standard resource for quota",
                "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.hard[pods]: Invalid value: \"500m\": must be an integer",
            ],
        );
        check(json!({"hard": {"pods": "2"}, "scopes": ["BestEffort"]}), &[]);
        check(
            json!({"hard": {"cpu": "2"}, "scopes": ["BestEffort", "NotBestEffort"]}),
            &[
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ],
        );
        let selector = |operator: &str, values: &[&str]| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        check(selector("In", &["high"]), &[]);
        check(
            selector("In", &[]),
            &[
                "spec.scopeSelector.matchExpressions[0].values: Required value: must be at least one value when \
               `operator` is 'In' or 'NotIn' for scope selector",
            ],
        );
    }
}
