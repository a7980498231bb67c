//! The one way by which committed changes enter the cache: this server's own, as its committer learns of
//! them, and everybody's, as the store's stream brings them.
//!
//! Guarantees: each revision enters once and in order, whichever way it comes first; a write is answered
//! only when its change is visible here; when the stream has lost history, everything is loaded anew and
//! watchers are told to list again. Where nobody else writes there is no stream, and nothing here waits.
//!
//! Bound: what is held back are writes whose clients wait for the answer, so as many as there are requests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use meta::{Entry, GroupResource, Header, NotAnObject, ObjectKey, Revision, Status};
use store::Change;
use tokio::sync::oneshot;

use crate::{
    Cache, Registry,
    cache::{Event, Gathered, Happened, entry},
};

/// An encoded object and the header extracted from it.
pub(crate) struct Put {
    pub(crate) stored: Bytes,
    pub(crate) header: Header,
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Durable and visible: the object as stored.
    Done(Arc<Entry>),
    /// Durable and visible: the object is gone, at this revision.
    Gone(Revision),
    /// The condition did not hold: this revision wrote what is there instead.
    Clash(Option<Revision>),
}

/// Where the answer to a write goes.
pub(crate) type Reply = oneshot::Sender<Result<Answer, Status>>;

/// A change that this server committed.
pub(crate) struct Own {
    pub(crate) revision: Revision,
    pub(crate) kind: GroupResource,
    pub(crate) key: ObjectKey,
    pub(crate) put: Option<Put>,
    pub(crate) reply: Reply,
}

/// A stored value that is no object: nothing after it can be shown.
#[derive(Debug, thiserror::Error)]
#[error("stored object {key} is damaged at revision {revision}")]
pub(crate) struct Damaged {
    key: store::Key,
    revision: Revision,
    #[source]
    source: NotAnObject,
}

/// See the module.
pub(crate) struct Merge {
    cache: Arc<Cache>,
    registry: Arc<Registry>,
    /// Own changes that others' have to come before. Locked only while the cache's order is held.
    held: Mutex<BTreeMap<Revision, Own>>,
}

impl Merge {
    pub(crate) fn new(cache: Arc<Cache>, registry: Arc<Registry>) -> Self {
        Self { cache, registry, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Revision, Own>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a commit of this server brought, in revision order. Answers those that are visible by then and
    /// keeps the others until what comes before them has come.
    pub(crate) fn own(&self, own: Vec<Own>) {
        let order = self.cache.order();
        let mut held = self.held();
        let mut round = Round::new(&self.cache);
        for own in own {
            if own.revision <= round.head {
                round.late(own);
            } else if held.is_empty() && own.revision == round.next() {
                round.own(own);
            } else {
                held.insert(own.revision, own);
            }
        }
        round.release(&mut held);
        round.publish();
        drop((held, order));
    }

    /// What the store's stream brought: the next changes after some that were brought before.
    pub(crate) fn followed(&self, changes: Vec<Change>) -> Result<(), Damaged> {
        let order = self.cache.order();
        let mut held = self.held();
        let mut round = Round::new(&self.cache);
        let mut result = Ok(());
        for change in changes {
            round.release(&mut held);
            if change.revision <= round.head {
                continue;
            }
            debug_assert_eq!(change.revision, round.next(), "the stream has no gaps");
            if let Err(damaged) = round.other(change, &self.registry) {
                result = Err(damaged);
                break;
            }
        }
        if result.is_ok() {
            round.release(&mut held);
        }
        round.publish();
        drop((held, order));
        result
    }

    /// Everything anew, because history is gone. Refuses a store that stands before what was shown.
    pub(crate) fn reload(&self, gathered: Gathered) -> bool {
        let order = self.cache.order();
        let mut held = self.held();
        if gathered.revision < self.cache.head() {
            return false;
        }
        self.cache.replace(gathered);
        let mut round = Round::new(&self.cache);
        round.release(&mut held);
        round.publish();
        drop((held, order));
        true
    }

    /// Answers what is held: it is durable, though this server will not show it any more.
    pub(crate) fn give_up(&self) {
        let order = self.cache.order();
        let held = std::mem::take(&mut *self.held());
        let mut round = Round::new(&self.cache);
        held.into_values().for_each(|own| round.late(own));
        round.publish();
        drop(order);
    }
}

/// Changes that become visible together.
struct Round<'a> {
    cache: &'a Cache,
    /// The last revision of the round, or before it.
    head: Revision,
    kinds: BTreeMap<GroupResource, Vec<Arc<Event>>>,
    /// Objects written more than once in this round: the newer writes see the older ones.
    fresh: BTreeMap<(GroupResource, ObjectKey), Option<Arc<Entry>>>,
    answers: Vec<(Reply, Result<Answer, Status>)>,
}

impl<'a> Round<'a> {
    fn new(cache: &'a Cache) -> Self {
        let (kinds, fresh, answers) = Default::default();
        Self { cache, head: cache.head(), kinds, fresh, answers }
    }

