//! The API server. One engine serves every kind from its table entry; this crate names no kind.
//!
//! Guarantees: a write is answered after it is durable; a watcher sees every change of what it asked for
//! once and in order, or is told that it has to list again; no lock is held across a wait.

pub mod cache;
mod committer;
mod registry;
pub mod rest;

pub use cache::Cache;
pub use registry::Registry;
