//! Removal of fields that a schema does not know. Never changes a known value, and never reports a type
//! mismatch: that is [`crate::decode`]'s and [`crate::validate`]'s.

use serde_json::Value;

use crate::{Schema, Shape, TypeId, TypeSet, path::Path};

/// As many paths as upstream's strict decoder lists before it stops.
const REPORTED_MAX: usize = 100;

/// Whether to name what was removed. `fieldValidation=Ignore` needs no names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Remove silently; the result is empty.
    Ignore,
    /// Remove, and report each as upstream's strict decoder words it (at most 100).
    Report,
}

/// Removes every field that `schema` does not know and returns `unknown field "spec.foo"` for each.
/// `apiVersion`, `kind` and `metadata` are known at the root and in embedded resources.
pub fn unknown(schema: &Schema, value: &mut Value, mode: Mode) -> Vec<String> {
    let mut pruning = Pruning { set: schema.set(), mode, removed: Vec::new() };
    pruning.walk(schema.root(), value, &Path::Root, true);
    pruning.removed
}

struct Pruning<'s> {
    set: &'s TypeSet,
    mode: Mode,
    removed: Vec<String>,
}

impl Pruning<'_> {
    fn walk(&mut self, of: TypeId, value: &mut Value, path: &Path<'_>, root: bool) {
        match &self.set.node(of).shape {
            Shape::Any
            | Shape::String(_)
            | Shape::Integer(_)
            | Shape::Number(_)
            | Shape::Boolean
            | Shape::IntOrString => {}
            Shape::Struct { properties, preserve_unknown, embedded, required: _, map_type: _ } => {
                let Value::Object(map) = value else { return };
                let implied = *embedded || root;
                let mut foreign = false;
                for (name, value) in &mut *map {
                    match properties.get(name.as_str()) {
                        Some(property) => self.walk(property.of, value, &Path::Field(path, name), false),
                        None => foreign |= !(*preserve_unknown || implied && is_implied(name)),
                    }
                }
                if foreign {
                    map.retain(|name, _| {
                        let keep = properties.contains_key(name.as_str()) || implied && is_implied(name);
                        if !keep {
                            self.report(&Path::Field(path, name));
                        }
                        keep
                    });
                }
            }
            Shape::Map { values, map_type: _ } => {
                let Value::Object(map) = value else { return };
                if self.may_prune(*values) {
                    for (key, value) in map {
                        self.walk(*values, value, &Path::Key(path, key), false);
                    }
                }
            }
            Shape::List { items, list_type: _ } => {
                let Value::Array(list) = value else { return };
                if self.may_prune(*items) {
                    for (at, value) in list.iter_mut().enumerate() {
                        self.walk(*items, value, &Path::Index(path, at), false);
                    }
                }
            }
        }
    }

    fn may_prune(&self, of: TypeId) -> bool {
        matches!(self.set.node(of).shape, Shape::Struct { .. } | Shape::Map { .. } | Shape::List { .. })
    }

    fn report(&mut self, path: &Path<'_>) {
        if self.mode == Mode::Report && self.removed.len() < REPORTED_MAX {
            self.removed.push(format!("unknown field \"{}\"", path.dotted()));
        }
    }
}

fn is_implied(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}
