//! A whole cluster in one process, in virtual time: API server on the memory store, controllers,
//! scheduler, simulated nodes ([`Cluster`]); faults, random workloads and invariants from a seed
//! ([`run`]).
//!
//! Guarantees: nothing here waits for the machine's clock, so an hour of a cluster takes as long as its
//! work; every choice of workload, fault, jitter and name comes from the seed. What the seed does not
//! decide is the order in which `tokio::select!` looks at branches that are ready together and the order
//! of hash maps: a seed that fails once fails again nearly always, not always.

mod api;
mod clock;
mod cluster;
mod invariants;
mod link;
mod run;
mod slow;
mod truth;
mod workload;

pub use clock::{Skewed, Virtual};
pub use cluster::{Cluster, Error, Part, Settings};
pub use invariants::violations;
pub use link::{Faults, Rates};
pub use run::{Plan, Report, run};
pub use truth::Truth;
