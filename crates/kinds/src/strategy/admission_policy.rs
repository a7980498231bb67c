//! Admission policies and their bindings (`pkg/apis/admissionregistration/validation`).

use meta::{FieldError, FieldErrorKind, Object, names};
use resource::{Context, Strategy};
use schema::cel::Type;
use serde_json::json;

use super::admission::{Gives, TRUTH, choices, expression, match_conditions, rule_with_operations};
use crate::validate::{At, Errors, label_selector};

/// Bytes of a message or audit annotation's expression, as upstream.
const EXPRESSION_MAX: usize = 5 * 1024;

/// What other expressions than those of validations give, as upstream.
const ANYTHING: Gives = (&[], "");
const TEXT: Gives = (&[Type::String], "string");
const NOTE: Gives = (&[Type::String, Type::Null], "one of [string null_type]");

/// Behaviour of `v1` ValidatingAdmissionPolicy and MutatingAdmissionPolicy.
pub(crate) struct Policy {
    pub(crate) mutating: bool,
}

impl Strategy for Policy {
    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let before = old.map(expressions).unwrap_or_default();
        let before: Vec<&str> = before.iter().map(String::as_str).collect();
        let spec = At::root(new, "spec");
        let mut names = vec![
            "object",
            "oldObject",
            "request",
            "namespaceObject",
            "authorizer",
            "authorizer.requestResource",
        ];
        if spec.get("paramKind").is_set() {
            param_kind(&spec.get("paramKind"), errors);
            names.push("params");
        }
        choices(&spec, errors);
        let constraints = spec.get("matchConstraints");
        if constraints.is_set() {
            match_resources(&constraints, errors);
            if constraints.get("resourceRules").is_empty() {
                constraints.get("resourceRules").required(errors, "");
            }
        } else {
            constraints.required(errors, "");
        }
        match_conditions(&spec.get("matchConditions"), &names, &before, errors);
        let declared: Vec<String> = spec
            .get("variables")
            .items()
            .map(|variable| format!("variables.{}", variable.get("name").text()))
            .collect();
        variables(&spec.get("variables"), &names, &declared, &before, errors);
        names.extend(declared.iter().map(String::as_str));
        if self.mutating {
            mutations(&spec, &names, &before, errors);
        } else {
            validations(&spec, &names, &before, errors);
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// Every expression of a stored policy: they are not compiled again.
fn expressions(old: &Object) -> Vec<String> {
    fn collect(value: &meta::Value, found: &mut Vec<String>) {
        match value {
            meta::Value::String(text) => found.push(text.clone()),
            meta::Value::Array(list) => list.iter().for_each(|item| collect(item, found)),
            meta::Value::Object(map) => map.values().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Some(spec) = old.get(&["spec"]) {
        collect(spec, &mut found);
    }
    found
}

fn param_kind(at: &At<'_>, errors: &mut Errors) {
    let version = at.get("apiVersion");
    if version.is_empty() {
        version.required(errors, "");
    } else if version.text().split('/').count() > 2 {
        version.invalid(errors, format!("unexpected GroupVersion string: {}", version.text()));
    }
    if at.get("kind").is_empty() {
        at.get("kind").required(errors, "");
    }
}

fn match_resources(at: &At<'_>, errors: &mut Errors) {
    choices(at, errors);
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in at.get(field).items() {
            rule_with_operations(&rule, errors);
        }
    }
}

fn variables(list: &At<'_>, names: &[&str], declared: &[String], before: &[&str], errors: &mut Errors) {
    for (at, variable) in list.items().enumerate() {
        let name = variable.get("name");
        let identifier = |text: &str| {
            let mut bytes = text.bytes();
            bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if name.is_empty() {
            name.required(errors, "name is not specified");
        } else if !identifier(name.text()) {
            name.invalid(errors, "name is not a valid CEL identifier");
        }
        let earlier = declared.get(..at).unwrap_or_default();
        if earlier.contains(&format!("variables.{}", name.text())) {
            name.duplicate(errors);
        }
        let known: Vec<&str> = names.iter().copied().chain(earlier.iter().map(String::as_str)).collect();
        if variable.get("expression").is_empty() {
            variable.get("expression").required(errors, "expression is not specified");
        } else {
            expression(&variable.get("expression"), &known, ANYTHING, before, errors);
        }
    }
}

fn validations(spec: &At<'_>, names: &[&str], before: &[&str], errors: &mut Errors) {
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        validations.required(errors, detail);
        annotations.required(errors, detail);
    }
    for validation in validations.items() {
        let (text, message) = (validation.get("expression"), validation.get("message"));
        if text.text().trim().is_empty() {
            text.required(errors, "expression is not specified");
        } else {
            expression(&text, names, TRUTH, before, errors);
        }
        if message.is_set() && message.text().trim().is_empty() {
            message.invalid(errors, "message must be non-empty if specified");
        } else if message.text().contains(['\n', '\r']) {
            message.invalid(errors, "message must not contain line breaks");
        } else if message.is_empty() && text.text().trim().contains(['\n', '\r']) {
            message.required(errors, "message must be specified if expression contains line breaks");
        }
        let computed = validation.get("messageExpression");
        if computed.is_set() && !computed.text().is_empty() {
            let names: Vec<&str> =
                names.iter().copied().filter(|name| !name.starts_with("authorizer.")).collect();
            expression(&computed, &names, TEXT, before, errors);
        }
        if validation.get("reason").is_set() {
            let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
            validation.get("reason").one_of(errors, &reasons);
        }
    }
    let mut seen = Vec::new();
    for annotation in annotations.items() {
        let (key, value) = (annotation.get("key"), annotation.get("valueExpression"));
        key.must(errors, names::qualified_name);
        if seen.contains(&key.text()) {
            key.duplicate(errors);
        }
        seen.push(key.text());
        if value.text().len() > EXPRESSION_MAX {
            let detail = format!("must not exceed {EXPRESSION_MAX} bytes in length");
            errors.push(FieldError {
                kind: FieldErrorKind::TooLong,
                field: value.path().to_owned(),
                value: None,
                detail,
            });
        } else if value.text().trim().is_empty() {
            value.required(errors, "valueExpression is not specified");
        } else {
            expression(&value, names, NOTE, before, errors);
        }
    }
}

fn mutations(spec: &At<'_>, names: &[&str], before: &[&str], errors: &mut Errors) {
    let list = spec.get("mutations");
    if list.is_empty() {
        list.required(errors, "mutations must contain at least one item");
    }
    if spec.get("reinvocationPolicy").is_empty() {
        spec.get("reinvocationPolicy").required(errors, "");
    }
    for mutation in list.items() {
        let kind = mutation.get("patchType");
        let (wanted, other, made) = match kind.text() {
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", "Object"),
            "JSONPatch" => ("jsonPatch", "applyConfiguration", "JSONPatch"),
            "" => {
                kind.required(errors, "");
                continue;
            }
            _ => {
                kind.one_of(errors, &["ApplyConfiguration", "JSONPatch"]);
                continue;
            }
        };
        if mutation.get(other).is_set() {
            mutation
                .get(other)
                .forbidden(errors, format!("must not be set when patchType is {}", kind.text()));
        }
        if !mutation.get(wanted).is_set() {
            mutation
                .get(wanted)
                .required(errors, &format!("must be specified when patchType is {}", kind.text()));
            continue;
        }
        let names: Vec<&str> = names.iter().copied().chain([made]).collect();
        expression(&mutation.get(wanted).get("expression"), &names, ANYTHING, before, errors);
    }
}

/// Behaviour of `v1` ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding.
pub(crate) struct PolicyBinding {
    pub(crate) mutating: bool,
}

impl Strategy for PolicyBinding {
    fn validate(&self, _: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        let spec = At::root(new, "spec");
        spec.get("policyName").must(errors, names::dns1123_subdomain);
        if spec.get("paramRef").is_set() {
            param_ref(&spec.get("paramRef"), errors);
        }
        if spec.get("matchResources").is_set() {
            match_resources(&spec.get("matchResources"), errors);
        }
        let actions = spec.get("validationActions");
        if self.mutating {
            return;
        }
        if actions.is_empty() {
            actions.required(errors, "");
        }
        let mut seen = Vec::new();
        for action in actions.items() {
            action.one_of(errors, &["Audit", "Deny", "Warn"]);
            if seen.contains(&action.text()) {
                action.duplicate(errors);
            }
            seen.push(action.text());
        }
        if seen.contains(&"Deny") && seen.contains(&"Warn") {
            let detail = "must not contain both Deny and Warn (repeating the same validation failure information \
                          in the API response and headers serves no purpose)";
            actions.invalid(errors, detail);
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn param_ref(at: &At<'_>, errors: &mut Errors) {
    let (name, selector, action) = (at.get("name"), at.get("selector"), at.get("parameterNotFoundAction"));
    match (!name.is_empty(), selector.is_set()) {
        (true, true) => {
            for field in [&name, &selector] {
                field.forbidden(errors, "name and selector are mutually exclusive");
            }
        }
        (true, false) => name.all(errors, names::path_segment),
        (false, true) => label_selector(&selector, errors),
        (false, false) => at.required(errors, "one of name or selector must be specified"),
    }
    if action.is_empty() {
        action.required(errors, "");
    } else if !matches!(action.text(), "Allow" | "Deny") {
        let value = json!(action.text());
        errors.push(FieldError::not_supported(action.path(), &value, &["Deny", "Allow"]));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::{Cx, object};

    /// A policy that matches pods, with these parts; what is wrong with it, without its expressions.
    fn check(parts: Value, old: Option<Value>, expected: &[&str]) {
        let rule =
            json!({"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        let policy = |parts: Value| {
            let mut spec = json!({"matchConstraints": {"resourceRules": [rule]}, "failurePolicy": "Fail"});
            spec.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
            object(json!({"metadata": {"name": "p"}, "spec": spec}))
        };
        let mut errors = Errors::new();
        let cx = Cx::new("validatingadmissionpolicies", "");
        let (new, old) = (policy(parts), old.map(policy));
        Policy { mutating: false }.validate(&cx.context(), &new, old.as_ref(), &mut errors);
        let short = |error: &FieldError| {
            let first = error.detail.lines().next().unwrap_or_default();
            format!("{}: {first}", error.field)
        };
        assert_eq!(errors.iter().map(short).collect::<Vec<_>>(), expected, "{new:?}");
    }

    #[test]
    fn expressions_that_can_only_fail_are_refused() {
        let validation = |text: &str| json!({"validations": [{"expression": text}]});
        for right in
            ["object.a > 1", "object.a", "authorizer.group('').resource('pods').check('get').allowed()"]
        {
            check(validation(right), None, &[]);
        }
        let place = "spec.validations[0].expression: ";
        for (wrong, why) in [
            (
                "'a' + 1 == 'b'",
                "compilation failed: ERROR: <input>:1:5: found no matching overload for '_+_' applied to '(string, int)'",
            ),
            (
                "nope(object)",
                "compilation failed: ERROR: <input>:1:5: undeclared reference to 'nope' (in container '')",
            ),
            (
                "authorizer.allowed()",
                "compilation failed: ERROR: <input>:1:19: found no matching overload for 'allowed' applied to \
                 'kubernetes.authorization.Authorizer.()'",
            ),
            ("'a'", "must evaluate to bool but got string"),
        ] {
            check(validation(wrong), None, &[&format!("{place}{why}")]);
            check(validation(wrong), Some(validation(wrong)), &[]);
        }
        check(
            json!({
                "variables": [{"name": "a", "expression": "1"}],
                "matchConditions": [{"name": "c", "expression": "1"}],
                "validations": [{"expression": "variables.a == 1", "messageExpression": "1"}],
                "auditAnnotations": [{"key": "a", "valueExpression": "true"}, {"key": "b", "valueExpression": "null"}],
            }),
            None,
            &[
                "spec.matchConditions[0].expression: must evaluate to bool but got int",
                "spec.validations[0].messageExpression: must evaluate to string but got int",
                "spec.auditAnnotations[0].valueExpression: must evaluate to one of [string null_type] but got bool",
            ],
        );
    }
}
