//! Which names a definition gets: those that nobody else in its group has (upstream
//! `controller/status/naming_controller.go`).

use std::collections::BTreeSet;

use meta::{Condition, ConditionStatus, Value};
use serde_json::json;

use super::{condition, definition::Definition};
use crate::Registry;

/// `acceptedNames` and the condition `NamesAccepted`.
pub(super) fn accept(
    definition: &Definition,
    others: &[Definition],
    registry: &Registry,
) -> (Value, Condition) {
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for other in others.iter().filter(|other| other.group == definition.group) {
        resources.extend([other.plural.clone(), other.singular.clone()]);
        resources.extend(other.short_names.iter().cloned());
        kinds.extend([other.kind.clone(), other.list_kind.clone()]);
    }
    for builtin in registry.all().iter().filter(|r| !r.custom && *r.group == definition.group) {
        resources.extend([builtin.plural.to_string(), builtin.singular.to_string()]);
        kinds.extend([builtin.kind.to_string(), builtin.list_kind.to_string()]);
    }
    let mut conflict = None;
    let mut free = |taken: &BTreeSet<String>, name: &str, reason: &'static str| {
        let free = name.is_empty() || !taken.contains(name);
        if !free && conflict.is_none() {
            conflict = Some((reason, format!("{name:?} is already in use")));
        }
        if free { name.to_owned() } else { String::new() }
    };
    let plural = free(&resources, &definition.plural, "PluralConflict");
    let singular = free(&resources, &definition.singular, "SingularConflict");
    let short_names: Vec<String> = definition
        .short_names
        .iter()
        .map(|name| free(&resources, name, "ShortNamesConflict"))
        .filter(|name| !name.is_empty())
        .collect();
    let kind = free(&kinds, &definition.kind, "KindConflict");
    let list_kind = free(&kinds, &definition.list_kind, "ListKindConflict");
    let mut names = json!({ "plural": plural, "kind": kind });
    if let Some(map) = names.as_object_mut() {
        for (key, text) in [("singular", singular), ("listKind", list_kind)] {
            if !text.is_empty() {
                map.insert(key.to_owned(), json!(text));
            }
        }
        for (key, list) in [("shortNames", &short_names), ("categories", &definition.categories)] {
            if !list.is_empty() {
                map.insert(key.to_owned(), json!(list));
            }
        }
    }
    let condition = match conflict {
        Some((reason, message)) => {
            condition("NamesAccepted", ConditionStatus::False, reason).message(message)
        }
        None => {
            condition("NamesAccepted", ConditionStatus::True, "NoConflicts").message("no conflicts found")
        }
    };
    (names, condition)
}
