//! Any schema as OpenAPI v3 or Swagger 2 JSON. Named types are references, so that a kind's document is one
//! definition for each type it reaches.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Describe;
use crate::{
    Constraints, Format, ListType, MapType, Node, PatchStrategy, Property, Rule, Shape, TypeId, TypeSet,
};

/// OpenAPI v3 schema object of the type `of`; named types it uses become
/// `{"$ref": "#/components/schemas/NAME"}`. The type itself is written out even when named.
pub fn to_v3(set: &TypeSet, of: TypeId, describe: Describe<'_>) -> Value {
    let writer = Writer { set, describe, dialect: Dialect::V3 };
    Value::Object(writer.definition(of))
}

/// The same in the dialect of Swagger 2: refs are `#/definitions/NAME`; what Swagger 2 cannot say (junctors,
/// nullable) is left out, as upstream does.
pub fn to_v2(set: &TypeSet, of: TypeId, describe: Describe<'_>) -> Value {
    let writer = Writer { set, describe, dialect: Dialect::V2 };
    Value::Object(writer.definition(of))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

struct Writer<'a> {
    set: &'a TypeSet,
    describe: Describe<'a>,
    dialect: Dialect,
}

impl Writer<'_> {
    fn definition(&self, of: TypeId) -> Map<String, Value> {
        let node = self.set.node(of);
        let mut out = self.node(node);
        if let Some(name) = &node.name
            && let Some(text) = (self.describe)(name, "")
        {
            out.insert("description".to_owned(), Value::from(text));
        }
        out
    }

    /// A use of a type: a reference when it is named.
    fn usage(&self, of: TypeId) -> Map<String, Value> {
        let node = self.set.node(of);
        match &node.name {
            None => self.node(node),
            Some(name) => {
                let at = match self.dialect {
                    Dialect::V2 => "#/definitions/",
                    Dialect::V3 => "#/components/schemas/",
                };
                [("$ref".to_owned(), Value::from(format!("{at}{name}")))].into_iter().collect()
            }
        }
    }

    fn node(&self, node: &Node) -> Map<String, Value> {
        let mut out = Map::new();
        if let Some(text) = &node.description {
            out.insert("description".to_owned(), Value::from(&**text));
        }
        if node.nullable && self.dialect == Dialect::V3 {
            out.insert("nullable".to_owned(), Value::Bool(true));
        }
        // Swagger 2 has no null: clients must not check the structure of what may be null.
        if !(node.nullable && self.dialect == Dialect::V2) {
            self.shape(node, &mut out);
        }
        if let Some(constraints) = &node.constraints {
            self.constraints(constraints, &mut out);
        }
        out
    }

    fn shape(&self, node: &Node, out: &mut Map<String, Value>) {
        let mut put = |name: &str, value: Value| {
            out.insert(name.to_owned(), value);
        };
        match &node.shape {
            Shape::Any if node.name.is_none() => put("x-kubernetes-preserve-unknown-fields", json!(true)),
            Shape::Any if node.name.as_deref().is_some_and(is_untyped) => {}
            Shape::Any => put("type", json!("object")),
            Shape::String(format) => {
                put("type", json!("string"));
                put_name("format", format_name(*format), &mut put);
            }
            Shape::Integer(format) => {
                put("type", json!("integer"));
                put_name("format", format_name(*format), &mut put);
            }
            Shape::Number(format) => {
                put("type", json!("number"));
                put_name("format", format_name(*format), &mut put);
            }
            Shape::Boolean => put("type", json!("boolean")),
            Shape::IntOrString if node.name.is_none() => put("x-kubernetes-int-or-string", json!(true)),
            Shape::IntOrString => {
                put("format", json!("int-or-string"));
                match self.dialect {
                    Dialect::V2 => put("type", json!("string")),
                    Dialect::V3 => put("oneOf", json!([{"type": "integer"}, {"type": "string"}])),
                }
            }
            Shape::Map { values, map_type } => {
                put("type", json!("object"));
                put("additionalProperties", Value::Object(self.usage(*values)));
                put_name("x-kubernetes-map-type", map_type_name(*map_type), &mut put);
            }
            Shape::List { items, list_type } => {
                put("type", json!("array"));
                put("items", Value::Object(self.usage(*items)));
                list_extensions(list_type, put);
            }
            Shape::Struct { properties, required, preserve_unknown, embedded, map_type } => {
                put("type", json!("object"));
                put_name("x-kubernetes-map-type", map_type_name(*map_type), &mut put);
                if *embedded {
                    put("x-kubernetes-embedded-resource", json!(true));
                }
                if *preserve_unknown {
                    put("x-kubernetes-preserve-unknown-fields", json!(true));
                    if self.dialect == Dialect::V2 {
                        return;
                    }
                }
                if !required.is_empty() {
                    put("required", json!(required.iter().map(|name| &**name).collect::<Vec<_>>()));
                }
                let of = node.name.as_deref().unwrap_or_default();
                let fields: Map<String, Value> = properties
                    .iter()
                    .map(|(name, p)| (name.to_string(), self.property(of, name, p)))
                    .collect();
                if !fields.is_empty() {
                    put("properties", Value::Object(fields));
                }
            }
        }
    }

    fn property(&self, of: &str, name: &Arc<str>, property: &Property) -> Value {
        let Property { of: field, default, patch, protobuf: _ } = property;
        let mut out = self.usage(*field);
        let mut beside = Map::new();
        if let Some(text) = (self.describe)(of, name) {
            beside.insert("description".to_owned(), Value::from(text));
        }
        if let Some(default) = default.as_ref().filter(|_| self.dialect == Dialect::V3) {
            beside.insert("default".to_owned(), Value::clone(default));
        }
        if let Some(PatchStrategy { merge, retain_keys, merge_key }) = patch {
            let strategy = match (merge, retain_keys) {
                (true, true) => "merge,retainKeys",
                (true, false) => "merge",
                (false, true) => "retainKeys",
                (false, false) => "replace",
            };
            beside.insert("x-kubernetes-patch-strategy".to_owned(), Value::from(strategy));
            if let Some(key) = merge_key {
                beside.insert("x-kubernetes-patch-merge-key".to_owned(), Value::from(&**key));
            }
        }
        if self.dialect == Dialect::V3 && !beside.is_empty() && out.contains_key("$ref") {
            // Nothing may stand beside a reference.
            let reference = std::mem::take(&mut out);
            out.insert("allOf".to_owned(), json!([reference]));
        }
        out.extend(beside);
        Value::Object(out)
    }

    fn constraints(&self, constraints: &Constraints, out: &mut Map<String, Value>) {
        let Constraints {
            enumeration,
            minimum,
            exclusive_minimum,
            maximum,
            exclusive_maximum,
            multiple_of,
            min_length,
            max_length,
            pattern,
            min_items,
            max_items,
            min_properties,
            max_properties,
            unique_items,
            format,
            all_of,
            any_of,
            one_of,
            not,
            rules,
            external_docs,
            example,
        } = constraints;
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                out.insert(name.to_owned(), value);
            }
        };
        put("enum", (!enumeration.is_empty()).then(|| json!(enumeration)));
        put("minimum", minimum.map(number));
        put("exclusiveMinimum", exclusive_minimum.then(|| json!(true)));
        put("maximum", maximum.map(number));
        put("exclusiveMaximum", exclusive_maximum.then(|| json!(true)));
        put("multipleOf", multiple_of.map(number));
        put("minLength", min_length.map(Value::from));
        put("maxLength", max_length.map(Value::from));
        put("pattern", pattern.as_deref().map(Value::from));
        put("minItems", min_items.map(Value::from));
        put("maxItems", max_items.map(Value::from));
        put("minProperties", min_properties.map(Value::from));
        put("maxProperties", max_properties.map(Value::from));
        put("uniqueItems", unique_items.then(|| json!(true)));
        put("format", format.as_deref().map(Value::from));
        put("externalDocs", external_docs.as_deref().cloned());
        put("example", example.as_deref().cloned());
        put("x-kubernetes-validations", (!rules.is_empty()).then(|| rules.iter().map(rule).collect()));
        if self.dialect == Dialect::V3 {
            let list = |of: &[TypeId]| -> Option<Value> {
                (!of.is_empty()).then(|| of.iter().map(|of| Value::Object(self.nested(*of))).collect())
            };
            put("allOf", list(all_of));
            put("anyOf", list(any_of));
            put("oneOf", list(one_of));
            put("not", not.map(|of| Value::Object(self.nested(of))));
        }
    }

    /// A schema under a junctor, which says nothing of structure.
    fn nested(&self, of: TypeId) -> Map<String, Value> {
        let node = self.set.node(of);
        let mut out = Map::new();
        match &node.shape {
            Shape::Struct { properties, required, .. } => {
                if !required.is_empty() {
                    let names: Vec<&str> = required.iter().map(|name| &**name).collect();
                    out.insert("required".to_owned(), json!(names));
                }
                let fields: Map<String, Value> = properties
                    .iter()
                    .map(|(name, field)| (name.to_string(), Value::Object(self.nested(field.of))))
                    .collect();
                if !fields.is_empty() {
                    out.insert("properties".to_owned(), Value::Object(fields));
                }
            }
            Shape::List { items, .. } => {
                out.insert("items".to_owned(), Value::Object(self.nested(*items)));
            }
            _ => {}
        }
        if let Some(constraints) = &node.constraints {
            self.constraints(constraints, &mut out);
        }
        out
    }
}

