//! Policies and bindings, compiled.

use meta::{LabelSelector, Object, Value};
use schema::cel::{Expression, ExpressionError};

use super::super::matching::Matcher;
use crate::conditions::Conditions;

/// An expression, or why it cannot be used; what was stored earlier may not compile any more.
pub(super) type Compiled = Result<Expression, ExpressionError>;

/// A policy of either kind.
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) matcher: Matcher,
    pub(super) conditions: Conditions,
    /// By name in full (`variables.x`).
    pub(super) variables: Vec<(String, Compiled)>,
    pub(super) ignores_failure: bool,
    /// Group, version, kind.
    pub(super) param_kind: Option<(String, String, String)>,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<(String, Compiled)>,
    pub(super) mutations: Vec<Mutation>,
    pub(super) reinvoked: bool,
}

pub(super) struct Validation {
    pub(super) expression: Compiled,
    pub(super) source: String,
    pub(super) message: String,
    pub(super) message_expression: Option<Compiled>,
    pub(super) reason: String,
}

pub(super) struct Mutation {
    pub(super) expression: Compiled,
    /// Merged as by server-side apply; otherwise a JSON patch.
    pub(super) applies: bool,
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

impl Policy {
    pub(super) fn read(object: &Object) -> Self {
        let nothing = Value::Null;
        let spec = object.get(&["spec"]).unwrap_or(&nothing);
        let mut names = vec![
            "object".to_owned(),
            "oldObject".to_owned(),
            "request".to_owned(),
            "namespaceObject".to_owned(),
            "params".to_owned(),
            "authorizer".to_owned(),
            "authorizer.requestResource".to_owned(),
        ];
        let compile = |source: &str, names: &[String], more: &[&str]| {
            let names: Vec<&str> = names.iter().map(String::as_str).chain(more.iter().copied()).collect();
            Expression::compile(source, &names)
        };
        let conditions = {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Conditions::read(spec, &names)
        };
        let mut variables = Vec::new();
        for variable in items(spec, "variables") {
            let name = format!("variables.{}", text(variable, "name"));
            variables.push((name.clone(), compile(text(variable, "expression"), &names, &[])));
            names.push(name);
        }
        let param_kind = spec.get("paramKind").filter(|kind| kind.is_object()).map(|kind| {
            let version = text(kind, "apiVersion");
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            (group.to_owned(), version.to_owned(), text(kind, "kind").to_owned())
        });
        let validation = |value: &Value| Validation {
            expression: compile(text(value, "expression"), &names, &[]),
            source: text(value, "expression").trim().to_owned(),
            message: text(value, "message").trim().to_owned(),
            message_expression: Some(text(value, "messageExpression"))
                .filter(|source| !source.trim().is_empty())
                .map(|source| compile(source, &names, &[])),
            reason: text(value, "reason").to_owned(),
        };
        let mutation = |value: &Value| {
            let applies = text(value, "patchType") == "ApplyConfiguration";
            let (field, made) =
                if applies { ("applyConfiguration", "Object") } else { ("jsonPatch", "JSONPatch") };
            let source = value.get(field).map(|of| text(of, "expression")).unwrap_or_default();
            Mutation { expression: compile(source, &names, &[made]), applies }
        };
        let annotation = |value: &Value| {
            (text(value, "key").to_owned(), compile(text(value, "valueExpression"), &names, &[]))
        };
        Self {
            name: object.name().to_owned(),
            matcher: Matcher::read(spec.get("matchConstraints").unwrap_or(&nothing), "resourceRules"),
            conditions,
            ignores_failure: text(spec, "failurePolicy") == "Ignore",
            param_kind,
            validations: items(spec, "validations").iter().map(validation).collect(),
            annotations: items(spec, "auditAnnotations").iter().map(annotation).collect(),
            mutations: items(spec, "mutations").iter().map(mutation).collect(),
            reinvoked: text(spec, "reinvocationPolicy") == "IfNeeded",
            variables,
        }
    }
}

/// A binding of either kind.
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    pub(super) matcher: Option<Matcher>,
    pub(super) param: Option<ParamRef>,
    pub(super) denies: bool,
    pub(super) warns: bool,
    pub(super) audits: bool,
    /// As written, for audit.
    pub(super) actions: Vec<String>,
}

pub(super) struct ParamRef {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) selector: Option<LabelSelector>,
    pub(super) denies_absence: bool,
}

impl Binding {
    pub(super) fn read(object: &Object) -> Self {
        let nothing = Value::Null;
        let spec = object.get(&["spec"]).unwrap_or(&nothing);
        let actions: Vec<String> =
            items(spec, "validationActions").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let has = |action: &str| actions.iter().any(|given| given == action);
        let param = spec.get("paramRef").filter(|param| param.is_object()).map(|param| ParamRef {
            name: text(param, "name").to_owned(),
            namespace: text(param, "namespace").to_owned(),
            selector: param.get("selector").filter(|selector| selector.is_object()).map(|selector| {
                LabelSelector::from_value(selector).unwrap_or_else(|_| LabelSelector::nothing())
            }),
            denies_absence: text(param, "parameterNotFoundAction") == "Deny",
        });
        Self {
            name: object.name().to_owned(),
            policy: text(spec, "policyName").to_owned(),
            matcher: spec
                .get("matchResources")
                .filter(|resources| resources.is_object())
                .map(|resources| Matcher::read(resources, "resourceRules")),
            param,
            denies: has("Deny"),
            warns: has("Warn"),
            audits: has("Audit"),
            actions,
        }
    }
}
