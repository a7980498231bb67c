//! Where the parts of an expression stand in its text.
//!
//! The parser counts the parts and forgets where they were, so the tree is laid beside the text again: both in the order
//! of the text, each part takes the next token that is its own (the dot of a selection, the sign of an operator, the
//! bracket of a call, as cel-go's `parser/parser.go`). What macros make up stands where the macro's bracket does.

use std::collections::HashMap;

use kube_cel::cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, operators};

use super::super::program::parts;

/// Offsets in bytes by the number of a part; none where the text does not show it.
pub(in crate::cel) fn positions(source: &str, expression: &IdedExpr) -> HashMap<u64, usize> {
    let mut walk = Walk { tokens: tokens(source), at: 0, found: HashMap::new() };
    walk.visit(expression);
    walk.found
}

#[derive(Clone, Copy)]
struct Token<'s> {
    at: usize,
    text: &'s str,
    literal: bool,
}

struct Walk<'s> {
    tokens: Vec<Token<'s>>,
    at: usize,
    found: HashMap<u64, usize>,
}

impl Walk<'_> {
    /// Takes the next token like this and leaves out what is before it; stays where none is.
    fn next(&mut self, wanted: impl Fn(&Token<'_>) -> bool) -> Option<usize> {
        let rest = self.tokens.get(self.at..)?;
        let (ahead, token) = rest.iter().enumerate().find(|(_, token)| wanted(token))?;
        self.at += ahead + 1;
        Some(token.at)
    }

    fn take(&mut self, of: u64, wanted: &str) {
        let at = self.next(|token| !token.literal && token.text == wanted);
        self.found.extend(at.map(|at| (of, at)));
    }

    fn skip(&mut self, wanted: &str) {
        self.next(|token| !token.literal && token.text == wanted);
    }

    fn visit(&mut self, part: &IdedExpr) {
        match &part.expr {
            Expr::Unspecified => {}
            Expr::Ident(name) => self.take(part.id, name),
            Expr::Literal(_) => {
                let at = self.next(|token| token.literal || matches!(token.text, "true" | "false" | "null"));
                self.found.extend(at.map(|at| (part.id, at)));
            }
            Expr::Select(select) => {
                if select.test {
                    self.skip("has");
                    self.take(part.id, "(");
                    self.visit(&select.operand);
                    self.skip(".");
                } else {
                    self.visit(&select.operand);
                    self.take(part.id, ".");
                }
                self.at += 1;
            }
            Expr::Call(call) => match (&call.target, operator(&call.func_name), call.args.as_slice()) {
                (Some(target), ..) => {
                    self.visit(target);
                    self.skip(".");
                    self.take(part.id, "(");
                    call.args.iter().for_each(|argument| self.visit(argument));
                }
                (None, Some(sign), [only]) => {
                    self.take(part.id, sign);
                    self.visit(only);
                }
                (None, Some(sign), [first, rest @ ..]) => {
                    self.visit(first);
                    self.take(part.id, sign);
                    for (at, argument) in rest.iter().enumerate() {
                        if at > 0 {
                            self.skip(":");
                        }
                        self.operand(part.id, &call.func_name, argument);
                    }
                }
                (None, _, arguments) => {
                    self.skip(call.func_name.trim_start_matches('.'));
                    self.take(part.id, "(");
                    arguments.iter().for_each(|argument| self.visit(argument));
                }
            },
            Expr::List(list) => {
                self.take(part.id, "[");
                list.elements.iter().for_each(|element| self.visit(element));
            }
            Expr::Map(map) => self.entries(part.id, map.entries.iter().map(|entry| (entry.id, &entry.expr))),
            Expr::Struct(made) => {
                self.entries(part.id, made.entries.iter().map(|entry| (entry.id, &entry.expr)));
            }
            Expr::Comprehension(inner) => self.comprehension(part.id, inner),
        }
    }

    /// The right side of an operator; the field of an optional selection is no token of a literal.
    fn operand(&mut self, of: u64, operator: &str, argument: &IdedExpr) {
        if operator == operators::OPT_SELECT {
            self.found.extend(self.found.get(&of).copied().map(|at| (argument.id, at)));
            self.skip("?");
            self.at += 1;
        } else {
            self.visit(argument);
        }
    }

    fn entries<'e>(&mut self, of: u64, entries: impl Iterator<Item = (u64, &'e EntryExpr)>) {
        self.take(of, "{");
        for (id, entry) in entries {
            match entry {
                EntryExpr::StructField(field) => {
                    self.take(id, ":");
                    self.visit(&field.value);
                }
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key);
                    self.take(id, ":");
                    self.visit(&entry.value);
                }
            }
        }
    }

    fn comprehension(&mut self, of: u64, inner: &ComprehensionExpr) {
        self.visit(&inner.iter_range);
        self.skip(".");
        self.take(of, "(");
        self.skip(&inner.iter_var);
        if let Some(at) = self.found.get(&of).copied() {
            let made_up = [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result];
            made_up.into_iter().for_each(|part| self.all_at(part, at));
        }
        for argument in arguments(inner) {
            self.visit(argument);
        }
    }

    fn all_at(&mut self, part: &IdedExpr, at: usize) {
        self.found.insert(part.id, at);
        if let Expr::Comprehension(inner) = &part.expr {
            let inner =
                [&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result];
            inner.into_iter().for_each(|part| self.all_at(part, at));
        }
        parts(&part.expr).into_iter().for_each(|part| self.all_at(part, at));
    }
}

