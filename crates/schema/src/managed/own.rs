//! What a configuration owns, and what changed between two objects, as field sets
//! (upstream `typed/tofieldset.go`, `typed/compare.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    fieldset::{FieldNode, FieldSet},
    view::{DEDUCED, View, is_hollow, item_element},
};
use crate::{Shape, TypeId, TypeSet};

/// Structs that upstream's Go types always write out, so that they never come into being and their own path
/// is never recorded.
const ALWAYS_THERE: &[&str] = &["metadata", "spec", "status", "template", "strategy", "updateStrategy"];

/// `metadata` fields that belong to the server; changes to them are nobody's.
const SERVERS: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "managedFields",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// What one object has over another.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) removed: FieldSet,
    pub(crate) modified: FieldSet,
    pub(crate) added: FieldSet,
}

#[derive(Default)]
struct Delta {
    removed: FieldNode,
    modified: FieldNode,
    added: FieldNode,
}

/// Whether a root or metadata field is never owned.
pub(crate) fn is_unmanaged(root: bool, name: &str) -> bool {
    if root { matches!(name, "apiVersion" | "kind") } else { SERVERS.contains(&name) }
}

/// The fields that `object` sets, without the unmanaged ones and the `reset` top-level ones.
pub(crate) fn owned(set: &TypeSet, of: TypeId, object: &Map<String, Value>, reset: &[&str]) -> FieldSet {
    let mut out = FieldSet::default();
    for (name, value) in object {
        if is_unmanaged(true, name) || reset.contains(&name.as_str()) {
            continue;
        }
        let below = match &set.node(of).shape {
            Shape::Struct { properties, .. } => properties.get(name.as_str()).map(|p| p.of),
            _ => None,
        };
        let mut node = owned_field(set, below, below.is_some(), value);
        if name == "metadata" {
            node.member = false;
            let kept = node.children.iter().filter(|(element, _)| {
                element.strip_prefix("f:").is_none_or(|name| !is_unmanaged(false, name))
            });
            let mut children = FieldSet::default();
            kept.for_each(|(element, node)| children.put(element.into(), node.clone()));
            node.children = children;
        }
        out.put(field_element(name), node);
    }
    out
}

/// Every field of a whole value, nothing left out: what merging and pruning count with.
pub(crate) fn all_fields(set: &TypeSet, of: TypeId, value: &Value) -> FieldSet {
    owned_node(set, of, value).children
}

pub(crate) fn field_element(name: &str) -> Box<str> {
    let mut element = String::with_capacity(name.len() + 2);
    element.push_str("f:");
    element.push_str(name);
    element.into()
}

fn owned_field(set: &TypeSet, of: Option<TypeId>, known: bool, value: &Value) -> FieldNode {
    let mut node = of.map_or_else(FieldNode::default, |of| owned_node(set, of, value));
    node.member |= !known || value.is_null() || value.as_object().is_some_and(Map::is_empty);
    node
}

fn owned_node(set: &TypeSet, of: TypeId, value: &Value) -> FieldNode {
    let mut node = FieldNode::default();
    let view = View::of(set, of, value);
    match (view, value) {
        (View::Leaf, _) => node.member = true,
        (View::Map { .. }, Value::Object(map)) => {
            for (name, value) in map {
                let (of, known) = view.field(name);
                node.children.put(field_element(name), owned_field(set, of, known, value));
            }
        }
        (View::List { items, by }, Value::Array(list)) => {
            for item in list {
                let Ok(element) = item_element(set, items, by, item) else { continue };
                let mut inner = owned_node(set, items, item);
                inner.member = true;
                node.children.put(element, inner);
            }
        }
        // Null, or a value of another type than the schema's; the latter is refused elsewhere.
        (View::Map { .. } | View::List { .. }, Value::Null) => {}
        (View::Map { .. } | View::List { .. }, _) => node.member = true,
    }
    node
}

/// Compares two objects field by field; unmanaged fields and the `reset` top-level ones are left out.
pub(crate) fn compare(
    set: &TypeSet,
    of: TypeId,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    reset: &[&str],
) -> Comparison {
    let mut delta = Delta::default();
    let properties = match &set.node(of).shape {
        Shape::Struct { properties, .. } => Some(properties),
        _ => None,
    };
    for name in union_keys(old, new) {
        if is_unmanaged(true, name) || reset.contains(&name) {
            continue;
        }
        let below = properties.and_then(|p| p.get(name)).map_or(DEDUCED, |p| p.of);
        let (old, new) = (old.get(name), new.get(name));
        if name == "metadata" {
            let mut inner = Delta::default();
            compare_metadata(set, below, old, new, &mut inner);
            delta.attach(|| field_element(name), inner);
        } else {
            compare_field(set, below, name, old, new, &mut delta);
        }
    }
    Comparison {
        removed: delta.removed.children,
        modified: delta.modified.children,
        added: delta.added.children,
    }
}

