//! The four ways to change an object by a document: JSON patch (RFC 6902), JSON merge patch (RFC 7386),
//! strategic merge patch, and (in [`crate::managed`]) server-side apply. All bounded; on an error the value
//! may be half patched and must be thrown away.

mod json;
mod strategic;

#[cfg(test)]
mod tests;

use serde_json::Value;

pub use json::{OPERATIONS_MAX, json};
pub use strategic::strategic;

/// Why a patch was refused. [`PatchError::code`] is the HTTP status that upstream answers with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch document itself is not one (400).
    #[error("{0}")]
    Malformed(String),
    /// The patch is too long (413).
    #[error("{0}")]
    TooLarge(String),
    /// The patch does not fit the object: a failed `test`, a missing path (422).
    #[error("{0}")]
    DoesNotApply(String),
}

impl PatchError {
    /// HTTP status.
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::TooLarge(_) => 413,
            Self::DoesNotApply(_) => 422,
        }
    }
}

/// JSON merge patch (RFC 7386): null removes, maps merge, everything else replaces.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, change) in changes {
        if change.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.as_str()).or_insert(Value::Null), change);
        }
    }
}
