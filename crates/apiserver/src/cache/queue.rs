//! What one watcher has still to read. Filled by the committer, bounded, never waited for: a watcher that
//! falls too far behind loses its queue and has to list again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::event::Batch;

/// Most events that wait for one watcher. A watcher of everything at 10,000 changes per second may stall
/// for more than a second; the objects themselves are shared with the cache, so a queue costs pointers.
pub(crate) const QUEUE_EVENTS_MAX: usize = 16_384;

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Arc<Batch>>,
    /// In all of `items`.
    events: usize,
    lost: bool,
    /// Nothing comes any more.
    ended: bool,
}

/// The queue of one watcher.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Notify,
}

/// What a watcher finds.
pub(crate) enum Taken {
    /// Something to send.
    Items(VecDeque<Arc<Batch>>),
    /// Nothing now.
    Empty,
    /// The queue overflowed.
    Lost,
    /// Nothing more will come.
    Ended,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, batch: Arc<Batch>) {
        let mut state = self.state();
        state.events += batch.events.len();
        if state.lost || state.events > QUEUE_EVENTS_MAX {
            *state = State { lost: true, ..State::default() };
        } else {
            state.items.push_back(batch);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Has the watcher list again: what it would have to see next is not known.
    pub(crate) fn lose(&self) {
        *self.state() = State { lost: true, ..State::default() };
        self.ready.notify_one();
    }

    /// Lets the watcher read what is there, and no more.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.ready.notify_one();
    }

    pub(crate) fn take(&self) -> Taken {
        let mut state = self.state();
        if state.lost {
            return Taken::Lost;
        }
        state.events = 0;
        let items = std::mem::take(&mut state.items);
        match (items.is_empty(), state.ended) {
            (true, true) => Taken::Ended,
            (true, false) => Taken::Empty,
            (false, ended) => {
                if ended {
                    // One wake may have stood for both the items and the end.
                    self.ready.notify_one();
                }
                Taken::Items(items)
            }
        }
    }

    /// Completes when something was pushed since the last [`Queue::take`]. Cancel-safe.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }
}
