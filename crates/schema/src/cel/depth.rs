//! How deep an expression is, and a stack for what walks it.
//!
//! Parser, interpreter and the walks between them call themselves for each level, and a stack that overflows ends the
//! whole program: a thread of the server's has 2 MiB. So the text is looked at before it is parsed, the tree before it
//! is walked, and both happen on a stack that is large enough.

use std::thread::{Builder, scope};

use kube_cel::cel::{
    common::ast::{Expr, IdedExpr},
    parser::Parser,
};

use super::program::parts;

/// Brackets and conditionals in one another, as upstream (cel-go's `MaxRecursionDepth`).
const NESTING_MAX: usize = 250;
/// Operators and selections: each may be a level of a chain.
const OPERATORS_MAX: usize = 4_096;
/// Levels of a tree. Chains are levels too, so this is more than upstream's 250.
const DEPTH_MAX: usize = 500;
/// Levels that are evaluated on the stack there is.
const SHALLOW: usize = 40;
/// For one level, of a build that is not optimized; only what is used of it takes memory.
const LEVEL_BYTES: usize = 256 << 10;
/// For a chain of operators, beside the levels of brackets.
const CHAIN_BYTES: usize = 128 << 20;

const TOO_DEEP: &str = "expression recursion limit exceeded: 250";

/// The text as the parser can be given it: not too deep, and without signs in a row (`!!a`, `--a`), which it misreads.
/// Everything else stays where it is.
pub(super) fn settle(source: &str) -> Result<String, String> {
    let code = code(source);
    check(&code)?;
    let mut drop: Vec<usize> = Vec::new();
    let mut at = 0;
    while let Some((_, sign)) = code.get(at).copied() {
        let run = if matches!(sign, '!' | '-') { run(&code, at, sign) } else { Vec::new() };
        // The first may stand between two operands.
        let binary = sign == '-' && ends_operand(code.get(..at).unwrap_or_default());
        let signs = run.get(usize::from(binary)..).unwrap_or_default();
        drop.extend(signs.iter().skip(signs.len() % 2).filter_map(|at| Some(code.get(*at)?.0)));
        at = run.last().map_or(at, |last| *last) + 1;
    }
    let mut settled = source.to_owned();
    for at in drop {
        settled.replace_range(at..=at, " ");
    }
    Ok(settled)
}

/// Where the same sign stands again and again, with nothing but space between; without the `!` of a `!=`.
fn run(code: &[(usize, char)], from: usize, sign: char) -> Vec<usize> {
    let mut found = Vec::new();
    for (at, (_, c)) in code.iter().enumerate().skip(from) {
        let not_equal = sign == '!' && matches!(code.get(at + 1), Some((_, '=')));
        match *c {
            c if c == sign && !not_equal => found.push(at),
            c if c.is_whitespace() => {}
            _ => break,
        }
    }
    found
}

/// Whether what comes before ends a value, so that a minus behind it takes away.
fn ends_operand(before: &[(usize, char)]) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let text: String =
        before.iter().rev().map(|(_, c)| *c).skip_while(|c| c.is_whitespace()).take(3).collect();
    let mut last = text.chars();
    match (last.next(), last.next(), last.next()) {
        // The operator `in`.
        (Some('n'), Some('i'), third) if third.is_none_or(|c| !word(c)) => false,
        (Some(c), ..) => word(c) || matches!(c, ')' | ']' | '}' | '"'),
        (None, ..) => false,
    }
}

/// The characters that are neither in a text nor in a comment, with where they are; a text is one `"`.
fn code(source: &str) -> Vec<(usize, char)> {
    let all: Vec<(usize, char)> = source.char_indices().collect();
    let is = |at: usize, c: char| all.get(at).is_some_and(|(_, found)| *found == c);
    let mut code = Vec::with_capacity(all.len());
    let mut at = 0;
    while let Some((place, c)) = all.get(at).copied() {
        at += 1;
        match c {
            '/' if is(at, '/') => {
                while all.get(at).is_some_and(|(_, c)| *c != '\n') {
                    at += 1;
                }
            }
            '\'' | '"' => {
                let raw = code.iter().rev().map(|(_, c)| *c).take(2).take_while(|c| "rRbB".contains(*c));
                let raw = raw.into_iter().any(|c| matches!(c, 'r' | 'R'));
                let quotes = if is(at, c) && is(at + 1, c) { 3 } else { 1 };
                at += quotes - 1;
                while at < all.len() && !(at..at + quotes).all(|at| is(at, c)) {
                    at += if !raw && is(at, '\\') { 2 } else { 1 };
                }
                at += quotes;
                code.push((place, '"'));
            }
            _ => code.push((place, c)),
        }
    }
    code
}

