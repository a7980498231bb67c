//! Type checks of built-in kinds, in the words of upstream's decoder. kubectl users see them as
//! `Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go
//! struct field DeploymentSpec.spec.replicas of type int32` (400); the prefix is the caller's.
//! Unknown fields are not its business.

use serde_json::Value;

use crate::Schema;

/// Checks that every known field of `value` has the type `schema` says; the first mismatch is returned.
pub fn check(schema: &Schema, value: &Value) -> Result<(), String> {
    let _ = (schema, value);
    Err("decode::check is not finished".to_owned())
}
