//! What is known of the log while it is open: where each live object is, which segments there are,
//! and where history begins. Changed by the writer only, after the change is durable.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use meta::Revision;
use store::{Current, Head, Key, Result, Stored};
use tokio::sync::watch;

use crate::{
    fault::damaged,
    frame::{Kind, Record, SEGMENT_HEADER},
    manifest::Manifest,
    segment::Segment,
};

/// A segment is not gone on with beyond this, or beyond a sixteenth of the live bytes: small stores
/// stay small and quick to open, large ones need few open files.
const SEGMENT_BYTES_MIN: u64 = 16 << 20;
const SEGMENT_BYTES_MAX: u64 = 256 << 20;
/// Garbage is left until it is worth more than the live bytes, or this where there are few.
const GARBAGE_BYTES_MIN: u64 = 16 << 20;
/// Distance between marks: what a follower that starts in history reads in vain at most.
const MARK_BYTES: u64 = 64 << 10;

/// The state, and the newest durable revision for those who wait for it.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<State>,
    pub(crate) head: watch::Sender<Revision>,
}

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        Self { head: watch::Sender::new(state.revision), state: RwLock::new(state) }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the record of a live object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) revision: Revision,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// A segment as part of the log.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) segment: Arc<Segment>,
    /// Up to here it is durable.
    pub(crate) end: u64,
    /// The newest revision when it was gone on from; history in it is not newer.
    last: Revision,
    /// Bytes of the live records in it.
    live: u64,
}

/// Where a frame of history begins.
#[derive(Clone, Copy, Debug)]
struct Mark {
    first: Revision,
    segment: u64,
    offset: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: HashMap<Key, Location>,
    /// By number, oldest first. Never empty.
    pub(crate) parts: BTreeMap<u64, Part>,
    /// In order; the first is at or before the oldest kept change.
    marks: VecDeque<Mark>,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) epoch: u64,
    /// Bytes of all live records.
    live: u64,
}

impl State {
    /// A log of one empty segment.
    pub(crate) fn new(first: Arc<Segment>, compacted: Revision, epoch: u64) -> Self {
        let mut state = Self {
            index: HashMap::new(),
            parts: BTreeMap::new(),
            marks: VecDeque::new(),
            revision: first.base,
            compacted,
            epoch,
            live: 0,
        };
        state.add_segment(first);
        state
    }

    pub(crate) fn head(&self) -> Head {
        Head { revision: self.revision, epoch: self.epoch, compacted: self.compacted }
    }

    /// Takes note of a new, empty last segment.
    pub(crate) fn add_segment(&mut self, segment: Arc<Segment>) {
        let part = Part { end: SEGMENT_HEADER as u64, last: segment.base, live: 0, segment };
        self.parts.insert(part.segment.sequence, part);
    }

    /// Takes note of a frame at the end of the last segment, before its records are applied.
    pub(crate) fn add_frame(&mut self, kind: Kind, segment: u64, offset: u64, length: u64) {
        if let Some(part) = self.parts.get_mut(&segment) {
            part.end = offset + length;
        }
        let far = self.marks.back().is_none_or(|m| m.segment != segment || offset - m.offset >= MARK_BYTES);
        if kind == Kind::Batch && far {
            self.marks.push_back(Mark { first: Revision(self.revision.0 + 1), segment, offset });
        }
    }

    /// Applies one committed change. `key` makes the owned key, which is needed only for a new one.
    pub(crate) fn commit(
        &mut self,
        name: &str,
        key: impl FnOnce() -> Option<Key>,
        delete: bool,
        to: Location,
    ) {
        self.revision = to.revision;
        if let Some(part) = self.parts.get_mut(&to.segment) {
            part.last = to.revision;
        }
        if delete {
            if let Some(old) = self.index.remove(name) {
                self.count(old, false);
            }
        } else {
            self.place(name, key, to);
        }
    }

