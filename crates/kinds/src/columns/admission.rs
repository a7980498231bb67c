//! Webhooks and policies.

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
