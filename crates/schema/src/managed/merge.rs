//! Merging an applied configuration into a live object, and taking fields out again (upstream
//! `typed/merge.go`, `typed/remove.go`). Ownership is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::{
    fieldset::FieldSet,
    own::field_element,
    view::{DEDUCED, Identity, View, is_hollow, item_element},
};
use crate::{Shape, TypeId, TypeSet, path::Path};

/// `live` with everything that `config` sets. `config` has passed [`check`].
pub(crate) fn merge(
    set: &TypeSet,
    of: TypeId,
    live: Option<&Value>,
    config: Option<&Value>,
) -> Option<Value> {
    let sample = config.filter(|value| !value.is_null()).or(live).or(config)?;
    let keep = || config.or(live).cloned();
    if is_hollow(live) && is_hollow(config) {
        return keep();
    }
    match View::of(set, of, sample) {
        View::Leaf => keep(),
        view @ View::Map { .. } => {
            let (Some(before), Some(after)) = (map_or_null(live), map_or_null(config)) else { return keep() };
            let mut out = Map::new();
            let added = after.iter().filter(|(name, _)| !before.contains_key(*name));
            for name in before.iter().chain(added).map(|(name, _)| name) {
                let of = view.field(name).0.unwrap_or(DEDUCED);
                if let Some(value) = merge(set, of, before.get(name), after.get(name)) {
                    out.insert(name.clone(), value);
                }
            }
            Some(Value::Object(out))
        }
        View::List { items, by } => {
            let (Some(before), Some(after)) = (list_or_null(live), list_or_null(config)) else {
                return keep();
            };
            Some(Value::Array(merge_items(set, items, by, before, after)))
        }
    }
}

fn map_or_null(value: Option<&Value>) -> Option<&Map<String, Value>> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    match value {
        None | Some(Value::Null) => Some(&EMPTY),
        Some(Value::Object(map)) => Some(map),
        Some(_) => None,
    }
}

fn list_or_null(value: Option<&Value>) -> Option<&[Value]> {
    match value {
        None | Some(Value::Null) => Some(&[]),
        Some(Value::Array(list)) => Some(list),
        Some(_) => None,
    }
}

/// Items in the order of the configuration; those that only the live list has keep their place relative to
/// the shared items around them.
fn merge_items(
    set: &TypeSet,
    items: TypeId,
    by: Identity<'_>,
    live: &[Value],
    config: &[Value],
) -> Vec<Value> {
    let element = |item: &Value| item_element(set, items, by, item).unwrap_or_default();
    let mut left: VecDeque<(Box<str>, &Value)> = live.iter().map(|item| (element(item), item)).collect();
    let mut right: VecDeque<(Box<str>, &Value)> = config.iter().map(|item| (element(item), item)).collect();
    let mut in_live: BTreeMap<Box<str>, Option<&Value>> = BTreeMap::new();
    for (element, item) in &left {
        // A duplicated item is not merged with the new one, which replaces it.
        in_live.entry(element.clone()).and_modify(|twice| *twice = None).or_insert(Some(item));
    }
    let in_config: BTreeSet<Box<str>> = right.iter().map(|(element, _)| element.clone()).collect();
    let mut shared: VecDeque<Box<str>> =
        right.iter().map(|(element, _)| element.clone()).filter(|e| in_live.contains_key(e)).collect();
    let mut next_shared = shared.pop_front();
    let mut merged: BTreeSet<Box<str>> = BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    loop {
        if let (Some((ours, _)), Some((theirs, _))) = (left.front(), right.front())
            && ours != theirs
            && in_config.contains(ours)
            && next_shared.as_ref().is_some_and(|next| next != ours)
        {
            // A shared item, but not the one whose turn it is.
            left.pop_front();
            continue;
        }
        match left.front() {
            Some((ours, item)) if !in_config.contains(ours) => {
                out.extend(merge(set, items, Some(item), None));
                left.pop_front();
                continue;
            }
            Some((ours, _)) if merged.contains(ours) => {
                left.pop_front();
                continue;
            }
            _ => {}
        }
        let Some((theirs, item)) = right.pop_front() else {
            if left.pop_front().is_none() {
                return out;
            }
            continue;
        };
        if left.front().is_some_and(|(ours, _)| *ours == theirs) {
            left.pop_front();
        }
        out.extend(merge(set, items, in_live.get(&theirs).copied().flatten(), Some(item)));
        if next_shared.as_ref() == Some(&theirs) {
            next_shared = shared.pop_front();
        }
        merged.insert(theirs);
    }
}

