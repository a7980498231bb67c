//! Single expressions over named values, for admission policies and match conditions (upstream
//! `apiserver/pkg/admission/plugin/cel`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use kube_cel::cel::{
    Value as Cel,
    common::ast::{
        Expr, IdedExpr, LiteralValue,
        operators::{INDEX, OPT_INDEX, OPT_SELECT},
    },
    context::VariableResolver,
};
use serde_json::Value;

use super::{
    authorizer::{Authorize, Check},
    check::{Names, Type},
    convert::{json, plain},
    cost::{PER_CALL, Sizes, estimate},
    program::{Program, parts as parts_of, type_name},
};

/// What all expressions of one policy may cost for one request, as upstream
/// (`RuntimeCELCostBudget`).
pub const POLICY_BUDGET: u64 = 10_000_000;
/// What all match conditions of one webhook or policy may cost for one request, as upstream
/// (`RuntimeCELCostBudgetMatchConditions`).
pub const MATCH_BUDGET: u64 = 2_500_000;

/// Characters of an expression that an error shows.
const SHOWN_MAX: usize = 512;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    program: Program,
    source: String,
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
    /// The expressions of this scope have cost too much together.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    Budget,
}

impl Expression {
    /// Parses `source`; it may refer to `names` (`object`, `oldObject`, `request`, `params`, ...).
    /// `variables.x` is named in full, as is `authorizer.requestResource`; `Object` and `JSONPatch` allow to
    /// make such objects.
    pub fn compile(source: &str, names: &[&str]) -> Result<Self, ExpressionError> {
        let program = Program::compile(source, names).map_err(ExpressionError::Compile)?;
        Ok(Self { program, source: source.to_owned() })
    }

    /// What `source` gives when the names have these types; else all that is wrong with it, each with its place, in
    /// cel-go's form (`ERROR: <input>:1:7: undefined field 'x'` and the line below).
    pub fn check(source: &str, names: &Names) -> Result<Type, String> {
        let all: Vec<&str> = names.all().collect();
        let checked = Program::checked(source, &all, names);
        checked.map(|(_, of)| of).map_err(|why| why.replacen("compilation failed: ", "", 1))
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it reads this field of this name (`claims.email`, `claims.?email`).
    pub fn selects(&self, name: &str, field: &str) -> bool {
        selects(&self.program.expression.expr, name, field)
    }

    /// Whether it is true; an error when it is neither true nor false.
    pub fn truth(&self, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
        match self.run(scope)? {
            Cel::Bool(truth) => Ok(truth),
            other => Err(self.failed(format!("must evaluate to bool, not {}", type_name(&other)))),
        }
    }

    /// Its text; `None` for null. An error when it is something else.
    pub fn text(&self, scope: &Scope<'_>) -> Result<Option<String>, ExpressionError> {
        match self.run(scope)? {
            Cel::String(text) => Ok(Some(text.to_string())),
            Cel::Null => Ok(None),
            other => Err(self.failed(format!("must evaluate to string, not {}", type_name(&other)))),
        }
    }

    /// Its value as JSON.
    pub fn value(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        json(&self.run(scope)?).map_err(|why| self.failed(why))
    }

    fn run(&self, scope: &Scope<'_>) -> Result<Cel, ExpressionError> {
        let cost = estimate(&self.program.expression, scope.sizes);
        if cost > PER_CALL {
            return Err(self.failed("operation cancelled: actual cost limit exceeded".to_owned()));
        }
        if !scope.pays(cost) {
            return Err(ExpressionError::Budget);
        }
        let result = self.program.run_in(scope);
        // What went wrong in a variable is said of the variable.
        match (result, scope.failure()) {
            (_, Some(failure)) => Err(failure),
            (Ok(value), None) => Ok(value),
            (Err(why), None) => Err(self.failed(match why.strip_prefix("No such key: ") {
                Some(key) => format!("no such key: {key}"),
                None => why,
            })),
        }
    }

    fn failed(&self, why: String) -> ExpressionError {
        let mut expression: String = self.source.chars().take(SHOWN_MAX).collect();
        if expression.len() < self.source.len() {
            expression.push_str("...");
        }
        ExpressionError::Evaluate { expression, why }
    }
}

fn selects(expr: &Expr, name: &str, field: &str) -> bool {
    let is_name = |expr: &Expr| matches!(expr, Expr::Ident(ident) if ident == name);
    match expr {
        Expr::Select(select) if is_name(&select.operand.expr) && select.field == field => true,
        // The optional selection, and what it is rewritten to.
        Expr::Call(call) if matches!(call.func_name.as_str(), OPT_SELECT | OPT_INDEX | INDEX) => {
            let mut parts = call.target.as_deref().into_iter().chain(&call.args);
            let on = parts.next().is_some_and(|part| is_name(&part.expr));
            let is_field = |part: &IdedExpr| matches!(&part.expr, Expr::Literal(LiteralValue::String(text)) if text.inner() == field);
            (on && parts.any(is_field)) || parts_of(expr).iter().any(|part| selects(&part.expr, name, field))
        }
        Expr::Comprehension(inner) => {
            [&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result]
                .iter()
                .any(|part| selects(&part.expr, name, field))
        }
        other => parts_of(other).iter().any(|part| selects(&part.expr, name, field)),
    }
}

/// The values that expressions see, the variables that are computed when first used, and what is left to
/// spend on all of it.
#[derive(Debug)]
pub struct Scope<'a> {
    values: BTreeMap<&'a str, Cel>,
    sizes: Sizes,
    variables: BTreeMap<&'a str, &'a Expression>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    computed: HashMap<String, Option<Cel>>,
    failure: Option<ExpressionError>,
    left: u64,
}

