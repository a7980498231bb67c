//! Strategic merge patch (upstream `apimachinery/pkg/util/strategicpatch`), driven by the schema alone: the
//! strategies and merge keys of built-in kinds stand in their properties. Knows the directives `$patch`
//! (replace, merge, delete), `$retainKeys`, `$setElementOrder/FIELD` and `$deleteFromPrimitiveList/FIELD`.

use serde_json::{Map, Value};

use crate::{PatchStrategy, Schema, Shape, TypeId, TypeSet, patch::PatchError};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Applies `patch` to `value` as the strategies and merge keys of `schema` say. A list without a merge
/// strategy, and everything the schema does not know, is replaced; null removes.
pub fn strategic(schema: &Schema, value: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed("a strategic merge patch must be an object".to_owned()));
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(map) = value else { return Ok(()) };
    merge_map(schema.set(), Some(schema.root()), map, patch)
}

/// How one field is patched.
struct Field<'s> {
    of: Option<TypeId>,
    strategy: Option<&'s PatchStrategy>,
}

fn field<'s>(set: &'s TypeSet, of: Option<TypeId>, name: &str) -> Field<'s> {
    match of.map(|of| &set.node(of).shape) {
        Some(Shape::Struct { properties, .. }) => match properties.get(name) {
            Some(property) => Field { of: Some(property.of), strategy: property.patch.as_ref() },
            None => Field { of: None, strategy: None },
        },
        Some(Shape::Map { values, .. }) => Field { of: Some(*values), strategy: None },
        _ => Field { of: None, strategy: None },
    }
}

fn malformed(text: impl Into<String>) -> PatchError {
    PatchError::Malformed(text.into())
}

fn merge_map(
    set: &TypeSet,
    of: Option<TypeId>,
    map: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    match directive(patch)? {
        Some("replace") => {
            *map = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            map.clear();
            return Ok(());
        }
        _ => {}
    }
    if let Some(kept) = patch.get(RETAIN_KEYS) {
        retain(map, patch, kept)?;
    }
    for (name, change) in patch {
        if name == DIRECTIVE || name == RETAIN_KEYS || name.starts_with(ORDER) {
            continue;
        }
        if let Some(target) = name.strip_prefix(DELETE) {
            delete_from(map, target, change)?;
            continue;
        }
        let Field { of, strategy } = field(set, of, name);
        match (change, map.get_mut(name)) {
            (Value::Null, _) => {
                map.remove(name);
            }
            (Value::Object(change), Some(Value::Object(current))) => {
                merge_map(set, of, current, change)?;
            }
            (Value::Array(change), current @ (None | Some(Value::Array(_)))) => {
                let mut list = match current {
                    Some(Value::Array(current)) => std::mem::take(current),
                    _ => Vec::new(),
                };
                merge_list(set, of, strategy, &mut list, change, order(patch, name)?)?;
                map.insert(name.clone(), Value::Array(list));
            }
            (change, _) => {
                if let Some(value) = fresh(set, of, change)? {
                    map.insert(name.clone(), value);
                }
            }
        }
    }
    // An order without a patch of the list itself still sorts it.
    for (name, _) in patch.iter().filter_map(|(key, value)| Some((key.strip_prefix(ORDER)?, value))) {
        if !patch.contains_key(name)
            && let (Field { strategy: Some(strategy), .. }, Some(order)) =
                (field(set, of, name), order(patch, name)?)
            && let Some(Value::Array(list)) = map.get_mut(name)
        {
            sort(list, &list.clone(), order, strategy.merge_key.as_deref());
        }
    }
    Ok(())
}

/// A value for a place where nothing of its kind was: nulls and directives go.
fn fresh(set: &TypeSet, of: Option<TypeId>, change: &Value) -> Result<Option<Value>, PatchError> {
    match change {
        Value::Object(patch) => {
            if directive(patch)? == Some("delete") {
                return Ok(None);
            }
            let mut map = Map::new();
            merge_map(set, of, &mut map, patch)?;
            Ok(Some(Value::Object(map)))
        }
        other => Ok(Some(other.clone())),
    }
}

fn directive(patch: &Map<String, Value>) -> Result<Option<&str>, PatchError> {
    match patch.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(text)) if matches!(text.as_str(), "replace" | "merge" | "delete") => {
            Ok(Some(text))
        }
        Some(other) => Err(malformed(format!(
            "unknown patch type: {} in map: {}",
            plain(other),
            Value::Object(patch.clone())
        ))),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(name, _)| *name != DIRECTIVE)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Keeps only the listed keys; the patch may set no others.
fn retain(map: &mut Map<String, Value>, patch: &Map<String, Value>, kept: &Value) -> Result<(), PatchError> {
    let Some(kept) = kept.as_array() else {
        return Err(malformed("invalid patch format of retainKeys"));
    };
    let listed = |name: &str| kept.iter().any(|key| key.as_str() == Some(name));
    let surplus =
        patch.iter().any(|(name, value)| !name.starts_with('$') && !value.is_null() && !listed(name));
    if surplus {
        return Err(malformed("patch content doesn't match retainKeys list"));
    }
    map.retain(|name, _| listed(name));
    Ok(())
}

