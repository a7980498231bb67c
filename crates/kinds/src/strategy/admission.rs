//! Webhook configurations (`pkg/apis/admissionregistration/validation`). Whom they name is called by the
//! server.

use meta::{FieldError, FieldErrorKind, Object, names};
use resource::{Context, Strategy};
use schema::cel::{Expression, Names, Type};
use serde_json::json;

use crate::validate::{At, Errors, label_selector};

/// Match conditions of one webhook or policy, as upstream.
const CONDITIONS_MAX: usize = 64;

/// Names that a match condition may use.
pub(super) const MATCH_NAMES: &[&str] =
    &["object", "oldObject", "request", "authorizer", "authorizer.requestResource"];

/// Behaviour of `v1` MutatingWebhookConfiguration and ValidatingWebhookConfiguration.
pub(crate) struct Webhooks;

impl Strategy for Webhooks {
    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let before: Vec<&str> = old.map(expressions).unwrap_or_default();
        let mut seen: Vec<&str> = Vec::new();
        for webhook in At::root(new, "webhooks").items() {
            let name = webhook.get("name");
            qualified(&name, errors);
            if seen.contains(&name.text()) {
                name.duplicate(errors);
            }
            seen.push(name.text());
            one(&webhook, &before, errors);
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// Expressions of match conditions that are stored already: they are not compiled again (ratcheting).
fn expressions(old: &Object) -> Vec<&str> {
    let webhooks = old.list(&["webhooks"]).iter();
    let conditions = webhooks.filter_map(|webhook| webhook.get("matchConditions")?.as_array()).flatten();
    conditions.filter_map(|condition| condition.get("expression")?.as_str()).collect()
}

fn qualified(name: &At<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return name.required(errors, "");
    }
    name.all(errors, names::dns1123_subdomain);
    if name.text().split('.').count() < 3 {
        name.invalid(errors, "should be a domain with at least three segments separated by dots");
    }
}

fn one(webhook: &At<'_>, before: &[&str], errors: &mut Errors) {
    review_versions(&webhook.get("admissionReviewVersions"), errors);
    for rule in webhook.get("rules").items() {
        rule_with_operations(&rule, errors);
    }
    let effects = webhook.get("sideEffects");
    if effects.is_empty() {
        effects.required(errors, "must specify one of None, NoneOnDryRun");
    } else {
        effects.one_of(errors, &["None", "NoneOnDryRun"]);
    }
    choices(webhook, errors);
    if webhook.get("timeoutSeconds").int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        webhook.get("timeoutSeconds").invalid(errors, detail);
    }
    client_config(&webhook.get("clientConfig"), errors);
    match_conditions(&webhook.get("matchConditions"), MATCH_NAMES, before, errors);
}

/// Fields with a few words each, and selectors.
pub(super) fn choices(at: &At<'_>, errors: &mut Errors) {
    for (field, words) in [
        ("failurePolicy", &["Fail", "Ignore"][..]),
        ("matchPolicy", &["Equivalent", "Exact"]),
        ("reinvocationPolicy", &["IfNeeded", "Never"]),
    ] {
        if at.get(field).is_set() {
            at.get(field).one_of(errors, words);
        }
    }
    for field in ["namespaceSelector", "objectSelector"] {
        label_selector(&at.get(field), errors);
    }
}

fn review_versions(versions: &At<'_>, errors: &mut Errors) {
    const KNOWN: [&str; 2] = ["v1", "v1beta1"];
    if versions.is_empty() {
        return versions.required(errors, "must specify one of v1, v1beta1");
    }
    let mut seen = Vec::new();
    for version in versions.items() {
        version.all(errors, names::dns1035_label);
        if seen.contains(&version.text()) {
            version.invalid(errors, "duplicate version");
        }
        seen.push(version.text());
    }
    if !seen.iter().any(|version| KNOWN.contains(version)) {
        versions.invalid(errors, "must include at least one of v1, v1beta1");
    }
}

/// One `RuleWithOperations`.
pub(super) fn rule_with_operations(rule: &At<'_>, errors: &mut Errors) {
    let operations = rule.get("operations");
    if operations.is_empty() {
        operations.required(errors, "");
    }
    alone(&operations, "other operations", errors);
    for operation in operations.items() {
        operation.one_of(errors, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
    }
    for (field, what) in [("apiGroups", "other API groups"), ("apiVersions", "other API versions")] {
        let list = rule.get(field);
        if list.is_empty() {
            list.required(errors, "");
        }
        alone(&list, what, errors);
        if field == "apiVersions" {
            list.items().filter(At::is_empty).for_each(|version| version.required(errors, ""));
        }
    }
    resources(&rule.get("resources"), errors);
    if rule.get("scope").is_set() {
        rule.get("scope").one_of(errors, &["*", "Cluster", "Namespaced"]);
    }
}

fn alone(list: &At<'_>, what: &str, errors: &mut Errors) {
    if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        list.invalid(errors, format!("if '*' is present, must not specify {what}"));
    }
}

