//! Macros that the parser does not know: comprehensions over a position and a value, or a key and a value (cel-go's
//! `ext.TwoVarComprehensions`: `all`, `exists`, `existsOne`, `transformList`, `transformMap`, `transformMapEntry`), and
//! those of optional values (`optMap`, `optFlatMap`).
//!
//! [`expand`] makes of them what the type check knows, [`lower`] makes of that what the interpreter knows, which passes over
//! the second variable of a comprehension. Nothing is written twice, so that macros in one another stay as large as they are.

use std::{collections::HashMap, sync::Arc};

use kube_cel::cel::{
    Context, ExecutionError, Value as Cel,
    common::ast::{
        CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, operators,
    },
    extractors::Arguments,
    objects::{Key, Map, OptionalValue},
};

use super::convert;

const RESULT: &str = "@result";
const RANGE: &str = "@range";
const UNUSED: &str = "@unused";
const KEYS: &str = "@keys";
/// The value of an optional, as a list of one or none.
pub(super) const VALUES: &str = "@values";
/// The other way round.
const FIRST: &str = "@first";
/// Puts an entry, or the entries of a map, into a map.
pub(super) const INSERT: &str = "@mapInsert";

/// Expands the macros of an expression, the inner ones first.
pub(super) fn expand(part: &mut IdedExpr) -> Result<(), String> {
    children(&mut part.expr).into_iter().try_for_each(expand)?;
    let Expr::Call(call) = &mut part.expr else { return Ok(()) };
    let make: fn(&Maker, IdedExpr, Vec<IdedExpr>) -> Option<IdedExpr> =
        match (call.target.is_some(), call.func_name.as_str(), call.args.len()) {
            (true, "all" | "exists" | "exists_one" | "existsOne", 3) => two_variables,
            (true, "transformList" | "transformMap" | "transformMapEntry", 3 | 4) => two_variables,
            (true, "optMap" | "optFlatMap", 2) => optional,
            _ => return Ok(()),
        };
    let CallExpr { func_name, target, args } = std::mem::take(call);
    let maker = Maker { id: part.id, name: &func_name };
    let Some(target) = target else { return Ok(()) };
    *part = make(&maker, *target, args).ok_or("argument must be a simple name")?;
    Ok(())
}

/// What a macro is made with. All of it stands where the macro stands.
struct Maker<'a> {
    id: u64,
    name: &'a str,
}

impl Maker<'_> {
    fn part(&self, expr: Expr) -> IdedExpr {
        IdedExpr { id: self.id, expr }
    }

    fn name(&self, name: &str) -> IdedExpr {
        self.part(Expr::Ident(name.to_owned()))
    }

    fn truth(&self, value: bool) -> IdedExpr {
        self.part(Expr::Literal(LiteralValue::Boolean(value.into())))
    }

    fn number(&self, value: i64) -> IdedExpr {
        self.part(Expr::Literal(LiteralValue::Int(value.into())))
    }

    fn list(&self, elements: Vec<IdedExpr>) -> IdedExpr {
        self.part(Expr::List(ListExpr::new(elements)))
    }

    fn call(&self, function: &str, args: Vec<IdedExpr>) -> IdedExpr {
        self.part(Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }))
    }

    /// `body`, in which `name` is `value`: a comprehension over nothing.
    fn bind(&self, name: &str, value: IdedExpr, body: IdedExpr) -> IdedExpr {
        self.part(Expr::Comprehension(Box::new(ComprehensionExpr {
            iter_range: self.list(Vec::new()),
            iter_var: UNUSED.to_owned(),
            iter_var2: None,
            accu_var: name.to_owned(),
            accu_init: value,
            loop_cond: self.truth(false),
            loop_step: self.name(name),
            result: body,
        })))
    }
}

fn ident(part: IdedExpr) -> Option<String> {
    match part.expr {
        Expr::Ident(name) => Some(name),
        _ => None,
    }
}

/// `range.MACRO(first, second, ...)`; `None` where a variable is no name.
fn two_variables(make: &Maker, range: IdedExpr, args: Vec<IdedExpr>) -> Option<IdedExpr> {
    let mut args = args.into_iter();
    let (first, second) = (ident(args.next()?)?, ident(args.next()?)?);
    let (one, other) = (args.next()?, args.next());
    let result = || make.name(RESULT);
    let go_on = |part| make.call(operators::NOT_STRICTLY_FALSE, vec![part]);
    // A filter comes before what is made.
    let (filter, made) = match other {
        Some(made) => (Some(one), made),
        None => (None, one),
    };
    let (init, cond, step, end) = match make.name {
        "all" => (
            make.truth(true),
            go_on(result()),
            make.call(operators::LOGICAL_AND, vec![result(), made]),
            result(),
        ),
        "exists" => (
            make.truth(false),
            go_on(make.call(operators::LOGICAL_NOT, vec![result()])),
            make.call(operators::LOGICAL_OR, vec![result(), made]),
            result(),
        ),
        "exists_one" | "existsOne" => {
            let more = make.call(operators::ADD, vec![result(), make.number(1)]);
            (
                make.number(0),
                make.truth(true),
                make.call(operators::CONDITIONAL, vec![made, more, result()]),
                make.call(operators::EQUALS, vec![result(), make.number(1)]),
            )
        }
        of => {
            let (init, added) = match of {
                "transformList" => {
                    let added = make.call(operators::ADD, vec![result(), make.list(vec![made])]);
                    (make.list(Vec::new()), added)
                }
                "transformMap" => {
                    let added = make.call(INSERT, vec![result(), make.name(&first), made]);
                    (make.part(Expr::Map(MapExpr::default())), added)
                }
                _ => (make.part(Expr::Map(MapExpr::default())), make.call(INSERT, vec![result(), made])),
            };
            let step = match filter {
                Some(filter) => make.call(operators::CONDITIONAL, vec![filter, added, result()]),
                None => added,
            };
            (init, make.truth(true), step, result())
        }
    };
    Some(make.part(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: range,
        iter_var: first,
        iter_var2: Some(second),
        accu_var: RESULT.to_owned(),
        accu_init: init,
        loop_cond: cond,
        loop_step: step,
        result: end,
    }))))
}

