//! Webhooks, policies, and other API servers.

use meta::{Object, Timestamp, Value};

use super::{AGE, Col};

fn count(object: &Object, path: &[&str]) -> Value {
    object.list(path).len().into()
}

fn params(object: &Object, _: Timestamp) -> Value {
    let text = |field| object.str(&["spec", "paramKind", field]).unwrap_or_default();
    match object.get(&["spec", "paramKind"]) {
        Some(_) => format!("{}/{}", text("apiVersion"), text("kind")).into(),
        None => "<unset>".into(),
    }
}

/// Columns of both webhook configurations.
pub(crate) const WEBHOOKS: &[Col] = &[Col::int("Webhooks", |o, _| count(o, &["webhooks"])), AGE];

/// Columns of a ValidatingAdmissionPolicy.
pub(crate) const VALIDATING_POLICY: &[Col] = &[
    Col::int("Validations", |o, _| count(o, &["spec", "validations"])),
    Col::text("ParamKind", params),
    AGE,
];

/// Columns of a MutatingAdmissionPolicy.
pub(crate) const MUTATING_POLICY: &[Col] =
    &[Col::int("Mutations", |o, _| count(o, &["spec", "mutations"])), Col::text("ParamKind", params), AGE];

/// Columns of an APIService.
pub(crate) const API_SERVICE: &[Col] = &[
    Col::text("Service", |o, _| {
        let text = |field| o.str(&["spec", "service", field]).unwrap_or_default();
        match o.get(&["spec", "service"]) {
            None | Some(Value::Null) => "Local".into(),
            Some(_) => format!("{}/{}", text("namespace"), text("name")).into(),
        }
    }),
    Col::text("Available", |o, _| {
        let condition = meta::find_condition(o, "Available");
        let text =
            |field: &str| condition.and_then(|c| c.get(field)).and_then(Value::as_str).unwrap_or_default();
        match (text("status"), text("reason")) {
            ("", _) => "Unknown".into(),
            (status @ "True", _) | (status, "") => status.into(),
            (status, reason) => format!("{status} ({reason})").into(),
        }
    }),
    AGE,
];

/// Columns of a binding of either.
pub(crate) const POLICY_BINDING: &[Col] = &[
    Col::text_at("PolicyName", "spec.policyName", ""),
    Col::text("ParamRef", |o, _| {
        let text = |field| o.str(&["spec", "paramRef", field]).unwrap_or_default();
        match (o.get(&["spec", "paramRef"]), text("name"), text("namespace")) {
            (None, _, _) => "<unset>".into(),
            (_, "", _) => "<selector>".into(),
            (_, name, "") => name.into(),
            (_, name, namespace) => format!("{namespace}/{name}").into(),
        }
    }),
    AGE,
];