    fn next(&self) -> Revision {
        Revision(self.head.0.saturating_add(1))
    }

    /// Takes what is held as far as it comes next.
    fn release(&mut self, held: &mut BTreeMap<Revision, Own>) {
        while let Some(first) = held.first_entry().filter(|first| *first.key() <= self.next()) {
            match *first.key() == self.next() {
                true => self.own(first.remove()),
                false => self.late(first.remove()),
            }
        }
    }

    fn own(&mut self, own: Own) {
        let Own { revision, kind, key, put, reply } = own;
        self.head = revision;
        let entry = match put {
            Some(Put { stored, header }) => {
                Entry::commit(&stored, header, revision).map(Some).map_err(Status::internal)
            }
            None => Ok(None),
        };
        let answer = entry.map(|entry| {
            self.change(kind, key, entry.clone(), revision);
            entry.map_or(Answer::Gone(revision), Answer::Done)
        });
        self.answers.push((reply, answer));
    }

    /// The stream, or a reload, has shown it already.
    fn late(&mut self, own: Own) {
        let Own { revision, kind, key, put, reply } = own;
        let answer = match put {
            None => Ok(Answer::Gone(revision)),
            Some(Put { stored, header }) => {
                let shown = self.cache.kind(&kind).get(&key).filter(|entry| entry.revision == revision);
                let entry = shown.map_or_else(|| Entry::commit(&stored, header, revision), Ok);
                entry.map(Answer::Done).map_err(Status::internal)
            }
        };
        self.answers.push((reply, answer));
    }

    fn other(&mut self, change: Change, registry: &Registry) -> Result<(), Damaged> {
        let Change { revision, key, value } = change;
        let kind = key.group_resource();
        let decode = |value: Bytes| entry(&value, revision, registry.stored(&kind).as_deref());
        match value.map(decode).transpose() {
            Ok(entry) => {
                self.head = revision;
                self.change(kind, key.object_key(), entry, revision);
                Ok(())
            }
            Err(source) => Err(Damaged { key, revision, source }),
        }
    }

    fn change(&mut self, kind: GroupResource, key: ObjectKey, entry: Option<Arc<Entry>>, revision: Revision) {
        let id = (kind, key);
        let previous = match self.fresh.get(&id) {
            Some(entry) => entry.clone(),
            None => self.cache.kind(&id.0).get(&id.1),
        };
        let event = match (&entry, previous) {
            (Some(entry), None) => Event::new(Happened::Added, entry.clone(), None),
            (Some(entry), previous) => Event::new(Happened::Modified, entry.clone(), previous),
            (None, Some(gone)) => Event::new(Happened::Deleted, gone.at(revision), Some(gone)),
            (None, None) => {
                tracing::error!(kind = %id.0, key = %id.1, %revision, "deleted what was not cached");
                return;
            }
        };
        self.kinds.entry(id.0.clone()).or_default().push(Arc::new(event));
        self.fresh.insert(id, entry);
    }

    /// State, then the head, then the answers.
    fn publish(self) {
        for (kind, events) in self.kinds {
            self.cache.kind(&kind).publish(events);
        }
        if self.head > self.cache.head() {
            self.cache.advance(self.head);
        }
        for (reply, answer) in self.answers {
            // The client may have gone; its write stands.
            drop(reply.send(answer));
        }
    }
}
