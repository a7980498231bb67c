//! CEL rules (`x-kubernetes-validations`).

use meta::FieldError;
use serde_json::Value;

use crate::Schema;

/// The compiled rules of one schema. Costly to make, cheap to run; hold it beside the schema.
#[derive(Debug, Default)]
pub struct Rules {
    unfinished: bool,
}

impl Rules {
    /// Compiles every rule reachable from the root of `schema`; one error for each that does not compile.
    pub fn compile(schema: &Schema) -> Result<Self, Vec<FieldError>> {
        let _ = schema;
        Ok(Self { unfinished: true })
    }

    /// Whether there is no rule at all, so that evaluation can be skipped.
    pub fn is_empty(&self) -> bool {
        !self.unfinished
    }

    /// Evaluates all rules on `new`; transition rules (those that name `oldSelf`) only where an old value
    /// corresponds.
    pub fn validate(&self, schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let _ = (schema, new, old);
        vec![FieldError {
            kind: meta::FieldErrorKind::Internal,
            field: String::new(),
            value: None,
            detail: "cel rules are not finished".to_owned(),
        }]
    }
}
