//! The Buildbarn operator: a build farm from five objects, its configuration generated, no action lost.
//!
//! Guarantees: a bad spec changes nothing and says which field to change; every configuration is checked before it
//! is rolled out, and a change restarts what it touches and nothing else; a worker's pod goes when the scheduler
//! says that it runs nothing, or its limit is over; what is stored stays found while shards come and go. Runs on
//! any Kubernetes cluster.
//!
//! Not supported by this release: FUSE and NFS build directories, references to other namespaces, TLS between the
//! parts of a farm.

mod autoscale;
mod catalogue;
mod children;
mod component;
mod config;
mod crd;
mod drain;
mod farm;
mod kinds;
mod metrics;
mod model;
mod observe;
mod plan;
mod queue;
mod reconciler;
mod refusals;
mod status;
#[cfg(test)]
mod tests;
mod topology;
mod types;
mod validate;
mod verdict;

use std::sync::Arc;

pub use catalogue::{RELEASE, Release};
pub use crd::crds;
pub use model::{Program, check};
#[cfg(any(test, feature = "stand-in-scheduler"))]
pub use queue::{
    Lane, StandIn,
    served::{Manner, Served},
};
pub use types::*;

use reconciler::Loop;

/// The controllers of this operator, for `reconcile::run`.
pub fn controllers() -> Vec<reconcile::Controller> {
    controllers_at(Arc::new(queue::Grpc::default()))
}

/// The same with a scheduler in memory in place of every other.
#[cfg(any(test, feature = "stand-in-scheduler"))]
pub fn controllers_beside(scheduler: &StandIn) -> Vec<reconcile::Controller> {
    controllers_at(Arc::new(scheduler.clone()))
}

fn controllers_at(queues: Arc<dyn queue::QueueSource>) -> Vec<reconcile::Controller> {
    vec![
        reconcile::Controller::new(Loop::<BuildbarnStorage>::new(queues.clone())),
        reconcile::Controller::new(Loop::<BuildbarnScheduler>::new(queues.clone())),
        reconcile::Controller::new(Loop::<BuildbarnWorker>::new(queues.clone())),
        reconcile::Controller::new(Loop::<BuildbarnFrontend>::new(queues.clone())),
        reconcile::Controller::new(Loop::<BuildbarnBrowser>::new(queues)),
    ]
}
