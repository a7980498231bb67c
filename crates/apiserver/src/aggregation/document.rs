//! What other servers say they serve, as this server's own documents show it.

use std::{collections::BTreeSet, sync::Arc};

use meta::{GroupVersion, Value};
use serde_json::{Map, json};

use crate::openapi::hash;

/// What another server said.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The resources of its APIResourceList.
    pub(crate) resources: Vec<Value>,
    /// The hash of its OpenAPI 3 document; empty when it has none.
    pub(crate) v3: String,
    /// Its part of an OpenAPI 2 document.
    pub(crate) v2: Option<Arc<Fragment>>,
    /// Changes when any of this does.
    pub(super) stamp: String,
}

/// The part of an OpenAPI 2 document that is about one version of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fragment {
    pub(crate) paths: Map<String, Value>,
    pub(crate) definitions: Map<String, Value>,
    /// Of the document it was taken from.
    pub(super) etag: String,
}

impl Seen {
    pub(super) fn new(resources: Vec<Value>, v3: String, v2: Option<Arc<Fragment>>) -> Self {
        let mut text = serde_json::to_string(&resources).unwrap_or_default();
        if let Some(v2) = &v2 {
            text.push_str(&json!([v2.paths, v2.definitions]).to_string());
        }
        let stamp = hash(format!("{v3} {text}").as_bytes());
        Self { resources, v3, v2, stamp }
    }

    /// Whether a plural, or one with `/` and a subresource, is served.
    pub(crate) fn serves(&self, name: &str) -> bool {
        self.resources.iter().any(|resource| resource.get("name").and_then(Value::as_str) == Some(name))
    }

    /// The resources as an aggregated document has them (upstream `ConvertGroupVersionIntoToDiscovery`).
    pub(crate) fn aggregated(&self, of: &GroupVersion) -> Vec<Value> {
        let text =
            |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = |resource: &Value| {
            let or = |key, own: &str| {
                Some(text(resource, key)).filter(|t| !t.is_empty()).unwrap_or(own.to_owned())
            };
            json!({"group": or("group", &of.group), "version": or("version", &of.version), "kind": text(resource, "kind")})
        };
        let verbs = |resource: &Value| resource.get("verbs").cloned().unwrap_or(json!([]));
        let below = |plural: &str| -> Vec<Value> {
            let parts = self.resources.iter().filter_map(|resource| {
                let (parent, part) = resource.get("name")?.as_str()?.split_once('/')?;
                (parent == plural).then(
                    || json!({"subresource": part, "responseKind": kind(resource), "verbs": verbs(resource)}),
                )
            });
            parts.collect()
        };
        let whole = self.resources.iter().filter(|resource| !text(resource, "name").contains('/'));
        let shown = whole.map(|resource| {
            let plural = text(resource, "name");
            let namespaced = resource.get("namespaced").and_then(Value::as_bool) == Some(true);
            let mut shown = json!({
                "resource": plural, "singularResource": text(resource, "singularName"),
                "scope": if namespaced { "Namespaced" } else { "Cluster" },
                "responseKind": kind(resource), "verbs": verbs(resource),
            });
            let Some(map) = shown.as_object_mut() else { return shown };
            for list in ["shortNames", "categories"] {
                if let Some(names) = resource.get(list).filter(|names| names.is_array()) {
                    map.insert(list.to_owned(), names.clone());
                }
            }
            let parts = below(&plural);
            if !parts.is_empty() {
                map.insert("subresources".to_owned(), parts.into());
            }
            shown
        });
        shown.collect()
    }
}

/// The resources of an APIResourceList of this version; `None` when it is none.
pub(super) fn resources(document: &Value, of: &GroupVersion) -> Option<Vec<Value>> {
    let is = |key: &str, text: &str| document.get(key).and_then(Value::as_str) == Some(text);
    if !is("kind", "APIResourceList") || !is("groupVersion", &of.to_string()) {
        return None;
    }
    document.get("resources").and_then(Value::as_array).cloned()
}

/// The hash of a version's document in an index of OpenAPI 3 documents; empty when it is not there.
pub(super) fn v3_hash(index: &Value, of: &GroupVersion) -> String {
    let url = index.get("paths").and_then(|paths| paths.get(format!("apis/{of}")));
    let url = url.and_then(|url| url.get("serverRelativeURL")).and_then(Value::as_str).unwrap_or_default();
    url.rsplit_once("hash=").map(|(_, hash)| hash.to_owned()).unwrap_or_default()
}

/// What of an OpenAPI 2 document is about a version of a group: its paths, and the definitions they reach.
pub(super) fn fragment(document: &Value, of: &GroupVersion, etag: String) -> Fragment {
    let empty = Map::new();
    let map = |key: &str| document.get(key).and_then(Value::as_object).unwrap_or(&empty);
    let own = format!("/apis/{of}/");
    let paths: Map<String, Value> = map("paths")
        .iter()
        .filter(|(path, _)| path.starts_with(&own))
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect();
    let mut wanted = Vec::new();
    paths.values().for_each(|item| references(item, &mut wanted));
    let mut definitions = Map::new();
    while let Some(name) = wanted.pop() {
        if let (false, Some(definition)) = (definitions.contains_key(&name), map("definitions").get(&name)) {
            references(definition, &mut wanted);
            definitions.insert(name, definition.clone());
        }
    }
    Fragment { paths, definitions, etag }
}

