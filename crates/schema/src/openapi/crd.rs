//! The schema of a CRD version: JSONSchemaProps read into the one schema form, with the rules of structural
//! schemas, which stand in `structural`. CEL rules are only taken over here; whether they
//! compile is [`crate::cel`]'s business.

use std::{collections::BTreeMap, sync::Arc};

use meta::FieldError;
use serde_json::{Value, json};

use super::metadata::object_meta;
use crate::{
    Constraints, Format, ListType, MapType, Node, Property, Rule, Schema, Shape, TypeId, TypeSet, prune,
    validate,
};

/// Reads `openAPIV3Schema` of a CRD version: a structural schema, to which `apiVersion`, `kind` and
/// `ObjectMeta` are added at the root. `path` is the schema's own path, for errors
/// (`spec.versions[0].schema.openAPIV3Schema`). Errors are sorted and at most 100.
pub fn from_crd(json: &Value, path: &str) -> Result<Schema, Vec<FieldError>> {
    let mut reader = Reader { set: TypeSet::new(), errors: Vec::new(), defaults: Vec::new() };
    let root = reader.structural(json, path, Level::Root);
    let Reader { set, mut errors, defaults } = reader;
    let schema = Schema::new(Arc::new(set), root);
    if errors.is_empty() {
        check_defaults(&schema, defaults, &mut errors);
    }
    if errors.is_empty() {
        return Ok(schema);
    }
    errors.sort_by_key(ToString::to_string);
    errors.truncate(100);
    Err(errors)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Root,
    Item,
    Field,
}

pub(super) struct Reader {
    set: TypeSet,
    pub(super) errors: Vec<FieldError>,
    /// Path, type and value of every default.
    defaults: Vec<(String, TypeId, Arc<Value>)>,
}

pub(super) fn text<'a>(json: &'a Value, field: &str) -> &'a str {
    json.get(field).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn flag(json: &Value, field: &str) -> bool {
    json.get(field).and_then(Value::as_bool).unwrap_or_default()
}

fn shared(json: &Value, field: &str) -> Option<Arc<str>> {
    json.get(field).and_then(Value::as_str).map(Arc::from)
}

pub(super) fn entries<'a>(json: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    json.get(field).and_then(Value::as_object).into_iter().flatten()
}

pub(super) fn items<'a>(json: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    json.get(field).and_then(Value::as_array).into_iter().flatten()
}

impl Reader {
    fn structural(&mut self, json: &Value, path: &str, level: Level) -> TypeId {
        if !json.is_object() {
            self.errors.push(FieldError::required(path, "schemas are required"));
            return self.set.add(Node::default());
        }
        self.unsupported(json, path);
        self.type_rules(json, path, level);
        self.list_rules(json, path);
        let shape = self.shape(json, path, level);
        let constraints = self.constraints(json, path, &shape);
        let node = Node {
            name: None,
            shape,
            nullable: flag(json, "nullable"),
            description: shared(json, "description"),
            constraints,
        };
        self.set.add(node)
    }

    fn shape(&mut self, json: &Value, path: &str, level: Level) -> Shape {
        if flag(json, "x-kubernetes-int-or-string") {
            return Shape::IntOrString;
        }
        if let Some(shape) = scalar(json) {
            return shape;
        }
        let map_type =
            if text(json, "x-kubernetes-map-type") == "atomic" { MapType::Atomic } else { MapType::Granular };
        match text(json, "type") {
            "array" => {
                let of = match json.get("items") {
                    Some(items) => self.structural(items, &format!("{path}.items"), Level::Item),
                    None => self.set.add(Node::default()),
                };
                Shape::List { items: of, list_type: list_type(json) }
            }
            "object" => match json.get("additionalProperties") {
                Some(values @ Value::Object(_))
                    if json.get("properties").is_none() && level != Level::Root =>
                {
                    let values =
                        self.structural(values, &format!("{path}.additionalProperties"), Level::Field);
                    Shape::Map { values, map_type }
                }
                Some(Value::Bool(true)) if json.get("properties").is_none() && level != Level::Root => {
                    Shape::Map { values: self.set.add(Node::default()), map_type }
                }
                _ => self.fields(json, path, level, map_type),
            },
            _ if json.get("properties").is_some() => self.fields(json, path, level, map_type),
            _ => Shape::Any,
        }
    }