fn delete_from(map: &mut Map<String, Value>, target: &str, gone: &Value) -> Result<(), PatchError> {
    let Some(gone) = gone.as_array() else {
        return Err(malformed("invalid patch format of primitive list"));
    };
    if let Some(Value::Array(list)) = map.get_mut(target) {
        list.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn order<'p>(patch: &'p Map<String, Value>, name: &str) -> Result<Option<&'p [Value]>, PatchError> {
    match patch.get(&format!("{ORDER}{name}")) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(order)) => Ok(Some(order)),
        Some(_) => Err(malformed("invalid patch format of setElementOrder list")),
    }
}

fn merge_list(
    set: &TypeSet,
    of: Option<TypeId>,
    strategy: Option<&PatchStrategy>,
    list: &mut Vec<Value>,
    patch: &[Value],
    order: Option<&[Value]>,
) -> Result<(), PatchError> {
    let items = match of.map(|of| &set.node(of).shape) {
        Some(Shape::List { items, .. }) => Some(*items),
        _ => None,
    };
    let Some(strategy) = strategy.filter(|strategy| strategy.merge) else {
        *list = patch.to_vec();
        return Ok(());
    };
    let before = list.clone();
    let key = strategy.merge_key.as_deref();
    match key {
        None => {
            for item in patch {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        }
        Some(key) => merge_items(set, items, key, list, patch)?,
    }
    // Without an order the patch is one, of the items that it sets.
    let sets = |item: &&Value| item.get(DIRECTIVE).is_none();
    let set: Vec<Value> = patch.iter().filter(sets).cloned().collect();
    if let Some(order) = order {
        check_order(order, patch, key)?;
    }
    sort(list, &before, order.unwrap_or(&set), key);
    Ok(())
}

fn merge_items(
    set: &TypeSet,
    items: Option<TypeId>,
    key: &str,
    list: &mut Vec<Value>,
    patch: &[Value],
) -> Result<(), PatchError> {
    let mut additions: Vec<&Map<String, Value>> = Vec::new();
    let mut replace = false;
    for item in patch {
        let Value::Object(item) = item else {
            return Err(malformed(format!("list element of a merging list is not a map with the key {key}")));
        };
        let identity = || {
            item.get(key).ok_or_else(|| {
                let map = Value::Object(item.clone());
                malformed(format!("map: {map} does not contain declared merge key: {key}"))
            })
        };
        match directive(item)? {
            Some("replace") => replace = true,
            Some("delete") => {
                let gone = identity()?;
                list.retain(|item| item.get(key) != Some(gone));
            }
            _ => {
                identity()?;
                additions.push(item);
            }
        }
    }
    if replace {
        // One item says that the rest is the whole new list.
        list.clear();
    }
    for item in additions {
        let same = item.get(key);
        match list.iter_mut().find(|current| current.get(key) == same) {
            Some(Value::Object(current)) => merge_map(set, items, current, item)?,
            _ => {
                let mut map = Map::new();
                merge_map(set, items, &mut map, item)?;
                list.push(Value::Object(map));
            }
        }
    }
    Ok(())
}

/// The identity of an item under a merge key: the key's value, or the item itself.
fn identity<'v>(item: &'v Value, key: Option<&str>) -> Option<&'v Value> {
    match key {
        None => Some(item),
        Some(key) => item.get(key),
    }
}

/// Every item the patch sets must be in the order, and in the same relative one.
fn check_order(order: &[Value], patch: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut left = order.iter();
    for item in patch {
        let deleted = item.get(DIRECTIVE).is_some();
        if deleted {
            continue;
        }
        let wanted = identity(item, key);
        if !left.any(|place| identity(place, key) == wanted) {
            return Err(malformed(format!(
                "The order in patch list:\n{}\n doesn't match {}list:\n{}\n",
                Value::Array(patch.to_vec()),
                ORDER.trim_end_matches('/'),
                Value::Array(order.to_vec())
            )));
        }
    }
    Ok(())
}

/// Puts the ordered items into their order; each other item comes before the first ordered one, of those that are left,
/// that it stood before (upstream `mergeSortedSlice`).
fn sort(list: &mut Vec<Value>, before: &[Value], order: &[Value], key: Option<&str>) {
    let place = |item: &Value| order.iter().position(|at| identity(at, key) == identity(item, key));
    let stood = |item: &Value| before.iter().position(|at| identity(at, key) == identity(item, key));
    let (mut ordered, others): (Vec<Value>, Vec<Value>) =
        std::mem::take(list).into_iter().partition(|item| place(item).is_some());
    ordered.sort_by_key(|item| place(item));
    let mut ordered = ordered.into_iter().peekable();
    for other in others {
        // A new item comes first, too.
        let comes_first = |next: &Value| !matches!((stood(&other), stood(next)), (Some(a), Some(b)) if a < b);
        while let Some(next) = ordered.next_if(comes_first) {
            list.push(next);
        }
        list.push(other);
    }
    list.extend(ordered);
}
