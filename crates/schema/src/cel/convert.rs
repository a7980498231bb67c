//! JSON as CEL values, by schema (upstream `apiserver/pkg/cel/common/values.go`): dates are timestamps,
//! bytes are bytes, field names that are not CEL names are escaped. Fields the schema does not declare are
//! not there.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use base64::Engine as _;
use kube_cel::cel::{
    Value as Cel,
    objects::{Key, Map, OptionalValue},
};
use serde_json::Value;

use super::program::Program;
use crate::{Format, Shape, TypeId, TypeSet};

/// Words that cannot be field names in CEL.
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

const ESCAPES: [(&str, &str); 4] =
    [("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];

/// A field's name in CEL.
pub(super) fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        match ESCAPES.iter().find(|(plain, _)| rest.starts_with(plain)) {
            Some((plain, escaped)) => {
                out.push_str(escaped);
                rest = rest.get(plain.len()..).unwrap_or_default();
            }
            None => {
                out.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
    }
    out
}

/// The field that a CEL name means.
pub(super) fn unescape(name: &str) -> String {
    let word = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(word) = word.filter(|word| RESERVED.contains(word)) {
        return word.to_owned();
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        match ESCAPES.iter().find(|(_, escaped)| rest.starts_with(escaped)) {
            Some((plain, escaped)) => {
                out.push_str(plain);
                rest = rest.get(escaped.len()..).unwrap_or_default();
            }
            None => {
                out.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
    }
    out
}

fn string(text: &str) -> Cel {
    Cel::String(Arc::new(text.to_owned()))
}

fn map(entries: HashMap<Key, Cel>) -> Cel {
    Cel::Map(Map { map: Arc::new(entries) })
}

/// `optional.of(value)` or `optional.none()`.
pub(super) fn optional(value: Option<Cel>) -> Cel {
    Cel::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of)))
}

/// Any JSON, without a schema.
pub(super) fn plain(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(truth) => Cel::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(n), _) => Cel::Int(n),
            (None, Some(n)) => Cel::UInt(n),
            (None, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => string(text),
        Value::Array(list) => Cel::List(Arc::new(list.iter().map(plain).collect())),
        Value::Object(fields) => {
            map(fields.iter().map(|(key, value)| (Key::from(key.as_str()), plain(value))).collect())
        }
    }
}

/// A value as JSON: what has no form of its own there (times, bytes) is written as upstream writes it.
pub(super) fn json(value: &Cel) -> Result<Value, String> {
    Ok(match value {
        Cel::Null => Value::Null,
        Cel::Bool(truth) => Value::Bool(*truth),
        Cel::Int(number) => Value::from(*number),
        Cel::UInt(number) => Value::from(*number),
        Cel::Float(number) => Value::from(*number),
        Cel::String(text) => Value::String(text.to_string()),
        Cel::Bytes(bytes) => {
            Value::String(base64::engine::general_purpose::STANDARD.encode(bytes.as_slice()))
        }
        Cel::List(list) => Value::Array(list.iter().map(json).collect::<Result<_, _>>()?),
        Cel::Map(map) => {
            let mut fields = serde_json::Map::new();
            for (key, value) in map.map.iter() {
                let Key::String(key) = key else { return Err("keys of a map must be strings".to_owned()) };
                fields.insert(key.to_string(), json(value)?);
            }
            Value::Object(fields)
        }
        Cel::Timestamp(time) => Value::String(time.to_rfc3339()),
        Cel::Opaque(opaque) => match opaque.downcast_ref::<OptionalValue>() {
            Some(optional) => optional.value().map_or(Ok(Value::Null), json)?,
            None => return Err("cannot be written as JSON".to_owned()),
        },
        Cel::Duration(_) | Cel::Function(..) => return Err("cannot be written as JSON".to_owned()),
    })
}

/// A value of a type. Of the `metadata` of a root (or embedded) object only the names are visible.
pub(super) fn convert(set: &TypeSet, of: TypeId, value: &Value, root: bool) -> Cel {
    let node = set.node(of);
    match (&node.shape, value) {
        (Shape::Struct { properties, embedded, .. }, Value::Object(fields)) => {
            let with_metadata = root || *embedded;
            let entries = fields.iter().filter_map(|(name, value)| {
                let property = properties.get(name.as_str())?;
                let value = if with_metadata && name == "metadata" {
                    names_only(value)
                } else {
                    convert(set, property.of, value, false)
                };
                Some((Key::from(escape(name).as_str()), value))
            });
            map(entries.collect())
        }
        (Shape::Map { values, .. }, Value::Object(fields)) => map(fields
            .iter()
            .map(|(key, value)| (Key::from(key.as_str()), convert(set, *values, value, false)))
            .collect()),
        (Shape::List { items, .. }, Value::Array(list)) => {
            Cel::List(Arc::new(list.iter().map(|item| convert(set, *items, item, false)).collect()))
        }
        (Shape::Number(_), Value::Number(number)) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        (Shape::String(format), Value::String(text)) => {
            let named = node.constraints.as_ref().and_then(|c| c.format.as_deref()).unwrap_or_default();
            formatted(*format, named, text)
        }
        (_, value) => plain(value),
    }
}

fn names_only(metadata: &Value) -> Cel {
    let names = ["name", "generateName"].into_iter().filter_map(|name| {
        let value = metadata.get(name)?;
        Some((Key::from(name), plain(value)))
    });
    map(names.collect())
}

fn formatted(format: Format, named: &str, text: &str) -> Cel {
    let typed = match (format, named) {
        (Format::DateTime | Format::MicroTime, _) => resolve("timestamp", text),
        (_, "date") => resolve("timestamp", &format!("{text}T00:00:00Z")),
        (_, "duration") => resolve("duration", text),
        (Format::Byte, _) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()
            .map(|bytes| Cel::Bytes(Arc::new(bytes))),
        _ => None,
    };
    typed.unwrap_or_else(|| string(text))
}

/// `timestamp(text)` or `duration(text)` as the language itself reads it; `None` where it cannot.
fn resolve(function: &'static str, text: &str) -> Option<Cel> {
    static TIMESTAMP: LazyLock<Option<Program>> =
        LazyLock::new(|| Program::compile("timestamp(text)", &["text"]).ok());
    static DURATION: LazyLock<Option<Program>> =
        LazyLock::new(|| Program::compile("duration(text)", &["text"]).ok());
    let program = if function == "timestamp" { &TIMESTAMP } else { &DURATION };
    program.as_ref()?.run(&[("text", string(text))]).ok()
}
