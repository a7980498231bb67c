//! `matchConditions`: expressions that narrow down which requests a webhook, policy or authorizer wants (upstream
//! `apiserver/pkg/admission/plugin/webhook/matchconditions`, `apiserver/pkg/authorization/cel`).

use meta::Value;
use schema::cel::{Expression, ExpressionError, Scope};

/// Compiled conditions. One that does not compile (it was stored before it was checked so) fails each time.
#[derive(Debug, Default)]
pub(crate) struct Conditions(Vec<(String, Result<Expression, ExpressionError>)>);

/// What conditions say of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All are true.
    Wanted,
    /// This one is false.
    Unwanted,
    /// None is false, and these could not be evaluated.
    Failed(String),
}

impl Conditions {
    /// Compiles `matchConditions` over `names`.
    pub(crate) fn read(value: &Value, names: &[&str]) -> Self {
        let list = value.get("matchConditions").and_then(Value::as_array).into_iter().flatten();
        Self(
            list.map(|condition| {
                let text = |key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default();
                (text("name").to_owned(), Expression::compile(text("expression"), names))
            })
            .collect(),
        )
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Evaluates them. One that is false decides, whatever else failed.
    pub(crate) fn check(&self, scope: &Scope<'_>) -> Verdict {
        let mut failed = Vec::new();
        for (_, expression) in &self.0 {
            match expression.as_ref().map_err(Clone::clone).and_then(|expression| expression.truth(scope)) {
                Ok(true) => {}
                Ok(false) => return Verdict::Unwanted,
                Err(error) => failed.push(error.to_string()),
            }
        }
        match failed.as_slice() {
            [] => Verdict::Wanted,
            [one] => Verdict::Failed(one.clone()),
            many => Verdict::Failed(format!("[{}]", many.join(", "))),
        }
    }
}
