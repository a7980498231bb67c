//! The work queue of one controller: keys, each at most once waiting and at most once in work.
//!
//! Semantics of client-go's `util/workqueue`: a key added while in work is handed out again when that
//! work ends. Bounded by the number of distinct keys, that is, by the number of objects.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use futures::StreamExt;
use meta::ObjectKey;
use parking_lot::Mutex;
use tokio::sync::Notify;
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
}

#[derive(Default)]
struct State {
    waiting: VecDeque<ObjectKey>,
    /// Waiting, or to be handed out again after the work on it ends.
    wanted: HashSet<ObjectKey>,
    active: HashSet<ObjectKey>,
    /// Nothing is handed out.
    paused: bool,
}

impl Queue {
    /// Adds a key, unless it is already waiting.
    pub(crate) fn add(&self, key: ObjectKey) {
        let mut state = self.state.lock();
        if state.wanted.insert(key.clone()) && !state.active.contains(&key) {
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
        state.wanted.remove(&key);
        state.active.insert(key.clone());
        Some(key)
    }

    /// Ends the work on a key.
    pub(crate) fn done(&self, key: &ObjectKey) {
        let mut state = self.state.lock();
        state.active.remove(key);
        if state.wanted.contains(key) {
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
        let mut active: Vec<ObjectKey> = state.active.iter().take(limit).cloned().collect();
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
