//! The controller manager.
mod claims;
mod deployment;
mod endpoints;
mod hash;
mod pods;
mod rank;
mod replicaset;
mod spec;
mod statefulset;
pub use deployment::Deployments;
pub use endpoints::{EndpointSlices, EndpointsController};
pub use replicaset::ReplicaSets;
pub use statefulset::StatefulSets;
