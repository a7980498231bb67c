//! The controller manager.
mod claims;
mod deployment;
mod hash;
mod pods;
mod rank;
mod replicaset;
mod spec;
pub use deployment::Deployments;
pub use replicaset::ReplicaSets;
