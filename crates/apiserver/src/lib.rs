//! The API server. One engine serves every kind from its table entry; this crate names no kind.
//!
//! Guarantees: a write is answered after it is durable; a watcher sees every change of what it asked for
//! once and in order, or is told that it has to list again; no lock is held across a wait.

pub mod admission;
pub mod aggregation;
pub mod audit;
pub mod auth;
pub mod cache;
mod committer;
pub mod compactor;
mod conditions;
mod config_file;
pub mod connect;
pub mod crd;
#[cfg(any(test, feature = "decoders"))]
pub mod decoders;
mod discovery;
pub mod encryption;
pub mod expiry;
mod flow;
mod follower;
mod grpc;
pub mod http;
mod merge;
mod metrics;
mod openapi;
pub mod outbound;
pub mod pki;
mod registry;
pub mod repair;
pub mod rest;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod testing_grpc;
#[cfg(test)]
mod testing_kinds;
#[cfg(test)]
mod testing_server;
#[cfg(test)]
mod testing_webhook;
pub mod tokens;
pub mod trace;
pub mod webhook;

pub use cache::Cache;
pub use openapi::{Describe, Texts};
pub use registry::Registry;
