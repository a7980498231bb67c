//! The Database operator: what a user asks for in a Database becomes a StatefulSet, Services, credentials and
//! a volume, and the Database's status says what is true of them.
//!
//! Guarantees: a bad spec changes nothing and says what to change; Ready means that the engine answers a
//! client with the password; generated passwords are made once and never overwritten; objects of the same
//! name that belong to somebody else are left alone. Runs on any Kubernetes cluster.
//!
//! Not supported by this release, and refused with a message: MongoDB, Elasticsearch, SQLite, more than one
//! member, Redis' sentinel and cluster modes, growing a volume.

mod children;
mod crd;
mod database;
mod engine;
mod observe;
mod plan;
mod status;
#[cfg(test)]
mod tests;
mod types;
mod validate;

pub use crd::crd;
pub use database::Databases;
pub use engine::Engine;
pub use types::{
    Database, DatabaseSpec, DatabaseStatus, DeletionPolicy, EngineType, EnvVar, EnvVarSource, FINALIZER,
    GROUP, Phase, PostgreSql, Redis, RedisMode, Resources, SecretKey, ServiceType, Storage,
};
pub use validate::{Password, Valid, Volume, validate};

/// The controllers of this operator, for `reconcile::run`.
pub fn controllers() -> Vec<reconcile::Controller> {
    vec![reconcile::Controller::new(Databases)]
}
