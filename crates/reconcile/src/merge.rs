//! The JSON merge patch (RFC 7386) that turns one tree into another. `json-patch` applies such
//! patches but derives them only between whole documents through its own types; this is 25 lines.

use serde_json::{Map, Value};

/// The smallest merge patch from `old` to `new`; `None` when they are equal. A list that differs is
/// replaced whole, as RFC 7386 has it.
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in after {
        match before.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(previous) => {
                if let Some(inner) = merge_diff(previous, value) {
                    patch.insert(key.clone(), inner);
                }
            }
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(old: Value, new: Value, patch: Option<Value>) {
        assert_eq!(merge_diff(&old, &new), patch, "{old} -> {new}");
    }

    #[test]
    fn names_only_what_changed() {
        check(json!({"a": 1}), json!({"a": 1}), None);
        check(json!({"a": 1, "b": 2}), json!({"a": 1}), Some(json!({"b": null})));
        check(json!({"a": {"x": 1, "y": 2}}), json!({"a": {"x": 1, "y": 3}}), Some(json!({"a": {"y": 3}})));
        check(json!({"a": [1, 2]}), json!({"a": [1]}), Some(json!({"a": [1]})));
        check(json!(null), json!({"a": 1}), Some(json!({"a": 1})));
    }
}
