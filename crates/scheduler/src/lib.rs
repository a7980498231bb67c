//! Places pods on nodes.
//!
//! Guarantees: [`decide()`] is a pure function of a pod, a [`Snapshot`] and a [`Profile`], gives every
//! reason, and picks the same node however the snapshot came about; filters, scores, weights and
//! wording are upstream's defaults (`pkg/scheduler/apis/config/v1/default_plugins.go`). A pod is
//! counted on its node from the moment it is decided, and given back when binding fails.
//! [`Core`] is the whole scheduler without I/O; [`run()`] connects it to an API server; [`Desk`] answers over
//! gRPC what it would do and why.
//!
//! Deliberately unaware of how the API server stores anything, of nodes' health (taints say it) and
//! of
//! sockets. A pod with `resourceClaims` is refused with a reason.

mod bind;
mod budgets;
mod classes;
mod config;
mod core;
mod decide;
mod desk;
mod neighbours;
mod node;
mod nominees;
mod notes;
mod plugins;
mod pod;
mod preempt;
mod profile;
mod queue;
mod relations;
mod resources;
mod run;
mod selector;
mod shared;
mod snapshot;
mod taint;
mod trial;
mod volumes;
mod watches;
mod wire;
mod workloads;

pub use crate::budgets::{Budget, Budgets};
pub use crate::classes::Classes;
pub use crate::config::{ConfigError, Configuration};
pub use crate::core::{Change, Core, Step};
pub use crate::decide::{Decision, Placement, Unfit, Verdict, decide, explain};
pub use crate::desk::{Asks, Desk, desk};
pub use crate::neighbours::{Neighbours, Uneven};
pub use crate::node::NodeInfo;
pub use crate::nominees::Nominees;
pub use crate::plugins::{Cycle, Filter, Normalize, Reach, Reason, Reasons, Refusal, Refused, Score, Wake};
pub use crate::pod::{HostPort, PodInfo, ScheduledCondition, Shape};
pub use crate::preempt::{NoRoom, Room, Victim, preempt};
pub use crate::profile::{AddedAffinity, Args, DefaultSpread, FitScoring, PreemptionArgs, Profile, Strategy};
pub use crate::queue::{Backoff, Queue};
pub use crate::relations::{Labels, PodTerm, Relations, Spread};
pub use crate::resources::{Measure, Resources};
pub use crate::run::{Options, run};
pub use crate::selector::{NodeSelector, Operator, Requirement, Term};
pub use crate::snapshot::{Mark, Slot, Snapshot, Tenant, Touch, Turn, Used};
pub use crate::taint::{Effect, Taint, Toleration};
pub use crate::volumes::{Bindings, Claim, ClaimPlan, Progress, StorageClass, Volume, Volumes};
pub use crate::wire::SlimPod;
pub use crate::workloads::{Workload, Workloads};
