//! The definitions that a set of kinds needs: the kinds, their lists, and everything they refer to.

use std::{collections::BTreeMap, sync::Arc};

use meta::Value;
use resource::{Resource, Subresource, Verb};
use schema::{Shape, TypeSet, openapi};
use serde_json::{Map, json};

use super::Dialect;

type Texts<'a> = &'a dyn Fn(&str, &str) -> Option<String>;

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Definitions by name.
pub(super) fn of(resources: &[Arc<Resource>], dialect: Dialect, texts: Texts<'_>) -> Map<String, Value> {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for resource in resources {
        let set = resource.schema.set();
        let mut wanted = vec![LIST_META.to_owned()];
        let name = name_of(resource);
        if !found.contains_key(&name) {
            let mut root = if dialect == Dialect::V2 && resource.custom && is_open(resource) {
                // kubectl would take the fields of a Swagger 2 schema for all there are (upstream `buildKubeNative`).
                json!({"type": "object"})
            } else {
                write(set, resource.schema.root(), dialect, texts)
            };
            add_kinds(&mut root, &[(&resource.group, &resource.version, &resource.kind)]);
            if resource.custom {
                describe_common(&mut root, dialect, texts);
            }
            references(&root, &mut wanted);
            found.insert(name.clone(), root);
        }
        for (_, subresource) in &resource.subresources {
            if let Subresource::Act(act) = subresource {
                let (group, version, kind) = act.body();
                wanted.push(builtin_name(group, version, kind));
            }
        }
        if resource.verbs.contains(&Verb::List) {
            found.insert(list_name(resource), list(resource, &name, dialect));
        }
        while let Some(name) = wanted.pop() {
            if found.contains_key(&name) {
                continue;
            }
            if let Some(of) = set.find(&name) {
                let written = write(set, of, dialect, texts);
                references(&written, &mut wanted);
                found.insert(name, written);
            }
        }
    }
    found.entry(LIST_META.to_owned()).or_insert_with(list_meta);
    found.into_iter().collect()
}

/// Says of the fields that every kind has what is said of a built-in one's, whatever a definition says of them (upstream
/// `builder.buildKubeNative`).
fn describe_common(root: &mut Value, dialect: Dialect, texts: Texts<'_>) {
    for field in ["apiVersion", "kind", "metadata"] {
        let text = texts("io.k8s.api.core.v1.ConfigMap", field);
        let at = root.get_mut("properties").and_then(|properties| properties.get_mut(field)?.as_object_mut());
        let Some((at, text)) = at.zip(text) else { continue };
        if dialect == Dialect::V3
            && let Some(reference) = at.remove("$ref")
        {
            at.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
        }
        at.insert("description".to_owned(), Value::from(text));
    }
}

/// Whether any field may stand in its objects.
fn is_open(resource: &Resource) -> bool {
    matches!(resource.schema.node().shape, Shape::Struct { preserve_unknown: true, .. })
}

fn write(set: &TypeSet, of: schema::TypeId, dialect: Dialect, texts: Texts<'_>) -> Value {
    match dialect {
        Dialect::V2 => openapi::to_v2(set, of, texts),
        Dialect::V3 => openapi::to_v3(set, of, texts),
    }
}

/// Names that a written schema refers to.
fn references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref")
                && let Some((_, name)) = reference.rsplit_once('/')
            {
                names.push(name.to_owned());
            }
            map.values().for_each(|value| references(value, names));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, names)),
        _ => {}
    }
}

/// The definition name of a kind: that of its schema, else upstream's for CRDs (the group reversed).
pub(super) fn name_of(resource: &Resource) -> String {
    if let Some(name) = &resource.schema.node().name {
        return name.to_string();
    }
    let mut parts: Vec<&str> = resource.group.split('.').rev().collect();
    parts.extend([&*resource.version, &*resource.kind]);
    parts.join(".")
}

/// The definition name of the list of a kind.
pub(super) fn list_name(resource: &Resource) -> String {
    let name = name_of(resource);
    let prefix = name.rsplit_once('.').map_or("", |(prefix, _)| prefix);
    format!("{prefix}.{}", resource.list_kind)
}

/// The definition name of a body of a built-in group (`io.k8s.api.policy.v1.Eviction`).
pub(crate) fn builtin_name(group: &str, version: &str, kind: &str) -> String {
    let package = match group {
        "" => "core",
        other => other.split('.').next().unwrap_or(other),
    };
    format!("io.k8s.api.{package}.{version}.{kind}")
}

/// A reference to a definition.
pub(super) fn reference(name: &str, dialect: Dialect) -> Value {
    let root = match dialect {
        Dialect::V2 => "#/definitions/",
        Dialect::V3 => "#/components/schemas/",
    };
    json!({ "$ref": format!("{root}{name}") })
}

fn list(resource: &Resource, item: &str, dialect: Dialect) -> Value {
    let kind = &resource.kind;
    let mut list = json!({
        "description": format!("{} is a list of {kind}", resource.list_kind),
        "type": "object", "required": ["items"],
        "properties": {
            "apiVersion": { "type": "string", "description": "Version of the schema of this object." },
            "kind": { "type": "string", "description": "Name of the schema of this object." },
            "items": {
                "type": "array", "description": format!("List of {kind}."),
                "items": reference(item, dialect),
            },
            "metadata": reference(LIST_META, dialect),
        },
    });
    add_kinds(&mut list, &[(&resource.group, &resource.version, &resource.list_kind)]);
    list
}

fn list_meta() -> Value {
    let text = |description| json!({ "type": "string", "description": description });
    json!({
        "type": "object", "description": "ListMeta describes a list.",
        "properties": {
            "continue": text("Token for the next page; empty at the end."),
            "remainingItemCount": {
                "type": "integer", "format": "int64", "description": "How many objects follow, where it is known.",
            },
            "resourceVersion": text("The state of the server that was listed."),
            "selfLink": text("Deprecated: no longer set."),
        },
    })
}

fn add_kinds(schema: &mut Value, kinds: &[(&str, &str, &str)]) {
    let kinds: Vec<Value> = kinds.iter().map(|(group, version, kind)| gvk(group, version, kind)).collect();
    if let Some(map) = schema.as_object_mut() {
        map.insert("x-kubernetes-group-version-kind".to_owned(), Value::Array(kinds));
    }
}

/// `x-kubernetes-group-version-kind`.
pub(super) fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}