/// Types of which upstream says no `type`, because any JSON may stand there (`OpenAPISchemaType` in
/// `apiextensions/v1/types_jsonschema.go` is nil): clients that check what they send would refuse the rest.
fn is_untyped(name: &str) -> bool {
    let of = name.strip_prefix("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.");
    of.is_some_and(|of| of == "JSON" || of.starts_with("JSONSchemaPropsOr"))
}

/// Whole numbers without a fraction, as they were written.
#[allow(clippy::cast_possible_truncation, clippy::float_cmp, reason = "guarded by the range check")]
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { Value::from(value as i64) } else { Value::from(value) }
}

fn rule(rule: &Rule) -> Value {
    let Rule { rule, message, message_expression, reason, field_path, optional_old_self } = rule;
    let mut out = Map::new();
    out.insert("rule".to_owned(), Value::from(&**rule));
    for (name, text) in [
        ("message", message),
        ("messageExpression", message_expression),
        ("reason", reason),
        ("fieldPath", field_path),
    ] {
        if let Some(text) = text {
            out.insert(name.to_owned(), Value::from(&**text));
        }
    }
    if let Some(optional) = optional_old_self {
        out.insert("optionalOldSelf".to_owned(), Value::Bool(*optional));
    }
    Value::Object(out)
}

