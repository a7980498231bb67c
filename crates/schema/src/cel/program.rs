//! One parsed expression and what it refers to.

use std::{collections::BTreeSet, sync::LazyLock};

use kube_cel::{
    KubeCelExt,
    cel::{
        Context, Value as Cel,
        common::ast::{EntryExpr, Expr, IdedExpr},
        context::VariableResolver,
    },
};

use super::{authorizer, convert::unescape, depth, rewrite::rewrite};
use crate::{Shape, TypeId, TypeSet};

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
    for name in TYPES {
        context.add_variable_from_value(*name, (*name).to_owned());
    }
    authorizer::register(&mut context);
    context
});

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
        if source.len() > SOURCE_MAX {
            return Err(format!("compilation failed: expression is longer than {SOURCE_MAX} bytes"));
        }
        let failed = |why: String| format!("compilation failed: {why}");
        let settled = depth::settle(source).map_err(failed)?;
        // The generated parser is not free of panics on odd input, and the input comes from users.
        let parsed = depth::while_parsing(|| {
            let parsed = depth::parser().enable_optional_syntax(true).parse(&settled);
            let mut expression = parsed.map_err(|error| error.to_string())?;
            let depth = depth::of(&expression)?;
            rewrite(&mut expression.expr, variables)?;
            let mut free = BTreeSet::new();
            free_names(&expression.expr, &mut Vec::new(), &mut free);
            Ok((expression, free, depth))
        });
        let (expression, free, depth) =
            parsed.unwrap_or_else(|_| Err("expression cannot be parsed".to_owned())).map_err(failed)?;
        let known = |name: &str| [variables, TYPES, NAMESPACES].iter().any(|names| names.contains(&name));
        match free.iter().find(|name| !known(name)) {
            Some(name) => Err(format!("compilation failed: undeclared reference to '{name}'")),
            None => Ok(Self { expression, free, depth }),
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

    /// A field of `self` or `oldSelf` that the type does not have, if the expression selects one.
    pub(super) fn unknown_field(&self, set: &TypeSet, of: TypeId) -> Option<String> {
        let mut fields = Fields { set, root: of, scopes: Vec::new(), unknown: None };
        fields.visit(&self.expression.expr);
        fields.unknown
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

/// Follows selections through the schema.
struct Fields<'a> {
    set: &'a TypeSet,
    root: TypeId,
    /// Bound names and their types, innermost last.
    scopes: Vec<(String, Option<TypeId>)>,
    unknown: Option<String>,
}

impl Fields<'_> {
    /// The type of an expression, where the schema tells it.
    fn visit(&mut self, expr: &Expr) -> Option<TypeId> {
        match expr {
            Expr::Ident(name) => match self.scopes.iter().rev().find(|(bound, _)| bound == name) {
                Some((_, of)) => *of,
                None if matches!(name.as_str(), "self" | "oldSelf") => Some(self.root),
                None => None,
            },
            Expr::Select(select) => {
                let of = self.visit(&select.operand.expr)?;
                self.field(of, &select.field)
            }
            Expr::Call(call) => {
                let target = call.target.as_ref().and_then(|target| self.visit(&target.expr));
                let args: Vec<Option<TypeId>> = call.args.iter().map(|arg| self.visit(&arg.expr)).collect();
                // `self.list[0]`, `self.map['key']`.
                let indexed = call.func_name == "_[_]" && target.is_none();
                if indexed { self.element(args.first().copied().flatten()?, false) } else { None }
            }
            Expr::Comprehension(loops) => {
                let range = self.visit(&loops.iter_range.expr);
                self.visit(&loops.accu_init.expr);
                let depth = self.scopes.len();
                let second = loops.iter_var2.clone();
                let of = range.and_then(|of| self.element(of, second.is_none()));
                match second {
                    // Two variables: index or key, then the element.
                    Some(second) => {
                        self.scopes.push((loops.iter_var.clone(), None));
                        self.scopes.push((second, of));
                    }
                    None => self.scopes.push((loops.iter_var.clone(), of)),
                }
                self.scopes.push((loops.accu_var.clone(), None));
                for part in [&loops.loop_cond, &loops.loop_step, &loops.result] {
                    self.visit(&part.expr);
                }
                self.scopes.truncate(depth);
                None
            }
            other => {
                for part in parts(other) {
                    self.visit(&part.expr);
                }
                None
            }
        }
    }

    fn field(&mut self, of: TypeId, name: &str) -> Option<TypeId> {
        match &self.set.node(of).shape {
            Shape::Struct { properties, .. } => {
                let plain = unescape(name);
                let found = properties.get(plain.as_str()).map(|property| property.of);
                if found.is_none() {
                    self.unknown.get_or_insert_with(|| name.to_owned());
                }
                found
            }
            Shape::Map { values, .. } => Some(*values),
            _ => None,
        }
    }

    /// The type that a loop over `of` binds, or that an index into it gives.
    fn element(&self, of: TypeId, loops: bool) -> Option<TypeId> {
        match &self.set.node(of).shape {
            Shape::List { items, .. } => Some(*items),
            // A loop over a map binds its keys.
            Shape::Map { values, .. } if !loops => Some(*values),
            _ => None,
        }
    }
}
