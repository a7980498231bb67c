//! Group commit. One task collects the writes that are waiting, sends them to the store as one batch (one
//! sync), makes the result visible in the cache and in every watch, and only then answers. While one batch
//! is on its way to the disk the next one collects.
//!
//! Bounds: [`WAITING_MAX`] writes wait, then writers wait in turn; a batch holds at most
//! [`BATCH_WRITES_MAX`] writes and [`BATCH_BYTES_MAX`] bytes.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use meta::{Entry, GroupResource, Header, ObjectKey, Revision, Status};
use store::{Expect, Key, Outcome, Store, Write};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::cache::{Cache, Event, Happened};

const WAITING_MAX: usize = 4_096;
const BATCH_WRITES_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// One conditional write.
pub(crate) struct Commit {
    pub(crate) kind: GroupResource,
    pub(crate) key: ObjectKey,
    pub(crate) expect: Expect,
    /// What to store; `None` deletes.
    pub(crate) put: Option<Put>,
}

/// An encoded object and the header extracted from it.
pub(crate) struct Put {
    pub(crate) stored: Bytes,
    pub(crate) header: Header,
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Committed {
    /// Durable and visible: the object as stored, or as it was when it was deleted.
    Done(Arc<Entry>),
    /// The condition did not hold; the cache has what is there instead.
    Clash,
}

struct Waiting {
    commit: Commit,
    key: Key,
    reply: oneshot::Sender<Result<Committed, Status>>,
}

/// A handle to the committer. Cheap to clone; the task ends when the last handle is gone.
#[derive(Clone)]
pub(crate) struct Committer {
    queue: mpsc::Sender<Waiting>,
}

impl Committer {
    /// Starts the task; the caller joins it after dropping all handles.
    pub(crate) fn start(store: Arc<dyn Store>, cache: Arc<Cache>) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        (Self { queue }, tokio::spawn(run(store, cache, waiting)))
    }

    /// Writes, and returns when the write is durable and visible. Not cancel-safe: a write whose future is
    /// dropped may or may not happen.
    pub(crate) async fn commit(&self, commit: Commit) -> Result<Committed, Status> {
        let key =
            Key::new(&commit.kind, &commit.key).map_err(|error| Status::bad_request(error.to_string()))?;
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { commit, key, reply };
        self.queue.send(waiting).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

fn stopping() -> Status {
    Status::new(503, meta::Reason::ServiceUnavailable, "the server is shutting down").retry_after(1)
}

async fn run(store: Arc<dyn Store>, cache: Arc<Cache>, mut queue: mpsc::Receiver<Waiting>) {
    let mut held: Option<Waiting> = None;
    loop {
        let mut batch: Vec<Waiting> = Vec::new();
        match held.take() {
            Some(first) => batch.push(first),
            None => match queue.recv().await {
                Some(first) => batch.push(first),
                None => return,
            },
        }
        let mut bytes = batch.iter().map(Waiting::weight).sum::<usize>();
        while batch.len() < BATCH_WRITES_MAX {
            let Ok(next) = queue.try_recv() else { break };
            if bytes + next.weight() > BATCH_BYTES_MAX {
                held = Some(next);
                break;
            }
            bytes += next.weight();
            batch.push(next);
        }
        commit(&*store, &cache, batch).await;
    }
}

async fn commit(store: &dyn Store, cache: &Cache, batch: Vec<Waiting>) {
    let writes = batch.iter().map(Waiting::write).collect();
    match store.commit(writes).await {
        Ok(outcomes) => {
            debug_assert_eq!(outcomes.len(), batch.len(), "the store answers every write");
            apply(cache, batch, outcomes);
        }
        Err(error) => {
            let status = refused(&error);
            tracing::error!(%error, writes = batch.len(), "the store refused a batch");
            for waiting in batch {
                waiting.answer(Err(status.clone()));
            }
        }
    }
}

/// Storage failures that the client should see as what they are: nothing of the batch is stored.
fn refused(error: &store::Error) -> Status {
    match error {
        store::Error::DiskFull { .. } => Status::new(507, meta::Reason::InternalError, error.to_string()),
        store::Error::TooLarge { .. } => {
            Status::new(413, meta::Reason::RequestEntityTooLarge, error.to_string())
        }
        store::Error::Unknown { .. } => Status::new(504, meta::Reason::Timeout, error.to_string()),
        other => Status::internal(other),
    }
}

fn apply(cache: &Cache, batch: Vec<Waiting>, outcomes: Vec<Outcome>) {
    let mut kinds: BTreeMap<GroupResource, Vec<Arc<Event>>> = BTreeMap::new();
    // Objects written more than once in this batch: the newer writes see the older ones.
    let mut fresh: BTreeMap<(GroupResource, ObjectKey), Option<Arc<Entry>>> = BTreeMap::new();
    let mut answers = Vec::with_capacity(batch.len());
    let mut head = Revision(0);
    for (Waiting { commit, reply, .. }, outcome) in batch.into_iter().zip(outcomes) {
        let Outcome::Done(revision) = outcome else {
            answers.push((reply, Ok(Committed::Clash)));
            continue;
        };
        head = revision;
        let id = (commit.kind.clone(), commit.key.clone());
        let previous = match fresh.get(&id) {
            Some(entry) => entry.clone(),
            None => cache.kind(&commit.kind).get(&commit.key),
        };
        match event(commit.put, previous, revision) {
            Ok(event) => {
                let gone = event.happened == Happened::Deleted;
                fresh.insert(id, (!gone).then(|| event.entry.clone()));
                answers.push((reply, Ok(Committed::Done(event.entry.clone()))));
                kinds.entry(commit.kind).or_default().push(Arc::new(event));
            }
            Err(status) => answers.push((reply, Err(status))),
        }
    }
    for (kind, events) in kinds {
        cache.kind(&kind).publish(events);
    }
    if head > cache.head() {
        cache.advance(head);
    }
    for (reply, answer) in answers {
        // The client may have gone; its write stands.
        drop(reply.send(answer));
    }
}

fn event(put: Option<Put>, previous: Option<Arc<Entry>>, revision: Revision) -> Result<Event, Status> {
    match put {
        Some(Put { stored, header }) => {
            let entry = Entry::commit(&stored, header, revision).map_err(Status::internal)?;
            let happened = if previous.is_some() { Happened::Modified } else { Happened::Added };
            Ok(Event::new(happened, entry, previous))
        }
        None => {
            let gone = previous.ok_or_else(|| Status::internal("deleted what was not cached"))?;
            Ok(Event::new(Happened::Deleted, gone.at(revision), Some(gone)))
        }
    }
}

impl Waiting {
    fn weight(&self) -> usize {
        self.commit.put.as_ref().map_or(0, |put| put.stored.len()) + self.key.as_str().len()
    }

    fn write(&self) -> Write {
        Write {
            key: self.key.clone(),
            expect: self.commit.expect,
            value: self.commit.put.as_ref().map(|put| put.stored.clone()),
        }
    }

    fn answer(self, answer: Result<Committed, Status>) {
        // The client may have gone.
        drop(self.reply.send(answer));
    }
}
