//! A single expression over named values, for admission policies and match conditions.

use kube_cel::cel::Value as Cel;
use serde_json::Value;

use super::{
    convert::plain,
    cost::{PER_CALL, Sizes, estimate},
    program::{Program, type_name},
};

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    program: Program,
    source: String,
}

/// What an expression gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
    /// Something else; its type's name.
    Other(&'static str),
}

/// Why there is no answer, in upstream's words where it has some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Not an expression over the given names.
    #[error("{0}")]
    Compile(String),
    /// It could not be evaluated: a missing key, a wrong type, ...
    #[error("expression '{expression}' resulted in error: {why}")]
    Evaluate {
        /// The expression.
        expression: String,
        /// Why.
        why: String,
    },
}

impl Expression {
    /// Parses `source`; it may refer to `variables` (`object`, `oldObject`, `request`, `params`, ...).
    pub fn compile(source: &str, variables: &[&str]) -> Result<Self, ExpressionError> {
        let program = Program::compile(source, variables).map_err(ExpressionError::Compile)?;
        Ok(Self { program, source: source.to_owned() })
    }

    /// Evaluates with these values, converted without a schema. Bounded in cost as one rule is.
    pub fn evaluate(&self, variables: &[(&str, &Value)]) -> Result<Answer, ExpressionError> {
        let failed = |why: String| ExpressionError::Evaluate { expression: self.source.clone(), why };
        let used = || variables.iter().filter(|(name, _)| self.program.uses(name));
        let sizes = used().fold(Sizes::default(), |sizes, (_, value)| sizes.max(Sizes::of(value)));
        if estimate(&self.program.expression, sizes) > PER_CALL {
            return Err(failed("operation cancelled: actual cost limit exceeded".to_owned()));
        }
        let values: Vec<(&str, Cel)> = used().map(|(name, value)| (*name, plain(value))).collect();
        match self.program.run(&values).map_err(failed)? {
            Cel::Bool(truth) => Ok(Answer::Bool(truth)),
            Cel::String(text) => Ok(Answer::Text(text.to_string())),
            other => Ok(Answer::Other(type_name(&other))),
        }
    }
}