    fn fields(&mut self, json: &Value, path: &str, level: Level, map_type: MapType) -> Shape {
        let embedded = flag(json, "x-kubernetes-embedded-resource");
        let with_metadata = embedded || level == Level::Root;
        let mut properties: BTreeMap<Arc<str>, Property> = BTreeMap::new();
        for (name, field) in entries(json, "properties") {
            let at = format!("{path}.properties[{name}]");
            if with_metadata && name == "metadata" {
                if level == Level::Root {
                    self.metadata_rules(field, &at);
                }
                continue;
            }
            let of = self.structural(field, &at, Level::Field);
            let default = field.get("default").map(|default| Arc::new(default.clone()));
            if let Some(default) = &default {
                self.defaults.push((format!("{at}.default"), of, default.clone()));
            }
            properties.insert(name.as_str().into(), Property { of, default, patch: None, protobuf: 0 });
        }
        if with_metadata {
            let string = self.set.add(Node { shape: Shape::String(Format::None), ..Node::default() });
            for name in ["apiVersion", "kind"] {
                properties.entry(name.into()).or_insert(Property {
                    of: string,
                    default: None,
                    patch: None,
                    protobuf: 0,
                });
            }
            let of = self.metadata(json.get("properties").and_then(|p| p.get("metadata")), path);
            properties.insert("metadata".into(), Property { of, default: None, patch: None, protobuf: 0 });
        }
        Shape::Struct {
            properties,
            required: items(json, "required").filter_map(Value::as_str).map(Arc::from).collect(),
            preserve_unknown: flag(json, "x-kubernetes-preserve-unknown-fields"),
            embedded,
            map_type,
        }
    }

    /// ObjectMeta, with the CRD's own restrictions on name and generateName.
    fn metadata(&mut self, restrictions: Option<&Value>, path: &str) -> TypeId {
        let common = object_meta(&mut self.set);
        let restricted: Vec<(&String, &Value)> =
            restrictions.map(|json| entries(json, "properties").collect()).unwrap_or_default();
        if restricted.is_empty() {
            return common;
        }
        let mut node = self.set.node(common).clone();
        node.name = None;
        if let Shape::Struct { properties, .. } = &mut node.shape {
            for (name, json) in restricted {
                let at = format!("{path}.properties[metadata].properties[{name}]");
                let of = self.structural(json, &at, Level::Field);
                if let Some(property) = properties.get_mut(name.as_str()) {
                    property.of = of;
                }
            }
        }
        self.set.add(node)
    }

    /// Value checks; `None` when there are none.
    fn constraints(&mut self, json: &Value, path: &str, shape: &Shape) -> Option<Box<Constraints>> {
        let number = |field: &str| json.get(field).and_then(Value::as_f64);
        let count = |field: &str| json.get(field).and_then(Value::as_u64);
        if let Some(pattern) = shared(json, "pattern")
            && let Err(why) = validate::pattern_error(&pattern)
        {
            let detail = format!("must be a valid regular expression, but isn't: {why}");
            self.invalid(format!("{path}.pattern"), json!(&*pattern), &detail);
        }
        // `x-kubernetes-int-or-string` may repeat itself as anyOf integer, string; alone or first in allOf.
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        let implied =
            |json: &Value| matches!(shape, Shape::IntOrString) && json.get("anyOf") == Some(&either);
        let any_of = if implied(json) { Vec::new() } else { self.junctors(json, "anyOf", path) };
        let first = items(json, "allOf").next().is_some_and(implied);
        let mut all_of = Vec::new();
        for (at, nested) in items(json, "allOf").enumerate() {
            let mut nested = nested.clone();
            if let (true, 0, Value::Object(map)) = (first, at, &mut nested) {
                map.remove("anyOf");
            }
            all_of.push(self.nested(&nested, &format!("{path}.allOf[{at}]")));
        }
        let made = Constraints {
            enumeration: items(json, "enum").cloned().collect(),
            minimum: number("minimum"),
            exclusive_minimum: flag(json, "exclusiveMinimum"),
            maximum: number("maximum"),
            exclusive_maximum: flag(json, "exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            pattern: shared(json, "pattern"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            unique_items: flag(json, "uniqueItems"),
            format: shared(json, "format"),
            all_of,
            any_of,
            one_of: self.junctors(json, "oneOf", path),
            not: json.get("not").map(|nested| self.nested(nested, &format!("{path}.not"))),
            rules: self.rules(json, path),
            external_docs: json.get("externalDocs").cloned().map(Arc::new),
            example: json.get("example").cloned().map(Arc::new),
        };
        (!is_empty(&made)).then(|| Box::new(made))
    }

    fn junctors(&mut self, json: &Value, field: &str, path: &str) -> Vec<TypeId> {
        items(json, field)
            .enumerate()
            .map(|(at, nested)| self.nested(nested, &format!("{path}.{field}[{at}]")))
            .collect()
    }

    /// A schema under anyOf, allOf, oneOf, not: value checks only, no structure of its own.
    fn nested(&mut self, json: &Value, path: &str) -> TypeId {
        for (field, why) in [
            ("type", "must be empty to be structural"),
            ("additionalProperties", "must be undefined to be structural"),
            ("default", "must be undefined to be structural"),
            ("title", "must be empty to be structural"),
            ("description", "must be empty to be structural"),
            ("nullable", "must be false to be structural"),
            ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
            ("x-kubernetes-embedded-resource", "must be false to be structural"),
            ("x-kubernetes-int-or-string", "must be false to be structural"),
            ("x-kubernetes-list-map-keys", "must be empty to be structural"),
            ("x-kubernetes-list-type", "must be undefined to be structural"),
            ("x-kubernetes-map-type", "must be undefined to be structural"),
            ("x-kubernetes-validations", "must be empty to be structural"),
        ] {
            if json.get(field).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false))) {
                self.forbidden(format!("{path}.{field}"), why);
            }
        }
        let mut properties: BTreeMap<Arc<str>, Property> = BTreeMap::new();
        for (name, field) in entries(json, "properties") {
            let at = format!("{path}.properties[{name}]");
            if name == "metadata" {
                self.forbidden(at.clone(), "must not be specified in a nested context");
            }
            let of = self.nested(field, &at);
            properties.insert(name.as_str().into(), Property { of, default: None, patch: None, protobuf: 0 });
        }
        let required: Box<[Arc<str>]> =
            items(json, "required").filter_map(Value::as_str).map(Arc::from).collect();
        let shape = if let Some(of) = json.get("items") {
            let items = self.nested(of, &format!("{path}.items"));
            Shape::List { items, list_type: ListType::Unspecified }
        } else if !properties.is_empty() || !required.is_empty() {
            Shape::Struct {
                properties,
                required,
                preserve_unknown: true,
                embedded: false,
                map_type: MapType::Granular,
            }
        } else {
            Shape::Any
        };
        let constraints = self.constraints(json, path, &shape);
        self.set.add(Node { shape, constraints, nullable: true, ..Node::default() })
    }

    fn rules(&mut self, json: &Value, path: &str) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (at, json) in items(json, "x-kubernetes-validations").enumerate() {
            let at = format!("{path}.x-kubernetes-validations[{at}]");
            self.rule_rules(json, &at);
            rules.push(Rule {
                rule: text(json, "rule").into(),
                message: shared(json, "message"),
                message_expression: shared(json, "messageExpression"),
                reason: shared(json, "reason"),
                field_path: shared(json, "fieldPath"),
                optional_old_self: json.get("optionalOldSelf").and_then(Value::as_bool),
            });
        }
        rules
    }
}

