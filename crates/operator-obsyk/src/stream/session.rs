//! A session of the batch mode: what goes into the next batch, and what becomes of it.
//!
//! Guarantees: records are numbered without a gap; one batch is on its way at a time and is sent again as it
//! was until it is known what became of it, so that it is applied once; a batch of which that is not known is
//! never followed by another with the same numbers: then the session is given up, and the next one begins by
//! comparing. Pure.

use std::{
    collections::{BTreeMap, HashSet},
    io::Write as _,
};

use bytes::Bytes;
use serde_json::{Value, json};

use super::state::{Change, Outgoing, State};
use crate::{Kind, digest, project::Id, wire::Opened};

/// A batch is not made smaller than this for its size.
const BYTES_MIN: usize = 64 << 10;

/// A kind that is compared: its buckets that differ.
struct Sweep {
    buckets: Vec<u8>,
    begun: bool,
}

/// See the module.
pub(crate) struct Session {
    pub(crate) epoch: u64,
    next: u64,
    /// What the platform takes, and what it takes just now.
    limits: (usize, usize),
    records_max: usize,
    bytes_max: usize,
    gzip: bool,
    sweeps: BTreeMap<Kind, Sweep>,
    /// Records that were refused: their numbers are told as gaps.
    gaps: Vec<Id>,
    check_due: bool,
    pub(crate) flight: Option<Flight>,
}

/// A batch on its way.
pub(crate) struct Flight {
    first: u64,
    pub(crate) last: u64,
    changes: Vec<(u64, Id)>,
    gaps: Vec<Id>,
    begun: Vec<Kind>,
    ended: Vec<(Kind, Sweep)>,
    checks: bool,
    pub(crate) body: Bytes,
    /// Something was sent and nobody knows what became of it.
    pub(crate) ambiguous: bool,
}

/// What a refused batch comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusing {
    /// The rest goes on, in smaller batches or without one record.
    Goes,
    /// The session cannot go on.
    Ends,
}

impl Session {
    /// A session that the platform has opened, with what is to be swept there.
    pub(crate) fn new(opened: &Opened, differ: BTreeMap<Kind, Vec<u8>>) -> Self {
        let sweep = |(kind, buckets)| (kind, Sweep { buckets, begun: false });
        Self {
            epoch: opened.epoch,
            next: 1,
            limits: (opened.records_max, opened.bytes_max),
            records_max: opened.records_max,
            bytes_max: opened.bytes_max,
            gzip: opened.gzip,
            sweeps: differ.into_iter().map(sweep).collect(),
            gaps: Vec::new(),
            check_due: true,
            flight: None,
        }
    }

    /// The next batch says what the platform should have.
    pub(crate) fn check(&mut self) {
        self.check_due = true;
    }

    /// Changes that make a batch worth sending at once.
    pub(crate) fn full(&self) -> usize {
        self.records_max / 2
    }