impl<'a> Scope<'a> {
    /// A scope without values, with a budget.
    pub fn new(budget: u64) -> Self {
        Self {
            values: BTreeMap::new(),
            sizes: Sizes::default(),
            variables: BTreeMap::new(),
            state: Mutex::new(State { left: budget, ..State::default() }),
        }
    }

    /// Gives a name a value, converted without a schema.
    pub fn set(&mut self, name: &'a str, value: &Value) {
        self.sizes = self.sizes.max(Sizes::of(value));
        self.values.insert(name, plain(value));
    }

    /// `authorizer`, and with `resource` the check it begins with as `authorizer.requestResource`.
    pub fn set_authorizer(&mut self, authorize: &Arc<dyn Authorize>, resource: Option<&super::Asked>) {
        self.values.insert("authorizer", Check::new(authorize).into_value());
        if let Some(asked) = resource {
            self.values.insert("authorizer.requestResource", Check::of(authorize, asked).into_value());
        }
    }

    /// `name` (in full: `variables.x`) is what the expression gives, computed once when it is first used.
    pub fn define(&mut self, name: &'a str, expression: &'a Expression) {
        self.variables.insert(name, expression);
    }

    fn pays(&self, cost: u64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left = state.left.checked_sub(cost);
        state.left = left.unwrap_or(0);
        left.is_some()
    }

    fn failure(&self) -> Option<ExpressionError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failure.take()
    }
}

impl VariableResolver for Scope<'_> {
    fn resolve(&self, name: &str) -> Option<Cel> {
        if let Some(value) = self.values.get(name) {
            return Some(value.clone());
        }
        let expression = self.variables.get(name)?;
        let known = self.state.lock().unwrap_or_else(PoisonError::into_inner).computed.get(name).cloned();
        if let Some(Some(value)) = known {
            return Some(value);
        }
        let computed = expression.run(self);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match computed {
            Ok(value) => {
                state.computed.insert(name.to_owned(), Some(value.clone()));
                Some(value)
            }
            Err(error) => {
                state.failure.get_or_insert(error);
                None
            }
        }
    }
}