fn list_type(json: &Value) -> ListType {
    match text(json, "x-kubernetes-list-type") {
        "set" => ListType::Set,
        "map" => ListType::Map(
            items(json, "x-kubernetes-list-map-keys").filter_map(Value::as_str).map(Arc::from).collect(),
        ),
        "atomic" => ListType::Atomic,
        _ => ListType::Unspecified,
    }
}

/// The shape of what has no parts.
pub(super) fn scalar(json: &Value) -> Option<Shape> {
    let format = format(text(json, "format"));
    match text(json, "type") {
        "string" => Some(Shape::String(format)),
        "integer" => Some(Shape::Integer(format)),
        "number" => Some(Shape::Number(format)),
        "boolean" => Some(Shape::Boolean),
        _ => None,
    }
}

fn format(name: &str) -> Format {
    match name {
        "" => Format::None,
        "int32" => Format::Int32,
        "int64" => Format::Int64,
        "float" => Format::Float,
        "double" => Format::Double,
        "byte" => Format::Byte,
        "date-time" => Format::DateTime,
        _ => Format::Other,
    }
}

fn is_empty(made: &Constraints) -> bool {
    let Constraints {
        enumeration,
        minimum,
        exclusive_minimum: _,
        maximum,
        exclusive_maximum: _,
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
    } = made;
    enumeration.is_empty()
        && [minimum, maximum, multiple_of].iter().all(|limit| limit.is_none())
        && [min_length, max_length, min_items, max_items, min_properties, max_properties]
            .iter()
            .all(|limit| limit.is_none())
        && pattern.is_none()
        && format.is_none()
        && !unique_items
        && all_of.is_empty()
        && any_of.is_empty()
        && one_of.is_empty()
        && not.is_none()
        && rules.is_empty()
        && external_docs.is_none()
        && example.is_none()
}

/// A default must itself be a valid value of its field, with nothing to prune.
fn check_defaults(
    schema: &Schema,
    defaults: Vec<(String, TypeId, Arc<Value>)>,
    errors: &mut Vec<FieldError>,
) {
    for (path, of, default) in defaults {
        let field = Schema::new(schema.set().clone(), of);
        let mut value = Value::clone(&default);
        crate::default::apply(&field, &mut value);
        let mut pruned = value.clone();
        prune::unknown(&field, &mut pruned, prune::Mode::Ignore);
        if pruned != value {
            errors.push(FieldError::invalid(path.clone(), &value, "must not have unknown fields"));
        }
        errors.extend(validate::value(&field, &value, None).into_iter().map(|error| FieldError {
            field: if error.field.is_empty() || error.field == "<nil>" {
                path.clone()
            } else {
                format!("{path}.{}", error.field)
            },
            ..error
        }));
    }
}
