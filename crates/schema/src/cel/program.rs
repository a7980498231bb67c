//! One parsed expression and what it refers to.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use kube_cel::{
    KubeCelExt,
    cel::{
        Context, ExecutionError, Value as Cel,
        common::ast::{EntryExpr, Expr, IdedExpr},
        context::VariableResolver,
        extractors::{Arguments, This},
    },
};

use regex::Regex;

use super::{
    authorizer,
    check::{Names, Type, check, positions},
    depth,
    macros::{self, expand, lower},
    rewrite::rewrite,
};
use crate::validate;

/// Longest expression, in bytes; upstream bounds the cost of parsing, we its length.
const SOURCE_MAX: usize = 16 * 1024;

/// Names that functions begin with (`math.greatest`); types are in [`TYPES`].
const NAMESPACES: &[&str] =
    &["base64", "dyn", "format", "ip", "jsonpatch", "lists", "math", "optional", "sets", "strings"];

/// The functions every expression can use, registered once.
static FUNCTIONS: LazyLock<Context<'static>> = LazyLock::new(|| {
    let mut context = Context::default().with_all();
    // The crate has no type values; their names compare as well: `type(self) == string`.
    context.add_function("type", |value: Cel| type_name(&value).to_owned());
    context.add_function("dyn", |value: Cel| Ok::<Cel, ExecutionError>(value));
    context.add_function("bool", truth);
    // The crate compiles a pattern for each call, and by Rust's rules.
    context.add_function("matches", |This(text): This<Arc<String>>, pattern: Arc<String>| {
        Ok::<_, ExecutionError>(regex("matches", &pattern)?.is_match(&text))
    });
    context.add_function("find", |This(text): This<Arc<String>>, pattern: Arc<String>| {
        let found = regex("find", &pattern)?.find(&text).map(|found| found.as_str().to_owned());
        Ok::<Cel, ExecutionError>(Cel::String(Arc::new(found.unwrap_or_default())))
    });
    context.add_function("findAll", find_all);
    for name in TYPES {
        context.add_variable_from_value(*name, (*name).to_owned());
    }
    authorizer::register(&mut context);
    macros::register(&mut context);
    context
});

fn regex(function: &str, pattern: &str) -> Result<Arc<Regex>, ExecutionError> {
    let wrong = || ExecutionError::function_error(function, format!("{pattern:?} is no pattern"));
    validate::regex(pattern).ok_or_else(wrong)
}

/// `text.findAll(pattern)` and `text.findAll(pattern, limit)`; a limit below zero is none.
fn find_all(This(text): This<Arc<String>>, Arguments(given): Arguments) -> Result<Cel, ExecutionError> {
    let (pattern, limit) = match given.as_slice() {
        [Cel::String(pattern)] => (pattern, -1),
        [Cel::String(pattern), Cel::Int(limit)] => (pattern, *limit),
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let regex = regex("findAll", pattern)?;
    let found = regex.find_iter(&text).take(limit);
    Ok(Cel::List(Arc::new(found.map(|found| Cel::String(Arc::new(found.as_str().to_owned()))).collect())))
}

/// `bool(value)`, with the words that cel-go reads (`common/types/string.go`).
fn truth(value: Cel) -> Result<Cel, ExecutionError> {
    match &value {
        Cel::Bool(_) => Ok(value),
        Cel::String(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Cel::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Cel::Bool(false)),
            other => Err(ExecutionError::function_error("bool", format!("cannot read {other:?}"))),
        },
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// Names of types that a rule can compare with.
const TYPES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "duration",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "uint",
];

/// The name of a value's type.
pub(super) fn type_name(value: &Cel) -> &'static str {
    match value {
        Cel::List(_) => "list",
        Cel::Map(_) => "map",
        Cel::Int(_) => "int",
        Cel::UInt(_) => "uint",
        Cel::Float(_) => "double",
        Cel::String(_) => "string",
        Cel::Bytes(_) => "bytes",
        Cel::Bool(_) => "bool",
        Cel::Null => "null_type",
        Cel::Timestamp(_) => "timestamp",
        Cel::Duration(_) => "duration",
        Cel::Function(..) | Cel::Opaque(_) => "opaque",
    }
}

/// A parsed expression.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) expression: IdedExpr,
    free: BTreeSet<String>,
    depth: usize,
}

