//! Whether an expression goes with the types of what it names, before it runs (cel-go's `checker`): fields that are not
//! there, names and functions that nobody declared, operators and functions on values that they do not take.
//!
//! What is not known ([`Type::Dyn`]) goes with everything, so that nothing is found where nothing is wrong. Of what
//! cel-go checks, left out are literals (times, durations, patterns) and lists of several types.

mod functions;
mod positions;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, HashMap};

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr,
    operators::{OPT_INDEX, OPT_SELECT},
};

use self::{
    functions::{Called, call, known},
    types::Selected,
};
pub(super) use positions::positions;
pub use types::Type;

/// Findings of one expression that are told, each of which shows a line of it.
const ISSUES_MAX: usize = 20;

/// The names that an expression may use, and their types.
#[derive(Clone, Debug, Default)]
pub struct Names {
    types: BTreeMap<String, Type>,
}

impl Names {
    /// No name at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// These names, of which nothing is known but what `authorizer` can do.
    pub fn untyped(names: &[&str]) -> Self {
        let mut all = Self::new();
        for name in names {
            match *name {
                "authorizer" => all.declare(name, functions::opaque("Authorizer")),
                "authorizer.requestResource" => all.declare(name, functions::opaque("ResourceCheck")),
                _ => all.declare(name, Type::Dyn),
            }
        }
        all
    }

    /// Declares a name (`object`, `authorizer.requestResource`), or declares it anew.
    pub fn declare(&mut self, name: &str, of: Type) {
        self.types.insert(name.to_owned(), of);
    }

    /// All names.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(String::as_str)
    }

    fn get(&self, name: &str) -> Option<&Type> {
        self.types.get(name)
    }
}

/// What an expression gives, or all that is wrong with it, in cel-go's words and form. `plain_names` are words that the
/// language itself knows, `positions` are those of the expression as it was parsed.
pub(super) fn check(
    source: &str,
    positions: HashMap<u64, usize>,
    expression: &IdedExpr,
    names: &Names,
    plain_names: &[&str],
) -> Result<Type, String> {
    let mut checker = Checker { names, plain_names, positions, scopes: Vec::new(), issues: Vec::new() };
    let of = checker.visit(expression);
    let mut issues = checker.issues;
    if issues.is_empty() {
        return Ok(of);
    }
    issues.sort_by_key(|(at, _)| *at);
    let more = issues.len().saturating_sub(ISSUES_MAX);
    issues.truncate(ISSUES_MAX);
    let mut text: Vec<String> = issues.iter().map(|(at, what)| shown(source, *at, what)).collect();
    if more > 0 {
        text.push(format!("{more} more errors were truncated"));
    }
    Err(text.join("\n"))
}

/// As cel-go's `common/error.go`: the place, and the line with a mark below.
fn shown(source: &str, at: Option<usize>, what: &str) -> String {
    let Some(before) = at.and_then(|at| source.get(..at)) else {
        return format!("ERROR: <input>:-1:0: {what}");
    };
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
    let text = source.split('\n').nth(line).unwrap_or_default().replace('\t', " ");
    let dots: String = text.chars().take(column).map(|c| if c.is_ascii() { '.' } else { '．' }).collect();
    let mark = if text.chars().nth(column).is_none_or(|c| c.is_ascii()) { '^' } else { '＾' };
    format!("ERROR: <input>:{}:{}: {what}\n | {text}\n | {dots}{mark}", line + 1, column + 1)
}

struct Checker<'a> {
    names: &'a Names,
    plain_names: &'a [&'a str],
    positions: HashMap<u64, usize>,
    /// Names that loops bind, innermost last.
    scopes: Vec<(String, Type)>,
    issues: Vec<(Option<usize>, String)>,
}

