//! Structural defaulting (upstream `apiextensions-apiserver/pkg/apiserver/schema/defaulting`): absent
//! fields get their default, null in a field that cannot be null counts as absent and is dropped when there
//! is no default. Idempotent. Does not know defaults that depend on other fields: those are a strategy's.

use serde_json::Value;

use crate::{Node, Property, Schema, Shape, TypeId, TypeSet};

/// Gives `value` the defaults of `schema`, everywhere below it.
pub fn apply(schema: &Schema, value: &mut Value) {
    walk(schema.set(), schema.root(), value);
}

/// What the root's field `name` has when it is absent: its default with the defaults below it; `None` when it
/// has no default.
pub fn field(schema: &Schema, name: &str) -> Option<Value> {
    let Shape::Struct { properties, .. } = &schema.node().shape else { return None };
    let mut found = None;
    fill(schema.set(), properties.get(name)?, |value| found = Some(value));
    found
}

fn walk(set: &TypeSet, of: TypeId, value: &mut Value) {
    match &set.node(of).shape {
        Shape::Any
        | Shape::String(_)
        | Shape::Integer(_)
        | Shape::Number(_)
        | Shape::Boolean
        | Shape::IntOrString => {}
        Shape::Struct { properties, .. } => {
            let Value::Object(map) = value else { return };
            for (name, property) in properties {
                match map.get_mut(&**name) {
                    None => fill(set, property, |value| {
                        map.insert(name.to_string(), value);
                    }),
                    Some(slot) if dropped(set.node(property.of), slot) => {
                        let mut filled = false;
                        fill(set, property, |value| {
                            *slot = value;
                            filled = true;
                        });
                        if !filled {
                            map.remove(&**name);
                        }
                    }
                    Some(slot) => walk(set, property.of, slot),
                }
            }
        }
        Shape::Map { values, .. } => {
            let Value::Object(map) = value else { return };
            let node = set.node(*values);
            if map.values().any(|value| dropped(node, value)) {
                map.retain(|_, value| !dropped(node, value));
            }
            if !is_leaf(node) {
                map.values_mut().for_each(|value| walk(set, *values, value));
            }
        }
        Shape::List { items, .. } => {
            let Value::Array(list) = value else { return };
            if !is_leaf(set.node(*items)) {
                list.iter_mut().for_each(|value| walk(set, *items, value));
            }
        }
    }
}

/// The property's default, itself defaulted, if it has one.
fn fill(set: &TypeSet, property: &Property, give: impl FnOnce(Value)) {
    if let Some(default) = &property.default {
        let mut value = Value::clone(default);
        walk(set, property.of, &mut value);
        give(value);
    }
}

fn dropped(node: &Node, value: &Value) -> bool {
    value.is_null() && !node.nullable && !matches!(node.shape, Shape::Any)
}

fn is_leaf(node: &Node) -> bool {
    !matches!(node.shape, Shape::Struct { .. } | Shape::Map { .. } | Shape::List { .. })
}