impl Program {
    /// Parses `source`, which may refer to `variables` and nothing else.
    pub(super) fn compile(source: &str, variables: &[&str]) -> Result<Self, String> {
        let (program, _) = Self::parse(source, variables, None)?;
        Ok(program)
    }

    /// The same, when it goes with the types of the names; and what it gives.
    pub(super) fn checked(source: &str, variables: &[&str], types: &Names) -> Result<(Self, Type), String> {
        Self::parse(source, variables, Some(types))
    }

    fn parse(source: &str, variables: &[&str], types: Option<&Names>) -> Result<(Self, Type), String> {
        if source.len() > SOURCE_MAX {
            return Err(format!("compilation failed: expression is longer than {SOURCE_MAX} bytes"));
        }
        let failed = |why: String| format!("compilation failed: {why}");
        let settled = depth::settle(source).map_err(failed)?;
        // The generated parser is not free of panics on odd input, and the input comes from users.
        let parsed = depth::while_parsing(|| {
            let parsed = depth::parser().enable_optional_syntax(true).parse(&settled);
            let mut expression = parsed.map_err(|error| error.to_string())?;
            depth::of(&expression)?;
            let places = types.map(|types| (types, positions(&settled, &expression)));
            expand(&mut expression)?;
            depth::of(&expression)?;
            let words = || [TYPES, NAMESPACES].concat();
            let check = |(types, places)| check(&settled, places, &expression, types, &words());
            let of = places.map(check).transpose()?;
            rewrite(&mut expression.expr, variables)?;
            lower(&mut expression);
            let depth = depth::of(&expression)?;
            let mut free = BTreeSet::new();
            free_names(&expression.expr, &mut Vec::new(), &mut free);
            Ok((expression, free, depth, of.unwrap_or(Type::Dyn)))
        });
        let (expression, free, depth, of) =
            parsed.unwrap_or_else(|_| Err("expression cannot be parsed".to_owned())).map_err(failed)?;
        let known = |name: &str| [variables, TYPES, NAMESPACES].iter().any(|names| names.contains(&name));
        match free.iter().find(|name| !known(name)) {
            Some(name) => Err(format!("compilation failed: undeclared reference to '{name}'")),
            None => Ok((Self { expression, free, depth }, of)),
        }
    }

    /// Whether the expression refers to a variable.
    pub(super) fn uses(&self, name: &str) -> bool {
        self.free.contains(name)
    }

    /// Evaluates with these variables.
    pub(super) fn run(&self, variables: &[(&str, Cel)]) -> Result<Cel, String> {
        let mut context = FUNCTIONS.new_inner_scope();
        for (name, value) in variables {
            context.add_variable_from_value(*name, value.clone());
        }
        self.evaluate(&context)
    }

    /// Evaluates with the names that a resolver knows.
    pub(super) fn run_in(&self, names: &dyn VariableResolver) -> Result<Cel, String> {
        let mut context = FUNCTIONS.new_inner_scope();
        context.set_variable_resolver(names);
        self.evaluate(&context)
    }

    fn evaluate(&self, context: &Context<'_>) -> Result<Cel, String> {
        depth::while_evaluating(self.depth, || {
            Cel::resolve(&self.expression, context).map_err(|error| error.to_string())
        })?
    }
}

/// The direct parts of an expression, save those that bind a name.
pub(super) fn parts(expr: &Expr) -> Vec<&IdedExpr> {
    match expr {
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(fields) => fields.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Unspecified | Expr::Comprehension(_) | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

fn free_names<'e>(expr: &'e Expr, bound: &mut Vec<&'e str>, free: &mut BTreeSet<String>) {
    match expr {
        Expr::Ident(name) => {
            if !bound.contains(&name.as_str()) {
                free.insert(name.clone());
            }
        }
        Expr::Comprehension(loops) => {
            free_names(&loops.iter_range.expr, bound, free);
            free_names(&loops.accu_init.expr, bound, free);
            let depth = bound.len();
            bound.push(&loops.iter_var);
            bound.extend(loops.iter_var2.as_deref());
            bound.push(&loops.accu_var);
            for part in [&loops.loop_cond, &loops.loop_step, &loops.result] {
                free_names(&part.expr, bound, free);
            }
            bound.truncate(depth);
        }
        other => parts(other).into_iter().for_each(|part| free_names(&part.expr, bound, free)),
    }
}