impl Checker<'_> {
    fn issue(&mut self, at: u64, what: String) -> Type {
        let issue = (self.positions.get(&at).copied(), what);
        // The signs in a row that the parser reads twice are one.
        if !self.issues.contains(&issue) {
            self.issues.push(issue);
        }
        Type::Dyn
    }

    fn undeclared(&mut self, at: u64, name: &str) -> Type {
        self.issue(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn visit(&mut self, part: &IdedExpr) -> Type {
        match &part.expr {
            Expr::Unspecified => Type::Dyn,
            Expr::Literal(value) => literal(value),
            Expr::Ident(name) => self.ident(part.id, name),
            Expr::Select(select) => self.select(part.id, select),
            Expr::Call(call) => self.call(part.id, call),
            Expr::List(list) => {
                let mut of = Type::Free;
                for (at, element) in list.elements.iter().enumerate() {
                    let mut one = self.visit(element);
                    if let (true, Type::Optional(inner)) = (list.optional_indices.contains(&at), &one) {
                        one = (**inner).clone();
                    }
                    of = of.join(&one).unwrap_or(Type::Dyn);
                }
                Type::list(of)
            }
            Expr::Map(map) => {
                let (mut keys, mut values) = (Type::Free, Type::Free);
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    keys = keys.join(&self.visit(&entry.key)).unwrap_or(Type::Dyn);
                    let mut value = self.visit(&entry.value);
                    if let (true, Type::Optional(inner)) = (entry.optional, &value) {
                        value = (**inner).clone();
                    }
                    values = values.join(&value).unwrap_or(Type::Dyn);
                }
                Type::Map(Box::new(keys), Box::new(values))
            }
            Expr::Struct(made) => {
                for entry in &made.entries {
                    match &entry.expr {
                        EntryExpr::StructField(field) => self.visit(&field.value),
                        EntryExpr::MapEntry(entry) => self.visit(&entry.value),
                    };
                }
                Type::Dyn
            }
            Expr::Comprehension(inner) => self.comprehension(inner),
        }
    }

    fn bound(&self, name: &str) -> Option<&Type> {
        self.scopes.iter().rev().find(|(bound, _)| bound == name).map(|(_, of)| of)
    }

    fn ident(&mut self, at: u64, name: &str) -> Type {
        match self.bound(name).or_else(|| self.names.get(name)) {
            Some(of) => of.clone(),
            None if self.plain_names.contains(&name) => Type::Dyn,
            None => self.undeclared(at, name),
        }
    }

    fn select(&mut self, at: u64, select: &SelectExpr) -> Type {
        // `authorizer.requestResource` is a name.
        if let Expr::Ident(root) = &select.operand.expr
            && self.bound(root).is_none()
            && let Some(of) = self.names.get(&format!("{root}.{}", select.field))
        {
            return if select.test { Type::Bool } else { of.clone() };
        }
        let operand = self.visit(&select.operand);
        let of = self.field(at, &operand, &select.field);
        if select.test { Type::Bool } else { of }
    }

    fn field(&mut self, at: u64, operand: &Type, field: &str) -> Type {
        match operand.select(field) {
            Selected::Field(of) => of,
            Selected::Undefined => self.issue(at, format!("undefined field '{field}'")),
            Selected::Unsupported => {
                self.issue(at, format!("type '{operand}' does not support field selection"))
            }
        }
    }

    fn call(&mut self, at: u64, of: &CallExpr) -> Type {
        let name = of.func_name.as_str();
        // `ip.isCanonical` is one name.
        let qualified = match of.target.as_deref().map(|target| &target.expr) {
            Some(Expr::Ident(root)) => Some(format!("{root}.{name}")).filter(|name| known(name)),
            _ => None,
        };
        let mut arguments = Vec::with_capacity(of.args.len() + 1);
        let mut member = false;
        if let (Some(target), None) = (&of.target, &qualified) {
            arguments.push(self.visit(target));
            member = true;
        }
        for argument in &of.args {
            arguments.push(self.visit(argument));
        }
        let field = match of.args.get(1).map(|field| &field.expr) {
            Some(Expr::Literal(LiteralValue::String(field))) if matches!(name, OPT_SELECT | OPT_INDEX) => {
                Some(field.inner().to_owned())
            }
            _ => None,
        };
        if let (Some(field), Some(operand)) = (field, arguments.first())
            && (name == OPT_SELECT || matches!(operand, Type::Object(_) | Type::Record(_)))
        {
            let operand = operand.clone();
            return Type::optional(self.field(at, &operand, &field));
        }
        let name = qualified.as_deref().unwrap_or(name);
        match call(name, member, &arguments) {
            Called::Gives(of) => of,
            Called::Unknown => self.undeclared(at, name),
            Called::Unfit => {
                let shown: Vec<String> = arguments.iter().map(ToString::to_string).collect();
                let (target, rest) = shown.split_at(usize::from(member));
                let dot = if member { "." } else { "" };
                let signature = format!("{}{dot}({})", target.concat(), rest.join(", "));
                self.issue(at, format!("found no matching overload for '{name}' applied to '{signature}'"))
            }
        }
    }

    fn comprehension(&mut self, inner: &ComprehensionExpr) -> Type {
        let range = self.visit(&inner.iter_range);
        let made = self.visit(&inner.accu_init);
        let (first, second) = match &range {
            Type::List(of) => (Type::Int, (**of).clone()),
            Type::Map(keys, values) => ((**keys).clone(), (**values).clone()),
            Type::Object(_) | Type::Record(_) => (Type::String, Type::Dyn),
            Type::Dyn | Type::Free => (Type::Dyn, Type::Dyn),
            other => {
                let what = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issue(inner.iter_range.id, what);
                (Type::Dyn, Type::Dyn)
            }
        };
        let depth = self.scopes.len();
        match &inner.iter_var2 {
            Some(name) => {
                self.scopes.push((inner.iter_var.clone(), first));
                self.scopes.push((name.clone(), second));
            }
            None => {
                let one = if matches!(range, Type::List(_)) { second } else { first };
                self.scopes.push((inner.iter_var.clone(), one));
            }
        }
        self.scopes.push((inner.accu_var.clone(), made.clone()));
        self.visit(&inner.loop_cond);
        let step = self.visit(&inner.loop_step);
        self.scopes.truncate(depth);
        // What the loop makes is known only now.
        self.scopes.push((inner.accu_var.clone(), made.join(&step).unwrap_or(Type::Dyn)));
        let result = self.visit(&inner.result);
        self.scopes.truncate(depth);
        result
    }
}

fn literal(value: &LiteralValue) -> Type {
    match value {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}
