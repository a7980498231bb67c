//! A value as server-side apply sees it: what is one owned thing and what is owned piece by piece
//! (upstream `structured-merge-diff/typed`). The one place that reads list and map types.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use crate::{ListType, MapType, Property, Shape, TypeId, TypeSet};

/// The type of a value that the schema says nothing of: maps by key, lists as one value.
pub(crate) const DEDUCED: TypeId = TypeId(u32::MAX);

/// How a type is owned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'s> {
    /// As one value.
    Leaf,
    /// Key by key: known keys have their type, others `rest` if they may be there at all.
    Map { known: Option<&'s BTreeMap<Arc<str>, Property>>, rest: Option<TypeId> },
    /// Item by item.
    List { items: TypeId, by: Identity<'s> },
}

/// What identifies a list item.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Identity<'s> {
    /// The item itself.
    Value,
    /// These fields.
    Keys(&'s [Arc<str>]),
}

impl<'s> View<'s> {
    /// The view of type `of` on `sample`, which matters only where the schema leaves the type open.
    pub(crate) fn of(set: &'s TypeSet, of: TypeId, sample: &Value) -> Self {
        let node = set.node(of);
        match &node.shape {
            Shape::String(_) | Shape::Integer(_) | Shape::Number(_) | Shape::Boolean | Shape::IntOrString => {
                View::Leaf
            }
            // Built-in kinds name their open types (RawExtension, JSON): owned as one value. In a CRD they
            // are inline.
            Shape::Any if node.name.is_some() || !sample.is_object() => View::Leaf,
            Shape::Any => View::Map { known: None, rest: Some(DEDUCED) },
            Shape::Struct { map_type: MapType::Atomic, .. }
            | Shape::Map { map_type: MapType::Atomic, .. } => View::Leaf,
            Shape::Struct { properties, preserve_unknown, .. } => {
                View::Map { known: Some(properties), rest: preserve_unknown.then_some(DEDUCED) }
            }
            Shape::Map { values, .. } => View::Map { known: None, rest: Some(*values) },
            Shape::List { list_type: ListType::Unspecified | ListType::Atomic, .. } => View::Leaf,
            Shape::List { items, list_type: ListType::Set } => {
                View::List { items: *items, by: Identity::Value }
            }
            Shape::List { items, list_type: ListType::Map(keys) } => {
                View::List { items: *items, by: Identity::Keys(keys) }
            }
        }
    }

    /// The type of the field `name`, and whether the schema names it.
    pub(crate) fn field(&self, name: &str) -> (Option<TypeId>, bool) {
        match self {
            View::Map { known, rest } => match known.and_then(|known| known.get(name)) {
                Some(property) => (Some(property.of), true),
                None => (*rest, false),
            },
            View::Leaf | View::List { .. } => (None, false),
        }
    }
}

/// The serialised path element of a list item; the error says why it has none.
pub(crate) fn item_element(
    set: &TypeSet,
    items: TypeId,
    by: Identity<'_>,
    item: &Value,
) -> Result<Box<str>, String> {
    let keys = match (by, item) {
        (Identity::Value, Value::Object(_)) => {
            return Err("associative list without keys has an element that's a map type".to_owned());
        }
        (Identity::Value, Value::Array(_)) => {
            return Err("not supported: associative list with lists as elements".to_owned());
        }
        (Identity::Value, Value::Null) => {
            return Err("associative list without keys has an element that's an explicit null".to_owned());
        }
        (Identity::Value, scalar) => return Ok(format!("v:{scalar}").into()),
        (Identity::Keys(keys), _) => keys,
    };
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut found: Vec<(&str, &Value)> =
        keys.iter().filter_map(|key| Some((&**key, key_value(set, items, fields, key)?))).collect();
    if found.is_empty() {
        return Err(format!(
            "associative list with keys has an element that omits all key fields {keys:?} (and doesn't have \
             default values for any key fields)"
        ));
    }
    found.sort_unstable_by_key(|(key, _)| *key);
    let mut element = String::from("k:");
    for (at, (key, value)) in found.into_iter().enumerate() {
        element.push(if at == 0 { '{' } else { ',' });
        element.push_str(&Value::from(key).to_string());
        element.push(':');
        element.push_str(&value.to_string());
    }
    element.push('}');
    Ok(element.into())
}

/// The value of a key field: the item's own, or the field's default.
fn key_value<'a>(
    set: &'a TypeSet,
    items: TypeId,
    fields: &'a Map<String, Value>,
    key: &str,
) -> Option<&'a Value> {
    if let Some(value) = fields.get(key) {
        return Some(value);
    }
    match &set.node(items).shape {
        Shape::Struct { properties, .. } => properties.get(key)?.default.as_deref(),
        _ => None,
    }
}

/// Absent, null or with nothing in it.
pub(crate) fn is_hollow(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}
