//! Counters of one controller, as plain atomics; whoever serves metrics takes a snapshot.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

/// Live counters of one controller.
#[derive(Debug, Default)]
pub struct ControllerMetrics {
    pub(crate) reconciles: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) queued: AtomicU64,
    pub(crate) active: AtomicU64,
    pub(crate) stale_waits: AtomicU64,
    pub(crate) busy_us: AtomicU64,
}

/// The counters of one controller at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricsSnapshot {
    /// The controller.
    pub name: &'static str,
    /// Reconciliations finished.
    pub reconciles: u64,
    /// Of these, failed (conflicts not counted).
    pub errors: u64,
    /// Writes refused because somebody else wrote first.
    pub conflicts: u64,
    /// Writes made.
    pub writes: u64,
    /// Keys waiting now.
    pub queued: u64,
    /// Keys being reconciled now.
    pub active: u64,
    /// Times a cache did not show a write within the bound and planning went on without.
    pub stale_waits: u64,
    /// Microseconds that reconciliations took, from looking at the world to the last answer; of several at a time
    /// the sum.
    pub busy_us: u64,
}

impl ControllerMetrics {
    pub(crate) fn snapshot(&self, name: &'static str) -> MetricsSnapshot {
        MetricsSnapshot {
            name,
            reconciles: self.reconciles.load(Relaxed),
            errors: self.errors.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
            writes: self.writes.load(Relaxed),
            queued: self.queued.load(Relaxed),
            active: self.active.load(Relaxed),
            stale_waits: self.stale_waits.load(Relaxed),
            busy_us: self.busy_us.load(Relaxed),
        }
    }
}
