//! A set of field paths.

use serde_json::Value;

/// A set of field paths (FieldsV1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {}

/// Bytes or a tree that are not FieldsV1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FieldSetError(pub String);

impl FieldSet {
    /// Reads FieldsV1.
    pub fn from_value(_value: &Value) -> Result<Self, FieldSetError> {
        Err(FieldSetError("FieldSet is not finished".to_owned()))
    }
}
