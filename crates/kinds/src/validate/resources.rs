//! Amounts of resources: requests, limits, capacities.

use meta::{FieldError, Quantity, Value, names};
use serde_json::json;

use super::{At, Errors};

const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage", "storage", "requests.storage", "pods"];

/// The quantity in a string or number; `None` when it is neither well formed.
pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Requests and limits of a container or pod: names are known or qualified, amounts are not negative,
/// requests are not above limits, and what cannot be overcommitted is equal.
pub(crate) fn requirements(at: &At<'_>, errors: &mut Errors) {
    let (limits, requests) = (at.get("limits"), at.get("requests"));
    resource_list(&limits, errors);
    for (name, request) in requests.entries() {
        amount(name, &request, errors);
        let limit = limits.value().get(name);
        let (Some(asked), allowed) = (quantity(request.value()), limit.and_then(quantity)) else { continue };
        match allowed {
            Some(allowed) if is_extended(name) && asked != allowed => {
                let detail = format!("must be equal to {name} limit of {}", plain(limit));
                requests.invalid_as(errors, request.value(), detail);
            }
            Some(allowed) if asked > allowed => {
                let detail = format!("must be less than or equal to {name} limit of {}", plain(limit));
                requests.invalid_as(errors, request.value(), detail);
            }
            None if is_extended(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(limits.path(), detail));
            }
            _ => {}
        }
    }
}

fn plain(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// A map of resource names to amounts.
pub(crate) fn resource_list(at: &At<'_>, errors: &mut Errors) {
    for (name, value) in at.entries() {
        amount(name, &value, errors);
    }
}

fn amount(name: &str, at: &At<'_>, errors: &mut Errors) {
    resource_name(name, at, errors);
    let Some(quantity) = quantity(at.value()) else {
        let words = at.text().parse::<Quantity>().err().map_or_else(String::new, |e| e.to_string());
        at.invalid(errors, words);
        return;
    };
    if quantity < Quantity::default() {
        at.invalid(errors, "must be greater than or equal to 0");
    }
    if (name == "pods" || is_extended(name)) && quantity.milli_value() % 1000 != 0 {
        at.invalid(errors, "must be an integer");
    }
}

fn resource_name(name: &str, at: &At<'_>, errors: &mut Errors) {
    let messages = names::qualified_name(name);
    let wrong = !messages.is_empty();
    for message in messages {
        errors.push(FieldError::invalid(at.path(), &json!(name), message));
    }
    let standard = STANDARD.contains(&name) || name.starts_with("hugepages-");
    if !wrong && !name.contains('/') && !standard {
        let detail = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(at.path(), &json!(name), detail));
    }
}

/// Whether it is countable and cannot be overcommitted: huge pages, and names of other domains.
fn is_extended(name: &str) -> bool {
    name.starts_with("hugepages-") || name.split_once('/').is_some_and(|(d, _)| !d.ends_with("kubernetes.io"))
}

/// The storage that a claim asks for is there and more than zero.
pub(crate) fn storage_request(resources: &At<'_>, errors: &mut Errors) {
    // Upstream leaves `requests` out of the path.
    let storage = resources.get("requests").key("storage").named(&format!("{}[storage]", resources.path()));
    match quantity(storage.value()) {
        _ if !storage.is_set() => storage.required(errors, ""),
        Some(amount) if amount <= Quantity::default() => storage.invalid(errors, "must be greater than zero"),
        Some(_) => {}
        None => storage.invalid(errors, "must be a valid resource quantity"),
    }
}
