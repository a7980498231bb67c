//! Whether a document is what the contract says: every field known, of its type, there when it has to be,
//! and never null.

use serde_json::{Map, Value};

use crate::kinds::{COMMON, COMMON_OF_EVENT, Field, Kind, Type};

/// Longest uid or name of a cluster or object.
const IDENTITY_BYTES_MAX: usize = 253;

/// Identities go into keys and addresses: what makes trouble there is refused.
pub(crate) fn identity<'a>(what: &str, text: &'a str) -> Result<&'a str, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if text.is_empty() || text.len() > IDENTITY_BYTES_MAX || !text.chars().all(plain) {
        return Err(format!("{what} has to be 1 to {IDENTITY_BYTES_MAX} characters of A-Z a-z 0-9 - _ . :"));
    }
    Ok(text)
}

/// What every object says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
}

/// Checks one object of a kind.
pub(crate) fn object(kind: &Kind, value: &Value) -> Result<Identity, String> {
    let Value::Object(fields) = value else { return Err(format!("a {} is no object", kind.name)) };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let what = || format!("{} {}", kind.name, text("uid"));
    let common = if kind.name == "Event" { COMMON_OF_EVENT } else { COMMON };
    let namespace: &[Field] = if kind.namespaced { &[("namespace", Type::Text, true)] } else { &[] };
    check(fields, &[common, namespace, kind.fields]).map_err(|why| format!("{}: {why}", what()))?;
    let uid = identity("uid", &text("uid"))?.to_owned();
    Ok(Identity { uid, name: text("name"), namespace: text("namespace") })
}

fn check(fields: &Map<String, Value>, tables: &[&[Field]]) -> Result<(), String> {
    let known = || tables.iter().flat_map(|table| table.iter());
    if let Some(unknown) = fields.keys().find(|key| !known().any(|(name, ..)| name == key)) {
        return Err(format!("field {unknown} is unknown"));
    }
    for (name, of, always) in known() {
        match fields.get(*name) {
            Some(value) => typed(value, *of).map_err(|why| format!("{name}: {why}"))?,
            None if *always => return Err(format!("field {name} is missing")),
            None => {}
        }
    }
    Ok(())
}

fn typed(value: &Value, of: Type) -> Result<(), String> {
    match (of, value) {
        (Type::Text, Value::String(_)) | (Type::Flag, Value::Bool(_)) => Ok(()),
        (Type::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(()),
        (Type::Texts, Value::Object(map)) if map.values().all(Value::is_string) => Ok(()),
        (Type::List, Value::Array(items)) if items.iter().all(Value::is_string) => Ok(()),
        (Type::Object(table), Value::Object(fields)) => check(fields, &[table]),
        (Type::Objects(table), Value::Array(items)) => items.iter().try_for_each(|item| match item {
            Value::Object(fields) => check(fields, &[table]),
            _ => Err("an item is no object".to_owned()),
        }),
        _ => Err("it is of another type".to_owned()),
    }
}
