//! The work queue of one controller: keys, each at most once waiting and at most once in work.
//!
//! Semantics of client-go's `util/workqueue`: a key added while in work is handed out again when that
//! work ends, or, where the work was long, when the key has rested. Bounded by the number of distinct keys, that is, by the
//! number of objects.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use futures::StreamExt;
use meta::{
    ObjectKey,
    metrics::{Bounds, Exposition, Histogram, Kind, Unit, labels, number},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::time::{DelayQueue, delay_queue};

/// What a queue holds at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueList {
    /// Keys that wait, the next first; perhaps not all.
    pub waiting: Vec<ObjectKey>,
    /// How many wait.
    pub waiting_count: usize,
    /// Keys in work; perhaps not all.
    pub active: Vec<ObjectKey>,
    /// How many are in work.
    pub active_count: usize,
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
    counts: Counts,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<ObjectKey>,
    /// Waiting, or to be handed out again after the work on it or its rest ends; since when.
    wanted: HashMap<ObjectKey, Instant>,
    /// Since when.
    active: HashMap<ObjectKey, Instant>,
    /// Not handed out for a while.
    resting: HashSet<ObjectKey>,
    /// Nothing is handed out.
    paused: bool,
}

/// What client-go's queues count.
struct Counts {
    adds: AtomicU64,
    retries: AtomicU64,
    waited: Histogram,
    worked: Histogram,
}

/// client-go's: from 10 ns to 10 s, each ten times the one before.
const BOUNDS: Bounds = Bounds {
    upper: &[
        10,
        100,
        1_000,
        10_000,
        100_000,
        1_000_000,
        10_000_000,
        100_000_000,
        1_000_000_000,
        10_000_000_000,
    ],
    unit: Unit::Nanos,
};

impl Default for Counts {
    fn default() -> Self {
        Self {
            adds: AtomicU64::default(),
            retries: AtomicU64::default(),
            waited: Histogram::new(BOUNDS),
            worked: Histogram::new(BOUNDS),
        }
    }
}

/// Writes `workqueue_*` of these queues under their names, as upstream's controller manager does.
pub(crate) fn expose(queues: &[(&str, &Queue)], out: &mut Exposition) {
    let mut each = |name: &str, kind, help, value: &dyn Fn(&Queue) -> String| {
        let mut family = out.family(name, kind, help);
        for (name, queue) in queues {
            family.value(&labels(&[("name", name)]), value(queue));
        }
    };
    let count = |of: &AtomicU64| of.load(Relaxed).to_string();
    let seconds = |time: Duration| number(time.as_secs_f64());
    each("workqueue_adds_total", Kind::Counter, "Keys that were added.", &|queue| count(&queue.counts.adds));
    each("workqueue_depth", Kind::Gauge, "Keys that wait.", &|queue| queue.len().to_string());
    each("workqueue_retries_total", Kind::Counter, "Keys that were added again after a failure.", &|queue| {
        count(&queue.counts.retries)
    });
    each(
        "workqueue_unfinished_work_seconds",
        Kind::Gauge,
        "How long the work that is going on has taken, of several at a time the sum.",
        &|queue| seconds(queue.worked().sum()),
    );
    each(
        "workqueue_longest_running_processor_seconds",
        Kind::Gauge,
        "How long the longest of the work that is going on has taken.",
        &|queue| seconds(queue.worked().max().unwrap_or_default()),
    );
    let mut histogram = |name: &str, help, of: &dyn Fn(&Counts) -> &Histogram| {
        let mut family = out.family(name, Kind::Histogram, help);
        for (name, queue) in queues {
            family.histogram(&labels(&[("name", name)]), of(&queue.counts));
        }
    };
    histogram("workqueue_queue_duration_seconds", "How long keys wait.", &|counts| &counts.waited);
    histogram("workqueue_work_duration_seconds", "How long the work on keys takes.", &|counts| {
        &counts.worked
    });
}

