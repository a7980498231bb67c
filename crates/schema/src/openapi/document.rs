//! Reading a published OpenAPI v3 document (`/openapi/v3/apis/GROUP/VERSION`) back into a schema: the structure only,
//! for those who look at what fields there are. Value checks, defaults, list and patch semantics are not read.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::Value;

use super::crd::{entries, flag, items, scalar, text};
use crate::{ListType, MapType, Node, Property, Schema, Shape, TypeId, TypeSet};

/// Levels of one definition; what is deeper is left open.
const DEPTH_MAX: usize = 100;

/// The schema of a kind, by `x-kubernetes-group-version-kind`; `None` when the document has none.
pub fn from_document(document: &Value, group: &str, version: &str, kind: &str) -> Option<Schema> {
    let definitions = document.pointer("/components/schemas")?.as_object()?;
    let is_kind = |definition: &Value| {
        items(definition, "x-kubernetes-group-version-kind").any(|of| {
            text(of, "group") == group && text(of, "version") == version && text(of, "kind") == kind
        })
    };
    let (name, _) = definitions.iter().find(|(_, definition)| is_kind(definition))?;
    let mut reader = Reader { document, set: TypeSet::new(), named: HashMap::new(), wanted: Vec::new() };
    let root = reader.named(name);
    while let Some((name, of)) = reader.wanted.pop() {
        let definition = definitions.get(&name).unwrap_or(&Value::Null);
        let node = reader.node(definition, 0);
        reader.set.replace(of, node);
    }
    Some(Schema::new(Arc::new(reader.set), root))
}

struct Reader<'d> {
    document: &'d Value,
    set: TypeSet,
    named: HashMap<String, TypeId>,
    /// Definitions that were named and not read yet.
    wanted: Vec<(String, TypeId)>,
}

impl Reader<'_> {
    fn named(&mut self, name: &str) -> TypeId {
        if let Some(of) = self.named.get(name) {
            return *of;
        }
        let of = self.set.add(Node::default());
        self.named.insert(name.to_owned(), of);
        self.wanted.push((name.to_owned(), of));
        of
    }

    fn type_of(&mut self, json: &Value, depth: usize) -> TypeId {
        if depth > DEPTH_MAX {
            return self.set.add(Node::default());
        }
        // A reference with a default or a description beside it stands alone in `allOf`.
        let alone = || match json.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            Some([only]) => only.get("$ref"),
            _ => None,
        };
        let reference = json.get("$ref").or_else(alone).and_then(Value::as_str);
        match reference.and_then(|reference| reference.strip_prefix("#/components/schemas/")) {
            Some(name)
                if self
                    .document
                    .pointer("/components/schemas")
                    .is_some_and(|all| all.get(name).is_some()) =>
            {
                self.named(name)
            }
            _ => {
                let node = self.node(json, depth);
                self.set.add(node)
            }
        }
    }

    fn node(&mut self, json: &Value, depth: usize) -> Node {
        Node { shape: self.shape(json, depth), nullable: flag(json, "nullable"), ..Node::default() }
    }

    fn shape(&mut self, json: &Value, depth: usize) -> Shape {
        if flag(json, "x-kubernetes-int-or-string") || text(json, "format") == "int-or-string" {
            return Shape::IntOrString;
        }
        if let Some(shape) = scalar(json) {
            return shape;
        }
        match text(json, "type") {
            "array" => {
                let of = self.type_of(json.get("items").unwrap_or(&Value::Null), depth + 1);
                Shape::List { items: of, list_type: ListType::Unspecified }
            }
            "object" => match json.get("additionalProperties").filter(|_| json.get("properties").is_none()) {
                Some(values) if *values != Value::Bool(false) => {
                    Shape::Map { values: self.type_of(values, depth + 1), map_type: MapType::Granular }
                }
                _ => self.fields(json, depth),
            },
            _ if json.get("properties").is_some() => self.fields(json, depth),
            _ => Shape::Any,
        }
    }

    fn fields(&mut self, json: &Value, depth: usize) -> Shape {
        let mut properties: BTreeMap<Arc<str>, Property> = BTreeMap::new();
        for (name, field) in entries(json, "properties") {
            let of = self.type_of(field, depth + 1);
            properties.insert(name.as_str().into(), Property { of, default: None, patch: None, protobuf: 0 });
        }
        Shape::Struct {
            properties,
            required: Box::default(),
            preserve_unknown: flag(json, "x-kubernetes-preserve-unknown-fields"),
            embedded: flag(json, "x-kubernetes-embedded-resource"),
            map_type: MapType::Granular,
        }
    }
}
