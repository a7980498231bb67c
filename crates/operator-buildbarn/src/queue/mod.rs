//! The scheduler's queue, as the operator sees and steers it: Buildbarn's BuildQueueState.

mod client;
mod effects;
pub(crate) mod wire;

#[cfg(any(test, feature = "stand-in-scheduler"))]
pub(crate) mod fake;
#[cfg(any(test, feature = "stand-in-scheduler"))]
pub(crate) mod served;
#[cfg(any(test, feature = "stand-in-scheduler"))]
mod stand_in;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::BoxFuture;

pub(crate) use client::Grpc;
pub(crate) use effects::{COST, Drains, RELEASED, Release};
#[cfg(any(test, feature = "stand-in-scheduler"))]
pub use stand_in::{Lane, StandIn};

use crate::{
    types::{Platform, QueueStatus},
    validate::{RunnerPlan, queue_platform},
};

/// Labels of a worker: what distinguishes it from all others.
pub(crate) type WorkerId = BTreeMap<String, String>;

/// Which queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueName {
    pub(crate) prefix: String,
    pub(crate) platform: Platform,
    pub(crate) size_class: u32,
}

/// One queue. Counts are threads, each of which runs one action at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) name: QueueName,
    pub(crate) workers: u32,
    pub(crate) executing: u32,
    pub(crate) queued: u32,
}

impl Queue {
    /// Whether a runner takes its actions from here.
    pub(crate) fn serves(&self, prefix: &str, runner: &RunnerPlan) -> bool {
        let QueueName { prefix: own, platform, size_class } = &self.name;
        own == prefix && *platform == runner.platform && *size_class == runner.size_class
    }

    pub(crate) fn status(&self) -> QueueStatus {
        QueueStatus {
            instance_name_prefix: self.name.prefix.clone(),
            platform: queue_platform(&self.name.platform),
            size_class: self.name.size_class,
            workers: self.workers,
            executing: self.executing,
            queued: self.queued,
        }
    }
}

/// One thread of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) id: WorkerId,
    pub(crate) busy: bool,
    /// It gets no more actions.
    pub(crate) drained: bool,
}

/// Why the queue did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueueError {
    /// There is no such queue: no worker ever came, or it was forgotten.
    #[error("the scheduler has no such queue")]
    NotFound,
    /// The scheduler did not do it; why.
    #[error("{0}")]
    Failed(String),
}

pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, QueueError>>;

/// What a scheduler can be asked. Every call is bounded in time.
pub(crate) trait BuildQueue: Send + Sync {
    /// Every queue.
    fn queues(&self) -> Answer<'_, Vec<Queue>>;
    /// Every thread of a queue.
    fn threads<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, Vec<Thread>>;
    /// Every pattern of workers of a queue that get no more actions.
    fn drains<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, Vec<WorkerId>>;
    /// Workers that match get no more actions.
    fn add_drain<'a>(&'a self, queue: &'a QueueName, pattern: &'a WorkerId) -> Answer<'a, ()>;
    /// They get actions again.
    fn remove_drain<'a>(&'a self, queue: &'a QueueName, pattern: &'a WorkerId) -> Answer<'a, ()>;
    /// Workers that match get no action ever again. Answers when none of them runs one.
    fn terminate<'a>(&'a self, pattern: &'a WorkerId) -> Answer<'a, ()>;
}

/// Opens queues by address.
pub(crate) trait QueueSource: Send + Sync {
    /// The queue at `HOST:PORT`. Nothing is connected before it is asked.
    fn open(&self, address: &str) -> Arc<dyn BuildQueue>;
}

/// The pattern of all threads of a pod.
pub(crate) fn pod_pattern(pod: &str) -> WorkerId {
    [("pod".to_owned(), pod.to_owned())].into()
}

/// What was seen of the queues that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) queues: Vec<Queue>,
    /// Threads by the name of their pod.
    pub(crate) threads: BTreeMap<String, Vec<Thread>>,
    /// Queues that were looked into, with the pods that are drained there. A queue that does not exist is not here.
    pub(crate) drains: BTreeMap<QueueName, Vec<WorkerId>>,
}

impl Snapshot {
    /// As [`Snapshot::take`], in so much time: a scheduler that answers every call slowly is none that answers.
    pub(crate) async fn take_within(
        queue: &dyn BuildQueue,
        into: Option<&[QueueName]>,
        limit: Duration,
    ) -> Result<Self, QueueError> {
        let late = |_| Err(QueueError::Failed(format!("its queues could not be read within {limit:?}")));
        tokio::time::timeout(limit, Self::take(queue, into)).await.unwrap_or_else(late)
    }

    /// Looks at all queues, and into those named; none is all. Then every thread must tell its pod.
    pub(crate) async fn take(queue: &dyn BuildQueue, into: Option<&[QueueName]>) -> Result<Self, QueueError> {
        let mut seen = Self { queues: queue.queues().await?, ..Self::default() };
        let all: Vec<QueueName> = seen.queues.iter().map(|queue| queue.name.clone()).collect();
        for name in into.unwrap_or(&all) {
            if !seen.queues.iter().any(|queue| queue.name == *name) {
                continue;
            }
            // Drains before threads: a thread that is seen idle then cannot have begun an action since.
            let drains = match queue.drains(name).await {
                Ok(drains) => drains,
                Err(QueueError::NotFound) => continue,
                Err(error) => return Err(error),
            };
            let threads = match queue.threads(name).await {
                Ok(threads) => threads,
                Err(QueueError::NotFound) => continue,
                Err(error) => return Err(error),
            };
            for thread in threads {
                let pod = thread.id.get("pod").cloned().unwrap_or_default();
                if pod.is_empty() && into.is_none() {
                    let why =
                        "a worker has no label pod in its workerId, so that nobody knows which pod it is";
                    return Err(QueueError::Failed(why.to_owned()));
                }
                seen.threads.entry(pod).or_default().push(thread);
            }
            seen.drains.insert(name.clone(), drains);
        }
        Ok(seen)
    }

    /// Actions that a pod runs.
    pub(crate) fn busy(&self, pod: &str) -> usize {
        self.threads.get(pod).map_or(0, |threads| threads.iter().filter(|thread| thread.busy).count())
    }

    /// Whether a pod gets no more actions from any queue that exists.
    pub(crate) fn drained(&self, pod: &str) -> bool {
        let pattern = pod_pattern(pod);
        let listed = self.drains.values().all(|patterns| patterns.contains(&pattern));
        let told = self.threads.get(pod).into_iter().flatten().all(|thread| thread.drained);
        listed && told
    }
}