const REFERENCE: &str = "#/definitions/";

fn references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let reference = map.get("$ref").and_then(Value::as_str);
            names.extend(reference.and_then(|r| r.strip_prefix(REFERENCE)).map(str::to_owned));
            map.values().for_each(|value| references(value, names));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, names)),
        _ => {}
    }
}

/// Adds a part of another server's document to ours. A definition that we have with another meaning goes under
/// another name, as upstream's merge does.
pub(crate) fn merge(document: &mut Value, fragment: &Fragment) {
    let Some(own) = document.get_mut("definitions").and_then(Value::as_object_mut) else { return };
    let taken: BTreeSet<String> = own.keys().cloned().collect();
    let differs =
        |name: &&String| own.get(*name).is_some_and(|ours| Some(ours) != fragment.definitions.get(*name));
    let renamed: Vec<(String, String)> = fragment
        .definitions
        .keys()
        .filter(differs)
        .map(|name| {
            let free = (2..).map(|n| format!("{name}_v{n}"));
            let free = free.into_iter().find(|n| !taken.contains(n) && !fragment.definitions.contains_key(n));
            (name.clone(), free.unwrap_or_else(|| name.clone()))
        })
        .collect();
    let new_name = |name: &str| renamed.iter().find(|(old, _)| old == name).map(|(_, new)| new.clone());
    for (name, definition) in &fragment.definitions {
        let mut definition = definition.clone();
        rename(&mut definition, &new_name);
        own.entry(new_name(name).unwrap_or_else(|| name.clone())).or_insert(definition);
    }
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    for (path, item) in &fragment.paths {
        let mut item = item.clone();
        rename(&mut item, &new_name);
        paths.insert(path.clone(), item);
    }
}

fn rename(value: &mut Value, new_name: &impl Fn(&str) -> Option<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(new) = reference.strip_prefix(REFERENCE).and_then(new_name)
            {
                *reference = format!("{REFERENCE}{new}");
            }
            map.values_mut().for_each(|value| rename(value, new_name));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rename(value, new_name)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> GroupVersion {
        GroupVersion::new("wardle.example.com", "v1")
    }

    #[test]
    fn lists_become_aggregated() {
        let list = json!({"kind": "APIResourceList", "groupVersion": "wardle.example.com/v1", "resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
             "verbs": ["get", "list"], "shortNames": ["fl"]},
            {"name": "flunders/scale", "singularName": "", "namespaced": true, "group": "autoscaling",
             "version": "v1", "kind": "Scale", "verbs": ["get"]},
        ]});
        assert_eq!(resources(&list, &GroupVersion::new("other", "v1")), None);
        let seen = Seen::new(resources(&list, &version()).unwrap(), String::new(), None);
        assert!(seen.serves("flunders/scale") && !seen.serves("others"));
        assert_eq!(
            seen.aggregated(&version()),
            [json!({
                "resource": "flunders", "singularResource": "flunder", "scope": "Namespaced",
                "responseKind": {"group": "wardle.example.com", "version": "v1", "kind": "Flunder"},
                "verbs": ["get", "list"], "shortNames": ["fl"],
                "subresources": [{"subresource": "scale", "verbs": ["get"],
                    "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}],
            })]
        );
    }

    #[test]
    fn documents_are_merged() {
        let reference = |name: &str| json!({"schema": {"$ref": format!("#/definitions/{name}")}});
        let theirs = json!({
            "paths": {"/apis/wardle.example.com/v1/flunders": reference("Flunder"), "/apis/x/v1/": {}},
            "definitions": {
                "Flunder": {"properties": {"metadata": {"$ref": "#/definitions/Meta"}, "same": {"$ref": "#/definitions/Same"}}},
                "Meta": {"type": "object"}, "Same": {"type": "string"}, "Unused": {},
            },
        });
        let fragment = fragment(&theirs, &version(), String::new());
        let mut names: Vec<&String> = fragment.definitions.keys().collect();
        names.sort();
        assert_eq!(names, ["Flunder", "Meta", "Same"]);
        let mut ours = json!({
            "paths": {"/api/v1/pods": {}},
            "definitions": {"Meta": {"type": "string"}, "Same": {"type": "string"}},
        });
        merge(&mut ours, &fragment);
        assert_eq!(ours["paths"]["/apis/wardle.example.com/v1/flunders"], reference("Flunder"));
        assert_eq!(ours["paths"].as_object().unwrap().len(), 2);
        assert_eq!(ours["definitions"]["Flunder"]["properties"]["metadata"]["$ref"], "#/definitions/Meta_v2");
        assert_eq!(ours["definitions"]["Meta_v2"], json!({"type": "object"}));
        assert_eq!(ours["definitions"].as_object().unwrap().len(), 4);
    }

    #[test]
    fn hashes_of_an_index() {
        let index = json!({"paths": {"apis/wardle.example.com/v1":
            {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1?hash=ABC"}}});
        assert_eq!(v3_hash(&index, &version()), "ABC");
        assert_eq!(v3_hash(&index, &GroupVersion::new("x", "v1")), "");
    }
}