/// `target.optMap(name, body)`: the body of the value, where there is one. By way of a list, since a variable of the crate
/// forgets that it is optional.
fn optional(make: &Maker, target: IdedExpr, args: Vec<IdedExpr>) -> Option<IdedExpr> {
    let mut args = args.into_iter();
    let (name, body) = (ident(args.next()?)?, args.next()?);
    let added = if make.name == "optMap" { make.list(vec![body]) } else { make.call(VALUES, vec![body]) };
    let made = make.part(Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: make.call(VALUES, vec![target]),
        iter_var: name,
        iter_var2: None,
        accu_var: RESULT.to_owned(),
        accu_init: make.list(Vec::new()),
        loop_cond: make.truth(true),
        loop_step: make.call(operators::ADD, vec![make.name(RESULT), added]),
        result: make.name(RESULT),
    })));
    Some(make.call(FIRST, vec![made]))
}

/// A comprehension with one variable instead of two, and the other one bound in each of its steps.
pub(super) fn lower(part: &mut IdedExpr) {
    children(&mut part.expr).into_iter().for_each(lower);
    let Expr::Comprehension(inner) = &mut part.expr else { return };
    let Some(second) = inner.iter_var2.take() else { return };
    let make = Maker { id: part.id, name: "" };
    let mut inner = std::mem::take(inner);
    let at = make.call(operators::INDEX, vec![make.name(RANGE), make.name(&inner.iter_var)]);
    inner.loop_step = make.bind(&second, at, inner.loop_step);
    let range = std::mem::replace(&mut inner.iter_range, make.call(KEYS, vec![make.name(RANGE)]));
    *part = make.bind(RANGE, range, make.part(Expr::Comprehension(inner)));
}

/// The parts of an expression, those that bind names too.
pub(super) fn children(expr: &mut Expr) -> Vec<&mut IdedExpr> {
    match expr {
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).collect(),
        Expr::Select(select) => vec![&mut select.operand],
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Map(map) => map.entries.iter_mut().flat_map(|entry| entry_children(&mut entry.expr)).collect(),
        Expr::Struct(made) => {
            made.entries.iter_mut().flat_map(|entry| entry_children(&mut entry.expr)).collect()
        }
        Expr::Comprehension(inner) => {
            let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } = &mut **inner;
            vec![iter_range, accu_init, loop_cond, loop_step, result]
        }
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn entry_children(entry: &mut EntryExpr) -> Vec<&mut IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&mut field.value],
        EntryExpr::MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
    }
}

/// Registers what lowered expressions call.
pub(super) fn register(context: &mut Context<'_>) {
    context.add_function(KEYS, keys);
    context.add_function(VALUES, |of: Cel| {
        let value = <&OptionalValue>::try_from(&of)?.value().cloned();
        Ok::<Cel, ExecutionError>(Cel::List(Arc::new(value.into_iter().collect())))
    });
    context.add_function(FIRST, |of: Arc<Vec<Cel>>| {
        Ok::<Cel, ExecutionError>(convert::optional(of.first().cloned()))
    });
    context.add_function(INSERT, |Arguments(given): Arguments| insert(&given));
}

/// The positions of a list, the keys of a map in their order.
fn keys(of: Cel) -> Result<Cel, ExecutionError> {
    let keys = match of {
        Cel::List(list) => (0..list.len()).filter_map(|at| i64::try_from(at).ok()).map(Cel::Int).collect(),
        Cel::Map(map) => {
            let mut keys: Vec<&Key> = map.map.keys().collect();
            keys.sort();
            keys.into_iter().map(Cel::from).collect()
        }
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    Ok(Cel::List(Arc::new(keys)))
}

fn insert(given: &[Cel]) -> Result<Cel, ExecutionError> {
    let (map, added): (_, HashMap<Key, Cel>) = match given {
        [Cel::Map(map), Cel::Map(added)] => (map, (*added.map).clone()),
        [Cel::Map(map), key, value] => {
            let key: Key = key.clone().try_into().map_err(|_| ExecutionError::NoSuchOverload)?;
            (map, HashMap::from([(key, value.clone())]))
        }
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    let mut all = (*map.map).clone();
    for (key, value) in added {
        if all.contains_key(&key) {
            let why = format!("insert failed: key {key:?} already exists");
            return Err(ExecutionError::function_error("transformMapEntry", why));
        }
        all.insert(key, value);
    }
    Ok(Cel::Map(Map { map: Arc::new(all) }))
}
