//! The warnings of one policy, in upstream's form: `GROUP/VERSION, Kind=KIND: ERROR: <input>:1:7: undefined field ...`.
//!
//! Upstream looks at validations and their messages; here variables, match conditions and audit annotations are looked
//! at too, after those.

use k8s_openapi::api::admissionregistration::v1::{ExpressionWarning, ValidatingAdmissionPolicy, Variable};
use schema::cel::{Expression, Names, Type};

use super::types::Types;

/// One expression of a policy.
struct Part<'p> {
    field: String,
    source: &'p str,
    /// Which of the variables it may use: match conditions none, a variable those before it.
    variables: usize,
}

/// What is wrong with each expression, for each kind.
pub(super) fn warnings(policy: &ValidatingAdmissionPolicy, types: &Types) -> Vec<ExpressionWarning> {
    let spec = policy.spec.as_ref();
    let variables = spec.and_then(|spec| spec.variables.as_deref()).unwrap_or_default();
    let has_params = spec.is_some_and(|spec| spec.param_kind.is_some());
    let mut found: Vec<(String, Vec<String>)> =
        parts(policy).into_iter().map(|part| (part.field, Vec::new())).collect();
    for ((group, version, kind), schema) in &types.matched {
        let mut names = names(Type::plain(schema, kind));
        if has_params {
            let params = types.params.as_ref().map(|schema| Type::plain(schema, "params"));
            names.declare("params", params.unwrap_or(Type::Dyn));
        }
        let scopes = scopes(&names, variables);
        for (part, (_, found)) in parts(policy).iter().zip(&mut found) {
            let names = scopes.get(part.variables).unwrap_or(&names);
            if let Err(issues) = Expression::check(part.source, names) {
                found.push(format!("{group}/{version}, Kind={kind}: {issues}\n"));
            }
        }
    }
    let found = found.into_iter().filter(|(_, found)| !found.is_empty());
    found.map(|(field_ref, found)| ExpressionWarning { field_ref, warning: found.join("\n") }).collect()
}

fn parts(policy: &ValidatingAdmissionPolicy) -> Vec<Part<'_>> {
    let Some(spec) = &policy.spec else { return Vec::new() };
    let variables = spec.variables.as_deref().unwrap_or_default();
    let all = variables.len();
    let part = |field: String, source, variables| Part { field, source, variables };
    let mut parts = Vec::new();
    for (at, validation) in spec.validations.iter().flatten().enumerate() {
        let field = format!("spec.validations[{at}]");
        parts.push(part(format!("{field}.expression"), &*validation.expression, all));
        if let Some(message) = validation.message_expression.as_deref().filter(|message| !message.is_empty())
        {
            parts.push(part(format!("{field}.messageExpression"), message, all));
        }
    }
    for (at, variable) in variables.iter().enumerate() {
        parts.push(part(format!("spec.variables[{at}].expression"), &variable.expression, at));
    }
    for (at, condition) in spec.match_conditions.iter().flatten().enumerate() {
        parts.push(part(format!("spec.matchConditions[{at}].expression"), &condition.expression, 0));
    }
    for (at, annotation) in spec.audit_annotations.iter().flatten().enumerate() {
        let field = format!("spec.auditAnnotations[{at}].valueExpression");
        parts.push(part(field, &annotation.value_expression, all));
    }
    parts
}

/// The names with none of the variables, with the first, with the first two, ...
fn scopes(names: &Names, variables: &[Variable]) -> Vec<Names> {
    let mut known: Vec<(String, Type)> = Vec::new();
    let with = |known: &[(String, Type)]| {
        let mut names = names.clone();
        names.declare("variables", Type::record("kubernetes.variables", known.iter().cloned()));
        names
    };
    let mut scopes = vec![with(&known)];
    for variable in variables {
        let of = scopes.last().map(|names| Expression::check(&variable.expression, names));
        // What is wrong with a variable is said of it, not of what uses it.
        known.push((variable.name.clone(), of.and_then(Result::ok).unwrap_or(Type::Dyn)));
        scopes.push(with(&known));
    }
    scopes
}

/// What every expression of a policy may name (upstream `apiserver/pkg/admission/plugin/cel/compile.go`).
fn names(object: Type) -> Names {
    let text = |name: &'static str| (name, Type::String);
    let of_kind = || Type::record("kubernetes.GroupVersionKind", ["group", "version", "kind"].map(text));
    let of_resource =
        || Type::record("kubernetes.GroupVersionResource", ["group", "version", "resource"].map(text));
    let user = Type::record(
        "kubernetes.UserInfo",
        [
            text("username"),
            text("uid"),
            ("groups", Type::list(Type::String)),
            ("extra", Type::map(Type::list(Type::String))),
        ],
    );
    let request = Type::record(
        "kubernetes.AdmissionRequest",
        [
            ("kind", of_kind()),
            ("resource", of_resource()),
            text("subResource"),
            ("requestKind", of_kind()),
            ("requestResource", of_resource()),
            text("requestSubResource"),
            text("name"),
            text("namespace"),
            text("operation"),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    );
    let metadata = Type::record(
        "kubernetes.NamespaceMetadata",
        [
            text("name"),
            text("generateName"),
            text("namespace"),
            ("labels", Type::map(Type::String)),
            ("annotations", Type::map(Type::String)),
            text("UID"),
            text("uid"),
            ("creationTimestamp", Type::Dyn),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Dyn),
            ("generation", Type::Int),
            text("resourceVersion"),
            ("finalizers", Type::list(Type::String)),
        ],
    );
    let namespace = Type::record(
        "kubernetes.Namespace",
        [
            ("metadata", metadata),
            ("spec", Type::record("kubernetes.NamespaceSpec", [("finalizers", Type::list(Type::String))])),
            ("status", Type::record("kubernetes.NamespaceStatus", [text("phase")])),
        ],
    );
    let mut names = Names::untyped(&["authorizer", "authorizer.requestResource"]);
    names.declare("object", object.clone());
    names.declare("oldObject", object);
    names.declare("request", request);
    names.declare("namespaceObject", namespace);
    names
}
