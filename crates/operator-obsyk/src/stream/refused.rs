//! What the platform refused for what it says: it waits, the others go on, and after a while it is said again,
//! since the refusal may have been a mistake, or the platform may have learned to take it.
//!
//! Pure, like the state that it belongs to; `gate::Again` knows when.

use super::state::{Change, Remote, State};
use crate::project::Id;

/// Objects that are remembered as refused. Of more, a session or a snapshot says them anew, once a day.
const REFUSED_MAX: usize = 1000;

impl State {
    /// The platform refused the change for what it says, and took nothing of it: it has what it had before.
    pub(crate) fn quarantined(&mut self, id: &Id) {
        if self.land(id).is_none() {
            return;
        }
        self.stats.quarantined += 1;
        let Some(entry) = self.index.get_mut(id) else { return };
        if entry.pending.is_some() {
            return;
        }
        let untold = entry.gone && (entry.remote == Remote::Nothing || self.refused.len() >= REFUSED_MAX);
        if untold {
            // A page of a list that was read before may show it: then it has to be known as gone.
            if !self.is_relisting(id.kind) {
                self.index.remove(id);
            }
        } else if self.refused.len() < REFUSED_MAX {
            self.refused.insert(id.clone());
        }
    }

    /// Whether what the platform has of an object is not what the cluster has, since it was refused.
    fn is_refused(&self, id: &Id) -> bool {
        self.index.get(id).is_some_and(|entry| {
            let told = if entry.gone { Remote::Nothing } else { Remote::Has(entry.seen) };
            entry.remote != told
        })
    }

    /// Whether the platform has an object not as it is, since it refused that.
    pub(crate) fn has_refusals(&self) -> bool {
        self.refused.iter().any(|id| self.is_refused(id))
    }

    /// How many objects the platform has not as they are, since it refused that, and one of them: its kind,
    /// namespace and name.
    pub(crate) fn refusals(&self) -> Option<(usize, String)> {
        let mut refused = self.refused.iter().filter(|id| self.is_refused(id)).peekable();
        let first = refused.peek()?;
        let entry = self.index.get(*first)?;
        let place = if entry.namespace.is_empty() { "" } else { "/" };
        let name = format!("{} {}{place}{}", first.kind.name(), entry.namespace, entry.name);
        Some((refused.count(), name))
    }

    /// Says again what was refused. Nothing may be wanted or running that says it anew. It counts as refused
    /// until it is acknowledged.
    pub(crate) fn retry_refused(&mut self) {
        for id in std::mem::take(&mut self.refused) {
            if !self.is_refused(&id) {
                continue;
            }
            match self.index.get(&id) {
                Some(entry) if entry.pending.is_some() || entry.flight.is_some() => {}
                Some(entry) if entry.gone => self.put(&id, Change::Delete),
                Some(_) => self.owe(&id),
                None => {}
            }
            self.refused.insert(id);
        }
    }
}
