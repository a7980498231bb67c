//! OpenAPI v3 validation in upstream's words (`kube-openapi/pkg/validation`,
//! `apiextensions-apiserver/pkg/apiserver/validation`), with ratcheting: what was already wrong in the old
//! object and did not change is not reported. Unknown fields and CEL rules are not its business.

mod formats;
mod pattern;
mod re2;

use std::collections::BTreeSet;

use meta::{FieldError, FieldErrorKind, Quantity};
use serde_json::{Map, Value, json};

pub(crate) use formats::is_date_time;
pub(crate) use pattern::{pattern_error, regex};

use crate::{Constraints, Format, ListType, Node, Schema, Shape, TypeId, TypeSet, path::Path};

/// Errors after which a check stops: what is wrong with an object must fit into an answer.
const ERRORS_MAX: usize = 200;

/// Everything that is wrong with `new`. With `old`, parts that are as they were are not reported, whatever
/// has become of the schema since (KEP-4008): fields and map keys are compared by name, items of lists of
/// type map by their keys; other lists as a whole.
pub fn value(schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut check = Check { set: schema.set(), errors: Vec::new() };
    check.value(schema.root(), new, old, &Path::Root);
    check.errors
}

struct Check<'s> {
    set: &'s TypeSet,
    errors: Vec<FieldError>,
}

