//! The store in PostgreSQL, for any number of API servers: `objects` is what is, `log` what happened,
//! `head` where both stand, all written in one transaction. The log is the outbox; `LISTEN/NOTIFY`, or
//! Redis Streams where configured, only say that there is something new in it.
//!
//! Guarantees the contract of [`store`] through `kill -9` of either side, a lost connection during a
//! commit (it is asked for again, and applied at most once), and a Redis that is lost, emptied or late.
//! A store that another one took over from ([`PostgresStore::take_over`]) or whose PostgreSQL went back
//! writes nothing more. Deliberately unaware of what the values mean, and of who leads: every open store
//! may write. Decisions and numbers: `docs/adr/0004-postgres-store.md`.
//!
//! What an API server must do to use it with others beside it:
//! - apply [`store::Store::follow`] to its cache, its own commits included, and not the outcomes of its
//!   commits by themselves: only the stream has everybody's changes in order;
//! - after a commit, wait until the cache has reached the revision it answers with;
//! - for a consistent read, ask [`store::Store::head`] and wait until the cache has reached it;
//! - on `Compacted`, load anew; on `Deposed` and `Stopped`, end;
//! - on `Unknown`, answer 504 and let the client look; on `Backend`, 503;
//! - have one server call [`store::Store::compact`] at a time (two do no harm).

mod backoff;
mod bus;
mod config;
mod events;
mod fault;
mod import;
mod pool;
mod read;
mod schema;
mod shared;
mod tail;
mod tls;
mod window;
mod writer;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use meta::{Random, Revision};
use store::{Change, Error, Head, Loaded, Outcome, Result, Store, Write, Writers, check_size};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

pub use config::Config;
pub use fault::Fault;

use crate::{
    bus::Bus,
    pool::Pool,
    shared::Shared,
    writer::{Waiting, Writer},
};

/// Most calls that wait for the writer; further ones wait to be let in.
const WAITING_MAX: usize = 256;

/// A store in a PostgreSQL database. Dropping it finishes what was sent, without waiting for it.
pub struct PostgresStore {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Waiting>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("config", &self.shared.pool.config).finish_non_exhaustive()
    }
}

/// What one open store has done; for measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Transactions committed.
    pub batches: u64,
    /// Commits whose answer was lost and then found.
    pub resolved: u64,
    /// Changes that this store committed and saw first.
    pub own: u64,
    /// Changes that came by Redis.
    pub bus: u64,
    /// Changes that were read from the log to catch up.
    pub log: u64,
}

impl PostgresStore {
    /// Opens the store, making or migrating the tables where needed. Needs a tokio runtime with I/O and
    /// time, on which it also works later.
    ///
    /// Fails with what is wrong and what to do, and then has changed nothing.
    pub async fn open(config: Config, random: Arc<dyn Random>) -> Result<Self, Fault> {
        if let Some(events) = &config.events {
            events.probe().await?;
        }
        let pool = Pool::new(Arc::new(config), random);
        let opened = schema::prepare(&pool).await?;
        tracing::info!(
            server = pool.config.name,
            revision = opened.revision,
            epoch = opened.epoch,
            compacted = opened.compacted,
            "opened the store in PostgreSQL"
        );
        let shared = Arc::new(Shared::new(pool, &opened));
        let (queue, receiver) = mpsc::channel(WAITING_MAX);
        // Ends by itself once the queue is closed and empty.
        tokio::spawn(Writer::new(shared.clone()).run(receiver));
        let mut tasks = vec![AbortOnDropHandle::new(tokio::spawn(tail::run(shared.clone())))];
        match shared.pool.config.events.clone() {
            None => tasks.push(AbortOnDropHandle::new(tokio::spawn(tail::listen(shared.clone())))),
            Some(events) => {
                let bus = Arc::new(Bus::new(shared.clone(), events));
                tasks.push(AbortOnDropHandle::new(tokio::spawn(bus.clone().read())));
                tasks.push(AbortOnDropHandle::new(tokio::spawn(bus.publish())));
            }
        }
        Ok(Self { shared, queue, _tasks: tasks })
    }

    /// Raises the epoch: every other open store of this database is deposed, and neither writes nor
    /// follows any more. For whoever replaces what is stored, such as a restore; several servers beside
    /// each other do not need it. Gives the new epoch.
    pub async fn take_over(&self) -> Result<u64> {
        read::take_over(&self.shared).await
    }

    /// Fills an empty store with what another store's `load` gave, at the revisions that the objects have, in
    /// one transaction; gives the revision that it stands at. History begins there.
    ///
    /// Refuses a store that was written to ([`Error::NotEmpty`]).
    pub async fn import(
        config: Config,
        random: Arc<dyn Random>,
        objects: BoxStream<'_, Result<Loaded>>,
    ) -> Result<Revision> {
        let pool = Pool::new(Arc::new(config), random);
        schema::prepare(&pool).await?;
        import::import(&pool, objects).await
    }

    /// What this store has done so far.
    pub fn statistics(&self) -> Statistics {
        let shared::Counters { own, bus, log, batches, resolved } = &self.shared.counters;
        Statistics {
            batches: batches.load(Ordering::Relaxed),
            resolved: resolved.load(Ordering::Relaxed),
            own: own.load(Ordering::Relaxed),
            bus: bus.load(Ordering::Relaxed),
            log: log.load(Ordering::Relaxed),
        }
    }
}

impl Store for PostgresStore {
    fn writers(&self) -> Writers {
        Writers::Many
    }

    fn load(&self) -> BoxStream<'_, Result<Loaded>> {
        read::load(&self.shared)
    }

    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        async move {
            check_size(&batch)?;
            if batch.is_empty() {
                return Ok(Vec::new());
            }
            let (answer, answered) = oneshot::channel();
            let stopped = || Error::Stopped { why: "the task that writes ended".into() };
            self.queue.send(Waiting { batch, answer }).await.map_err(|_| stopped())?;
            answered.await.unwrap_or(Err(Error::Unknown { doing: "a commit" }))
        }
        .boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'_, Result<Change>> {
        read::follow(&self.shared, after)
    }

    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        async {
            // Whoever was deposed, or whose PostgreSQL went back, must not pass for up to date.
            let end = self.shared.window().end();
            let head = read::head(&self.shared).await?;
            self.shared.observe(head.revision.0, head.epoch, end);
            self.shared.check().map(|()| head)
        }
        .boxed()
    }

    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>> {
        read::compact(&self.shared, through).boxed()
    }
}
