//! Label and node selectors, and labels inside a spec.

use meta::{FieldError, names};
use serde_json::json;

use super::{At, Errors};

/// A map of labels. Keys and values are both reported at the map itself, as upstream does.
pub(crate) fn labels(at: &At<'_>, errors: &mut Errors) {
    for (key, value) in at.entries() {
        label_key(key, at.path(), errors);
        for message in names::label_value(value.text()) {
            errors.push(FieldError::invalid(at.path(), value.value(), message));
        }
    }
}

fn label_key(key: &str, path: &str, errors: &mut Errors) {
    for message in names::qualified_name(key) {
        errors.push(FieldError::invalid(path, &json!(key), message));
    }
}

/// A `metav1.LabelSelector`.
pub(crate) fn label_selector(at: &At<'_>, errors: &mut Errors) {
    labels(&at.get("matchLabels"), errors);
    for requirement in at.get("matchExpressions").items() {
        let (operator, values) = (requirement.get("operator"), requirement.get("values"));
        membership(&operator, &values, errors);
        requirement.get("key").all(errors, names::qualified_name);
        for value in values.items() {
            value.all(errors, names::label_value);
        }
    }
}

fn membership(operator: &At<'_>, values: &At<'_>, errors: &mut Errors) {
    match operator.text() {
        "In" | "NotIn" => {
            if values.is_empty() {
                values.required(errors, "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                values.forbidden(errors, detail);
            }
        }
        other => {
            errors.push(FieldError::invalid(operator.path(), &json!(other), "not a valid selector operator"));
        }
    }
}

/// A `core/v1.NodeSelector`: at least one term, each well formed.
pub(crate) fn node_selector(at: &At<'_>, errors: &mut Errors) {
    let terms = at.get("nodeSelectorTerms");
    if terms.is_empty() {
        terms.required(errors, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_selector_term(&term, errors);
    }
}

/// One term of a node selector.
pub(crate) fn node_selector_term(term: &At<'_>, errors: &mut Errors) {
    for requirement in term.get("matchExpressions").items() {
        let (operator, values) = (requirement.get("operator"), requirement.get("values"));
        if matches!(operator.text(), "Gt" | "Lt") {
            if values.len() != 1 {
                values.required(errors, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
        } else {
            membership(&operator, &values, errors);
        }
        requirement.get("key").all(errors, names::qualified_name);
    }
    for requirement in term.get("matchFields").items() {
        let (key, operator, values) =
            (requirement.get("key"), requirement.get("operator"), requirement.get("values"));
        if !matches!(operator.text(), "In" | "NotIn") {
            operator.invalid(errors, "not a valid selector operator");
        } else if values.len() != 1 {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            values.required(errors, detail);
        }
        if key.text() == "metadata.name" {
            for value in values.items() {
                value.all(errors, names::dns1123_subdomain);
            }
        } else {
            key.invalid(errors, "not a valid field selector key");
        }
    }
}
