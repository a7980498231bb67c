//! A CustomResourceDefinition as values, and the table entries it means.

use std::sync::Arc;

use meta::{Condition, ConditionStatus, GroupResource, GroupVersion, Object, Revision, Value};
use resource::{Convert, Resource, Scale, Scope, Selectable, Subresource, Verb};
use schema::openapi::from_crd;

use super::{columns::columns, condition, jsonpath::JsonPath, strategy::Custom};

/// What a definition says, as far as serving it depends on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Definition {
    pub(super) group: String,
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) kind: String,
    pub(super) list_kind: String,
    pub(super) short_names: Vec<String>,
    pub(super) categories: Vec<String>,
    cluster: bool,
    preserve_unknown: bool,
    versions: Vec<Value>,
}

/// What is served of a kind whose definition goes: all but creation.
const TERMINATING: &[Verb] =
    &[Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

fn strings(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

impl Definition {
    /// What `spec` asks for.
    pub(super) fn read(object: &Object) -> Self {
        Self {
            cluster: object.str(&["spec", "scope"]) == Some("Cluster"),
            preserve_unknown: object.bool(&["spec", "preserveUnknownFields"]).unwrap_or_default(),
            versions: object.list(&["spec", "versions"]).to_vec(),
            ..Self::names(object, "spec", "names")
        }
    }

    /// The names that were accepted; empty ones were not.
    pub(super) fn accepted(object: &Object) -> Self {
        Self::names(object, "status", "acceptedNames")
    }

    fn names(object: &Object, root: &str, names: &str) -> Self {
        let name = |key: &str| object.str(&[root, names, key]).unwrap_or_default().to_owned();
        Self {
            group: object.str(&["spec", "group"]).unwrap_or_default().to_owned(),
            plural: name("plural"),
            singular: name("singular"),
            kind: name("kind"),
            list_kind: name("listKind"),
            short_names: strings(object.list(&[root, names, "shortNames"])),
            categories: strings(object.list(&[root, names, "categories"])),
            ..Self::default()
        }
    }

    /// One table entry per served version, under the accepted names, and the condition
    /// `NonStructuralSchema` when a version cannot be served for its schema. What was written before `since`
    /// may have been written under another schema.
    pub(super) fn resources(
        &self,
        accepted: &Value,
        terminating: bool,
        conversion: Arc<dyn Convert>,
        since: Revision,
    ) -> (Vec<Resource>, Option<Condition>) {
        // One version has nothing to convert, and its bytes are shown as they are stored.
        let several = self.versions.len() > 1;
        let mut resources = Vec::new();
        let mut violations = Vec::new();
        for (at, version) in self.versions.iter().enumerate().filter(|(_, version)| flag(version, "served")) {
            let path = format!("spec.versions[{at}].schema.openAPIV3Schema");
            match self.resource(version, &path, accepted, terminating, since) {
                Ok(mut resource) => {
                    resource.convert = several.then(|| conversion.clone());
                    resources.push(resource);
                }
                Err(errors) => violations.extend(errors.iter().map(ToString::to_string)),
            }
        }
        let violation = (!violations.is_empty()).then(|| {
            condition("NonStructuralSchema", ConditionStatus::True, "Violations")
                .message(violations.join(", "))
        });
        (resources, violation)
    }

    fn resource(
        &self,
        version: &Value,
        path: &str,
        accepted: &Value,
        terminating: bool,
        since: Revision,
    ) -> Result<Resource, Vec<meta::FieldError>> {
        let empty = serde_json::json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let schema = version.pointer("/schema/openAPIV3Schema").filter(|_| !self.preserve_unknown);
        let schema = from_crd(schema.unwrap_or(&empty), path)?;
        let shared = |list: Vec<String>| list.into_iter().map(Arc::from).collect();
        let short_names = accepted.get("shortNames").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let name = text(version, "name");
        Ok(Resource {
            group: self.group.as_str().into(),
            version: name.into(),
            kind: self.kind.as_str().into(),
            list_kind: self.list_kind.as_str().into(),
            plural: self.plural.as_str().into(),
            singular: self.singular.as_str().into(),
            short_names: shared(strings(short_names)),
            categories: shared(self.categories.clone()),
            scope: if self.cluster { Scope::Cluster } else { Scope::Namespaced },
            stored_as: self.stored_as(),
            stored_version: GroupVersion::new(&*self.group, self.storage_version()),
            convert: None,
            verbs: if terminating { TERMINATING } else { Verb::ALL },
            columns: columns(version),
            subresources: subresources(version),
            selectable: selectable(version),
            strategy: Arc::new(Custom::new(schema.clone())?),
            complete_since: if schema.has_defaults() { since } else { Revision(0) },
            schema,
            custom: true,
            deprecated: self.deprecated(version),
        })
    }

    /// Where its instances are stored.
    pub(super) fn stored_as(&self) -> GroupResource {
        GroupResource::new(&*self.group, &*self.plural)
    }

    fn storage_version(&self) -> &str {
        self.versions
            .iter()
            .find(|version| flag(version, "storage"))
            .map_or("", |version| text(version, "name"))
    }

    fn deprecated(&self, version: &Value) -> Option<Arc<str>> {
        if !flag(version, "deprecated") {
            return None;
        }
        let given = text(version, "deprecationWarning");
        Some(if given.is_empty() {
            format!("{}/{} {} is deprecated", self.group, text(version, "name"), self.kind).into()
        } else {
            given.into()
        })
    }
}

/// Sorted by name, as the table wants it.
fn subresources(version: &Value) -> Vec<(Arc<str>, Subresource)> {
    let mut found: Vec<(Arc<str>, Subresource)> = Vec::new();
    let dotted = |value: &Value, key: &str| text(value, key).trim_start_matches('.').to_owned();
    if let Some(scale) = version.pointer("/subresources/scale").filter(|scale| scale.is_object()) {
        let selector = dotted(scale, "labelSelectorPath");
        let scale = Scale {
            spec_replicas: dotted(scale, "specReplicasPath").into(),
            status_replicas: dotted(scale, "statusReplicasPath").into(),
            selector: (!selector.is_empty()).then(|| selector.into()),
        };
        found.push(("scale".into(), Subresource::Scale(scale)));
    }
    if version.pointer("/subresources/status").is_some_and(|status| status.is_object()) {
        found.push(("status".into(), Subresource::Status));
    }
    found
}

fn selectable(version: &Value) -> Vec<Selectable> {
    let fields = version.get("selectableFields").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let field = |field: &Value| {
        let path = text(field, "jsonPath");
        let parsed = JsonPath::parse(path).ok()?;
        Some(Selectable {
            name: path.trim_start_matches('.').to_owned().into(),
            value: Arc::new(move |object| match parsed.first(object) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            }),
            indexed: false,
        })
    };
    fields.iter().filter_map(field).collect()
}
