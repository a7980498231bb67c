//! JSON patch (RFC 6902) by the `json-patch` crate, one operation at a time, with upstream's two bounds (the
//! number of operations, and how much `copy` may add up to; `apiserver/pkg/endpoints/handlers/patch.go`) and
//! one of our own: how deep the result may be, because trees are walked recursively.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::patch::PatchError;

/// Longest patch (upstream `maxJSONPatchOperations`).
pub const OPERATIONS_MAX: usize = 10_000;

/// Bytes that all `copy` operations of one patch may add together: the size limit of a request body.
const COPIED_MAX: usize = 3 * 1024 * 1024;

/// Levels a value may have; what the JSON parser accepts from a client is half of it.
const DEPTH_MAX: usize = 256;

/// Values that may be visited to measure depths: ten times what fits into the largest object.
const VISITED_MAX: usize = 10_000_000;

/// Applies the operations `ops` (a JSON array) to `value`, in order.
pub fn json(value: &mut Value, ops: &Value) -> Result<(), PatchError> {
    let count = ops.as_array().map_or(0, Vec::len);
    if count > OPERATIONS_MAX {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}"
        )));
    }
    let Patch(operations) = serde_json::from_value(ops.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    let (mut copied, mut visited) = (0_usize, 0_usize);
    for operation in operations {
        let moved = match &operation {
            PatchOperation::Copy(copy) => {
                let source = value.pointer(copy.from.as_str());
                copied = copied.saturating_add(source.map_or(0, size));
                source
            }
            PatchOperation::Move(from) => value.pointer(from.from.as_str()),
            PatchOperation::Add(add) => Some(&add.value),
            PatchOperation::Replace(replace) => Some(&replace.value),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
        };
        if copied > COPIED_MAX {
            let why = format!("copy operations of the JSON patch add more than {COPIED_MAX} bytes");
            return Err(PatchError::TooLarge(why));
        }
        if let Some(moved) = moved {
            let levels = operation.path().tokens().count() + depth(moved, &mut visited);
            if levels > DEPTH_MAX || visited > VISITED_MAX {
                let why = format!(
                    "the JSON patch makes an object of more than {DEPTH_MAX} levels, or takes too long"
                );
                return Err(PatchError::TooLarge(why));
            }
        }
        json_patch::patch_unsafe(value, std::slice::from_ref(&operation))
            .map_err(|error| PatchError::DoesNotApply(error.to_string()))?;
    }
    Ok(())
}

/// Roughly the encoded size.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(list) => list.iter().map(size).sum::<usize>() + list.len() + 2,
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + 4 + size(value)).sum::<usize>() + 2,
    }
}

/// Levels of a value, itself included.
fn depth(value: &Value, visited: &mut usize) -> usize {
    *visited += 1;
    1 + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        Value::Array(list) => list.iter().map(|item| depth(item, visited)).max().unwrap_or(0),
        Value::Object(map) => map.values().map(|item| depth(item, visited)).max().unwrap_or(0),
    }
}