impl Queue {
    /// Adds a key, unless it is already waiting.
    pub(crate) fn add(&self, key: ObjectKey) {
        let mut state = self.state.lock();
        if state.wanted.contains_key(&key) {
            return;
        }
        self.counts.adds.fetch_add(1, Relaxed);
        state.wanted.insert(key.clone(), Instant::now());
        if !state.active.contains_key(&key) && !state.resting.contains(&key) {
            state.waiting.push_back(key);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Takes the next key into work.
    pub(crate) fn take(&self) -> Option<ObjectKey> {
        let mut state = self.state.lock();
        if state.paused {
            return None;
        }
        let key = state.waiting.pop_front()?;
        let now = Instant::now();
        if let Some(since) = state.wanted.remove(&key) {
            self.counts.waited.took(now - since);
        }
        state.active.insert(key.clone(), now);
        Some(key)
    }

    /// Counts a key that is to be added again because work on it failed.
    pub(crate) fn retried(&self) {
        self.counts.retries.fetch_add(1, Relaxed);
    }

    /// How long the work that is going on has taken.
    fn worked(&self) -> impl Iterator<Item = Duration> {
        let now = Instant::now();
        let all: Vec<Duration> = self.state.lock().active.values().map(|since| now - *since).collect();
        all.into_iter()
    }

    /// Ends the work on a key.
    pub(crate) fn done(&self, key: &ObjectKey) {
        self.done_resting(key);
        self.rested(key);
    }

    /// Ends the work on a key, which is not handed out before [`Queue::rested`].
    pub(crate) fn done_resting(&self, key: &ObjectKey) {
        let mut state = self.state.lock();
        if let Some(since) = state.active.remove(key) {
            self.counts.worked.took(since.elapsed());
        }
        state.resting.insert(key.clone());
    }

    /// Ends the rest of a key.
    pub(crate) fn rested(&self, key: &ObjectKey) {
        let mut state = self.state.lock();
        state.resting.remove(key);
        if state.wanted.contains_key(key) {
            state.waiting.push_back(key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }

    /// How many keys wait.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Holds the queue, or lets it go on. Returns whether that is a change.
    pub(crate) fn pause(&self, paused: bool) -> bool {
        let before = std::mem::replace(&mut self.state.lock().paused, paused);
        if before && !paused {
            self.changed.notify_one();
        }
        before != paused
    }

    /// Whether the queue is held.
    pub(crate) fn is_paused(&self) -> bool {
        self.state.lock().paused
    }

    /// The first keys that wait and those in work, at most `limit` of each, and how many there are.
    pub(crate) fn list(&self, limit: usize) -> QueueList {
        let state = self.state.lock();
        let mut active: Vec<ObjectKey> = state.active.keys().take(limit).cloned().collect();
        active.sort();
        QueueList {
            waiting: state.waiting.iter().take(limit).cloned().collect(),
            waiting_count: state.waiting.len(),
            active,
            active_count: state.active.len(),
        }
    }

    /// Waits until a key may have been added. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Keys that are to be added later; one time for each key.
#[derive(Default)]
pub(crate) struct Later {
    delays: DelayQueue<ObjectKey>,
    slots: HashMap<ObjectKey, delay_queue::Key>,
}

impl Later {
    /// Adds `key` after `wait` instead of whenever it was to be added.
    pub(crate) fn put(&mut self, key: ObjectKey, wait: Duration) {
        match self.slots.get(&key) {
            Some(slot) => self.delays.reset(slot, wait),
            None => {
                let slot = self.delays.insert(key.clone(), wait);
                self.slots.insert(key, slot);
            }
        }
    }

    /// Does not add `key` later.
    pub(crate) fn drop(&mut self, key: &ObjectKey) {
        if let Some(slot) = self.slots.remove(key) {
            self.delays.remove(&slot);
        }
    }

    /// The next key whose time has come; waits for ever when there is none. Cancel-safe.
    pub(crate) async fn next(&mut self) -> ObjectKey {
        match self.delays.next().await {
            Some(expired) => {
                let key = expired.into_inner();
                self.slots.remove(&key);
                key
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    #[test]
    fn a_key_waits_once_and_runs_once_at_a_time() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!((queue.take(), queue.len()), (Some(key("a")), 1));
        queue.add(key("a"));
        assert_eq!(queue.take(), Some(key("b")));
        assert_eq!(queue.take(), None, "a is in work");
        queue.done(&key("a"));
        assert_eq!(queue.take(), Some(key("a")), "a was added during its work");
    }

    #[test]
    fn a_key_that_rests_is_handed_out_afterwards_and_once() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.take().unwrap();
        queue.add(key("a"));
        queue.done_resting(&key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!((queue.take(), queue.take()), (Some(key("b")), None));
        queue.rested(&key("a"));
        assert_eq!((queue.take(), queue.take()), (Some(key("a")), None));
        queue.done_resting(&key("a"));
        queue.rested(&key("a"));
        assert_eq!(queue.take(), None, "nobody wanted it");
    }

    #[test]
    fn a_paused_queue_takes_keys_in_and_hands_none_out() {
        let queue = Queue::default();
        assert!(queue.pause(true) && !queue.pause(true) && queue.is_paused());
        queue.add(key("a"));
        assert_eq!((queue.take(), queue.list(9).waiting), (None, vec![key("a")]));
        assert!(queue.changed().now_or_never().is_some(), "that a key came was told");
        assert!(queue.pause(false));
        assert!(queue.changed().now_or_never().is_some(), "that it may be taken is told again");
        assert_eq!(queue.take(), Some(key("a")));
        assert_eq!((queue.list(0).active_count, queue.list(9).active), (1, vec![key("a")]));
    }

    #[tokio::test(start_paused = true)]
    async fn counts_as_client_go_does() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add(key("a"));
        tokio::time::advance(Duration::from_secs(2)).await;
        queue.take().unwrap();
        queue.add(key("b"));
        tokio::time::advance(Duration::from_millis(5)).await;
        let mut out = Exposition::default();
        expose(&[("job", &queue)], &mut out);
        for line in [
            "workqueue_adds_total{name=\"job\"} 2",
            "workqueue_depth{name=\"job\"} 1",
            "workqueue_retries_total{name=\"job\"} 0",
            "workqueue_unfinished_work_seconds{name=\"job\"} 0.005",
            "workqueue_longest_running_processor_seconds{name=\"job\"} 0.005",
            "workqueue_queue_duration_seconds_bucket{name=\"job\",le=\"1\"} 0",
            "workqueue_queue_duration_seconds_bucket{name=\"job\",le=\"10\"} 1",
            "workqueue_queue_duration_seconds_sum{name=\"job\"} 2",
        ] {
            assert!(out.text().lines().any(|has| has == line), "{line}\n{}", out.text());
        }
        queue.done(&key("a"));
        queue.retried();
        let mut out = Exposition::default();
        expose(&[("job", &queue)], &mut out);
        for line in [
            "workqueue_retries_total{name=\"job\"} 1",
            "workqueue_unfinished_work_seconds{name=\"job\"} 0",
            "workqueue_work_duration_seconds_bucket{name=\"job\",le=\"0.001\"} 0",
            "workqueue_work_duration_seconds_bucket{name=\"job\",le=\"0.01\"} 1",
        ] {
            assert!(out.text().lines().any(|has| has == line), "{line}\n{}", out.text());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_time_given_counts() {
        let mut later = Later::default();
        later.put(key("a"), Duration::from_secs(1));
        later.put(key("a"), Duration::from_secs(3));
        later.put(key("b"), Duration::from_secs(2));
        later.put(key("c"), Duration::from_secs(1));
        later.drop(&key("c"));
        assert_eq!(later.next().now_or_never(), None);
        assert_eq!(later.next().await, key("b"));
        assert_eq!(later.next().await, key("a"));
        assert!(later.next().now_or_never().is_none());
    }
}
