//! All that is kept in memory of one stored kind: the newest snapshot, recent events, watchers.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use meta::{Entry, ObjectKey, Revision};

use crate::metrics::Writes;

use super::{
    event::{Event, Happened},
    measured::Source,
    queue::Queue,
    snapshot::Snapshot,
    watchers::{Interest, Watchers},
};

/// Most recent events kept per kind, for watchers that come back and for reads of a past revision. Enough
/// for a reconnect of seconds at thousands of changes per second.
pub(crate) const RING_EVENTS_MAX: usize = 8_192;
/// Most bytes of objects kept by those events.
const RING_BYTES_MAX: usize = 16 << 20;

/// One stored kind.
pub struct Kind {
    objects: ArcSwap<Snapshot>,
    /// Where they are measured instead of stored.
    source: OnceLock<Source>,
    feed: Mutex<Feed>,
    pub(crate) counts: Counts,
}

/// What happened with a kind since the server began.
#[derive(Default)]
pub(crate) struct Counts {
    /// Changes.
    pub(crate) events: AtomicU64,
    /// Objects that watches began with.
    pub(crate) initial: AtomicU64,
    /// Watches that fell too far behind.
    pub(crate) lost: AtomicU64,
    /// Lists, what they looked at and what they answered.
    pub(crate) lists: AtomicU64,
    pub(crate) fetched: AtomicU64,
    pub(crate) returned: AtomicU64,
    pub(crate) writes: Writes,
}

struct Feed {
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// Events up to and including this revision are no longer in the ring.
    trimmed: Revision,
    watchers: Watchers,
}

/// A place in a kind's feed; leaves it when dropped.
pub(crate) struct Subscription {
    kind: Arc<Kind>,
    interest: Interest,
    pub(crate) queue: Arc<Queue>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.kind.feed().watchers.remove(&self.interest, &self.queue);
    }
}

/// What a new watcher first has to see.
pub(crate) enum Backlog {
    /// Events after the asked-for revision.
    Events(Vec<Arc<Event>>),
    /// The present state.
    Snapshot(Arc<Snapshot>),
    /// Events after that revision are no longer kept.
    Expired,
}

impl Kind {
    pub(crate) fn new(snapshot: Snapshot, trimmed: Revision) -> Self {
        Self {
            objects: ArcSwap::from_pointee(snapshot),
            source: OnceLock::new(),
            feed: Mutex::new(Feed {
                ring: VecDeque::new(),
                ring_bytes: 0,
                trimmed,
                watchers: Watchers::default(),
            }),
            counts: Counts::default(),
        }
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest state. Never waits, but for measured objects to be made.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.refresh();
        self.objects.load_full()
    }