fn compare_metadata(set: &TypeSet, of: TypeId, old: Option<&Value>, new: Option<&Value>, delta: &mut Delta) {
    let empty = Map::new();
    let old = old.and_then(Value::as_object).unwrap_or(&empty);
    let new = new.and_then(Value::as_object).unwrap_or(&empty);
    let sample = Value::Object(Map::new());
    let view = View::of(set, of, &sample);
    for name in union_keys(old, new) {
        if !is_unmanaged(false, name) {
            let below = view.field(name).0.unwrap_or(DEDUCED);
            compare_field(set, below, name, old.get(name), new.get(name), delta);
        }
    }
}

impl Delta {
    fn attach(&mut self, element: impl Fn() -> Box<str>, inner: Delta) {
        for (outer, inner) in [
            (&mut self.removed, inner.removed),
            (&mut self.modified, inner.modified),
            (&mut self.added, inner.added),
        ] {
            if !inner.is_empty() {
                outer.children.put(element(), inner);
            }
        }
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, _) => self.added.member = true,
            (_, None) => self.removed.member = true,
            (Some(old), Some(new)) => self.modified.member = old != new,
        }
    }
}

fn compare_field(
    set: &TypeSet,
    of: TypeId,
    name: &str,
    old: Option<&Value>,
    new: Option<&Value>,
    delta: &mut Delta,
) {
    let mut inner = Delta::default();
    compare_value(set, of, old, new, &mut inner);
    if is_always_there(set, of, name) && !is_hollow(new.or(old)) {
        inner.added.member = false;
        inner.removed.member = false;
    }
    delta.attach(|| field_element(name), inner);
}

/// A struct (or the list of containers) of a built-in kind whose own path upstream never records.
fn is_always_there(set: &TypeSet, of: TypeId, name: &str) -> bool {
    let node = set.node(of);
    match &node.shape {
        Shape::Struct { .. } => node.name.is_some() && ALWAYS_THERE.contains(&name),
        Shape::List { items, .. } => name == "containers" && set.node(*items).name.is_some(),
        _ => false,
    }
}

fn compare_value(set: &TypeSet, of: TypeId, old: Option<&Value>, new: Option<&Value>, delta: &mut Delta) {
    let Some(sample) = new.or(old) else { return };
    let view = View::of(set, of, sample);
    if is_hollow(old) && is_hollow(new) {
        return delta.leaf(old, new);
    }
    match view {
        View::Leaf => delta.leaf(old, new),
        View::Map { .. } => {
            let (Ok(before), Ok(after)) = (as_map(old), as_map(new)) else { return delta.leaf(old, new) };
            for name in keys_of(before, after) {
                let (old, new) = (before.and_then(|m| m.get(name)), after.and_then(|m| m.get(name)));
                let of = view.field(name).0.unwrap_or(DEDUCED);
                compare_field(set, of, name, old, new, delta);
            }
            delta.came_or_went(old, new);
        }
        View::List { items, by } => {
            let (Ok(before), Ok(after)) = (as_list(old), as_list(new)) else { return delta.leaf(old, new) };
            if before != after {
                let index = |list: &'_ [Value]| -> Vec<(Box<str>, usize)> {
                    list.iter()
                        .enumerate()
                        .filter_map(|(at, item)| Some((item_element(set, items, by, item).ok()?, at)))
                        .collect()
                };
                compare_items(set, items, (before, index(before)), (after, index(after)), delta);
            }
            delta.came_or_went(old, new);
        }
    }
}

impl Delta {
    /// The path itself, where a map or list appeared or vanished with its content.
    fn came_or_went(&mut self, old: Option<&Value>, new: Option<&Value>) {
        if old.is_none() {
            self.added.member = true;
        } else if new.is_none() {
            self.removed.member = true;
        }
    }
}

type Indexed<'a> = (&'a [Value], Vec<(Box<str>, usize)>);

