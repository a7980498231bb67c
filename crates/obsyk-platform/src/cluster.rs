//! What is known of one cluster, and the changes that make it so.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    digest::{self, Digest},
    kinds::{KINDS, Kind},
};

/// What is written down of a cluster beside its objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) name: String,
    /// Whose it is: the client that spoke of it first.
    pub(crate) client_id: String,
    pub(crate) agent_version: String,
    /// Seconds; the last snapshot that was taken.
    pub(crate) last_snapshot: Option<i64>,
    /// The session of the batch mode: 0 when there never was one.
    pub(crate) epoch: u64,
    /// That session goes on; whoever speaks the original contract ends it.
    pub(crate) open: bool,
    /// Largest fencing number that opened a session.
    pub(crate) fence: u64,
    /// Last record applied in this epoch.
    pub(crate) applied: u64,
    /// First record and SHA-256 of the last batch, to know it when it comes again.
    pub(crate) last_batch: Option<(u64, String)>,
    /// Kinds that are being synchronised: their buckets, and the record that began it.
    pub(crate) syncs: BTreeMap<String, (u64, Vec<u8>)>,
}

/// One object as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) name: Box<str>,
    pub(crate) namespace: Box<str>,
    pub(crate) object: Bytes,
    /// Epoch and record that wrote it last; zero outside sessions.
    pub(crate) at: (u64, u64),
    pub(crate) digest: Digest,
}

impl Kept {
    pub(crate) fn new(uid: &str, name: &str, namespace: &str, object: Bytes, at: (u64, u64)) -> Self {
        let digest = digest::of(uid, &object);
        Self { name: name.into(), namespace: namespace.into(), object, at, digest }
    }
}

/// One cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) record: Record,
    /// By kind's list and uid.
    pub(crate) objects: BTreeMap<&'static str, BTreeMap<String, Kept>>,
    /// Seconds; when the agent was last heard.
    pub(crate) last_contact: i64,
    /// What the agent said last of its queue: objects, bytes.
    pub(crate) queue: Option<(u64, u64)>,
    /// Seconds; since when there is something in that queue.
    pub(crate) behind_since: Option<i64>,
    pub(crate) batches: u64,
    pub(crate) changes: u64,
    /// Objects that a comparison found to be wrong here.
    pub(crate) drifted: u64,
}

/// Number of objects and exclusive or of their digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) xor: u64,
}

impl Tally {
    fn add(&mut self, digest: Digest) {
        self.count += 1;
        self.xor ^= digest.value;
    }
}

/// One thing that becomes different.
pub(crate) enum Edit {
    Put { kind: &'static Kind, uid: String, kept: Kept },
    Remove { kind: &'static Kind, uid: String },
}

impl Cluster {
    pub(crate) fn get(&self, kind: &Kind, uid: &str) -> Option<&Kept> {
        self.objects.get(kind.list)?.get(uid)
    }

    pub(crate) fn of(&self, kind: &Kind) -> impl Iterator<Item = (&String, &Kept)> {
        self.objects.get(kind.list).into_iter().flatten()
    }

    pub(crate) fn apply(&mut self, edits: Vec<Edit>) {
        self.changes += u64::try_from(edits.len()).unwrap_or(u64::MAX);
        for edit in edits {
            match edit {
                Edit::Put { kind, uid, kept } => {
                    self.objects.entry(kind.list).or_default().insert(uid, kept);
                }
                Edit::Remove { kind, uid } => {
                    if let Some(of) = self.objects.get_mut(kind.list) {
                        of.remove(&uid);
                    }
                }
            }
        }
    }

    /// Of one kind, all buckets together.
    pub(crate) fn tally(&self, kind: &Kind) -> Tally {
        let mut tally = Tally::default();
        self.of(kind).for_each(|(_, kept)| tally.add(kept.digest));
        tally
    }

    /// Of one kind, by bucket; empty ones are left out.
    pub(crate) fn buckets(&self, kind: &Kind) -> BTreeMap<u8, Tally> {
        let mut buckets: BTreeMap<u8, Tally> = BTreeMap::new();
        self.of(kind).for_each(|(_, kept)| buckets.entry(kept.digest.bucket).or_default().add(kept.digest));
        buckets
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, usize> {
        let count = |kind: &'static Kind| (kind.list, self.objects.get(kind.list).map_or(0, BTreeMap::len));
        KINDS.iter().map(count).collect()
    }
}