fn check(code: &[(usize, char)]) -> Result<(), String> {
    let (mut open, mut nesting, mut conditionals, mut operators) = (0_usize, 0_usize, 0_usize, 0_usize);
    for (_, c) in code {
        match c {
            '(' | '[' | '{' => {
                open += 1;
                nesting = nesting.max(open);
            }
            ')' | ']' | '}' => open = open.saturating_sub(1),
            '?' => conditionals += 1,
            '.' | '+' | '-' | '*' | '/' | '%' | '!' | '<' | '>' | '=' | '&' | '|' => operators += 1,
            _ => {}
        }
    }
    if nesting.max(conditionals) > NESTING_MAX || operators > OPERATORS_MAX {
        return Err(TOO_DEEP.to_owned());
    }
    Ok(())
}

/// A parser that goes as deep as upstream's.
pub(super) fn parser() -> Parser {
    Parser::new().max_recursion_depth(u16::try_from(NESTING_MAX).unwrap_or(u16::MAX))
}

/// Levels of a tree, counted without recursion; an error when there are too many.
pub(super) fn of(expression: &IdedExpr) -> Result<usize, String> {
    let (mut deepest, mut open) = (0, vec![(expression, 1_usize)]);
    while let Some((at, depth)) = open.pop() {
        deepest = deepest.max(depth);
        if deepest > DEPTH_MAX {
            return Err(TOO_DEEP.to_owned());
        }
        open.extend(parts(&at.expr).into_iter().map(|part| (part, depth + 1)));
        if let Expr::Comprehension(inner) = &at.expr {
            let inner =
                [&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result];
            open.extend(inner.map(|part| (part, depth + 1)));
        }
    }
    Ok(deepest)
}

/// Parses on a stack for the deepest source that [`settle`] lets pass; an error when `work` panics.
pub(super) fn while_parsing<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    on_stack(NESTING_MAX * LEVEL_BYTES + CHAIN_BYTES, work)
}

/// Evaluates a tree of so many levels; an error when `work` panics.
pub(super) fn while_evaluating<T: Send>(depth: usize, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    if depth > SHALLOW {
        return on_stack(depth * LEVEL_BYTES, work);
    }
    // Library functions meet values from users; a panic in one must not take a request down.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|_| "internal error".to_owned())
}

fn on_stack<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    scope(|scope| {
        let thread = Builder::new().name("cel".to_owned()).stack_size(bytes);
        let thread = thread.spawn_scoped(scope, work).map_err(|error| format!("internal error: {error}"))?;
        thread.join().map_err(|_| "internal error".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::cel::{Expression, POLICY_BUDGET, Scope};

    fn check(source: &str, expected: Result<Value, &str>) {
        let mut scope = Scope::new(POLICY_BUDGET);
        scope.set("self", &json!({"a": 1}));
        let compiled = Expression::compile(source, &["self"]).map_err(|error| error.to_string());
        let shown = source.get(..40).unwrap_or(source);
        match (compiled, expected) {
            (Ok(expression), Ok(expected)) => {
                let value = expression.value(&scope).map_err(|error| error.to_string());
                assert_eq!(value, Ok(expected), "{shown}");
            }
            (Err(why), Err(words)) => assert!(why.contains(words), "{shown}: {why}"),
            (compiled, expected) => panic!("{shown}: {:?} is not {expected:?}", compiled.map(|_| ())),
        }
    }

    #[test]
    fn deep_expressions_are_refused_or_evaluated_and_end_nothing() {
        let nested = |levels: usize| format!("{}1{}", "(".repeat(levels), ")".repeat(levels));
        check(&nested(200), Ok(json!(1)));
        let too_deep = super::TOO_DEEP;
        check(&nested(251), Err(too_deep));
        check(&nested(8_000), Err(too_deep));
        check(&"(".repeat(250), Err("compilation failed"));
        check(&format!("1{}", "+1".repeat(400)), Ok(json!(401)));
        for source in [
            format!("1{}", "+1".repeat(4_000)),
            format!("self{}", ".a".repeat(4_000)),
            format!("{}1", "true ? 1 : ".repeat(1_000)),
            "[".repeat(8_000),
            format!("1{}", "+1".repeat(8_000)),
        ] {
            check(&source, Err(too_deep));
        }
        check(&format!("{}true", "!".repeat(4_000)), Ok(json!(true)));
        check(&format!("'{}'.size()", "(".repeat(300)), Ok(json!(300)));
    }

    /// The parser takes an even number of signs for one, and reads what follows them twice for each.
    #[test]
    fn signs_in_a_row_cancel_out() {
        for (source, expected) in [
            ("!!true", json!(true)),
            ("! ! !true", json!(false)),
            ("!!true != false", json!(true)),
            ("1 != 2", json!(true)),
            ("--1", json!(1)),
            ("---self.a", json!(-1)),
            ("3---1", json!(2)),
            ("3 - -1", json!(4)),
            ("(3)--1", json!(4)),
            ("1 in [--self.a] && 1 in [1]", json!(true)),
            ("size('!!--') + size(\"!!\")", json!(6)),
            ("size(r'\\!!')", json!(3)),
        ] {
            check(source, Ok(expected));
        }
        check(&format!("{}true{}", "!!(".repeat(90), ")".repeat(90)), Ok(json!(true)));
    }
}
