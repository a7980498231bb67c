//! The reference: what the contract means, in the simplest form that is right. Keeps everything in
//! memory, so "durable" lasts as long as one clone of it lives. For tests and simulation.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
    stream::{self, BoxStream},
};
use meta::Revision;
use tokio::sync::watch;

use crate::{
    Change, Current, Error, Head, Key, Loaded, Outcome, Plan, Result, Store, Stored, Write, Writers,
    follow_with, plan,
};

/// Most changes copied out for a follower at a time; bounds how long it holds the lock.
const READ_MAX: usize = 256;

/// A store in memory. Clones are handles to the same store.
#[derive(Clone, Debug)]
pub struct Memory {
    shared: Arc<Shared>,
    writers: Writers,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    head: watch::Sender<Revision>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Key, Stored>,
    /// Changes `compacted + 1 ..= revision`.
    log: VecDeque<Change>,
    revision: Revision,
    compacted: Revision,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty store for one writer.
    pub fn new() -> Self {
        let head = watch::Sender::new(Revision(0));
        Self { shared: Arc::new(Shared { state: Mutex::default(), head }), writers: Writers::One }
    }

    /// An empty store whose clones are written to by several.
    pub fn shared() -> Self {
        Self { writers: Writers::Many, ..Self::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current for State {
    fn revision(&self, key: &Key) -> Result<Option<Revision>> {
        Ok(self.objects.get(key).map(|stored| stored.revision))
    }

    fn stored(&self, key: &Key) -> Result<Option<Stored>> {
        Ok(self.objects.get(key).cloned())
    }
}

impl State {
    fn commit(&mut self, batch: Vec<Write>) -> Result<Vec<Outcome>> {
        let Plan { outcomes, changes } = plan(batch, self.revision, &*self)?;
        for change in changes {
            let Change { revision, key, value } = change.clone();
            match value {
                Some(value) => self.objects.insert(key.clone(), Stored { key, value, revision }),
                None => self.objects.remove(&key),
            };
            self.revision = revision;
            self.log.push_back(change);
        }
        Ok(outcomes)
    }

    fn compact(&mut self, through: Revision) {
        while self.log.front().is_some_and(|change| change.revision <= through) {
            self.log.pop_front();
        }
        self.compacted = self.compacted.max(through.min(self.revision));
    }

    fn changes(&self, after: Revision) -> Result<Vec<Change>> {
        let skip = after
            .0
            .checked_sub(self.compacted.0)
            .ok_or(Error::Compacted { asked: after, compacted: self.compacted })?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Ok(self.log.iter().skip(skip).take(READ_MAX).cloned().collect())
    }
}

impl Store for Memory {
    fn writers(&self) -> Writers {
        self.writers
    }

    fn load(&self) -> BoxStream<'_, Result<Loaded>> {
        stream::once(async {
            let state = self.state();
            let objects: Vec<_> = state.objects.values().cloned().map(Loaded::Object).collect();
            stream::iter(objects.into_iter().chain([Loaded::At(state.revision)]).map(Ok))
        })
        .flatten()
        .boxed()
    }

    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        async move {
            let mut state = self.state();
            let outcomes = state.commit(batch)?;
            self.shared.head.send_replace(state.revision);
            Ok(outcomes)
        }
        .boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'_, Result<Change>> {
        let read = move |after| future::ready(self.state().changes(after));
        follow_with(after, self.shared.head.subscribe(), read)
    }

    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        async {
            let State { objects: _, log: _, revision, compacted } = *self.state();
            Ok(Head { revision, epoch: 1, compacted })
        }
        .boxed()
    }

    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>> {
        async move {
            self.state().compact(through);
            Ok(())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl crate::conformance::Home for Memory {
        fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Store>>> {
            future::ready(Ok(Arc::new(self.clone()) as Arc<dyn Store>)).boxed()
        }
    }

    crate::store_conformance!(Memory::new());
}
