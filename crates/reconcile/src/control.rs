//! A hand on a running controller: look at its queue, hold it, have one object reconciled.

use std::sync::Arc;

use meta::{ObjectKey, metrics::Exposition};

use crate::{
    ControllerMetrics, MetricsSnapshot,
    queue::{self, Queue, QueueList},
};

/// The handle of one controller; take it before [`crate::run`] takes the controller. Clones are one.
#[derive(Clone)]
pub struct Control {
    pub(crate) name: &'static str,
    pub(crate) queue: Option<Arc<Queue>>,
    pub(crate) metrics: Arc<ControllerMetrics>,
}

/// The controller runs a loop of its own: there is no queue to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("controller {0} is not driven by a queue")]
pub struct NoQueue(pub &'static str);

/// Writes `workqueue_*` of those that are driven by a queue, under the names of upstream's controller manager.
pub fn expose(controllers: &[Control], out: &mut Exposition) {
    let queues: Vec<(&str, &Queue)> =
        controllers.iter().filter_map(|of| Some((of.name, of.queue.as_deref()?))).collect();
    queue::expose(&queues, out);
}

impl Control {
    /// The controller's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its counters now.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.metrics.snapshot(self.name)
    }

    /// Whether it is driven by a queue, so that the rest of this works.
    pub fn has_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether its queue is held.
    pub fn is_paused(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.is_paused())
    }

    /// Holds the queue: keys come in, none is handed out; what is in work ends. Or lets it go on.
    pub fn pause(&self, paused: bool) -> Result<(), NoQueue> {
        self.queue()?.pause(paused);
        Ok(())
    }

    /// Has an object reconciled, as if a watch had named it.
    pub fn trigger(&self, key: ObjectKey) -> Result<(), NoQueue> {
        self.queue()?.add(key);
        Ok(())
    }

    /// What the queue holds; at most `limit` keys of each sort.
    pub fn list(&self, limit: usize) -> QueueList {
        self.queue.as_ref().map(|queue| queue.list(limit)).unwrap_or_default()
    }

    fn queue(&self) -> Result<&Queue, NoQueue> {
        self.queue.as_deref().ok_or(NoQueue(self.name))
    }
}