    /// Points the index at a record that is live there.
    pub(crate) fn place(&mut self, name: &str, key: impl FnOnce() -> Option<Key>, to: Location) {
        let old = match self.index.get_mut(name) {
            Some(location) => Some(std::mem::replace(location, to)),
            None => key().and_then(|key| self.index.insert(key, to)),
        };
        self.count(to, true);
        if let Some(old) = old {
            self.count(old, false);
        }
    }

    fn count(&mut self, location: Location, alive: bool) {
        let length = u64::from(location.length);
        let change = |total: &mut u64| {
            *total = if alive { *total + length } else { total.saturating_sub(length) };
        };
        change(&mut self.live);
        // The segment may have been removed before the copy in a later one was read.
        if let Some(part) = self.parts.get_mut(&location.segment) {
            change(&mut part.live);
        }
    }

    /// Forgets history up to and including `through`, which is not beyond the newest revision.
    pub(crate) fn compact(&mut self, through: Revision) {
        self.compacted = self.compacted.max(through);
        while self.marks.get(1).is_some_and(|second| second.first.0 <= self.compacted.0 + 1) {
            self.marks.pop_front();
        }
    }

    /// The length at which a segment is full.
    pub(crate) fn segment_bytes(&self) -> u64 {
        (self.live / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }

    /// The oldest segment, when it holds no kept history and there is enough garbage in all such
    /// segments to be worth copying what is live. Only ever the oldest: so a delete is never
    /// forgotten while an older record of its key is still in the log.
    pub(crate) fn removable(&self) -> Option<&Part> {
        let old = || self.parts.values().take(self.parts.len() - 1).take_while(|p| p.last <= self.compacted);
        let garbage: u64 = old().map(|part| part.end.saturating_sub(part.live)).sum();
        old().next().filter(|_| garbage > self.live.max(GARBAGE_BYTES_MIN))
    }

    /// Takes note that a segment is gone.
    pub(crate) fn remove_segment(&mut self, sequence: u64) {
        self.parts.remove(&sequence);
    }

    /// What to write into the manifest.
    pub(crate) fn manifest(&self) -> Manifest {
        Manifest {
            epoch: self.epoch,
            compacted: self.compacted,
            segments: self.parts.keys().copied().collect(),
            end: self.parts.values().next_back().map_or(0, |part| part.end),
        }
    }

    /// Segment and offset from which the change after `after` is found, reading forward.
    pub(crate) fn history_start(&self, after: Revision) -> (u64, u64) {
        let later = self.marks.partition_point(|mark| mark.first.0 <= after.0 + 1);
        later
            .checked_sub(1)
            .and_then(|at| self.marks.get(at))
            .map_or((0, 0), |mark| (mark.segment, mark.offset))
    }

    /// Reads the object at a location.
    fn read_at(&self, key: &Key, at: Location) -> Result<Stored> {
        let Some(part) = self.parts.get(&at.segment) else {
            let path = self.parts.values().next().map(|part| part.segment.path.clone()).unwrap_or_default();
            return Err(damaged(&path, 0, format!("segment {} of {key} is gone", at.segment)));
        };
        let mut buffer = vec![0; usize::try_from(at.length).unwrap_or(usize::MAX)];
        part.segment.read_exact(&mut buffer, at.offset)?;
        stored_in(&Bytes::from(buffer), key, at, &part.segment)
    }
}

/// The object in `buffer`, which begins where its record does.
pub(crate) fn stored_in(buffer: &Bytes, key: &Key, at: Location, segment: &Segment) -> Result<Stored> {
    match Record::decode(buffer) {
        Some(Record { revision, key: name, value: Some(value), raw: _ })
            if name == key.as_str() && revision == at.revision =>
        {
            Ok(Stored { key: key.clone(), value: buffer.slice_ref(value), revision })
        }
        _ => Err(damaged(
            &segment.path,
            at.offset,
            format!("{key} at revision {} is not there any more", at.revision),
        )),
    }
}

impl Current for State {
    fn revision(&self, key: &Key) -> Result<Option<Revision>> {
        Ok(self.index.get(key).map(|location| location.revision))
    }

    fn stored(&self, key: &Key) -> Result<Option<Stored>> {
        self.index.get(key).map(|location| self.read_at(key, *location)).transpose()
    }
}
