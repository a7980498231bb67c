//! Roles and their bindings. Whether somebody may grant what they do not have is the authorizer's matter.

use meta::{FieldError, Object, names};
use resource::{Context, Strategy};
use serde_json::json;

use super::maps_mut;
use crate::validate::{At, Errors, label_selector};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Behaviour of Role and ClusterRole.
pub(crate) struct Role {
    pub(crate) namespaced: bool,
}

impl Strategy for Role {
    fn validate(&self, _: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        for rule in At::root(new, "rules").items() {
            policy_rule(&rule, self.namespaced, errors);
        }
        let aggregation = At::root(new, "aggregationRule");
        if aggregation.is_set() {
            let selectors = aggregation.get("clusterRoleSelectors");
            if selectors.is_empty() {
                let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                selectors.required(errors, detail);
            }
            for selector in selectors.items() {
                label_selector(&selector, errors);
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
        super::segment(name)
    }
}

fn policy_rule(rule: &At<'_>, namespaced: bool, errors: &mut Errors) {
    if rule.get("verbs").is_empty() {
        rule.get("verbs").required(errors, "verbs must contain at least one value");
    }
    let urls = rule.get("nonResourceURLs");
    let of_resources = ["apiGroups", "resources", "resourceNames"];
    if !urls.is_empty() {
        if namespaced {
            urls.invalid(errors, "namespaced rules cannot apply to non-resource URLs");
        }
        if of_resources.iter().any(|field| !rule.get(field).is_empty()) {
            urls.invalid(errors, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if rule.get("apiGroups").is_empty() {
        rule.get("apiGroups").required(errors, "resource rules must supply at least one api group");
    }
    if rule.get("resources").is_empty() {
        rule.get("resources").required(errors, "resource rules must supply at least one resource");
    }
}

/// Behaviour of RoleBinding and ClusterRoleBinding.
pub(crate) struct Binding {
    pub(crate) namespaced: bool,
}

impl Strategy for Binding {
    fn default(&self, object: &mut Object) {
        for subject in maps_mut(object, &["subjects"]) {
            let unset = subject.get("apiGroup").is_none_or(|group| group.is_null() || *group == json!(""));
            match subject.get("kind").and_then(|kind| kind.as_str()) {
                Some("User" | "Group") if unset => {
                    subject.insert("apiGroup".to_owned(), json!(GROUP));
                }
                _ if unset => {
                    subject.remove("apiGroup");
                }
                _ => {}
            }
        }
    }

    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let role = At::root(new, "roleRef");
        role.get("apiGroup").one_of(errors, &[GROUP]);
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        role.get("kind").one_of(errors, kinds);
        role.get("name").must(errors, names::path_segment);
        for subject in At::root(new, "subjects").items() {
            self.subject(&subject, errors);
        }
        if old.is_some_and(|old| At::root(old, "roleRef").value() != role.value()) {
            role.invalid(errors, "cannot change roleRef");
        }
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::segment(name)
    }
}

impl Binding {
    fn subject(&self, at: &At<'_>, errors: &mut Errors) {
        let (kind, name, group) = (at.get("kind"), at.get("name"), at.get("apiGroup"));
        if name.is_empty() {
            name.required(errors, "");
        }
        let supported = match kind.text() {
            "ServiceAccount" => {
                if !name.is_empty() {
                    name.all(errors, names::dns1123_subdomain);
                }
                if !self.namespaced && at.get("namespace").is_empty() {
                    at.get("namespace").required(errors, "");
                }
                ""
            }
            "User" | "Group" => GROUP,
            _ => {
                return kind.one_of(errors, &["ServiceAccount", "User", "Group"]);
            }
        };
        if group.text() != supported {
            let value = json!(group.text());
            errors.push(FieldError::not_supported(group.path(), &value, &[supported]));
        }
    }
}
