//! What the cluster has, what the platform has, and what has still to be said.
//!
//! Guarantees:
//! - once changes stop and the platform answers, it has the last state of each object: a change is forgotten
//!   only when the platform acknowledged it or when a newer one of the same object takes its place;
//! - an object never goes back: what is older (by `resourceVersion`) than what was seen is ignored;
//! - payloads held never exceed the budget by more than one object: above it all are dropped, and the same
//!   states are read from the API server again, by a snapshot or kind by kind (`repair`). What is kept then
//!   is a fixed entry for each object;
//! - a delete that a watch missed is found by the next list (generations).
//!
//! Pure: no time, no network. Snapshots and changes exclude each other; that is what gives their order.
//!
//! Each change that is queued ends as one of: sent, merged, withdrawn, shed, quarantined, or it still waits;
//! the counters of `stats` add up to that.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    Kind,
    project::{Id, Projected},
    types::StreamStatus,
};

/// Bytes of payloads that may wait; some 4,500 pods. To read more of them again costs less than to hold them: what a
/// platform that was away lacks is found by comparing.
pub(crate) const BUDGET_BYTES: usize = 12 * 1024 * 1024;
/// Changes of the other kinds for each one of a Kubernetes Event, so that events cannot hold up state.
const STATE_PER_EVENT: u32 = 4;

/// What the platform is told of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Its state and the hash of it.
    Upsert(Bytes, u64),
    /// That it is gone.
    Delete,
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Self::Upsert(body, _) => body.len(),
            Self::Delete => 0,
        }
    }
}

/// What of an object the platform has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// Nothing: it was never sent.
    Nothing,
    /// Perhaps something: it was sent, and not acknowledged.
    Unsure,
    /// The state with this hash.
    Has(u64),
}

pub(super) struct Pending {
    pub(super) order: u64,
    pub(super) change: Change,
}

pub(super) struct Entry {
    pub(super) name: Box<str>,
    pub(super) namespace: Box<str>,
    pub(super) revision: u64,
    /// The last list of its kind that showed it.
    pub(super) generation: u32,
    /// Hash of the last state seen.
    pub(super) seen: u64,
    /// The cluster has it no more.
    pub(super) gone: bool,
    /// The platform lacks its state, and the payload is not held: a list has to bring it.
    pub(super) owed: bool,
    /// Has to be sent before the sweep of its kind.
    pub(super) unswept: bool,
    pub(super) remote: Remote,
    /// Few have one at a time: boxed, so that all the others are small.
    pub(super) pending: Option<Box<Pending>>,
    pub(super) flight: Option<Box<Pending>>,
}

impl Entry {
    /// An object nothing is known of.
    fn unknown(object: &Projected, generation: u32) -> Self {
        Self {
            name: object.name.clone(),
            namespace: object.namespace.clone(),
            revision: 0,
            generation,
            seen: !object.hash,
            gone: true,
            owed: false,
            unswept: false,
            remote: Remote::Nothing,
            pending: None,
            flight: None,
        }
    }

    /// Neither the cluster nor the platform has it, and nothing is to be said of it.
    pub(super) fn is_settled_and_gone(&self) -> bool {
        self.gone && self.remote == Remote::Nothing && self.pending.is_none() && self.flight.is_none()
    }
}

/// How what was dropped or missed comes to the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In one document of everything.
    Snapshot,
    /// As changes, read again kind by kind.
    Changes,
}

/// Where a snapshot stands, or a session of the better mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// None is needed.
    Idle,
    /// Needed for this reason, not begun: until then payloads are not kept, since it will hold them.
    Wanted(&'static str),
    /// Being sent; the reason is of another one that is needed after it.
    Running(Option<&'static str>),
}

/// One change on its way.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: Id,
    pub(crate) name: Box<str>,
    pub(crate) namespace: Box<str>,
    pub(crate) change: Change,
    /// The platform has had the object before.
    pub(crate) known: bool,
}

/// See the module.
pub(crate) struct State {
    /// Boxed, so that the room a hash table has to spare is small.
    pub(super) index: HashMap<Id, Box<Entry>>,
    pub(super) generation: [u32; Kind::ALL.len()],
    pub(super) listing: [bool; Kind::ALL.len()],
    pub(super) counts: [i32; Kind::ALL.len()],
    /// Order of the pending: 0 for state, 1 for Kubernetes Events.
    pub(super) lanes: [BTreeMap<u64, Id>; 2],
    next: u64,
    turn: u32,
    pub(super) bytes: usize,
    /// Orders of what is on its way.
    flights: BTreeSet<u64>,
    pub(super) budget: usize,
    /// Generations when the running snapshot began.
    pub(super) begun: [u32; Kind::ALL.len()],
    pub(super) sync: Sync,
    pub(super) way: Way,
    /// Kinds that owe something that only a list can bring.
    pub(super) relist: [bool; Kind::ALL.len()],
    /// The kind that is being listed for that, and its generation when that began.
    pub(super) relisting: Option<(Kind, u32)>,
    /// Of each kind, how many have to be sent before its sweep.
    pub(super) unswept: [u32; Kind::ALL.len()],
    /// Objects of which the platform refused the last change for what it says; perhaps more has become of
    /// them since.
    pub(super) refused: BTreeSet<Id>,
    pub(crate) stats: StreamStatus,
}

