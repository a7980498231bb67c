//! The paths of a set of kinds, with what clients look for in them: which kind an operation is about, and
//! which parameters it takes (kubectl decides by them whether the server validates fields and dry-runs).

use std::sync::Arc;

use meta::Value;
use resource::{Resource, Scope, Subresource, Verb};
use serde_json::{Map, json};

use super::{
    Dialect,
    schemas::{builtin_name, gvk, list_name, name_of, reference},
};
use crate::discovery::{Below, below};

/// Path items by path.
pub(super) fn of(resources: &[Arc<Resource>], dialect: Dialect) -> Map<String, Value> {
    let mut paths = Map::new();
    for resource in resources {
        Writer { resource, dialect }.write(&mut paths);
    }
    paths
}

struct Writer<'a> {
    resource: &'a Resource,
    dialect: Dialect,
}

/// One operation.
struct Operation<'a> {
    action: &'static str,
    kind: Value,
    /// Definition of the request body.
    body: Option<String>,
    /// Definition of the answer.
    answer: Option<String>,
    parameters: &'a [(&'static str, &'static str)],
}

/// Query parameters: name and type.
const WRITE: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("pretty", "string")];
const PATCH: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
    ("pretty", "string"),
];
const READ: &[(&str, &str)] = &[("pretty", "string")];
const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("pretty", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("pretty", "string"),
    ("propagationPolicy", "string"),
];

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH_BODY: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

