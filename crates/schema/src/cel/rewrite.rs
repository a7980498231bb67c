//! Brings a parsed expression into what the interpreter knows: it has no structs and no optional selection,
//! and what belongs to a policy (`variables.x`, `authorizer.requestResource`) is a variable of its own here.

use kube_cel::cel::common::ast::{
    EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, MapEntryExpr, MapExpr, operators::OPT_INDEX,
    operators::OPT_SELECT,
};

use super::macros::children;

/// Rewrites in place. `names` are the variables there are; `Object` and `JSONPatch` among them allow to make
/// such objects, which are maps here.
pub(super) fn rewrite(expr: &mut Expr, names: &[&str]) -> Result<(), String> {
    dotted(expr, names)?;
    structs(expr, names, None)?;
    // `a.?b` fails in the crate where `a` has no `b`, instead of giving none; `a[?'b']` does what both should.
    if let Expr::Call(call) = expr
        && call.func_name == OPT_SELECT
    {
        OPT_INDEX.clone_into(&mut call.func_name);
    }
    children(expr).into_iter().try_for_each(|part| rewrite(&mut part.expr, names))
}

/// `variables.x` is the variable of that name.
fn dotted(expr: &mut Expr, names: &[&str]) -> Result<(), String> {
    let Expr::Select(select) = expr else { return Ok(()) };
    let Expr::Ident(root) = &select.operand.expr else { return Ok(()) };
    if names.contains(&root.as_str()) && root != "authorizer" {
        return Ok(());
    }
    let joined = format!("{root}.{}", select.field);
    if names.contains(&joined.as_str()) {
        *expr =
            if select.test { Expr::Literal(LiteralValue::Boolean(true.into())) } else { Expr::Ident(joined) };
        return Ok(());
    }
    match root.as_str() {
        "variables" => Err(format!("undefined field '{}'", select.field)),
        _ => Ok(()),
    }
}

/// Structs become maps. What is made for a field is named after the field (`Object.spec` in `spec`).
fn structs(expr: &mut Expr, names: &[&str], expected: Option<&str>) -> Result<(), String> {
    match expr {
        Expr::Struct(made) => {
            let (root, path) = made.type_name.split_once('.').unwrap_or((&made.type_name, ""));
            let known = match root {
                "Object" => names.contains(&"Object"),
                "JSONPatch" => names.contains(&"JSONPatch") && path.is_empty(),
                _ => false,
            };
            if !known {
                return Err(format!("undeclared reference to '{}'", made.type_name));
            }
            if let Some(expected) = expected.filter(|expected| *expected != made.type_name) {
                return Err(format!(
                    "unexpected type name \"{}\", expected \"{expected}\", which matches field name path from \
                     root Object type",
                    made.type_name
                ));
            }
            let type_name = std::mem::take(&mut made.type_name);
            let mut entries = Vec::with_capacity(made.entries.len());
            for entry in std::mem::take(&mut made.entries) {
                let IdedEntryExpr { id, expr } = entry;
                let expr = match expr {
                    EntryExpr::StructField(mut field) => {
                        if root_of(&type_name) == "JSONPatch"
                            && !["op", "path", "from", "value"].contains(&field.field.as_str())
                        {
                            return Err(format!("undefined field '{}'", field.field));
                        }
                        let below = format!("{type_name}.{}", field.field);
                        let below = (root_of(&type_name) == "Object").then_some(below.as_str());
                        structs(&mut field.value.expr, names, below)?;
                        let key = Expr::Literal(LiteralValue::String(field.field.as_str().into()));
                        EntryExpr::MapEntry(MapEntryExpr {
                            key: IdedExpr { id, expr: key },
                            value: field.value,
                            optional: field.optional,
                        })
                    }
                    entry @ EntryExpr::MapEntry(_) => entry,
                };
                entries.push(IdedEntryExpr { id, expr });
            }
            *expr = Expr::Map(MapExpr { entries });
            Ok(())
        }
        Expr::List(list) if expected.is_some() => {
            list.elements.iter_mut().try_for_each(|item| structs(&mut item.expr, names, expected))
        }
        _ => Ok(()),
    }
}

fn root_of(type_name: &str) -> &str {
    type_name.split('.').next().unwrap_or_default()
}
