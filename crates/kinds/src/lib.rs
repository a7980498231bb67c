//! The built-in kinds: what they are called, what they look like, what is shown of them, and what no schema
//! can say about them.
//!
//! Guarantees: everything here is data or a pure function of its arguments; nothing waits, nothing is stored.
//! Deliberately unaware of HTTP, of storage and of CRDs, which are values of the same type made elsewhere.
//!
//! What is not here is not served, so that discovery is honest; what nothing acts on is in `inert.rs`.

mod admission;
mod bootstrap;
mod canonical;
mod columns;
mod describe;
mod entry;
mod flow_control;
mod groups;
mod inert;
mod options;
pub mod quota;
mod schemas;
mod strategy;
#[cfg(test)]
mod testing;
mod validate;

pub use admission::admission;
pub use bootstrap::bootstrap;
pub use describe::descriptions;
pub use options::{Acts, Cidr, Options};

use std::sync::Arc;

use resource::Resource;
use schema::TypeSet;

/// Every built-in kind. Groups and versions are in discovery's order, kinds sorted by plural within each.
pub fn all(options: &Options, acts: &Acts) -> Vec<Resource> {
    let schemas::Types { set, zeros } = schemas::read();
    groups::all(&Arc::new(set), &Arc::new(zeros), options, acts)
}

/// The built-in types, read from the generated table: parse once and share.
pub fn types() -> Arc<TypeSet> {
    Arc::new(schemas::read().set)
}

#[cfg(test)]
mod tests;
