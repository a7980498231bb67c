//! How the platform comes to have what was dropped, missed or never sent, without a snapshot: the kinds that
//! owe something are listed again, a page at a time, and what it lacks is queued as changes.
//!
//! Pure, like the state that it belongs to. An object that a page shows although a watch has shown since that
//! it is gone stays gone: while a kind is listed, what is gone of it is remembered.

use super::state::{Remote, State, Sync, Way, read, slot};
use crate::{
    Kind,
    project::{Id, Projected},
};

/// What is read ahead of the sending: a few batches, which hide the time that a page takes.
const READ_AHEAD_BYTES: usize = 4 << 20;

impl State {
    /// The platform does not take snapshots: everything it lacks goes as changes.
    pub(crate) fn go_by_changes(&mut self) {
        self.sync = Sync::Idle;
        self.way = Way::Changes;
        self.forget_debts();
        for (id, entry) in &mut self.index {
            if !entry.gone && entry.remote != Remote::Has(entry.seen) && entry.pending.is_none() {
                entry.owed = true;
                slot(&mut self.relist, id.kind, |relist| *relist = true);
            }
        }
    }

    /// The payload of an object is not held, and has to be read again.
    pub(super) fn owe(&mut self, id: &Id) {
        if let Some(entry) = self.index.get_mut(id) {
            entry.owed = true;
            slot(&mut self.relist, id.kind, |relist| *relist = true);
        }
    }

    /// Nothing is owed any more: something else brings it.
    pub(super) fn forget_debts(&mut self) {
        self.relist = [false; Kind::ALL.len()];
        self.unswept = [0; Kind::ALL.len()];
        self.relisting = None;
        for entry in self.index.values_mut() {
            entry.owed = false;
            entry.unswept = false;
        }
        self.index.retain(|_, entry| !entry.is_settled_and_gone());
    }

    /// Whether lists may still show what is gone of this kind.
    pub(super) fn is_relisting(&self, kind: Kind) -> bool {
        self.relisting.is_some_and(|(listed, _)| listed == kind)
    }

    /// A kind that should be listed, when there is room for what that brings.
    pub(crate) fn relist_wanted(&self) -> Option<Kind> {
        if self.sync != Sync::Idle || self.relisting.is_some() || !self.has_room() {
            return None;
        }
        Kind::ALL.into_iter().find(|kind| read(&self.relist, *kind))
    }

    /// Whether a kind owes something that only a list can bring.
    pub(crate) fn owes(&self, kind: Kind) -> bool {
        read(&self.relist, kind)
    }

    /// Whether any kind does.
    pub(crate) fn owes_any(&self) -> bool {
        self.relisting.is_some() || self.relist.contains(&true)
    }

    /// Whether another page may be read: there is something to send, and the rest need not wait in memory.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes <= READ_AHEAD_BYTES.min(self.budget / 2)
    }

    /// A list of a kind begins, for what it owes.
    pub(crate) fn begin_relist(&mut self, kind: Kind) {
        slot(&mut self.relist, kind, |relist| *relist = false);
        self.relisting = Some((kind, read(&self.generation, kind)));
        self.stats.relists += 1;
    }

    /// The list showed an object.
    pub(crate) fn relisted(&mut self, object: Projected) {
        let Some((kind, begun)) = self.relisting else { return };
        let gone = self.index.get(&object.id).is_some_and(|entry| entry.gone);
        if kind == object.id.kind && !gone {
            self.take(object, begun);
        }
    }

    /// The list is complete, or `broken`: then the kind is listed again.
    pub(crate) fn end_relist(&mut self, kind: Kind, broken: bool) {
        let Some((listed, begun)) = self.relisting.take() else { return };
        if listed != kind {
            self.relisting = Some((listed, begun));
            return;
        }
        if begun != read(&self.generation, kind) && !read(&self.listing, kind) {
            // What a page showed that another list of its kind overtook.
            self.sweep(kind);
        }
        self.index.retain(|id, entry| id.kind != kind || !entry.is_settled_and_gone());
        let owes = self.index.iter().any(|(id, entry)| id.kind == kind && entry.owed);
        if broken || owes {
            slot(&mut self.relist, kind, |relist| *relist = true);
        }
    }
}
