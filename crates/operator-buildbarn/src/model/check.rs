//! Holds a JSON value against the table.

use serde_json::{Map, Value};

use super::{
    rules,
    table::{Field, Shape, Type, table},
};

/// Faults kept of one configuration; more help nobody.
const FAULTS_MAX: usize = 20;
/// Deepest nesting that is followed; generated configurations have about 12.
const DEPTH_MAX: usize = 64;

/// Collects faults below a path.
#[derive(Debug, Default)]
pub(super) struct Faults {
    path: Vec<String>,
    list: Vec<String>,
}

impl Faults {
    pub(super) fn into_list(self) -> Vec<String> {
        self.list
    }

    /// Notes a fault at the current path.
    pub(super) fn add(&mut self, what: impl AsRef<str>) {
        if self.list.len() < FAULTS_MAX {
            let path = if self.path.is_empty() { ".".to_owned() } else { self.path.join(".") };
            self.list.push(format!("{path}: {}", what.as_ref()));
        }
    }

    /// Does `work` one level deeper.
    pub(super) fn at(&mut self, step: impl Into<String>, work: impl FnOnce(&mut Self)) {
        self.path.push(step.into());
        if self.path.len() < DEPTH_MAX {
            work(self);
        } else {
            self.add("is nested too deeply");
        }
        self.path.pop();
    }

    /// Checks `value` as a message.
    pub(super) fn message(&mut self, name: &str, value: &Value) {
        let Some(fields) = table().get(name) else {
            self.add(format!("there is no message {name}"));
            return;
        };
        let Some(map) = value.as_object() else {
            self.add("must be an object");
            return;
        };
        for (key, inner) in map {
            match fields.iter().find(|field| field.name == key) {
                None => self.at(key, |faults| faults.add("unknown field")),
                Some(field) => self.at(key, |faults| faults.field(field, inner)),
            }
        }
        self.required(fields, map);
        self.groups(fields, map);
        rules::check(name, map, self);
    }

    fn required(&mut self, fields: &[Field], map: &Map<String, Value>) {
        for field in fields.iter().filter(|field| field.required && field.group.is_empty()) {
            let set = map.get(field.name).is_some_and(|value| is_set(field, value));
            if !set {
                self.at(field.name, |faults| faults.add("must be set"));
            }
        }
    }

    fn groups(&mut self, fields: &[Field], map: &Map<String, Value>) {
        let mut seen: Vec<&str> = Vec::new();
        for field in fields.iter().filter(|field| !field.group.is_empty()) {
            if seen.contains(&field.group) {
                continue;
            }
            seen.push(field.group);
            let members: Vec<&str> =
                fields.iter().filter(|f| f.group == field.group).map(|f| f.name).collect();
            let set: Vec<&str> = members.iter().copied().filter(|name| map.contains_key(*name)).collect();
            if set.len() > 1 {
                self.add(format!("only one of {} may be set", set.join(", ")));
            }
            if set.is_empty() && field.required {
                self.add(format!("one of {} must be set", members.join(", ")));
            }
        }
    }

    fn field(&mut self, field: &Field, value: &Value) {
        match field.shape {
            Shape::One => self.value(&field.of, value),
            Shape::List => match value.as_array() {
                None => self.add("must be a list"),
                Some(list) => {
                    for (at, item) in list.iter().enumerate() {
                        self.at(at.to_string(), |faults| faults.value(&field.of, item));
                    }
                }
            },
            Shape::Map => match value.as_object() {
                None => self.add("must be an object"),
                Some(map) => {
                    for (key, item) in map {
                        self.at(format!("{key:?}"), |faults| faults.value(&field.of, item));
                    }
                }
            },
        }
    }

    fn value(&mut self, of: &Type, value: &Value) {
        let fault = match of {
            Type::Open => None,
            Type::Message(name) => {
                self.message(name, value);
                None
            }
            Type::String => (!value.is_string()).then(|| "must be a string".to_owned()),
            Type::Bytes => (!value.is_string()).then(|| "must be a string in base64".to_owned()),
            Type::Bool => (!value.is_boolean()).then(|| "must be true or false".to_owned()),
            Type::Double => (!value.is_number()).then(|| "must be a number".to_owned()),
            Type::Integer(from, to) => match integer(value) {
                Some(number) if (*from..=*to).contains(&number) => None,
                _ => Some(format!("must be an integer from {from} to {to}")),
            },
            Type::Duration => match value.as_str().and_then(seconds) {
                Some(seconds) if seconds >= 0.0 => None,
                Some(_) => Some("must not be negative".to_owned()),
                None => Some("must be a duration in seconds, such as \"300s\"".to_owned()),
            },
            Type::Timestamp => match value.as_str().map(str::parse::<meta::Timestamp>) {
                Some(Ok(_)) => None,
                _ => Some("must be a time in RFC 3339".to_owned()),
            },
            Type::Empty => match value.as_object() {
                Some(map) if map.is_empty() => None,
                _ => Some("must be {}".to_owned()),
            },
            Type::Struct => (!value.is_object()).then(|| "must be an object".to_owned()),
            Type::Enum(names) => match value.as_str() {
                Some("UNKNOWN") => Some(format!("must be one of {}", known(names))),
                Some(name) if names.contains(&name) => None,
                _ => Some(format!("must be one of {}", known(names))),
            },
        };
        if let Some(fault) = fault {
            self.add(fault);
        }
    }
}

fn known(names: &[&str]) -> String {
    names.iter().filter(|name| **name != "UNKNOWN").copied().collect::<Vec<_>>().join(", ")
}

/// protojson drops the difference between absent and zero for all but messages.
fn is_set(field: &Field, value: &Value) -> bool {
    match (field.shape, &field.of) {
        (Shape::List, _) => value.as_array().is_none_or(|list| !list.is_empty()),
        (Shape::Map, _) => value.as_object().is_none_or(|map| !map.is_empty()),
        (Shape::One, Type::String | Type::Bytes) => value.as_str() != Some(""),
        (Shape::One, Type::Integer(..)) => integer(value) != Some(0),
        (Shape::One, Type::Double) => value.as_f64() != Some(0.0),
        (Shape::One, _) => !value.is_null(),
    }
}

/// An integer, as a number or (as protojson writes 64 bits) as a string.
pub(super) fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Seconds of a duration in protojson's form.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let digits = text.strip_suffix('s')?;
    let plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '-');
    plain.then(|| digits.parse().ok()).flatten()
}