/// Items matched by identity. Duplicates (which only a list from before the key existed can have) are
/// compared as one value, as upstream does.
fn compare_items(set: &TypeSet, items: TypeId, old: Indexed<'_>, new: Indexed<'_>, delta: &mut Delta) {
    let mut both: BTreeMap<Box<str>, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for (element, at) in old.1 {
        both.entry(element).or_default().0.extend(old.0.get(at));
    }
    for (element, at) in new.1 {
        both.entry(element).or_default().1.extend(new.0.get(at));
    }
    for (element, (before, after)) in both {
        let mut inner = Delta::default();
        match (before.as_slice(), after.as_slice()) {
            ([] | [_], [] | [_]) => {
                compare_value(set, items, before.first().copied(), after.first().copied(), &mut inner);
            }
            ([_, _, ..], [_, _, ..]) => inner.modified.member = before != after,
            ([_, _, ..], rest) => {
                if let Some(one) = rest.first() {
                    compare_value(set, items, None, Some(one), &mut inner);
                }
                inner.removed.member = true;
            }
            (rest, _) => {
                if let Some(one) = rest.first() {
                    compare_value(set, items, Some(one), None, &mut inner);
                }
                inner.added.member = true;
            }
        }
        delta.attach(|| element.clone(), inner);
    }
}

fn as_map(value: Option<&Value>) -> Result<Option<&Map<String, Value>>, ()> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(()),
    }
}

fn as_list(value: Option<&Value>) -> Result<&[Value], ()> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(()),
    }
}

fn union_keys<'a>(old: &'a Map<String, Value>, new: &'a Map<String, Value>) -> impl Iterator<Item = &'a str> {
    keys_of(Some(old), Some(new))
}

fn keys_of<'a>(
    old: Option<&'a Map<String, Value>>,
    new: Option<&'a Map<String, Value>>,
) -> impl Iterator<Item = &'a str> {
    let gone =
        old.into_iter().flatten().filter(move |(name, _)| new.is_none_or(|new| !new.contains_key(*name)));
    new.into_iter().flatten().chain(gone).map(|(name, _)| name.as_str())
}

/// FieldsV1 of an object that did not exist before, written straight: what [`compare`] with an empty object
/// would have added.
pub(crate) fn created(
    set: &TypeSet,
    of: TypeId,
    object: &Map<String, Value>,
    reset: &[&str],
) -> Map<String, Value> {
    let view = View::of(set, of, &Value::Null);
    let mut out = Map::new();
    for (name, value) in object {
        if is_unmanaged(true, name) || reset.contains(&name.as_str()) {
            continue;
        }
        let below = view.field(name).0.unwrap_or(DEDUCED);
        if name == "metadata" {
            let mut fields = Map::new();
            let view = View::of(set, below, &Value::Null);
            for (name, value) in value.as_object().into_iter().flatten() {
                if !is_unmanaged(false, name) {
                    let of = view.field(name).0.unwrap_or(DEDUCED);
                    created_field(set, of, name, value, &mut fields);
                }
            }
            if !fields.is_empty() {
                out.insert("f:metadata".to_owned(), Value::Object(fields));
            }
        } else {
            created_field(set, below, name, value, &mut out);
        }
    }
    out
}

fn created_field(set: &TypeSet, of: TypeId, name: &str, value: &Value, out: &mut Map<String, Value>) {
    let mut below = created_value(set, of, value);
    if is_always_there(set, of, name) && below.len() > 1 {
        below.remove(".");
    }
    out.insert(field_element(name).into(), Value::Object(below));
}

/// FieldsV1 below a new value; `.` is in it where the value is not a leaf.
fn created_value(set: &TypeSet, of: TypeId, value: &Value) -> Map<String, Value> {
    let mut out = Map::new();
    let view = View::of(set, of, value);
    match (view, value) {
        (View::Map { .. }, Value::Object(map)) => {
            for (name, value) in map {
                let of = view.field(name).0.unwrap_or(DEDUCED);
                created_field(set, of, name, value, &mut out);
            }
        }
        (View::List { items, by }, Value::Array(list)) => {
            for item in list {
                let Ok(element) = item_element(set, items, by, item) else { continue };
                let below = created_value(set, items, item);
                // Of duplicates only the marker is kept.
                let twice = out.contains_key(&*element);
                out.insert(element.into(), Value::Object(if twice { Map::new() } else { below }));
            }
        }
        (View::Leaf | View::Map { .. } | View::List { .. }, _) => {}
    }
    if !out.is_empty() {
        out.insert(".".to_owned(), Value::Object(Map::new()));
    }
    out
}
