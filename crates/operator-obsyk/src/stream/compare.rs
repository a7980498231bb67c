//! What agent and platform have, compared by digests: where they differ is sent again, and swept there.
//!
//! Pure, like the state that it belongs to.

use std::collections::BTreeMap;

use super::state::{Remote, State, Sync, Way, read, slot};
use crate::{
    Kind,
    digest::{Buckets, Tally},
};

impl State {
    /// A session with a platform that has told what it has: where that differs, everything is owed and what
    /// the platform has beyond it is to be swept. Kinds that cannot be read are left as they are there.
    pub(crate) fn begin_session(&mut self, remote: &Buckets, unread: &[Kind]) -> BTreeMap<Kind, Vec<u8>> {
        let mut own = Buckets::default();
        for (id, entry) in self.index.iter().filter(|(_, entry)| !entry.gone) {
            own.add(id, entry.seen);
        }
        let differ: BTreeMap<Kind, Vec<u8>> = Kind::ALL
            .into_iter()
            .filter(|kind| !unread.contains(kind))
            .map(|kind| (kind, own.differing(remote, kind)))
            .filter(|(_, buckets)| !buckets.is_empty())
            .collect();
        if let Sync::Wanted(reason) = self.sync {
            self.stats.last_snapshot_reason = Some(reason.to_owned());
        }
        self.sync = Sync::Idle;
        self.way = Way::Changes;
        self.forget_debts();
        self.refused.clear();
        let mut settled = Vec::new();
        for (id, entry) in &mut self.index {
            let equal = !differ.get(&id.kind).is_some_and(|buckets| buckets.contains(&Buckets::of(&id.uid)));
            match (equal, entry.gone) {
                (true, true) => settled.push(id.clone()),
                (true, false) => entry.remote = Remote::Has(entry.seen),
                // Its delete was refused; the sweep takes it.
                (false, true) if entry.pending.is_none() => settled.push(id.clone()),
                (false, true) => {}
                (false, false) => {
                    entry.remote = Remote::Unsure;
                    entry.owed = true;
                    entry.unswept = true;
                    slot(&mut self.relist, id.kind, |relist| *relist = true);
                    slot(&mut self.unswept, id.kind, |count| *count += 1);
                }
            }
        }
        for id in settled {
            self.withdraw(&id);
            self.index.remove(&id);
        }
        differ
    }

    /// Whether everything of a kind that the platform has to keep was sent since the session began.
    pub(crate) fn may_sweep(&self, kind: Kind) -> bool {
        read(&self.unswept, kind) == 0
    }

    /// What the platform has of each kind, as far as it is known; kinds of which it is not are left out.
    pub(crate) fn acknowledged_tallies(&self) -> BTreeMap<Kind, Tally> {
        let mut tallies: BTreeMap<Kind, Option<Tally>> =
            Kind::ALL.into_iter().map(|kind| (kind, Some(Tally::default()))).collect();
        for (id, entry) in &self.index {
            let Some(tally) = tallies.get_mut(&id.kind) else { continue };
            match (entry.remote, &entry.flight) {
                (Remote::Has(hash), None) => {
                    if let Some(tally) = tally {
                        tally.add(&id.uid, hash);
                    }
                }
                (Remote::Nothing, None) => {}
                (Remote::Unsure, _) | (_, Some(_)) => *tally = None,
            }
        }
        tallies.into_iter().filter_map(|(kind, tally)| Some((kind, tally?))).collect()
    }
}
