//! A store that takes its time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use meta::{Random, Revision};
use store::{Change, Head, Loaded, Memory, Outcome, Result, Store, Write, Writers};

/// What any commit takes at least, in milliseconds of the cluster's time. Were it nothing, loops that undo each other's
/// work until one of them hears of something later would go on for ever: there would be no later.
const COMMIT_MS_MIN: u64 = 1;

/// The memory store behind a disk of changing speed. Clones are one.
#[derive(Clone)]
pub(crate) struct Slow {
    inner: Memory,
    random: Arc<dyn Random>,
    commit_ms_max: Arc<AtomicU64>,
}

impl Slow {
    pub(crate) fn new(random: Arc<dyn Random>) -> Self {
        Self { inner: Memory::new(), random, commit_ms_max: Arc::default() }
    }

    /// From now on a commit takes up to so much longer than it has to.
    pub(crate) fn set(&self, commit_ms_max: u64) {
        self.commit_ms_max.store(commit_ms_max, Relaxed);
    }
}

impl Store for Slow {
    fn writers(&self) -> Writers {
        self.inner.writers()
    }

    fn load(&self) -> BoxStream<'_, Result<Loaded>> {
        self.inner.load()
    }

    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        let wait = COMMIT_MS_MIN + self.random.below(self.commit_ms_max.load(Relaxed));
        async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            self.inner.commit(batch).await
        }
        .boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'_, Result<Change>> {
        self.inner.follow(after)
    }

    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        self.inner.head()
    }

    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>> {
        self.inner.compact(through)
    }
}
