//! CEL rules (`x-kubernetes-validations`) and expressions (admission policies).
//!
//! The language is the crate `cel` as `kube-cel` 0.8 re-exports it (0.13), because `kube-cel` adds the
//! functions that Kubernetes adds (strings, lists, sets, quantity, ip, url, semver, format, ...) and is
//! written against that version; `cel` 0.15 has a type registry but none of those functions. What the crate
//! does not do is done here: which names a rule may use ([`program`]), how JSON becomes CEL by its schema
//! ([`convert`]), what a rule may cost ([`cost`]: estimated before it runs, as the crate cannot stop one), how deep it
//! may be ([`depth`]).
//!
//! What the crate does not parse is in [`macros`]; whether an expression goes with types, in [`check`]. Deliberately
//! missing: the order-blind equality of lists of type set.

mod authorizer;
mod check;
mod convert;
mod cost;
mod depth;
mod expression;
mod macros;
mod program;
mod rewrite;
mod rules;

#[cfg(test)]
mod tests;

pub use authorizer::{Asked, Authorize};
pub use check::{Names, Type};
pub use expression::{Expression, ExpressionError, MATCH_BUDGET, POLICY_BUDGET, Scope};
pub use rules::Rules;
