//! What one controller is.

use std::future::Future;

use meta::{ObjectKey, Timestamp};

use crate::{Context, Error, Plan, Result, Watches};

/// One loop: reads in [`Reconciler::observe`], decides in [`Reconciler::plan`]; the driver acts.
pub trait Reconciler: Send + Sync + 'static {
    /// All that `plan` may look at.
    type World: Send + Sync;

    /// Lower-case name; logs, metrics, and the field manager `keelson-<name>` carry it.
    const NAME: &'static str;

    /// How many keys may be reconciled at once.
    const CONCURRENCY: usize = 8;

    /// The kinds whose changes lead to keys.
    fn watches(&self) -> Watches;

    /// Reads the world of one key, from the caches of `cx` where they will do and from the API where
    /// only a live answer is safe. `None`: nothing is left to do for the key. Must not write.
    fn observe(
        &self,
        cx: &Context,
        key: &ObjectKey,
    ) -> impl Future<Output = Result<Option<Self::World>>> + Send;

    /// Decides. Pure: the same world and time give the same plan.
    fn plan(&self, world: &Self::World, now: Timestamp) -> Plan;

    /// Decides what to say when acting on the plan of `world` failed: a condition, an event. Pure. It
    /// is acted on at once and its own failure is only logged; the key is retried in any case.
    fn failed(&self, world: &Self::World, error: &Error, now: Timestamp) -> Plan {
        let (_, _, _) = (world, error, now);
        Plan::default()
    }
}
