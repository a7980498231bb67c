//! The scheduler in memory, as tests outside of this crate see it.

use std::sync::Arc;

use super::{BuildQueue, QueueName, QueueSource, fake::FakeScheduler};
use crate::types::{Platform, Property};

/// A queue, by what tells it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane(QueueName);

impl Lane {
    /// The queue of every instance name for a platform and size class.
    pub fn of(properties: &[(&str, &str)], size_class: u32) -> Self {
        let property =
            |(name, value): &(&str, &str)| Property { name: (*name).to_owned(), value: (*value).to_owned() };
        let platform = Platform { properties: properties.iter().map(property).collect() };
        Self(QueueName { prefix: String::new(), platform, size_class })
    }
}

/// A scheduler in memory that keeps BuildQueueState's rules, and workers and actions by hand. Clones are one.
#[derive(Clone, Default)]
pub struct StandIn(pub(crate) Arc<FakeScheduler>);

impl StandIn {
    /// A pod's worker comes, or comes again, with so many threads.
    pub fn register(&self, lane: &Lane, pod: &str, threads: u32) {
        self.0.register(&lane.0, pod, threads);
    }

    /// Actions wait.
    pub fn submit(&self, lane: &Lane, actions: u32) {
        self.0.submit(&lane.0, actions);
    }

    /// Waiting actions go to threads that may have them.
    pub fn assign(&self) {
        self.0.assign();
    }

    /// What a pod runs ends.
    pub fn finish(&self, pod: &str) {
        self.0.finish(pod);
    }

    /// A pod's worker is gone.
    pub fn vanish(&self, pod: &str) {
        self.0.vanish(pod);
    }

    /// A queue that exists without workers, as one that was declared to the scheduler does.
    pub fn declare(&self, lane: &Lane) {
        self.0.declare(&lane.0);
    }

    /// Everything queued is forgotten, with all drains and promises.
    pub fn restart(&self) {
        self.0.restart();
    }

    /// What it was told to do, in order.
    pub fn told(&self) -> Vec<String> {
        self.0.calls()
    }

    /// Drains that are in force.
    pub fn drains(&self) -> usize {
        self.0.drains()
    }

    /// Whether a pod runs something.
    pub fn busy(&self, pod: &str) -> bool {
        self.0.busy(pod)
    }

    /// Whether calls are answered.
    pub fn silence(&self, silent: bool) {
        self.0.silence(silent);
    }
}

/// It is at every address.
impl QueueSource for StandIn {
    fn open(&self, _: &str) -> Arc<dyn BuildQueue> {
        Arc::clone(&self.0) as _
    }
}