/// `value` without the fields in `remove`. A map or list that loses everything is gone as well; one owned as
/// a whole that something below it was to be removed from is gone too.
pub(crate) fn remove(set: &TypeSet, of: TypeId, value: &Value, gone: &FieldSet) -> Option<Value> {
    match (View::of(set, of, value), value) {
        (View::Leaf, Value::Object(map)) if !map.is_empty() => None,
        (View::Leaf, Value::Array(list)) if !list.is_empty() => None,
        (view @ View::Map { .. }, Value::Object(map)) if !map.is_empty() => {
            let mut out = Map::new();
            for (name, value) in map {
                let of = view.field(name).0.unwrap_or(DEDUCED);
                let kept = match gone.get(&field_element(name)) {
                    None => Some(value.clone()),
                    Some(node) if node.member => None,
                    Some(node) => remove(set, of, value, &node.children),
                };
                if let Some(kept) = kept {
                    out.insert(name.clone(), kept);
                }
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        (View::List { items, by }, Value::Array(list)) if !list.is_empty() => {
            let kept = list.iter().filter_map(|item| {
                let node = item_element(set, items, by, item).ok().and_then(|e| gone.get(&e));
                match node {
                    None => Some(item.clone()),
                    Some(node) if node.member => None,
                    Some(node) => remove(set, items, item, &node.children),
                }
            });
            let out: Vec<Value> = kept.collect();
            (!out.is_empty()).then_some(Value::Array(out))
        }
        _ => Some(value.clone()),
    }
}

/// `fields` and, in addition, every named struct field on the way to one of them (upstream
/// `EnsureNamedFieldsAreMembers`).
pub(crate) fn with_named_parents(set: &TypeSet, of: TypeId, mut fields: FieldSet) -> FieldSet {
    let shape = &set.node(of).shape;
    for (element, node) in fields.iter_mut() {
        let name = element.strip_prefix("f:");
        let (below, named) = match (shape, name) {
            (Shape::Struct { properties, .. }, Some(name)) => match properties.get(name) {
                Some(property) => (property.of, true),
                None => (DEDUCED, false),
            },
            (Shape::Map { values, .. }, Some(_)) => (*values, false),
            (Shape::List { items, .. }, None) => (*items, false),
            _ => (DEDUCED, false),
        };
        if named && !node.children.is_empty() {
            node.member = true;
        }
        node.children = with_named_parents(set, below, std::mem::take(&mut node.children));
    }
    fields
}

/// Refuses a configuration that does not fit its schema: fields the schema does not have, another type than
/// its, list items without or with the same identity. In upstream's words, one line each.
pub(crate) fn check(set: &TypeSet, of: TypeId, value: &Value, path: &Path<'_>, errors: &mut Vec<String>) {
    let mut report = |path: &Path<'_>, what: &str| errors.push(format!(".{path}: {what}"));
    let expected = match (&set.node(of).shape, value) {
        (_, Value::Null) | (Shape::Any, _) => None,
        (Shape::Struct { .. } | Shape::Map { .. }, Value::Object(_))
        | (Shape::List { .. }, Value::Array(_)) => None,
        (
            Shape::String(crate::Format::Quantity) | Shape::IntOrString,
            Value::String(_) | Value::Number(_),
        )
        | (Shape::String(_), Value::String(_))
        | (Shape::Integer(_) | Shape::Number(_), Value::Number(_))
        | (Shape::Boolean, Value::Bool(_)) => None,
        (Shape::Struct { .. } | Shape::Map { .. }, _) => Some("map"),
        (Shape::List { .. }, _) => Some("list"),
        (Shape::String(_), _) => Some("string"),
        (Shape::Integer(_) | Shape::Number(_), _) => Some("numeric (int or float)"),
        (Shape::Boolean, _) => Some("boolean"),
        (Shape::IntOrString, _) => Some("string or integer"),
    };
    if let Some(expected) = expected {
        return report(path, &format!("expected {expected}, got {}", described(value)));
    }
    match (View::of(set, of, value), value) {
        (view @ View::Map { .. }, Value::Object(map)) => {
            for (name, value) in map {
                let step = Path::Field(path, name);
                match view.field(name).0 {
                    Some(of) => check(set, of, value, &step, errors),
                    None => errors.push(format!(".{step}: field not declared in schema")),
                }
            }
        }
        (View::List { items, by }, Value::Array(list)) => {
            let mut seen = FieldSet::default();
            for (at, item) in list.iter().enumerate() {
                match item_element(set, items, by, item) {
                    Err(why) => errors.push(format!(".{path}: element {at}: {why}")),
                    Ok(element) if seen.has(&[&element]) => {
                        seen = FieldSet::default();
                        errors.push(format!(".{path}: duplicate entries for key {}", shown(&element)));
                    }
                    Ok(element) => {
                        seen.insert(&[&element]);
                        check(set, items, item, &Path::Index(path, at), errors);
                    }
                }
            }
        }
        _ => {}
    }
}

/// The first list or map in a configuration that its schema takes as one value.
pub(crate) fn atomic(set: &TypeSet, of: TypeId, value: &Value, path: &Path<'_>) -> Option<String> {
    match (View::of(set, of, value), value) {
        (View::Leaf, Value::Array(_) | Value::Object(_)) => Some(path.to_string()),
        (view @ View::Map { .. }, Value::Object(map)) => map
            .iter()
            .find_map(|(name, value)| atomic(set, view.field(name).0?, value, &Path::Field(path, name))),
        (View::List { items, .. }, Value::Array(list)) => {
            list.iter().enumerate().find_map(|(at, item)| atomic(set, items, item, &Path::Index(path, at)))
        }
        _ => None,
    }
}

fn shown(element: &str) -> String {
    let mut set = FieldSet::default();
    set.insert(&[element]);
    set.paths().concat()
}

fn described(value: &Value) -> String {
    match value {
        Value::Object(_) => "map".to_owned(),
        Value::Array(_) => "list".to_owned(),
        scalar => scalar.to_string().trim_matches('"').to_owned(),
    }
}
