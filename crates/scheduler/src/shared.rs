//! Equal values as one.

use std::{collections::HashSet, sync::Arc};

/// Distinct values held before those nobody uses are dropped.
const SHARED_PRUNE_AT: usize = 1024;

/// Values that many pods have in common, held once.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    held: HashSet<Arc<T>>,
    prune_at: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { held: HashSet::new(), prune_at: SHARED_PRUNE_AT }
    }
}

impl<T: Eq + std::hash::Hash> Shared<T> {
    /// The value that equals this one and is held already, or this one, which is then held.
    pub(crate) fn intern(&mut self, value: &Arc<T>) -> Arc<T> {
        if let Some(known) = self.held.get(value) {
            return Arc::clone(known);
        }
        if self.held.len() >= self.prune_at {
            self.held.retain(|s| Arc::strong_count(s) > 1);
            self.prune_at = (self.held.len() * 2).max(SHARED_PRUNE_AT);
        }
        self.held.insert(Arc::clone(value));
        Arc::clone(value)
    }
}
