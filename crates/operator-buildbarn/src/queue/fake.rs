//! A scheduler in memory that keeps BuildQueueState's rules: a drained or terminating thread gets nothing, a drain
//! holds for whoever matches it later, terminating answers only when nothing runs, a restart forgets it all.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Answer, BuildQueue, Queue, QueueError, QueueName, Thread, WorkerId};

/// A scheduler.
#[derive(Default)]
pub(crate) struct FakeScheduler {
    state: Mutex<State>,
    /// An action ended or a worker went.
    changed: Notify,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<QueueName, Entry>,
    silent: bool,
    /// Every call that changed something.
    calls: Vec<String>,
}

#[derive(Default)]
struct Entry {
    queued: u32,
    threads: BTreeMap<WorkerId, Slot>,
    drains: BTreeSet<WorkerId>,
}

#[derive(Default)]
struct Slot {
    busy: bool,
    terminating: bool,
}

fn matches(id: &WorkerId, pattern: &WorkerId) -> bool {
    pattern.iter().all(|(key, value)| id.get(key) == Some(value))
}

impl FakeScheduler {
    pub(crate) fn silence(&self, silent: bool) {
        self.state.lock().silent = silent;
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// A queue that exists without workers.
    pub(crate) fn declare(&self, queue: &QueueName) {
        self.state.lock().queues.entry(queue.clone()).or_default();
    }

    /// A pod's worker comes, or comes again.
    pub(crate) fn register(&self, queue: &QueueName, pod: &str, threads: u32) {
        let mut state = self.state.lock();
        let entry = state.queues.entry(queue.clone()).or_default();
        for thread in 0..threads {
            let id = [("pod".to_owned(), pod.to_owned()), ("thread".to_owned(), thread.to_string())].into();
            entry.threads.entry(id).or_default();
        }
    }

    /// A pod's worker is gone.
    pub(crate) fn vanish(&self, pod: &str) {
        let mut state = self.state.lock();
        for entry in state.queues.values_mut() {
            entry.threads.retain(|id, _| id.get("pod").map(String::as_str) != Some(pod));
        }
        self.changed.notify_waiters();
    }

    pub(crate) fn submit(&self, queue: &QueueName, actions: u32) {
        let mut state = self.state.lock();
        state.queues.entry(queue.clone()).or_default().queued += actions;
    }

    /// Gives queued actions to threads that may have them.
    pub(crate) fn assign(&self) {
        let mut state = self.state.lock();
        for entry in state.queues.values_mut() {
            let Entry { queued, threads, drains } = entry;
            for (id, slot) in threads.iter_mut() {
                let drained = slot.terminating || drains.iter().any(|pattern| matches(id, pattern));
                if *queued > 0 && !slot.busy && !drained {
                    *queued -= 1;
                    slot.busy = true;
                }
            }
        }
    }

    /// What a pod runs ends.
    pub(crate) fn finish(&self, pod: &str) {
        let mut state = self.state.lock();
        for entry in state.queues.values_mut() {
            for (id, slot) in entry.threads.iter_mut() {
                if id.get("pod").map(String::as_str) == Some(pod) {
                    slot.busy = false;
                }
            }
        }
        self.changed.notify_waiters();
    }

    /// Everything queued is gone, with all drains and promises; workers come back with what they run.
    pub(crate) fn restart(&self) {
        let mut state = self.state.lock();
        for entry in state.queues.values_mut() {
            entry.queued = 0;
            entry.drains.clear();
            entry.threads.values_mut().for_each(|slot| slot.terminating = false);
        }
    }

    pub(crate) fn busy(&self, pod: &str) -> bool {
        let state = self.state.lock();
        let mut slots = state.queues.values().flat_map(|entry| &entry.threads);
        slots.any(|(id, slot)| slot.busy && id.get("pod").map(String::as_str) == Some(pod))
    }

    /// Marks workers and answers when none of them runs anything, as the real one does.
    pub(crate) async fn terminated(&self, pattern: &WorkerId) {
        loop {
            let changed = self.changed.notified();
            if self.terminate(pattern).await.is_ok() {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn drains(&self) -> usize {
        self.state.lock().queues.values().map(|entry| entry.drains.len()).sum()
    }

    fn ask<T>(&self, work: impl FnOnce(&mut State) -> Result<T, QueueError>) -> Answer<'static, T>
    where
        T: Send + 'static,
    {
        let mut state = self.state.lock();
        let answer = if state.silent {
            Err(QueueError::Failed("no answer within 5 s".to_owned()))
        } else {
            work(&mut state)
        };
        Box::pin(std::future::ready(answer))
    }
}

fn entry<'a>(state: &'a mut State, queue: &QueueName) -> Result<&'a mut Entry, QueueError> {
    state.queues.get_mut(queue).ok_or(QueueError::NotFound)
}

impl BuildQueue for FakeScheduler {
    fn queues(&self) -> Answer<'_, Vec<Queue>> {
        self.ask(|state| {
            let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let queue = |(name, entry): (&QueueName, &Entry)| Queue {
                name: name.clone(),
                workers: count(entry.threads.len()),
                executing: count(entry.threads.values().filter(|slot| slot.busy).count()),
                queued: entry.queued,
            };
            Ok(state.queues.iter().map(queue).collect())
        })
    }

    fn threads<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, Vec<Thread>> {
        self.ask(|state| {
            let Entry { threads, drains, .. } = entry(state, queue)?;
            let thread = |(id, slot): (&WorkerId, &Slot)| Thread {
                id: id.clone(),
                busy: slot.busy,
                drained: slot.terminating || drains.iter().any(|pattern| matches(id, pattern)),
            };
            Ok(threads.iter().map(thread).collect())
        })
    }

    fn drains<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, Vec<WorkerId>> {
        self.ask(|state| Ok(entry(state, queue)?.drains.iter().cloned().collect()))
    }

    fn add_drain<'a>(&'a self, queue: &'a QueueName, pattern: &'a WorkerId) -> Answer<'a, ()> {
        self.ask(|state| {
            state.calls.push(format!("AddDrain {pattern:?}"));
            entry(state, queue)?.drains.insert(pattern.clone());
            Ok(())
        })
    }

    fn remove_drain<'a>(&'a self, queue: &'a QueueName, pattern: &'a WorkerId) -> Answer<'a, ()> {
        self.ask(|state| {
            state.calls.push(format!("RemoveDrain {pattern:?}"));
            entry(state, queue)?.drains.remove(pattern);
            Ok(())
        })
    }

    fn terminate<'a>(&'a self, pattern: &'a WorkerId) -> Answer<'a, ()> {
        self.ask(|state| {
            state.calls.push(format!("TerminateWorkers {pattern:?}"));
            let mut runs = false;
            for (id, slot) in state.queues.values_mut().flat_map(|entry| entry.threads.iter_mut()) {
                if matches(id, pattern) {
                    slot.terminating = true;
                    runs |= slot.busy;
                }
            }
            if runs { Err(QueueError::Failed("deadline exceeded".to_owned())) } else { Ok(()) }
        })
    }
}