/// What was written behind the variable of a macro, of what the macro became.
fn arguments(inner: &ComprehensionExpr) -> Vec<&IdedExpr> {
    let Expr::Call(step) = &inner.loop_step.expr else { return Vec::new() };
    let element = |added: &IdedExpr| -> Option<u64> {
        let Expr::Call(added) = &added.expr else { return None };
        let Expr::List(list) = &added.args.get(1)?.expr else { return None };
        list.elements.first().map(|element| element.id)
    };
    match (step.func_name.as_str(), step.args.as_slice()) {
        (operators::LOGICAL_AND | operators::LOGICAL_OR, [_, condition]) => vec![condition],
        (operators::ADD, [_, list]) => parts(&list.expr),
        (operators::CONDITIONAL, [condition, added, _]) => {
            let mapped = parts(&added.expr).into_iter().flat_map(|part| parts(&part.expr));
            // A filter keeps the variable itself.
            let mapped = mapped.filter(|part| {
                Some(part.id) == element(added)
                    && !matches!(&part.expr, Expr::Ident(name) if *name == inner.iter_var)
            });
            std::iter::once(condition).chain(mapped).collect()
        }
        _ => Vec::new(),
    }
}

/// The sign of an operator.
fn operator(function: &str) -> Option<&str> {
    match function {
        operators::CONDITIONAL => Some("?"),
        operators::IN => Some("in"),
        operators::INDEX | operators::OPT_INDEX => Some("["),
        operators::OPT_SELECT => Some("."),
        other => Some(other.trim_matches('_')).filter(|sign| other.len() != sign.len() && !sign.is_empty()),
    }
}

fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let mut ahead = rest.chars();
        let (first, second) = (ahead.next().unwrap_or_default(), ahead.next());
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let until = |stop: &dyn Fn(char) -> bool| rest.find(|c: char| stop(c)).unwrap_or(rest.len());
        let (length, literal) = if first.is_whitespace() {
            (first.len_utf8(), None)
        } else if rest.starts_with("//") {
            (until(&|c| c == '\n'), None)
        } else if let Some(length) = quoted(rest) {
            (length, Some(true))
        } else if first.is_ascii_digit() || (first == '.' && second.is_some_and(|c| c.is_ascii_digit())) {
            (number(rest), Some(true))
        } else if word(first) {
            (until(&|c| !word(c)), Some(false))
        } else {
            let two = ["&&", "||", "==", "!=", "<=", ">="].iter().any(|sign| rest.starts_with(sign));
            (if two { 2 } else { first.len_utf8() }, Some(false))
        };
        let text = rest.get(..length).unwrap_or(rest);
        tokens.extend(literal.map(|literal| Token { at, text, literal }));
        at += length.max(1);
    }
    tokens
}

/// The length of a text with its prefix, if one begins here.
fn quoted(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c: char| !"rRbB".contains(c)).filter(|length| *length <= 2)?;
    let raw = rest.get(..prefix)?.contains(['r', 'R']);
    let body = rest.get(prefix..)?;
    let quote = body.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let triple: String = std::iter::repeat_n(quote, 3).collect();
    let end = if body.starts_with(&triple) { triple } else { quote.to_string() };
    let mut at = end.len();
    while let Some(left) = body.get(at..).filter(|left| !left.is_empty()) {
        if left.starts_with(&end) {
            return Some(prefix + at + end.len());
        }
        let mut ahead = left.chars();
        let first = ahead.next().map_or(1, char::len_utf8);
        let escaped = !raw && left.starts_with('\\');
        at += first + if escaped { ahead.next().map_or(0, char::len_utf8) } else { 0 };
    }
    Some(rest.len())
}

fn number(rest: &str) -> usize {
    let mut before = ' ';
    for (at, c) in rest.char_indices() {
        let fraction =
            c == '.' && rest.get(at + 1..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let exponent = matches!(c, '+' | '-') && matches!(before, 'e' | 'E') && !rest.starts_with("0x");
        if !(c.is_ascii_alphanumeric() || fraction || exponent) {
            return at;
        }
        before = c;
    }
    rest.len()
}
