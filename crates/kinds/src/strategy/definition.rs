//! CustomResourceDefinitions as objects: names, versions, and what their status begins with. Whether a
//! schema is structural and its rules compile is checked where CRDs are served.

use meta::{Condition, ConditionStatus, FieldError, Object, Status, Value, names};
use resource::{Context, Strategy};
use serde_json::json;

use super::keep;
use crate::validate::{At, Errors};

/// Behaviour of `apiextensions.k8s.io/v1` CustomResourceDefinition.
pub(crate) struct Definition;

const STORED: [&str; 2] = ["status", "storedVersions"];
/// Held until the server has deleted the instances.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

impl Strategy for Definition {
    fn default(&self, object: &mut Object) {
        let kind = object.str(&["spec", "names", "kind"]).unwrap_or_default().to_owned();
        if !kind.is_empty() {
            for (field, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
                if object.str(&["spec", "names", field]).is_none_or(str::is_empty) {
                    object.set(&["spec", "names", field], value);
                }
            }
        }
    }

    fn prepare(&self, cx: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        match old {
            None => {
                let names = json!({"plural": "", "kind": ""});
                new.set(&["status"], json!({"conditions": [], "acceptedNames": names, "storedVersions": []}));
            }
            Some(_) if cx.attributes.subresource == "status" => return Ok(()),
            Some(old) => keep(new, old, &["status"]),
        }
        let Some(version) = storage_version(new).map(str::to_owned) else { return Ok(()) };
        let mut stored = new.list(&STORED).to_vec();
        if !stored.contains(&json!(version)) {
            stored.push(json!(version));
            new.set(&STORED, stored);
        }
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let spec = At::root(new, "spec");
        let (group, names) = (spec.get("group"), spec.get("names"));
        let plural = names.get("plural");
        let expected = format!("{}.{}", plural.text(), group.text());
        if new.name() != expected {
            let value = json!(new.name());
            let detail = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid("metadata.name", &value, detail));
        }
        if group.is_empty() {
            group.required(errors, "");
        } else {
            group.all(errors, self::names::dns1123_subdomain);
            if !group.text().contains('.') {
                group.invalid(errors, "should be a domain with at least one dot");
            }
        }
        if spec.get("scope").is_empty() {
            spec.get("scope").required(errors, "");
        } else {
            spec.get("scope").one_of(errors, &["Cluster", "Namespaced"]);
        }
        resource_names(&names, errors);
        conversion(&spec.get("conversion"), errors);
        versions(&spec, errors);
        if let Some(old) = old {
            established(&spec, old, errors);
        }
    }

    /// The finalizer and the condition come with the write that begins the deletion (upstream's storage of
    /// definitions does the same before it deletes), so that instances are never left behind.
    fn begin_deletion(&self, cx: &Context<'_>, object: &mut Object) {
        let mut finalizers = object.list(&["metadata", "finalizers"]).to_vec();
        if !finalizers.contains(&json!(CLEANUP)) {
            finalizers.push(json!(CLEANUP));
            object.set(&["metadata", "finalizers"], finalizers);
        }
        Condition::new("Terminating", ConditionStatus::True, "InstanceDeletionPending")
            .message("CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon")
            .set_in(object, cx.clock.now());
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn storage_version(definition: &Object) -> Option<&str> {
    let versions = definition.list(&["spec", "versions"]).iter();
    versions.filter(|v| v.get("storage") == Some(&Value::Bool(true))).find_map(|v| v.get("name")?.as_str())
}

fn conversion(at: &At<'_>, errors: &mut Errors) {
    let (strategy, webhook) = (at.get("strategy"), at.get("webhook"));
    if !at.is_set() {
        return;
    }
    strategy.one_of(errors, &["None", "Webhook"]);
    if strategy.text() != "Webhook" {
        if webhook.is_set() {
            webhook.forbidden(errors, "should not be set when strategy is not set to Webhook");
        }
        return;
    }
    if !webhook.get("clientConfig").is_set() {
        return webhook.get("clientConfig").required(errors, "required when strategy is set to Webhook");
    }
    super::admission::client_config(&webhook.get("clientConfig"), errors);
    let versions = webhook.get("conversionReviewVersions");
    if versions.is_empty() {
        versions.required(errors, "must specify one of v1, v1beta1");
    } else if !versions.items().any(|version| matches!(version.text(), "v1" | "v1beta1")) {
        versions.invalid(errors, "must include at least one of v1, v1beta1");
    }
}

fn resource_names(at: &At<'_>, errors: &mut Errors) {
    at.get("plural").must(errors, names::dns1035_label);
    at.get("singular").must(errors, names::dns1035_label);
    for field in ["kind", "listKind"] {
        at.get(field).must(errors, |text| {
            let messages = names::dns1035_label(&text.to_lowercase());
            messages
                .into_iter()
                .map(|m| format!("may have mixed case, but should otherwise match: {m}"))
                .collect()
        });
    }
    for field in ["shortNames", "categories"] {
        for name in at.get(field).items() {
            name.all(errors, names::dns1035_label);
        }
    }
    if !at.get("kind").is_empty() && at.get("kind").text() == at.get("listKind").text() {
        at.get("listKind").invalid(errors, "kind and listKind may not be the same");
    }
}

fn versions(spec: &At<'_>, errors: &mut Errors) {
    let versions = spec.get("versions");
    let mut seen = Vec::new();
    let mut stored = 0;
    for version in versions.items() {
        let name = version.get("name");
        if seen.contains(&name.text()) {
            versions.invalid(errors, "must contain unique version names");
        }
        seen.push(name.text());
        name.all(errors, names::dns1035_label);
        stored += usize::from(version.get("storage").flag());
        let schema = version.at(&["schema", "openAPIV3Schema"]);
        if !schema.is_set() {
            schema.required(errors, "schemas are required");
        }
    }
    if stored != 1 {
        versions.invalid(errors, "must have exactly one version marked as storage version");
    }
}

/// Once established, the names that clients build paths from stay.
fn established(spec: &At<'_>, old: &Object, errors: &mut Errors) {
    if !meta::is_condition_true(old, "Established") {
        return;
    }
    let before = At::root(old, "spec");
    for path in [&["scope"][..], &["names", "kind"], &["group"], &["names", "plural"]] {
        spec.at(path).immutable(errors, &before.at(path));
    }
}