impl Check<'_> {
    fn value(&mut self, of: TypeId, new: &Value, old: Option<&Value>, path: &Path<'_>) {
        let node = self.set.node(of);
        if is_trivial(node) && has_type(&node.shape, new)
            || self.errors.len() >= ERRORS_MAX
            || new.is_null() && node.nullable
        {
            return;
        }
        let before = self.errors.len();
        if has_type(&node.shape, new) {
            if let Some(constraints) = &node.constraints {
                self.junctors(constraints, new, path);
                self.constraints(constraints, &node.shape, new, path);
            }
            self.format(&node.shape, new, path);
            self.below(node, new, old, path);
        } else {
            self.type_error(&node.shape, new, path);
        }
        // Compared only where something is wrong: a correct object costs no comparison.
        if self.errors.len() > before && old == Some(new) {
            self.errors.truncate(before);
        }
    }

    fn below(&mut self, node: &Node, new: &Value, old: Option<&Value>, path: &Path<'_>) {
        match (&node.shape, new) {
            (Shape::Struct { properties, required, .. }, Value::Object(map)) => {
                for (name, value) in map {
                    if let Some(property) = properties.get(name.as_str()) {
                        let old = old.and_then(|old| old.get(name));
                        self.value(property.of, value, old, &Path::Field(path, name));
                    }
                }
                for name in required.iter().filter(|name| !map.contains_key(&***name)) {
                    self.errors.push(FieldError::required(Path::Field(path, name).dotted(), ""));
                }
            }
            (Shape::Map { values, .. }, Value::Object(map)) => {
                for (key, value) in map {
                    let old = old.and_then(|old| old.get(key));
                    self.value(*values, value, old, &Path::Key(path, key));
                }
            }
            (Shape::List { items, list_type }, Value::Array(list)) => {
                self.duplicates(list_type, list, path);
                for (at, item) in list.iter().enumerate() {
                    let old = match list_type {
                        ListType::Map(keys) => counterpart(keys, item, old),
                        ListType::Unspecified | ListType::Atomic | ListType::Set => None,
                    };
                    self.value(*items, item, old, &Path::Index(path, at));
                }
            }
            _ => {}
        }
    }

    fn duplicates(&mut self, list_type: &ListType, list: &[Value], path: &Path<'_>) {
        if list.len() < 2 && !matches!(list_type, ListType::Map(_)) {
            return;
        }
        let mut once: BTreeSet<String> = BTreeSet::new();
        let mut twice: BTreeSet<String> = BTreeSet::new();
        for (at, item) in list.iter().enumerate() {
            let identity = match list_type {
                ListType::Unspecified | ListType::Atomic => return,
                ListType::Set => item.clone(),
                ListType::Map(keys) => match item {
                    Value::Object(map) => keys
                        .iter()
                        .filter_map(|key| Some((key.to_string(), map.get(&**key)?.clone())))
                        .collect::<Map<_, _>>()
                        .into(),
                    Value::Null => json!({}),
                    _ => {
                        let why = "must be an object for an array of list-type map";
                        let at = Path::Index(path, at).to_string();
                        return self.errors.push(FieldError::invalid(at, item, why));
                    }
                },
            };
            let text = identity.to_string();
            if !once.insert(text.clone()) && twice.insert(text) {
                self.errors.push(FieldError::duplicate(Path::Index(path, at).to_string(), &identity));
            }
        }
    }

    fn type_error(&mut self, shape: &Shape, value: &Value, path: &Path<'_>) {
        let (at, found) = (path.dotted(), type_name(value));
        let detail = format!("{at} in body must be of type {}: {found:?}", expected(shape));
        let error = FieldError::valued(FieldErrorKind::TypeInvalid, root(at), &json!(found), detail);
        self.errors.push(error);
    }

    fn format(&mut self, shape: &Shape, value: &Value, path: &Path<'_>) {
        let wrong = match (shape, value) {
            (Shape::String(Format::Quantity), Value::String(text)) => {
                return match text.parse::<Quantity>() {
                    Ok(_) => {}
                    Err(why) => self.invalid(path, value, &why.to_string()),
                };
            }
            (Shape::String(Format::Byte), Value::String(text)) => !formats::is_valid("byte", text),
            (Shape::String(Format::DateTime | Format::MicroTime), Value::String(text)) => !is_date_time(text),
            (Shape::Integer(Format::Int32), Value::Number(number)) => {
                number.as_i64().is_none_or(|n| i32::try_from(n).is_err())
                    && number.as_f64().is_none_or(|n| n < f64::from(i32::MIN) || n > f64::from(i32::MAX))
            }
            _ => false,
        };
        if wrong {
            let name = match shape {
                Shape::String(Format::Byte) => "byte",
                Shape::Integer(_) => "int32",
                _ => "date-time",
            };
            self.bad_format(name, value, path);
        }
    }

    fn bad_format(&mut self, format: &str, value: &Value, path: &Path<'_>) {
        let at = path.dotted();
        let shown = value.as_str().map_or_else(|| value.to_string(), |text| format!("{text:?}"));
        let detail = format!("{at} in body must be of type {format}: {shown}");
        self.errors.push(FieldError::valued(FieldErrorKind::TypeInvalid, root(at), value, detail));
    }

    fn invalid(&mut self, path: &Path<'_>, value: &Value, detail: &str) {
        self.errors.push(FieldError::invalid(root(path.dotted()), value, detail));
    }

    fn constraints(&mut self, of: &Constraints, shape: &Shape, value: &Value, path: &Path<'_>) {
        match value {
            Value::String(text) => self.text(of, shape, text, value, path),
            Value::Number(number) => self.number(of, number.as_f64().unwrap_or_default(), value, path),
            Value::Array(list) => {
                let count = list.len() as u64;
                if let Some(min) = of.min_items.filter(|min| count < *min) {
                    self.body(path, value, &format!("should have at least {min} items"));
                }
                if let Some(max) = of.max_items.filter(|max| count > *max) {
                    self.too_many(path, count, max);
                }
                if of.unique_items {
                    let mut seen = BTreeSet::new();
                    if !list.iter().all(|item| seen.insert(item.to_string())) {
                        self.body(path, value, "shouldn't contain duplicates");
                    }
                }
            }
            Value::Object(map) => {
                let count = map.len() as u64;
                if let Some(min) = of.min_properties.filter(|min| count < *min) {
                    self.body(path, value, &format!("should have at least {min} properties"));
                }
                if let Some(max) = of.max_properties.filter(|max| count > *max) {
                    self.too_many(path, count, max);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        if !of.enumeration.is_empty() && !of.enumeration.iter().any(|allowed| equal(allowed, value)) {
            let allowed: Vec<String> = of
                .enumeration
                .iter()
                .map(|allowed| allowed.as_str().map_or_else(|| allowed.to_string(), str::to_owned))
                .collect();
            let mut allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
            allowed.sort_unstable();
            self.errors.push(FieldError::not_supported(root(path.dotted()), value, &allowed));
        }
    }

    /// `PATH in body WHAT`.
    fn body(&mut self, path: &Path<'_>, value: &Value, what: &str) {
        let detail = format!("{} in body {what}", path.dotted());
        self.invalid(path, value, &detail);
    }

    fn too_many(&mut self, path: &Path<'_>, count: u64, max: u64) {
        let items = if max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {max} {items}");
        let error = FieldError::valued(FieldErrorKind::TooMany, root(path.dotted()), &json!(count), detail);
        self.errors.push(error);
    }

    fn text(&mut self, of: &Constraints, shape: &Shape, text: &str, value: &Value, path: &Path<'_>) {
        let length = text.chars().count() as u64;
        if let Some(max) = of.max_length.filter(|max| length > *max) {
            self.errors.push(FieldError {
                kind: FieldErrorKind::TooLong,
                field: root(path.dotted()),
                value: None,
                detail: format!("may not be more than {max} {}", if max == 1 { "byte" } else { "bytes" }),
            });
        }
        if let Some(min) = of.min_length.filter(|min| length < *min) {
            self.body(path, value, &format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = of.pattern.as_deref().filter(|pattern| !pattern::is_match(pattern, text)) {
            self.body(path, value, &format!("should match '{pattern}'"));
        }
        let known = matches!(shape, Shape::String(Format::Byte | Format::DateTime | Format::MicroTime));
        if let Some(format) = of.format.as_deref().filter(|format| !known && !formats::is_valid(format, text))
        {
            self.bad_format(format, value, path);
        }
    }

    fn number(&mut self, of: &Constraints, number: f64, value: &Value, path: &Path<'_>) {
        if let Some(min) = of.minimum {
            if of.exclusive_minimum && number <= min {
                self.body(path, value, &format!("should be greater than {min}"));
            } else if number < min {
                self.body(path, value, &format!("should be greater than or equal to {min}"));
            }
        }
        if let Some(max) = of.maximum {
            if of.exclusive_maximum && number >= max {
                self.body(path, value, &format!("should be less than {max}"));
            } else if number > max {
                self.body(path, value, &format!("should be less than or equal to {max}"));
            }
        }
        if let Some(factor) = of.multiple_of {
            let times = number / factor;
            if (times - times.round()).abs() > 1e-9 {
                self.body(path, value, &format!("should be a multiple of {factor}"));
            }
        }
    }

    fn junctors(&mut self, of: &Constraints, value: &Value, path: &Path<'_>) {
        if !of.any_of.is_empty() {
            let failures = self.attempts(&of.any_of, value, path);
            if failures.iter().all(|errors| !errors.is_empty()) {
                self.junctor(path, "must validate at least one schema (anyOf)");
                self.errors.extend(best(failures));
            }
        }
        if !of.one_of.is_empty() {
            let failures = self.attempts(&of.one_of, value, path);
            match failures.iter().filter(|errors| errors.is_empty()).count() {
                0 => {
                    self.junctor(path, "must validate one and only one schema (oneOf). Found none valid");
                    self.errors.extend(best(failures));
                }
                1 => {}
                many => {
                    let what = format!(
                        "must validate one and only one schema (oneOf). Found {many} valid alternatives"
                    );
                    self.junctor(path, &what);
                }
            }
        }
        if !of.all_of.is_empty() {
            let failures = self.attempts(&of.all_of, value, path);
            let failed = failures.iter().filter(|errors| !errors.is_empty()).count();
            if failed > 0 {
                let none = if failed == failures.len() { ". None validated" } else { "" };
                self.errors.extend(failures.into_iter().flatten());
                self.junctor(path, &format!("must validate all the schemas (allOf){none}"));
            }
        }
        if let Some(not) = of.not
            && self.attempt(not, value, path).is_empty()
        {
            self.junctor(path, "must not validate the schema (not)");
        }
    }

    fn junctor(&mut self, path: &Path<'_>, what: &str) {
        // Upstream knows no field for these and prints what Go prints for none.
        self.errors.push(FieldError::invalid("<nil>", &json!(""), format!("{:?} {what}", path.dotted())));
    }

    fn attempts(&self, of: &[TypeId], value: &Value, path: &Path<'_>) -> Vec<Vec<FieldError>> {
        of.iter().map(|of| self.attempt(*of, value, path)).collect()
    }

    fn attempt(&self, of: TypeId, value: &Value, path: &Path<'_>) -> Vec<FieldError> {
        let mut check = Check { set: self.set, errors: Vec::new() };
        check.nested(of, value, path);
        check.errors
    }

    /// A schema under a junctor: it has no type, and structure only where it restricts it.
    fn nested(&mut self, of: TypeId, value: &Value, path: &Path<'_>) {
        let node = self.set.node(of);
        if let Some(constraints) = &node.constraints {
            self.junctors(constraints, value, path);
            self.constraints(constraints, &node.shape, value, path);
        }
        match (&node.shape, value) {
            (Shape::Struct { properties, required, .. }, Value::Object(map)) => {
                for (name, property) in properties {
                    if let Some(value) = map.get(&**name) {
                        self.nested(property.of, value, &Path::Field(path, name));
                    }
                }
                for name in required.iter().filter(|name| !map.contains_key(&***name)) {
                    self.errors.push(FieldError::required(Path::Field(path, name).dotted(), ""));
                }
            }
            (Shape::List { items, .. }, Value::Array(list)) => {
                for (at, item) in list.iter().enumerate() {
                    self.nested(*items, item, &Path::Index(path, at));
                }
            }
            _ => {}
        }
    }
}

/// The alternative that came closest.
fn best(failures: Vec<Vec<FieldError>>) -> Vec<FieldError> {
    failures.into_iter().min_by_key(Vec::len).unwrap_or_default()
}

/// Upstream prints a missing path as Go does.
fn root(path: String) -> String {
    if path.is_empty() { "<nil>".to_owned() } else { path }
}

fn is_trivial(node: &Node) -> bool {
    node.constraints.is_none()
        && matches!(
            node.shape,
            Shape::Any
                | Shape::String(Format::None)
                | Shape::Boolean
                | Shape::Integer(Format::None | Format::Int64)
        )
}

/// The old item with the same keys.
fn counterpart<'a>(keys: &[std::sync::Arc<str>], item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    old?.as_array()?.iter().find(|old| keys.iter().all(|key| old.get(&**key) == item.get(&**key)))
}

/// Whether a value has the type of a shape; quantities and int-or-string take numbers and strings.
pub(crate) fn has_type(shape: &Shape, value: &Value) -> bool {
    match shape {
        Shape::Any => true,
        Shape::String(Format::Quantity) | Shape::IntOrString => match value {
            Value::String(_) => true,
            Value::Number(number) => !matches!(shape, Shape::IntOrString) || is_whole(number),
            _ => false,
        },
        Shape::String(_) => value.is_string(),
        Shape::Integer(_) => value.as_number().is_some_and(is_whole),
        Shape::Number(_) => value.is_number(),
        Shape::Boolean => value.is_boolean(),
        Shape::Struct { .. } | Shape::Map { .. } => value.is_object(),
        Shape::List { .. } => value.is_array(),
    }
}

fn is_whole(number: &serde_json::Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn expected(shape: &Shape) -> &'static str {
    match shape {
        Shape::Any => "any",
        Shape::String(_) => "string",
        Shape::Integer(_) => "integer",
        Shape::Number(_) => "number",
        Shape::Boolean => "boolean",
        Shape::IntOrString => "integer,string",
        Shape::Struct { .. } | Shape::Map { .. } => "object",
        Shape::List { .. } => "array",
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if is_whole(number) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Equality as JSON Schema sees it: 1 is 1.0.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}
