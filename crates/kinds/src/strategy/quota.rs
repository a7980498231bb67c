//! LimitRanges and ResourceQuotas as objects. What they do to other objects is admission's.

use meta::{Object, Value};
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
        for (_, amount) in At::root(new, "spec").get("hard").entries() {
            let negative =
                crate::validate::quantity(amount.value()).is_none_or(|q| q < meta::Quantity::default());
            if negative {
                amount.invalid(errors, "must be greater than or equal to 0");
            }
        }
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