impl Writer<'_> {
    fn write(&self, paths: &mut Map<String, Value>) {
        let Resource { group, version, plural, scope, .. } = self.resource;
        let root =
            if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let all = match scope {
            Scope::Cluster => format!("{root}/{plural}"),
            Scope::Namespaced => format!("{root}/namespaces/{{namespace}}/{plural}"),
        };
        let mut collection = self.item(&all);
        self.collection(&mut collection);
        paths.insert(all.clone(), Value::Object(collection));
        if *scope == Scope::Namespaced && self.serves(Verb::List) {
            let everywhere = format!("{root}/{plural}");
            let mut item = self.item(&everywhere);
            self.add(&mut item, "get", self.list());
            paths.insert(everywhere, Value::Object(item));
        }
        let one = format!("{all}/{{name}}");
        let mut item = self.item(&one);
        if self.object(&mut item) {
            paths.insert(one.clone(), Value::Object(item));
        }
        for part in below(self.resource) {
            let path = format!("{one}/{}", part.name);
            let mut item = self.item(&path);
            self.part(&mut item, &part);
            paths.insert(path, Value::Object(item));
        }
    }

    fn serves(&self, verb: Verb) -> bool {
        self.resource.verbs.contains(&verb)
    }

    /// A path item with the parameters that are in its path.
    fn item(&self, path: &str) -> Map<String, Value> {
        let named = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let parameters: Vec<Value> = named.map(|name| self.parameter(name, "path", "string")).collect();
        let mut item = Map::new();
        if !parameters.is_empty() {
            item.insert("parameters".to_owned(), Value::Array(parameters));
        }
        item
    }

    fn parameter(&self, name: &str, place: &str, of: &str) -> Value {
        let mut parameter = json!({ "name": name, "in": place, "uniqueItems": true });
        let Some(map) = parameter.as_object_mut() else { return parameter };
        if place == "path" {
            map.insert("required".to_owned(), json!(true));
        }
        match self.dialect {
            Dialect::V2 => map.insert("type".to_owned(), json!(of)),
            Dialect::V3 => {
                map.remove("uniqueItems");
                map.insert("schema".to_owned(), json!({ "type": of, "uniqueItems": true }))
            }
        };
        parameter
    }

    fn own_kind(&self) -> Value {
        gvk(&self.resource.group, &self.resource.version, &self.resource.kind)
    }

    fn own(
        &self,
        action: &'static str,
        parameters: &'static [(&'static str, &'static str)],
    ) -> Operation<'static> {
        let name = name_of(self.resource);
        let body = matches!(action, "post" | "put").then(|| name.clone());
        Operation { action, kind: self.own_kind(), body, answer: Some(name), parameters }
    }

    fn list(&self) -> Operation<'static> {
        Operation { answer: Some(list_name(self.resource)), ..self.own("list", LIST) }
    }

    fn collection(&self, item: &mut Map<String, Value>) {
        if self.serves(Verb::List) {
            self.add(item, "get", self.list());
        }
        if self.serves(Verb::Create) {
            self.add(item, "post", self.own("post", WRITE));
        }
        if self.serves(Verb::DeleteCollection) {
            let answer = Some(STATUS.to_owned());
            self.add(item, "delete", Operation { answer, ..self.own("deletecollection", LIST) });
        }
    }

    /// Whether there is anything to do with one object.
    fn object(&self, item: &mut Map<String, Value>) -> bool {
        let before = item.len();
        if self.serves(Verb::Get) {
            self.add(item, "get", self.own("get", READ));
        }
        if self.serves(Verb::Update) {
            self.add(item, "put", self.own("put", WRITE));
        }
        if self.serves(Verb::Patch) {
            let body = Some(PATCH_BODY.to_owned());
            self.add(item, "patch", Operation { body, ..self.own("patch", PATCH) });
        }
        if self.serves(Verb::Delete) {
            let (body, answer) = (Some(DELETE_OPTIONS.to_owned()), Some(STATUS.to_owned()));
            self.add(item, "delete", Operation { body, answer, ..self.own("delete", DELETE) });
        }
        item.len() > before
    }

    fn part(&self, item: &mut Map<String, Value>, part: &Below<'_>) {
        let Below { name, group, version, kind, verbs } = part;
        let connects = matches!(self.resource.subresource(name), Some(Subresource::Connect));
        let foreign = *group != *self.resource.group || *kind != *self.resource.kind;
        let definition = (!connects)
            .then(|| if foreign { builtin_name(group, version, kind) } else { name_of(self.resource) });
        for verb in *verbs {
            let (method, action, parameters): (_, _, &'static [_]) = match *verb {
                "get" => ("get", if connects { "connect" } else { "get" }, READ),
                "create" => ("post", if connects { "connect" } else { "post" }, WRITE),
                "update" => ("put", "put", WRITE),
                "patch" => ("patch", "patch", PATCH),
                _ => ("delete", "connect", READ),
            };
            let body = match action {
                "post" | "put" => definition.clone(),
                "patch" => Some(PATCH_BODY.to_owned()),
                _ => None,
            };
            let kind = gvk(group, version, kind);
            self.add(item, method, Operation { action, kind, body, answer: definition.clone(), parameters });
        }
    }

    fn add(&self, item: &mut Map<String, Value>, method: &str, operation: Operation<'_>) {
        let Operation { action, kind, body, answer, parameters } = operation;
        let mut listed: Vec<Value> =
            parameters.iter().map(|(name, of)| self.parameter(name, "query", of)).collect();
        let mut written = Map::new();
        let answer = answer.filter(|name| self.known(name));
        let body = body.map(|name| match self.known(&name) {
            true => reference(&name, self.dialect),
            false => json!({ "type": "object" }),
        });
        let mut ok = json!({ "description": "OK" });
        match self.dialect {
            Dialect::V2 => {
                if let Some(schema) = body {
                    listed.push(json!({ "name": "body", "in": "body", "required": action != "delete", "schema": schema }));
                }
                if let (Some(name), Some(map)) = (answer, ok.as_object_mut()) {
                    map.insert("schema".to_owned(), reference(&name, self.dialect));
                }
            }
            Dialect::V3 => {
                if let Some(schema) = body {
                    let content = json!({ media(action): { "schema": schema } });
                    written.insert("requestBody".to_owned(), json!({ "content": content }));
                }
                if let (Some(name), Some(map)) = (answer, ok.as_object_mut()) {
                    let schema = json!({ "application/json": { "schema": reference(&name, self.dialect) } });
                    map.insert("content".to_owned(), schema);
                }
            }
        }
        written.insert("parameters".to_owned(), Value::Array(listed));
        written.insert("responses".to_owned(), json!({ "200": ok }));
        written.insert("x-kubernetes-action".to_owned(), json!(action));
        written.insert("x-kubernetes-group-version-kind".to_owned(), kind);
        item.insert(method.to_owned(), Value::Object(written));
    }

    /// Whether the document will have such a definition.
    fn known(&self, name: &str) -> bool {
        name == name_of(self.resource) || name == list_name(self.resource)
    }
}

fn media(action: &str) -> &'static str {
    if action == "patch" { "application/apply-patch+yaml" } else { "application/json" }
}
