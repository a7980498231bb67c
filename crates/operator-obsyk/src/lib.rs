//! The Obsyk operator: the cluster's inventory, streamed to a platform with nothing lost.
//!
//! Guarantees: once changes stop and the platform answers, it knows the cluster as it is, whatever failed in
//! between and for however long; memory is bounded, and what does not fit is read again from the API server;
//! the wire is the original's to the letter (`obsyk-operator/1.0`); of Secrets, ConfigMaps and environment
//! variables there are names, never values. Runs on any Kubernetes cluster.
//!
//! Not in this release: the batch mode that a platform may offer, HTTP proxies, redirects.

mod crd;
mod digest;
mod fleet;
mod kind;
mod project;
mod reconciler;
mod status;
mod stream;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;
mod types;
mod validate;
mod watched;
mod wire;

pub use crd::crd;
pub use kind::Kind;
pub use project::{Id, Projected};
pub use types::{
    GROUP, ObsykAgent, ObsykAgentSpec, ObsykAgentStatus, RateLimit, ResourceCounts, SecretReference,
    StreamStatus,
};
pub use validate::{Valid, validate};
pub use wire::{
    Aborted, Body, Credentials, Http, HttpError, Https, KeyError, Refusal, Reply, Replying, Trouble, full,
};

/// The controllers of this operator, for `reconcile::run`.
pub fn controllers() -> Vec<reconcile::Controller> {
    let fleet = fleet::Fleet::new();
    let agents = std::sync::Arc::clone(&fleet);
    vec![
        reconcile::Controller::new(reconciler::Agents::new(fleet)),
        // Joins the agents at the end, after they have flushed.
        reconcile::Controller::custom("obsyk-agents", move |_, stop| agents.keep(stop)),
    ]
}
