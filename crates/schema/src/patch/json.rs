//! JSON patch (RFC 6902) by the `json-patch` crate, one operation at a time, with upstream's two bounds: the
//! number of operations, and how much `copy` may add up to (`apiserver/pkg/endpoints/handlers/patch.go`).

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::patch::PatchError;

/// Longest patch (upstream `maxJSONPatchOperations`).
pub const OPERATIONS_MAX: usize = 10_000;

/// Bytes that all `copy` operations of one patch may add together: the size limit of a request body.
const COPIED_MAX: usize = 3 * 1024 * 1024;

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
    let mut copied = 0_usize;
    for operation in operations {
        if let PatchOperation::Copy(copy) = &operation {
            copied = copied.saturating_add(value.pointer(copy.from.as_str()).map_or(0, size));
            if copied > COPIED_MAX {
                return Err(PatchError::TooLarge(format!(
                    "copy operations of the JSON patch add more than {COPIED_MAX} bytes"
                )));
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
