//! The Obsyk operator: the cluster's inventory, streamed to a platform with nothing lost.
//!
//! Guarantees: once changes stop and the platform answers, it knows the cluster as it is, whatever failed in
//! between and for however long; memory is bounded, and what does not fit is read again from the API server;
//! the wire is the original's to the letter (`obsyk-operator/1.0`); of Secrets, ConfigMaps and environment
//! variables there are names, never values. Runs on any Kubernetes cluster.
//!
//! To a platform that says it understands them it sends batches: numbered, packed, acknowledged, compared by
//! digests. Not in this release: HTTP proxies, redirects.

mod crd;
mod digest;
mod fleet;
mod kind;
mod metrics;
mod project;
#[cfg(test)]
mod proof;
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

use std::sync::Arc;

pub use crd::crd;
pub use kind::Kind;
pub use project::{Id, Projected};
pub use types::{
    GROUP, ObsykAgent, ObsykAgentSpec, ObsykAgentStatus, RateLimit, ResourceCounts, SecretReference,
    StreamStatus,
};
pub use validate::{Valid, validate};
pub use wire::{
    Aborted, Body, Certificate, Credentials, Http, HttpError, Https, KeyError, REPLY_BYTES_MAX, Refusal,
    Reply, Replying, Trouble, full,
};

/// What is read of the cluster, by API group: the kinds of the inventory.
pub const READS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "namespaces",
            "pods",
            "services",
            "nodes",
            "configmaps",
            "secrets",
            "persistentvolumeclaims",
            "serviceaccounts",
            "events",
        ],
    ),
    ("apps", &["deployments", "statefulsets", "daemonsets"]),
    ("batch", &["jobs", "cronjobs"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
    ("rbac.authorization.k8s.io", &["roles", "clusterroles", "rolebindings", "clusterrolebindings"]),
];

/// The operator, ready to run.
pub struct Parts {
    /// For `reconcile::run`.
    pub controllers: Vec<reconcile::Controller>,
    /// What its agents count, in the Prometheus text form; as fresh as their reports, half a minute.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The operator for one of several replicas: `fence` grows with each new leader, such as `leaseTransitions`,
/// and a platform refuses sessions to one that was deposed.
pub fn parts(fence: u64) -> Parts {
    let fleet = fleet::Fleet::new(fence);
    let (agents, counted) = (Arc::clone(&fleet), Arc::clone(&fleet));
    let controllers = vec![
        reconcile::Controller::new(reconciler::Agents::new(fleet)),
        // Joins the agents at the end, after they have flushed.
        reconcile::Controller::custom("obsyk-agents", move |_, stop| agents.keep(stop)),
    ];
    Parts { controllers, metrics: Arc::new(move || metrics::text(&counted.all())) }
}