    /// Last number that was acknowledged.
    pub(crate) fn acknowledged_seq(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Whether something other than changes is to be said now.
    pub(crate) fn has_news(&self, state: &State) -> bool {
        let sweeps = || self.sweeps.iter().any(|(kind, sweep)| !sweep.begun || state.may_sweep(*kind));
        // Drift shows when nothing else is on its way.
        let checks = self.check_due && self.sweeps.is_empty() && state.queued() == 0;
        self.flight.is_none() && (checks || !self.gaps.is_empty() || sweeps())
    }

    /// Cuts the next batch; false when there is nothing to say.
    pub(crate) fn cut(&mut self, state: &mut State, cluster_uid: &str) -> bool {
        let mut lines = String::new();
        let first = self.next;
        let mut flight = Flight {
            first,
            last: first.saturating_sub(1),
            changes: Vec::new(),
            gaps: std::mem::take(&mut self.gaps),
            begun: Vec::new(),
            ended: Vec::new(),
            checks: self.check_due && self.sweeps.is_empty(),
            body: Bytes::new(),
            ambiguous: false,
        };
        if flight.checks {
            self.check_due = false;
            let tally = |(kind, tally): (Kind, digest::Tally)| {
                (kind.name().to_owned(), json!([tally.count, tally.text()]))
            };
            let tallies: serde_json::Map<String, Value> =
                state.acknowledged_tallies().into_iter().map(tally).collect();
            flight.say(&mut lines, &json!({"op": "check", "tallies": tallies}));
        }
        for id in &flight.gaps.clone() {
            flight.say(&mut lines, &json!({"op": "gap", "kind": id.kind.name(), "uid": &*id.uid}));
        }
        for (kind, sweep) in self.sweeps.iter_mut().filter(|(_, sweep)| !sweep.begun) {
            sweep.begun = true;
            flight.begun.push(*kind);
            flight
                .say(&mut lines, &json!({"op": "sync_begin", "kind": kind.name(), "buckets": sweep.buckets}));
        }
        let none = HashSet::new();
        // Room for the ends of what is swept; and for one more change as large as the largest so far, so that a
        // platform that counts to the byte need not refuse the batch.
        let others = flight.records() + self.sweeps.len();
        let mut largest = 0;
        while flight.changes.is_empty()
            || (flight.changes.len() + others < self.records_max && lines.len() + largest < self.bytes_max)
        {
            let Some(outgoing) = state.cut(&none) else { break };
            let before = lines.len();
            flight.change(&mut lines, outgoing);
            largest = largest.max(lines.len() - before);
        }
        let done: Vec<Kind> = self.sweeps.keys().copied().filter(|kind| state.may_sweep(*kind)).collect();
        for kind in done {
            if let Some(sweep) = self.sweeps.remove(&kind) {
                flight.ended.push((kind, sweep));
                flight.say(&mut lines, &json!({"op": "sync_end", "kind": kind.name()}));
            }
        }
        if flight.last < flight.first {
            return false;
        }
        if !flight.ended.is_empty() {
            self.check_due = true;
        }
        let head = json!({
            "cluster_uid": cluster_uid, "epoch": self.epoch, "first_seq": flight.first,
            "last_seq": flight.last, "sha256": digest::sha256(lines.as_bytes()),
            "queue_objects": state.queued() - flight.changes.len(), "queue_bytes": state.queued_bytes(),
        });
        flight.body = format!("{head}\n{lines}").into();
        self.flight = Some(flight);
        true
    }

    /// The batch on its way as it is sent: its body, and how that is packed.
    pub(crate) fn encode(&self) -> Option<(Bytes, Option<&'static str>)> {
        let plain = self.flight.as_ref()?.body.clone();
        if !self.gzip {
            return Some((plain, None));
        }
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        // Writing to memory does not fail; were it to, the plain body is as good.
        match packer.write_all(&plain).and_then(|()| packer.finish()) {
            Ok(packed) => Some((packed.into(), Some("gzip"))),
            Err(_) => Some((plain, None)),
        }
    }

    /// The platform has the batch.
    pub(crate) fn acknowledged(&mut self, state: &mut State) {
        let Some(flight) = self.flight.take() else { return };
        for (_, id) in &flight.changes {
            state.acknowledged(id);
        }
        self.next = flight.last.saturating_add(1);
        let (records, bytes) = self.limits;
        self.records_max = self.records_max.saturating_mul(2).min(records);
        self.bytes_max = self.bytes_max.saturating_mul(2).min(bytes);
        state.stats.batches += 1;
    }

    /// Bodies have to go unpacked from now on; whether they were packed.
    pub(crate) fn unpack(&mut self) -> bool {
        std::mem::take(&mut self.gzip)
    }

    /// The platform refused the batch for what one record says: `seq`, when it says which.
    pub(crate) fn refused(&mut self, state: &mut State, seq: Option<u64>, too_large: bool) -> Refusing {
        let Some(flight) = self.flight.take_if(|flight| !flight.ambiguous && !flight.changes.is_empty())
        else {
            return Refusing::Ends;
        };
        let named = flight.changes.iter().find(|(at, _)| Some(*at) == seq).map(|(_, id)| id.clone());
        let culprit = match (named, flight.changes.as_slice()) {
            (Some(id), _) => Some(id),
            (None, [(_, only)]) => Some(only.clone()),
            (None, _) => None,
        };
        let count = flight.changes.len();
        if culprit.is_none() {
            self.records_max = (count / 2).max(1);
            if too_large {
                self.bytes_max = (flight.body.len() / 2).max(BYTES_MIN);
            }
        }
        let Flight { changes, gaps, begun, ended, checks, .. } = flight;
        // Newest first, so that each finds its place before those that come after it.
        for (_, id) in changes.iter().rev() {
            if culprit.as_ref() == Some(id) {
                state.quarantined(id);
            } else {
                state.returned(
                    id,
                    self.sweeps.contains_key(&id.kind) || ended.iter().any(|(k, _)| *k == id.kind),
                );
            }
        }
        self.gaps = gaps;
        self.gaps.extend(culprit);
        self.sweeps.extend(ended);
        for kind in begun {
            if let Some(sweep) = self.sweeps.get_mut(&kind) {
                sweep.begun = false;
            }
        }
        self.check_due |= checks;
        Refusing::Goes
    }

    /// The session is given up: what was on its way goes back.
    pub(crate) fn give_up(self, state: &mut State) {
        for (_, id) in self.flight.into_iter().flat_map(|flight| flight.changes) {
            state.failed(&id);
        }
    }
}

impl Flight {
    /// Records it has.
    fn records(&self) -> usize {
        usize::try_from((self.last + 1).saturating_sub(self.first)).unwrap_or(usize::MAX)
    }

    /// Adds a record; its number is put in.
    fn say(&mut self, lines: &mut String, record: &Value) {
        self.last += 1;
        let mut record = record.clone();
        if let Some(fields) = record.as_object_mut() {
            fields.insert("seq".into(), json!(self.last));
        }
        lines.push_str(&record.to_string());
        lines.push('\n');
    }

    fn change(&mut self, lines: &mut String, outgoing: Outgoing) {
        let Outgoing { id, name, namespace, change, known: _ } = outgoing;
        self.last += 1;
        let op = if change == Change::Delete { "delete" } else { "upsert" };
        let head = json!({"op": op, "seq": self.last, "kind": id.kind.name(), "uid": &*id.uid,
            "name": &*name, "namespace": &*namespace});
        let mut line = head.to_string();
        if let Change::Upsert(object, _) = &change {
            line.truncate(line.len().saturating_sub(1));
            line.push_str(",\"object\":");
            line.push_str(&String::from_utf8_lossy(object));
            line.push('}');
        }
        lines.push_str(&line);
        lines.push('\n');
        self.changes.push((self.last, id));
    }
}
