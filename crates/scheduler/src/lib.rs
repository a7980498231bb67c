//! Places pods on nodes.
//!
//! Guarantees: [`decide()`] is a pure function of a pod, a [`Snapshot`] and a [`Profile`], gives every
//! reason, and picks the same node however the snapshot came about; filters, scores, weights and
//! wording are upstream's defaults (`pkg/scheduler/apis/config/v1/default_plugins.go`). A pod is
//! counted on its node from the moment it is decided, and given back when binding fails.
//! [`Core`] is the whole scheduler without I/O; [`run()`] connects it to an API server.
//!
//! Deliberately unaware of how the API server stores anything, of nodes' health (taints say it) and
//! of gRPC. Preemption is not done; a pod with `resourceClaims` is refused with a reason.

mod bind;
mod classes;
mod core;
mod decide;
mod neighbours;
mod node;
mod notes;
mod plugins;
mod pod;
mod profile;
mod queue;
mod relations;
mod resources;
mod run;
mod selector;
mod snapshot;
mod taint;
mod volumes;
mod watches;
mod wire;

pub use crate::classes::Classes;
pub use crate::core::{Change, Core, Step};
pub use crate::decide::{Decision, Placement, Unfit, Verdict, decide, explain};
pub use crate::neighbours::{Neighbours, Uneven};
pub use crate::node::NodeInfo;
pub use crate::plugins::{Cycle, Filter, Normalize, Reach, Reason, Reasons, Refusal, Score, Wake};
pub use crate::pod::{HostPort, PodInfo, ScheduledCondition, Shape};
pub use crate::profile::Profile;
pub use crate::queue::Queue;
pub use crate::relations::{Labels, PodTerm, Relations, Spread};
pub use crate::resources::Resources;
pub use crate::run::{Options, run};
pub use crate::selector::{NodeSelector, Operator, Requirement, Term};
pub use crate::snapshot::{Mark, Slot, Snapshot, Tenant, Used};
pub use crate::taint::{Effect, Taint, Toleration};
pub use crate::volumes::{Bindings, Claim, ClaimPlan, Progress, StorageClass, Volume, Volumes};
pub use crate::wire::SlimPod;