impl State {
    /// Nothing is known, and a snapshot is wanted.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            index: HashMap::new(),
            generation: [0; 20],
            listing: [false; 20],
            counts: [0; 20],
            lanes: [BTreeMap::new(), BTreeMap::new()],
            next: 0,
            turn: 0,
            bytes: 0,
            flights: BTreeSet::new(),
            budget,
            begun: [0; 20],
            sync: Sync::Wanted("start"),
            way: Way::Snapshot,
            relist: [false; 20],
            relisting: None,
            unswept: [0; 20],
            refused: BTreeSet::new(),
            stats: StreamStatus::default(),
        }
    }

    pub(crate) fn sync(&self) -> Sync {
        self.sync
    }

    /// Objects there are of each kind.
    pub(crate) fn counts(&self) -> &[i32; Kind::ALL.len()] {
        &self.counts
    }

    /// Changes that wait or are on their way.
    pub(crate) fn queued(&self) -> usize {
        self.lanes.iter().map(BTreeMap::len).sum::<usize>() + self.flights.len()
    }

    /// Orders of what waits the longest, and of what will be queued next: what is queued later has the higher one.
    pub(crate) fn orders(&self) -> (Option<u64>, u64) {
        let first = self.lanes.iter().filter_map(|lane| lane.keys().next());
        (first.chain(self.flights.first()).min().copied(), self.next)
    }

    /// Entries held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.bytes
    }

    /// A list of a kind begins.
    pub(crate) fn begin_list(&mut self, kind: Kind) {
        slot(&mut self.generation, kind, |generation| *generation = generation.wrapping_add(1));
        slot(&mut self.listing, kind, |listing| *listing = true);
    }

    /// A list of a kind is complete: what it did not show is gone.
    pub(crate) fn end_list(&mut self, kind: Kind) {
        slot(&mut self.listing, kind, |listing| *listing = false);
        self.sweep(kind);
    }

    pub(super) fn sweep(&mut self, kind: Kind) {
        let now = read(&self.generation, kind);
        let missed: Vec<Id> = self
            .index
            .iter()
            .filter(|(id, entry)| id.kind == kind && entry.generation != now && !entry.gone)
            .map(|(id, _)| id.clone())
            .collect();
        for id in missed {
            self.gone(&id, 0);
        }
    }

    /// A state of an object, from a watch or its list.
    pub(crate) fn seen(&mut self, object: Projected) {
        let generation = read(&self.generation, object.id.kind);
        self.take(object, generation);
    }

    /// A state of an object that a list of this generation showed.
    pub(super) fn take(&mut self, object: Projected, generation: u32) {
        self.stats.observed += 1;
        let entry = self
            .index
            .entry(object.id.clone())
            .or_insert_with(|| Box::new(Entry::unknown(&object, generation)));
        let Projected { id, name: _, namespace: _, revision, version: _, body, hash } = object;
        entry.generation = entry.generation.max(generation);
        if revision != 0 && revision < entry.revision {
            self.stats.noop += 1;
            return;
        }
        entry.revision = revision;
        if entry.gone {
            entry.gone = false;
            slot(&mut self.counts, id.kind, |count| *count += 1);
        } else if entry.seen == hash && !entry.owed {
            self.stats.noop += 1;
            return;
        }
        entry.seen = hash;
        let settled = entry.remote == Remote::Has(hash) && entry.flight.is_none();
        if settled || matches!(self.sync, Sync::Wanted(_)) {
            entry.owed = false;
            self.stats.noop += 1;
            self.withdraw(&id);
        } else {
            self.put(&id, Change::Upsert(body, hash));
        }
    }

    /// A watch says that an object is gone.
    pub(crate) fn deleted(&mut self, object: &Projected) {
        self.stats.observed += 1;
        if !self.index.contains_key(&object.id) {
            if matches!(self.sync, Sync::Running(_)) {
                // The snapshot may hold it all the same.
                self.stats.observed -= 1;
                self.seen(object.clone());
            } else if self.is_relisting(object.id.kind) {
                // A page that was read before may bring it: it is remembered as gone.
                let generation = read(&self.generation, object.id.kind);
                self.index.insert(object.id.clone(), Box::new(Entry::unknown(object, generation)));
            }
        }
        self.gone(&object.id, object.revision);
    }

    fn gone(&mut self, id: &Id, revision: u64) {
        let Some(entry) = self.index.get_mut(id) else { return };
        entry.revision = entry.revision.max(revision);
        if entry.gone {
            return;
        }
        entry.gone = true;
        entry.owed = false;
        slot(&mut self.counts, id.kind, |count| *count -= 1);
        let untold = entry.remote == Remote::Nothing && entry.flight.is_none();
        self.swept(id);
        if untold && !matches!(self.sync, Sync::Running(_)) {
            if self.withdraw(id) {
                self.stats.annihilated += 1;
            }
            // A page of a list that was read before may show it: then it has to be known as gone.
            if !self.is_relisting(id.kind) {
                self.index.remove(id);
            }
        } else {
            self.put(id, Change::Delete);
        }
    }

    /// It need not be sent any more before the sweep of its kind.
    pub(super) fn swept(&mut self, id: &Id) {
        if let Some(entry) = self.index.get_mut(id)
            && std::mem::take(&mut entry.unswept)
        {
            slot(&mut self.unswept, id.kind, |count| *count = count.saturating_sub(1));
        }
    }

    /// Queues a change in the place of the one that waits, or last. What does not fit is read again: alone
    /// when kinds are listed for that, else with everything by a snapshot.
    pub(super) fn put(&mut self, id: &Id, change: Change) {
        self.queue(id, change);
        let bytes = u64::try_from(self.bytes).unwrap_or(u64::MAX);
        self.stats.queue_bytes_max = self.stats.queue_bytes_max.max(bytes);
    }

    fn queue(&mut self, id: &Id, change: Change) {
        let Some(entry) = self.index.get_mut(id) else { return };
        let size = change.bytes();
        self.bytes += size;
        self.stats.queued += 1;
        entry.owed = false;
        match &mut entry.pending {
            Some(pending) => {
                self.stats.merged += 1;
                self.bytes -= pending.change.bytes();
                pending.change = change;
            }
            None => {
                let order = self.next;
                self.next += 1;
                entry.pending = Some(Box::new(Pending { order, change }));
                lane(&mut self.lanes, id.kind).insert(order, id.clone());
            }
        }
        if self.bytes <= self.budget {
            return;
        }
        match (self.way, self.sync) {
            // One object larger than all the room has to fit, or it never would.
            (Way::Changes, Sync::Idle) if size == 0 || size == self.bytes => {}
            (Way::Changes, Sync::Idle) => {
                self.forget_pending(id);
                self.stats.shed += 1;
                self.owe(id);
            }
            (Way::Changes | Way::Snapshot, _) => self.want_all("queue full"),
        }
    }

    /// Takes back what waits to be said of an object; whether anything did.
    pub(super) fn withdraw(&mut self, id: &Id) -> bool {
        let pending = self.forget_pending(id);
        self.stats.withdrawn += u64::from(pending);
        pending
    }

    fn forget_pending(&mut self, id: &Id) -> bool {
        let Some(pending) = self.index.get_mut(id).and_then(|entry| entry.pending.take()) else {
            return false;
        };
        self.bytes -= pending.change.bytes();
        lane(&mut self.lanes, id.kind).remove(&pending.order);
        true
    }

    /// The whole cluster has to be sent, or compared. Payloads that wait are dropped: that will hold them,
    /// or newer.
    pub(crate) fn want_all(&mut self, reason: &'static str) {
        self.sync = match self.sync {
            Sync::Running(_) => Sync::Running(Some(reason)),
            Sync::Wanted(reason) => Sync::Wanted(reason),
            Sync::Idle => Sync::Wanted(reason),
        };
        self.forget_debts();
        let waiting: Vec<Id> = self.lanes.iter().flat_map(BTreeMap::values).cloned().collect();
        for id in waiting {
            let pending = self.index.get(&id).and_then(|entry| entry.pending.as_ref());
            if pending.is_some_and(|pending| pending.change != Change::Delete) {
                self.forget_pending(&id);
                self.stats.shed += 1;
            }
        }
    }

    /// The next change to send, first in first out within its lane. None while a snapshot is wanted or
    /// running, nor one of an object whose name is on its way in `busy`.
    pub(crate) fn cut(&mut self, busy: &HashSet<(Kind, Arc<str>)>) -> Option<Outgoing> {
        if self.sync != Sync::Idle {
            return None;
        }
        self.turn = (self.turn + 1) % (STATE_PER_EVENT + 1);
        let order = if self.turn == 0 { [1, 0] } else { [0, 1] };
        let id = order.into_iter().find_map(|at| {
            let waiting = self.lanes.get(at)?.values();
            // No more are on their way than a handful, so that this looks at few.
            waiting.into_iter().find(|id| self.is_free(id, busy)).cloned()
        })?;
        let entry = self.index.get_mut(&id)?;
        let pending = entry.pending.take()?;
        lane(&mut self.lanes, id.kind).remove(&pending.order);
        let outgoing = Outgoing {
            name: entry.name.clone(),
            namespace: entry.namespace.clone(),
            change: pending.change.clone(),
            known: entry.remote != Remote::Nothing,
            id: id.clone(),
        };
        self.flights.insert(pending.order);
        entry.flight = Some(pending);
        if outgoing.change != Change::Delete {
            self.swept(&id);
        }
        Some(outgoing)
    }

    fn is_free(&self, id: &Id, busy: &HashSet<(Kind, Arc<str>)>) -> bool {
        self.index.get(id).is_some_and(|entry| {
            entry.flight.is_none()
                && (busy.is_empty() || !busy.contains(&name_key(id, &entry.namespace, &entry.name)))
        })
    }

    /// Ends the flight of a change.
    pub(super) fn land(&mut self, id: &Id) -> Option<Box<Pending>> {
        let flight = self.index.get_mut(id)?.flight.take()?;
        self.bytes -= flight.change.bytes();
        self.flights.remove(&flight.order);
        Some(flight)
    }

    /// The platform acknowledged the change that was on its way.
    pub(crate) fn acknowledged(&mut self, id: &Id) {
        let Some(flight) = self.land(id) else { return };
        self.stats.sent += 1;
        self.refused.remove(id);
        let Some(entry) = self.index.get_mut(id) else { return };
        match flight.change {
            Change::Upsert(_, hash) => {
                entry.remote = Remote::Has(hash);
                let waits = entry.pending.as_ref().map(|pending| &pending.change);
                let same = matches!(waits, Some(Change::Upsert(_, waits)) if *waits == hash);
                if same {
                    self.withdraw(id);
                }
            }
            Change::Delete => {
                entry.remote = Remote::Nothing;
                if entry.is_settled_and_gone() && !self.is_relisting(id.kind) {
                    self.index.remove(id);
                }
            }
        }
    }

    /// The change that was on its way did not arrive, or nobody knows whether it did: it goes back to where
    /// it was, unless a newer one waits or a snapshot will hold it.
    pub(crate) fn failed(&mut self, id: &Id) {
        let Some(flight) = self.land(id) else { return };
        let covered = self.sync != Sync::Idle && flight.change != Change::Delete;
        let Some(entry) = self.index.get_mut(id) else { return };
        entry.remote = Remote::Unsure;
        if entry.pending.is_none() && !covered {
            self.bytes += flight.change.bytes();
            lane(&mut self.lanes, id.kind).insert(flight.order, id.clone());
            entry.pending = Some(flight);
        } else if covered {
            self.stats.shed += 1;
        } else {
            self.stats.merged += 1;
        }
    }

    /// The change on its way was not taken, through no fault of its own: it goes back. In a kind that is to
    /// be swept it has to be sent before that.
    pub(crate) fn returned(&mut self, id: &Id, sweeps: bool) {
        let before = self.index.get(id).map(|entry| entry.remote);
        self.failed(id);
        let Some(entry) = self.index.get_mut(id) else { return };
        if let Some(before) = before {
            entry.remote = before;
        }
        if sweeps && !entry.gone && !entry.unswept {
            entry.unswept = true;
            slot(&mut self.unswept, id.kind, |count| *count += 1);
        }
    }
}

/// What keeps the order of a delete and a creation of the same name.
pub(crate) fn name_key(id: &Id, namespace: &str, name: &str) -> (Kind, Arc<str>) {
    (id.kind, format!("{namespace}/{name}").into())
}

fn lane(lanes: &mut [BTreeMap<u64, Id>; 2], kind: Kind) -> &mut BTreeMap<u64, Id> {
    let [state, events] = lanes;
    if kind == Kind::Event { events } else { state }
}

pub(super) fn slot<T>(of: &mut [T; Kind::ALL.len()], kind: Kind, change: impl FnOnce(&mut T)) {
    if let Some(slot) = of.get_mut(kind.index()) {
        change(slot);
    }
}

pub(super) fn read<T: Copy + Default>(of: &[T; Kind::ALL.len()], kind: Kind) -> T {
    of.get(kind.index()).copied().unwrap_or_default()
}