fn resources(list: &At<'_>, errors: &mut Errors) {
    if list.is_empty() {
        return list.required(errors, "");
    }
    let all: Vec<&str> = list.items().map(|item| item.text()).collect();
    if all.len() > 1 && all.contains(&"*/*") {
        list.invalid(errors, "if '*/*' is present, must not specify other resources");
    }
    if all.contains(&"*") && all.iter().any(|name| *name != "*" && !name.contains('/')) {
        list.invalid(errors, "if '*' is present, must not specify other resources without subresources");
    }
    for item in list.items() {
        let (resource, sub) = item.text().split_once('/').unwrap_or((item.text(), ""));
        if item.is_empty() {
            item.required(errors, "");
        } else if !sub.is_empty() && sub != "*" && all.contains(&format!("{resource}/*").as_str()) {
            let detail = format!("if '{resource}/*' is present, must not specify {}", item.text());
            item.invalid(errors, detail);
        } else if !sub.is_empty() && resource != "*" && all.contains(&format!("*/{sub}").as_str()) {
            let detail = format!("if '*/{sub}' is present, must not specify {}", item.text());
            item.invalid(errors, detail);
        }
    }
}

/// A `WebhookClientConfig`; also that of a conversion webhook.
pub(super) fn client_config(config: &At<'_>, errors: &mut Errors) {
    let (url, service) = (config.get("url"), config.get("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => webhook_url(&url, errors),
        (false, true) => {
            for field in ["name", "namespace"] {
                if service.get(field).is_empty() {
                    service.get(field).required(errors, &format!("service {field} is required"));
                }
            }
            service_path(&service.get("path"), errors);
            if service.get("port").int().is_some_and(|port| !(1..=65_535).contains(&port)) {
                let detail = "port is not valid: must be between 1 and 65535, inclusive";
                service.get("port").invalid(errors, detail);
            }
        }
        _ => config.required(errors, "exactly one of url or service is required"),
    }
}

fn webhook_url(url: &At<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some((scheme, rest)) = url.text().split_once("://") else {
        return url.required(errors, &format!("url must be a valid URL{FORM}"));
    };
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        url.invalid_as(errors, &json!(scheme), detail);
    }
    let (authority, _) = rest.split_once(['/', '?', '#']).unwrap_or((rest, ""));
    if authority.rsplit('@').next().is_none_or(str::is_empty) {
        url.invalid_as(errors, &json!(""), format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = authority.split_once('@') {
        url.invalid_as(errors, &json!(user), "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        url.invalid_as(errors, &json!(fragment), "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = rest.split_once('#').map_or(rest, |(path, _)| path).split_once('?') {
        url.invalid_as(errors, &json!(query), "query parameters are not permitted in the URL");
    }
}

fn service_path(path: &At<'_>, errors: &mut Errors) {
    let text = path.text();
    if matches!(text, "" | "/") {
        return;
    }
    if !text.starts_with('/') {
        return path.invalid(errors, "must start with a '/'");
    }
    let steps = text.trim_start_matches('/');
    for (at, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            path.invalid(errors, format!("segment[{at}] may not be empty"));
        }
        for message in if step.is_empty() { Vec::new() } else { names::dns1123_subdomain(step) } {
            path.invalid(errors, format!("segment[{at}]: {message}"));
        }
    }
}

/// Match conditions: named, few, and expressions over `names`.
pub(super) fn match_conditions(list: &At<'_>, names: &[&str], before: &[&str], errors: &mut Errors) {
    if list.len() > CONDITIONS_MAX {
        let detail = format!("must have at most {CONDITIONS_MAX} items");
        errors.push(FieldError::valued(FieldErrorKind::TooMany, list.path(), &json!(list.len()), detail));
    }
    let mut seen = Vec::new();
    for condition in list.items() {
        let name = condition.get("name");
        name.must(errors, self::names::qualified_name);
        if seen.contains(&name.text()) {
            name.duplicate(errors);
        }
        seen.push(name.text());
        expression(&condition.get("expression"), names, TRUTH, before, errors);
    }
}

/// What an expression has to give, and what errors call that; nothing for anything.
pub(super) type Gives = (&'static [Type], &'static str);

/// Whether something holds.
pub(super) const TRUTH: Gives = (&[Type::Bool], "bool");

/// A required expression over `names`. What it gives is refused where it is known to be something else.
pub(super) fn expression(
    at: &At<'_>,
    names: &[&str],
    (gives, called): Gives,
    before: &[&str],
    errors: &mut Errors,
) {
    if at.text().trim().is_empty() {
        return at.required(errors, "");
    }
    if before.contains(&at.text()) {
        return;
    }
    if let Err(error) = Expression::compile(at.text(), names) {
        return at.invalid(errors, error.to_string());
    }
    match Expression::check(at.text(), &Names::untyped(names)) {
        Err(issues) => at.invalid(errors, format!("compilation failed: {issues}")),
        Ok(Type::Dyn) => {}
        Ok(of) if gives.is_empty() || gives.contains(&of) => {}
        Ok(of) => at.invalid(errors, format!("must evaluate to {called} but got {of}")),
    }
}