fn put_name(key: &str, name: Option<&str>, put: &mut impl FnMut(&str, Value)) {
    if let Some(name) = name {
        put(key, json!(name));
    }
}

fn list_extensions(list_type: &ListType, mut put: impl FnMut(&str, Value)) {
    match list_type {
        ListType::Unspecified => {}
        ListType::Atomic => put("x-kubernetes-list-type", json!("atomic")),
        ListType::Set => put("x-kubernetes-list-type", json!("set")),
        ListType::Map(keys) => {
            put("x-kubernetes-list-type", json!("map"));
            put("x-kubernetes-list-map-keys", json!(keys.iter().map(|key| &**key).collect::<Vec<_>>()));
        }
    }
}

fn map_type_name(map_type: MapType) -> Option<&'static str> {
    match map_type {
        MapType::Granular => None,
        MapType::Atomic => Some("atomic"),
    }
}

fn format_name(format: Format) -> Option<&'static str> {
    match format {
        Format::None | Format::Quantity | Format::Other => None,
        Format::Int32 => Some("int32"),
        Format::Int64 => Some("int64"),
        Format::Float => Some("float"),
        Format::Double => Some("double"),
        Format::Byte => Some("byte"),
        Format::DateTime | Format::MicroTime => Some("date-time"),
    }
}
