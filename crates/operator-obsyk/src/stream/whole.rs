//! Snapshots: what it means for the state that one begins, fails, or is acknowledged.
//!
//! Pure, like the state that it belongs to. While one is on its way no change is, so that an older state can
//! never overtake a newer one.

use std::collections::HashSet;

use super::state::{Entry, Remote, State, Sync, Way, read, slot};
use crate::{Kind, project::Id};

/// One object of a snapshot: what it said, without the payload.
pub(crate) struct Listed {
    pub(crate) id: Id,
    pub(crate) name: Box<str>,
    pub(crate) namespace: Box<str>,
    pub(crate) revision: u64,
    pub(crate) hash: u64,
}

impl State {
    /// A snapshot begins. Nothing may be on its way.
    pub(crate) fn begin_snapshot(&mut self) {
        if let Sync::Wanted(reason) = self.sync {
            self.stats.last_snapshot_reason = Some(reason.to_owned());
        }
        self.sync = Sync::Running(None);
        self.way = Way::Snapshot;
        self.begun = self.generation;
    }

    /// The snapshot did not arrive, or nobody knows whether it did.
    pub(crate) fn snapshot_failed(&mut self, reason: &'static str) {
        self.sync = Sync::Wanted(reason);
        self.want_all(reason);
    }

    /// The platform has the snapshot, and it said this. Kinds that could not be listed were `skipped`.
    pub(crate) fn snapshot_acknowledged(&mut self, listed: Vec<Listed>, skipped: &[Kind]) {
        self.stats.snapshots += 1;
        let again = match self.sync {
            Sync::Running(again) => again,
            Sync::Idle | Sync::Wanted(_) => None,
        };
        self.sync = Sync::Idle;
        let mut told = HashSet::with_capacity(listed.len());
        for object in listed {
            told.insert(object.id.clone());
            self.take_listed(object);
        }
        let mut stale = false;
        let mut unheard = Vec::new();
        for (id, entry) in &mut self.index {
            if told.contains(id) {
                stale |= !entry.gone && entry.pending.is_none() && entry.remote != Remote::Has(entry.seen);
                continue;
            }
            if entry.gone && entry.remote == Remote::Nothing {
                unheard.push(id.clone());
            } else if !entry.gone {
                // A platform that replaces has it no more; one that merges has what it had.
                entry.remote = if entry.remote == Remote::Nothing { Remote::Nothing } else { Remote::Unsure };
                if skipped.contains(&id.kind) {
                    // Said again as soon as the kind can be listed.
                    entry.seen = !entry.seen;
                } else {
                    stale |= entry.pending.is_none();
                }
            }
        }
        for id in unheard {
            self.withdraw(&id);
            self.index.remove(&id);
        }
        // What a list showed that another list of its kind overtook.
        for kind in Kind::ALL {
            if read(&self.begun, kind) != read(&self.generation, kind) && !read(&self.listing, kind) {
                self.sweep(kind);
            }
        }
        if let Some(reason) = again {
            self.want_all(reason);
        } else if stale {
            self.want_all("snapshot was not the newest state");
        }
    }

    fn take_listed(&mut self, object: Listed) {
        let Listed { id, name, namespace, revision, hash } = object;
        let generation = read(&self.begun, id.kind);
        self.refused.remove(&id);
        let fresh = !self.index.contains_key(&id);
        let entry = self.index.entry(id.clone()).or_insert_with(|| {
            Box::new(Entry {
                name,
                namespace,
                revision,
                generation,
                seen: hash,
                gone: false,
                owed: false,
                unswept: false,
                remote: Remote::Nothing,
                pending: None,
                flight: None,
            })
        });
        entry.remote = Remote::Has(hash);
        if fresh {
            slot(&mut self.counts, id.kind, |count| *count += 1);
        } else if !entry.gone && (revision >= entry.revision || revision == 0) {
            entry.revision = revision;
            entry.seen = hash;
            self.withdraw(&id);
        }
    }
}
