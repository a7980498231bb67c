//! The embedded store: an append-only log in one directory, for one process. The log is the
//! history that followers read; an index in memory says where in it each object is.
//!
//! Guarantees the contract of [`store`] through `kill -9`, power loss and a full disk: a batch is
//! one checksummed frame, appended and synced before anybody is told; at opening an incomplete last
//! frame, which was never acknowledged, is cut off, and anything else that does not add up is an
//! error that names the file. Deliberately unaware of what the values mean. Holds keys in memory,
//! not values: the API server above holds those.
//!
//! Why a log of our own and not a crate: `docs/adr/0001-embedded-store-engine.md`.

mod fault;
mod follow;
mod frame;
mod import;
mod load;
mod lock;
mod manifest;
mod recover;
mod relocate;
mod scan;
mod segment;
mod state;
mod writer;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use meta::Revision;
use store::{Change, Error, Head, Loaded, Outcome, Result, Store, Write, Writers};
use tokio::sync::{mpsc, oneshot};

use crate::{
    fault::failed,
    lock::Lock,
    state::Shared,
    writer::{Message, Writer},
};

/// Most calls that wait for the writer; further ones wait to be let in. Far above what one API
/// server's committer has under way.
const WAITING_MAX: usize = 256;

/// A store in a directory. Dropping it finishes what was sent, closes the files and lets the next
/// process in; that blocks for as long as one sync.
pub struct EmbeddedStore {
    directory: PathBuf,
    shared: Arc<Shared>,
    sender: Option<mpsc::Sender<Message>>,
    writer: Option<JoinHandle<()>>,
    _lock: Lock,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store in `directory`, making both where there is nothing. Reads and checks every
    /// byte of it, which blocks for about a second per gigabyte.
    ///
    /// Fails with [`Error::Locked`], [`Error::Damaged`] or [`Error::NewerFormat`] without changing
    /// anything; on a full disk it opens what is there.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref().to_owned();
        let lock = Lock::take(&directory)?;
        let shared = Arc::new(Shared::new(recover::recover(&directory)?));
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let writer = Writer::new(directory.clone(), shared.clone())?;
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(receiver))
            .map_err(|error| failed("start the writer thread of", &directory, error))?;
        Ok(Self { directory, shared, sender: Some(sender), writer: Some(writer), _lock: lock })
    }

    /// Fills a new directory with what another store's `load` gave, at the revisions that the objects have;
    /// gives the revision that it stands at. History begins there.
    ///
    /// Refuses a directory that holds a store ([`Error::NotEmpty`]); after a failure it holds none.
    pub async fn import(
        directory: impl AsRef<Path>,
        objects: BoxStream<'_, Result<Loaded>>,
    ) -> Result<Revision> {
        import::import(directory.as_ref(), objects).await
    }

    async fn ask<T>(
        &self,
        doing: &'static str,
        message: impl FnOnce(oneshot::Sender<Result<T>>) -> Message,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let stopped = || Error::Stopped { why: "the writer thread ended".into() };
        let sender = self.sender.as_ref().ok_or_else(stopped)?;
        sender.send(message(answer)).await.map_err(|_| stopped())?;
        answered.await.unwrap_or(Err(Error::Unknown { doing }))
    }
}

impl Store for EmbeddedStore {
    /// One: the directory is locked.
    fn writers(&self) -> Writers {
        Writers::One
    }

    fn load(&self) -> BoxStream<'_, Result<Loaded>> {
        load::load(&self.shared)
    }

    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        self.ask("a commit", |answer| Message::Commit { batch, answer }).boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'_, Result<Change>> {
        follow::follow(&self.shared, after)
    }

    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        async { Ok(self.shared.read().head()) }.boxed()
    }

    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>> {
        self.ask("a compaction", move |answer| Message::Compact { through, answer }).boxed()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // The writer ends when the last sender is gone and the queue is empty.
        self.sender = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            let directory = self.directory.display();
            tracing::error!(%directory, "store writer panicked; what was acknowledged is safe");
        }
    }
}

/// Makes the entries of a directory durable.
fn sync_directory(path: &Path) -> Result<()> {
    std::fs::File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error: io::Error| failed("sync the directory", path, error))
}
