//! Group commit. One task collects the writes that are waiting, sends them to the store as one batch (one
//! sync), makes the result visible in the cache and in every watch, and only then answers. While one batch
//! is on its way to the disk the next one collects.
//!
//! Where others write to the same store, the changes of all enter the cache in the order of their revisions
//! ([`Merge`]), and a write that met somebody else's is answered when that is visible here.
//!
//! Bounds: [`WAITING_MAX`] writes wait, then writers wait in turn; a batch holds at most
//! [`BATCH_WRITES_MAX`] writes and [`BATCH_BYTES_MAX`] bytes.

use std::sync::Arc;

use meta::{Entry, GroupResource, ObjectKey, Revision, Status};
use store::{Expect, Key, Outcome, Store, Write, Writers};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Registry,
    cache::Cache,
    follower::{self, Asked, Broken, refused},
    merge::{Answer, Merge, Own, Reply},
};

pub(crate) use crate::merge::Put;

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

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Committed {
    /// Durable and visible: the object as stored.
    Done(Arc<Entry>),
    /// Durable and visible: the object is gone, at this revision.
    Gone(Revision),
    /// The condition did not hold. The cache has what is there instead, or something newer.
    Clash,
}

struct Waiting {
    commit: Commit,
    key: Key,
    reply: Reply,
}

/// A handle to the committer. Cheap to clone; the task ends when the last handle is gone.
#[derive(Clone)]
pub(crate) struct Committer {
    queue: mpsc::Sender<Waiting>,
    cache: Arc<Cache>,
    /// How to ask where the store stands; `None` where nobody else writes and the cache always is there.
    others: Option<mpsc::Sender<Asked>>,
    broken: watch::Receiver<Option<String>>,
}

impl Committer {
    /// Starts the task; the caller joins it after dropping all handles.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        cache: Arc<Cache>,
        registry: Arc<Registry>,
    ) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let merge = Arc::new(Merge::new(cache.clone(), registry.clone()));
        let broken: Arc<Broken> = Arc::new(watch::Sender::new(None));
        let told = broken.subscribe();
        let (others, beside) = match store.writers() {
            Writers::One => (None, Vec::new()),
            Writers::Many => {
                let (ask, asked) = follower::questions();
                let follow =
                    follower::run(store.clone(), cache.clone(), registry, merge.clone(), broken.clone());
                let answer = follower::answer(store.clone(), asked);
                let beside = vec![tokio::spawn(follow), tokio::spawn(answer)];
                (Some(ask), beside.into_iter().map(AbortOnDropHandle::new).collect())
            }
        };
        let task = tokio::spawn(async move {
            run(store, &merge, waiting).await;
            drop((beside, broken));
        });
        (Self { queue, cache, others, broken: told }, task)
    }

    /// Writes, and returns when the write is durable and visible. Not cancel-safe: a write whose future is
    /// dropped may or may not happen.
    pub(crate) async fn commit(&self, commit: Commit) -> Result<Committed, Status> {
        let key =
            Key::new(&commit.kind, &commit.key).map_err(|error| Status::bad_request(error.to_string()))?;
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { commit, key, reply };
        self.queue.send(waiting).await.map_err(|_| stopping())?;
        match answer.await.map_err(|_| stopping())?? {
            Answer::Done(entry) => Ok(Committed::Done(entry)),
            Answer::Gone(revision) => Ok(Committed::Gone(revision)),
            Answer::Clash(there) => {
                // The next try must not decide on what was there before.
                match there {
                    Some(revision) => self.cache.reach(revision).await?,
                    None => self.newest().await?,
                }
                Ok(Committed::Clash)
            }
        }
    }

    /// Whether nobody else writes to the store.
    pub(crate) fn alone(&self) -> bool {
        self.others.is_none()
    }

    /// Waits until the cache shows everything that was committed before this call, by whomever. Does nothing
    /// where nobody else writes.
    pub(crate) async fn newest(&self) -> Result<(), Status> {
        let Some(others) = &self.others else { return Ok(()) };
        let (ask, told) = oneshot::channel();
        others.send(ask).await.map_err(|_| stopping())?;
        let head = told.await.map_err(|_| stopping())??;
        self.cache.reach(head).await
    }

    /// Why the server can no longer follow its store; never set where nobody else writes.
    pub(crate) fn broken(&self) -> watch::Receiver<Option<String>> {
        self.broken.clone()
    }
}

fn stopping() -> Status {
    Status::new(503, meta::Reason::ServiceUnavailable, "the server is shutting down").retry_after(1)
}

async fn run(store: Arc<dyn Store>, merge: &Merge, mut queue: mpsc::Receiver<Waiting>) {
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
        commit(&*store, merge, batch).await;
    }
}

async fn commit(store: &dyn Store, merge: &Merge, batch: Vec<Waiting>) {
    let writes = batch.iter().map(Waiting::write).collect();
    match store.commit(writes).await {
        Ok(outcomes) => {
            debug_assert_eq!(outcomes.len(), batch.len(), "the store answers every write");
            apply(merge, batch, outcomes);
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

fn apply(merge: &Merge, batch: Vec<Waiting>, outcomes: Vec<Outcome>) {
    let mut own = Vec::with_capacity(batch.len());
    for (waiting, outcome) in batch.into_iter().zip(outcomes) {
        let revision = match outcome {
            Outcome::Done(revision) => revision,
            Outcome::Clash(there) => {
                waiting.answer(Ok(Answer::Clash(there.map(|there| there.revision))));
                continue;
            }
            Outcome::Refused { why } => {
                waiting.answer(Err(Status::new(503, meta::Reason::ServiceUnavailable, &*why).retry_after(1)));
                continue;
            }
        };
        let Waiting { commit: Commit { kind, key, expect: _, put }, key: _, reply } = waiting;
        own.push(Own { revision, kind, key, put, reply });
    }
    merge.own(own);
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

    fn answer(self, answer: Result<Answer, Status>) {
        // The client may have gone.
        drop(self.reply.send(answer));
    }
}
