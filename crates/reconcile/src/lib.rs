//! The one driver that runs `observe -> plan -> act` for every controller and operator, on kube-rs.
//!
//! Guarantees: a key is planned by one task at a time; it is not planned again before the caches it
//! was planned from have seen what it wrote; failures come back with jittered exponential backoff;
//! one watch and one cache per kind and process, shared by all controllers; everything in a plan is
//! data until [`Plan`] is acted on, in one place (`act`).
//!
//! Deliberately unaware of any particular kind, of the clock and of chance (both are passed in), and
//! of how the API server is reached: a [`kube::Client`] is all it has.
//!
//! A controller is a [`Reconciler`]; [`Controller::new`] makes it runnable; [`run`] runs a list of
//! them until it is told to stop. `testkit` (feature `testkit`) has an in-memory API and plan checks.

mod act;
mod applied;
mod backoff;
mod child;
mod condition;
mod context;
mod control;
mod driver;
mod effect;
mod error;
mod event;
mod events;
mod expect;
mod kind;
mod lease;
mod merge;
mod metrics;
mod plan;
mod queue;
mod reconciler;
mod store;
mod stores;
#[cfg(feature = "testkit")]
pub mod testkit;
#[cfg(test)]
mod tests;
mod watches;

pub use act::{Acted, Actor};
pub use backoff::Backoff;
pub use child::{Announce, Child, Write};
pub use condition::{Condition, set_condition};
pub use context::Context;
pub use control::{Control, NoQueue, expose};
pub use driver::{Controller, run};
pub use effect::{Effect, EffectFuture};
pub use error::{Error, Result, answer, text};
pub use event::{Note, Recorder, Severity};
pub use events::events;
pub use kind::{Kind, controlled_by, controller_of, key_of, owner_reference, reference_to, same_object};
pub use lease::{LeaseLock, LeaseOptions};
pub use merge::merge_diff;
pub use metrics::{ControllerMetrics, MetricsSnapshot};
pub use plan::{Finalizer, Plan, Precondition, Propagation};
pub use queue::QueueList;
pub use reconciler::Reconciler;
pub use store::{Change, Progress, Store};
pub use stores::Stores;
pub use tokio_util::sync::CancellationToken;
pub use watches::{Enqueue, Watches};