    /// One object of the newest state.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Entry>> {
        self.refresh();
        self.objects.load().get(key).cloned()
    }

    fn refresh(&self) {
        if let Some(source) = self.source.get() {
            source.refresh(|snapshot| self.show(snapshot));
        }
    }

    /// Has its objects measured.
    pub(super) fn measure(&self, source: Source) {
        // Who came first decides.
        drop(self.source.set(source));
    }

    /// Whether its objects are stored, and not measured.
    pub(crate) fn is_stored(&self) -> bool {
        self.source.get().is_none()
    }

    /// How many watchers there are.
    pub fn watchers(&self) -> usize {
        self.feed().watchers.count()
    }

    /// The state at a past revision; `None` when events since then are no longer kept.
    pub fn snapshot_at(&self, revision: Revision) -> Option<Arc<Snapshot>> {
        let feed = self.feed();
        let newest = self.objects.load_full();
        if revision >= newest.revision {
            return Some(newest);
        }
        if revision < feed.trimmed {
            return None;
        }
        let mut past = Snapshot::clone(&newest);
        past.revision = revision;
        for event in feed.ring.iter().rev().take_while(|event| event.revision() > revision) {
            match &event.previous {
                Some(previous) => past.insert(previous.clone()),
                None => past.remove(&event.entry.header.key),
            }
        }
        Some(Arc::new(past))
    }

    /// Replaces everything; nobody is told. For kinds without watch.
    pub(crate) fn show(&self, mut snapshot: Snapshot) {
        let _feed = self.feed();
        snapshot.index_by(self.objects.load().indexed());
        self.objects.store(Arc::new(snapshot));
    }

    /// Replaces entries that differ only in what was extracted from them.
    pub(crate) fn reindex(&self, change: impl Fn(&Arc<Entry>) -> Option<Arc<Entry>>) {
        let _feed = self.feed();
        let mut snapshot = Snapshot::clone(&self.objects.load());
        let indexed = snapshot.indexed();
        snapshot.index_by(None);
        let changed: Vec<_> = snapshot.range(None, None).filter_map(change).collect();
        for entry in changed {
            snapshot.insert(entry);
        }
        snapshot.index_by(indexed);
        self.objects.store(Arc::new(snapshot));
    }

    /// Has objects found by a selectable field too.
    pub(crate) fn index_by(&self, field: usize) {
        let _feed = self.feed();
        let mut snapshot = Snapshot::clone(&self.objects.load());
        snapshot.index_by(Some(field));
        self.objects.store(Arc::new(snapshot));
    }

    /// Makes the changes of one commit visible: state first, then notification, both while the feed is
    /// held, so that a watcher that registers meanwhile sees each change exactly once.
    pub(crate) fn publish(&self, changes: Vec<Arc<Event>>) {
        let Some(last) = changes.last().map(|event| event.revision()) else { return };
        self.counts.events.fetch_add(changes.len() as u64, Relaxed);
        let mut feed = self.feed();
        let mut snapshot = Snapshot::clone(&self.objects.load());
        debug_assert!(changes.iter().all(|event| event.revision() > snapshot.revision));
        for event in &changes {
            match event.happened {
                Happened::Deleted => snapshot.remove(&event.entry.header.key),
                Happened::Added | Happened::Modified | Happened::Bookmark => {
                    snapshot.insert(event.entry.clone());
                }
            }
        }
        snapshot.revision = last;
        self.objects.store(Arc::new(snapshot));
        feed.remember(&changes);
        feed.watchers.notify(changes);
    }

    /// Shows another state, without what led to it: every watch has to begin anew.
    pub(crate) fn replace(&self, mut snapshot: Snapshot) {
        let mut feed = self.feed();
        snapshot.index_by(self.objects.load().indexed());
        feed.trimmed = snapshot.revision;
        feed.ring = VecDeque::new();
        feed.ring_bytes = 0;
        self.objects.store(Arc::new(snapshot));
        feed.watchers.queues().for_each(|queue| queue.lose());
    }

    /// Ends every watch after what has happened so far: what is served under this name is another now.
    pub(crate) fn end_watches(&self) {
        let watchers = std::mem::take(&mut self.feed().watchers);
        watchers.queues().for_each(|queue| queue.end());
    }

    /// Forgets what happened up to `head`, so that nobody can watch or read it.
    pub(crate) fn forget(&self, head: Revision) {
        let mut feed = self.feed();
        let newest = feed.ring.back().map_or(head, |event| head.max(event.revision()));
        feed.trimmed = feed.trimmed.max(newest);
        feed.ring = VecDeque::new();
        feed.ring_bytes = 0;
    }

    /// Registers a watcher that has seen everything up to `after`; `None` begins with the present state.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        interest: Interest,
        after: Option<Revision>,
    ) -> (Subscription, Backlog) {
        let queue = Arc::new(Queue::default());
        let mut feed = self.feed();
        let backlog = match after {
            None => Backlog::Snapshot(self.objects.load_full()),
            Some(after) if after < feed.trimmed => Backlog::Expired,
            Some(after) => {
                let start = feed.ring.partition_point(|event| event.revision() <= after);
                Backlog::Events(feed.ring.range(start..).cloned().collect())
            }
        };
        feed.watchers.add(&interest, queue.clone());
        drop(feed);
        (Subscription { kind: self.clone(), interest, queue }, backlog)
    }
}

impl Feed {
    fn remember(&mut self, changes: &[Arc<Event>]) {
        for event in changes {
            self.ring_bytes += event.weight();
            self.ring.push_back(event.clone());
        }
        while self.ring.len() > RING_EVENTS_MAX || self.ring_bytes > RING_BYTES_MAX {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= oldest.weight();
            self.trimmed = oldest.revision();
        }
    }
}
