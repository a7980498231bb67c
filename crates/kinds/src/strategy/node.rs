//! Nodes.

use std::collections::BTreeSet;

use meta::{FieldError, Object, Value, names};
use resource::{Context, Strategy};
use serde_json::json;

use crate::validate::{At, Errors, cidr, resource_list};

/// Behaviour of `v1` Node.
pub(crate) struct Node;

impl Strategy for Node {
    fn default(&self, object: &mut Object) {
        let capacity = object.get(&["status", "capacity"]).filter(|c| c.is_object()).cloned();
        if let Some(capacity) = capacity {
            object.set_default(&["status", "allocatable"], capacity);
        }
        // One address range is the first of many.
        let one = object.str(&["spec", "podCIDR"]).filter(|text| !text.is_empty()).map(str::to_owned);
        if let Some(one) = one {
            object.set_default(&["spec", "podCIDRs"], json!([one]));
        }
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let (spec, status) = (At::root(new, "spec"), At::root(new, "status"));
        taints(&spec.get("taints"), errors);
        for range in spec.get("podCIDRs").items() {
            range.all(errors, cidr);
        }
        resource_list(&status.get("capacity"), errors);
        resource_list(&status.get("allocatable"), errors);
        let mut seen = BTreeSet::new();
        for address in status.get("addresses").items() {
            if !seen.insert(address.value().to_string()) {
                address.duplicate(errors);
            }
        }
        let Some(old) = old else { return };
        if cx.attributes.subresource == "status" {
            return;
        }
        let had = |field: &str| {
            old.get(&["spec", field]).filter(|v| !v.is_null() && **v != json!("") && **v != json!([]))
        };
        for field in ["podCIDRs", "providerID"] {
            let at = spec.get(field);
            if had(field).is_some_and(|had| had != at.value()) {
                let detail = if field == "podCIDRs" {
                    "node updates may not change podCIDR except from \"\" to valid"
                } else {
                    "node updates may not change providerID except from \"\" to valid"
                };
                at.forbidden(errors, detail);
            }
        }
    }

    fn keeps_status_on_create(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn taints(at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for taint in at.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        key.all(errors, names::qualified_name);
        let messages = names::label_value(value.text());
        if !messages.is_empty() {
            value.invalid(errors, messages.join(";"));
        }
        if effect.is_empty() {
            effect.required(errors, "");
        }
        if !seen.insert((key.text(), effect.text())) {
            let mut error = FieldError::duplicate(taint.path(), &Value::from(taint.value().to_string()));
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}
