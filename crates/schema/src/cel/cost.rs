//! What an expression may cost before it runs: the crate cannot stop one that runs too long, so the estimate
//! is an upper bound from the sizes of the values at hand. Units are upstream's (one for each step,
//! `apiserver/pkg/apis/cel/config.go`), the count is coarser.

use kube_cel::cel::common::ast::{Expr, IdedExpr};
use serde_json::Value;

use super::{
    macros::{INSERT, VALUES},
    program::parts,
};

/// Most that one evaluation of one rule may cost.
pub(super) const PER_CALL: u64 = 1_000_000;

/// Most that all rules of one object may cost together.
pub(super) const PER_OBJECT: u64 = 10_000_000;

/// How large the values are that an expression sees.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    /// Entries of the largest list or map, and tenths of the longest string.
    largest: u64,
    /// Entries of all lists and maps.
    total: u64,
    /// Bytes of the longest string.
    text: u64,
}

impl Sizes {
    /// Sizes of one value.
    pub(super) fn of(value: &Value) -> Self {
        let mut sizes = Self::default();
        sizes.count(value);
        sizes
    }

    /// The larger of both.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            largest: self.largest.max(other.largest),
            total: self.total.max(other.total),
            text: self.text.max(other.text),
        }
    }

    fn count(&mut self, value: &Value) {
        let entries = match value {
            Value::Array(list) => {
                list.iter().for_each(|item| self.count(item));
                list.len()
            }
            Value::Object(map) => {
                map.values().for_each(|item| self.count(item));
                map.len()
            }
            Value::String(text) => {
                self.text = self.text.max(text.len() as u64);
                return;
            }
            _ => return,
        };
        self.largest = self.largest.max(entries as u64);
        self.total = self.total.saturating_add(entries as u64);
    }
}

/// The most that evaluating `expression` on values of these sizes can cost.
pub(super) fn estimate(expression: &IdedExpr, sizes: Sizes) -> u64 {
    cost(&expression.expr, sizes, &mut Vec::new())
}

/// `loops`: the variables of the loops around, and how often each runs.
fn cost<'e>(expr: &'e Expr, sizes: Sizes, loops: &mut Vec<(&'e str, u64)>) -> u64 {
    match expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => 1,
        Expr::Comprehension(inner) => {
            let init = cost(&inner.accu_init.expr, sizes, loops);
            let range = init.saturating_add(cost(&inner.iter_range.expr, sizes, loops));
            let times = match (root(&inner.iter_range.expr), &inner.iter_range.expr) {
                (_, Expr::List(list)) => list.elements.len() as u64,
                (_, Expr::Call(call)) if call.func_name == VALUES => 1,
                // The parts of one collection are together not more than there is in all.
                (Some(name), _) => match loops.iter().rev().find(|(bound, _)| *bound == name) {
                    Some((_, outer)) => sizes.total / (*outer).max(1) + 1,
                    None => sizes.largest,
                },
                (None, _) => sizes.largest.max(sizes.text),
            };
            loops.push((&inner.iter_var, times));
            let step = cost(&inner.loop_cond.expr, sizes, loops).saturating_add(cost(
                &inner.loop_step.expr,
                sizes,
                loops,
            ));
            let result = cost(&inner.result.expr, sizes, loops);
            loops.pop();
            range.saturating_add(times.saturating_mul(step)).saturating_add(result)
        }
        other => {
            let own = match other {
                Expr::Call(call) if reads_all(&call.func_name) => 1 + sizes.text / 10 + sizes.largest / 10,
                _ => 1,
            };
            parts(other).into_iter().fold(own, |sum, part| sum.saturating_add(cost(&part.expr, sizes, loops)))
        }
    }
}

/// Functions whose cost grows with their argument.
fn reads_all(function: &str) -> bool {
    matches!(
        function,
        "_==_"
            | "_!=_"
            | "@in"
            | "contains"
            | "matches"
            | "find"
            | "findAll"
            | "split"
            | "replace"
            | "join"
            | "indexOf"
            | "lastIndexOf"
            | "lowerAscii"
            | "upperAscii"
            | "isSorted"
            | "sum"
            | "min"
            | "max"
            | "url"
            | "_+_"
            | INSERT
    )
}

/// The variable that a range starts from.
fn root(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Ident(name) => Some(name),
        Expr::Select(select) => root(&select.operand.expr),
        Expr::Comprehension(inner) => root(&inner.iter_range.expr),
        Expr::Call(call) => call.target.as_deref().or(call.args.first()).and_then(|part| root(&part.expr)),
        _ => None,
    }
}
