//! The one task that writes: collects what is waiting, sends it as one statement, tells everybody.
//! What arrives meanwhile is the next statement. An answer that does not come is asked for again
//! under the same number, which `commit_batch` applies at most once.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use meta::Revision;
use store::{Change, Error, Expect, Key, Outcome, Result, Stored, Write};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_postgres::{Row, types::Type};

use crate::{
    backoff::Backoff,
    fault::{Fault, Meaning, meaning, words},
    pool::{Parameters, Session},
    shared::Shared,
};

/// No further batch joins a statement with this many bytes or writes.
const GROUP_BYTES: usize = 4 << 20;
const GROUP_WRITES: usize = 2048;
const DOING: &str = "commit to PostgreSQL";
const COMMIT: &str =
    "SELECT slot, done, stands, content FROM keelson.commit_batch($1, $2, $3, $4, $5, $6, $7)";
/// The tables grow between two plans of `commit_batch`; only these plans stay right.
const PLANS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; \
                     SET enable_mergejoin = off; SET jit = off";

/// A batch and who waits for it.
pub(crate) struct Waiting {
    pub(crate) batch: Vec<Write>,
    pub(crate) answer: oneshot::Sender<Result<Vec<Outcome>>>,
}

/// See the module.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    id: String,
    sequence: u64,
    session: Option<Session>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let id = shared.pool.random.uuid();
        Self { shared, id, sequence: 0, session: None }
    }

    /// Works until every sender is gone and everything sent is answered.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut held = None;
        loop {
            let first = match held.take() {
                Some(waiting) => waiting,
                None => match queue.recv().await {
                    Some(waiting) => waiting,
                    None => return,
                },
            };
            let (group, next) = collect(first, &mut queue);
            held = next;
            self.commit(group).await;
        }
    }

    async fn commit(&mut self, group: Vec<Waiting>) {
        let mut writes = Vec::with_capacity(group.len());
        let mut waiting = Vec::with_capacity(group.len());
        for Waiting { batch, answer } in group {
            waiting.push((batch.len(), answer));
            writes.extend(batch);
        }
        let result = self.send(&writes).await;
        if let Err(Error::Deposed { epoch }) = &result {
            self.shared.stop(Error::Deposed { epoch: *epoch });
        }
        let result = result.map(|outcomes| {
            let changes = writes.into_iter().zip(&outcomes).filter_map(|(write, outcome)| match outcome {
                Outcome::Done(revision) => {
                    Some(Change { revision: *revision, key: write.key, value: write.value })
                }
                Outcome::Clash(_) | Outcome::Refused { .. } => None,
            });
            self.shared.push(changes.collect(), &self.shared.counters.own);
            self.shared.counters.batches.fetch_add(1, Ordering::Relaxed);
            outcomes.into_iter()
        });
        match result {
            Ok(mut outcomes) => {
                for (length, answer) in waiting {
                    // Nobody listens when the caller dropped its future; what was done stays done.
                    drop(answer.send(Ok(outcomes.by_ref().take(length).collect())));
                }
            }
            Err(error) => {
                for (_, answer) in waiting {
                    drop(answer.send(Err(error.clone())));
                }
            }
        }
    }

    /// Until it is known what became of the writes, or `patience` has passed.
    async fn send(&mut self, writes: &[Write]) -> Result<Vec<Outcome>> {
        self.shared.check()?;
        self.sequence += 1;
        let deadline = Instant::now() + self.shared.pool.config.patience;
        let mut backoff = Backoff::new();
        // Set once an attempt was sent whose answer did not come.
        let mut unknown = false;
        loop {
            let error = match self.attempt(writes).await {
                Ok(outcomes) => {
                    if unknown {
                        self.shared.counters.resolved.fetch_add(1, Ordering::Relaxed);
                    }
                    return Ok(outcomes);
                }
                Err(Attempt::Lost(why)) => {
                    self.session = None;
                    unknown = true;
                    tracing::warn!(why, "no answer to a commit, asking again");
                    Error::Unknown { doing: "a commit" }
                }
                Err(Attempt::Again(error)) => error,
                Err(Attempt::Failed(error)) if unknown && !matches!(error, Error::Deposed { .. }) => {
                    tracing::warn!(%error, "it stays unknown what became of a commit");
                    return Err(Error::Unknown { doing: "a commit" });
                }
                Err(Attempt::Failed(error)) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(if unknown { Error::Unknown { doing: "a commit" } } else { error });
            }
            backoff.wait(&*self.shared.pool.random).await;
        }
    }

    async fn attempt(&mut self, writes: &[Write]) -> Result<Vec<Outcome>, Attempt> {
        let pool = &self.shared.pool;
        let session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => {
                let session =
                    pool.connect(|| None).await.map_err(|fault| Attempt::Again(fault.during(DOING)))?;
                let planned = timeout(pool.config.answer, session.client.batch_execute(PLANS)).await;
                let why = match planned {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(words(&error)),
                    Err(_) => Some("no answer".to_owned()),
                };
                if let Some(why) = why {
                    return Err(Attempt::Again(Fault::Sql { doing: DOING, why }.during(DOING)));
                }
                session
            }
        };
        let keys: Vec<&str> = writes.iter().map(|write| write.key.as_str()).collect();
        let distinct = keys.iter().collect::<HashSet<_>>().len() == keys.len();
        let expects: Vec<i64> = writes.iter().map(|write| expectation(write.expect)).collect();
        let values: Vec<Option<&[u8]>> = writes.iter().map(|write| write.value.as_deref()).collect();
        let (epoch, sequence) = (signed(self.shared.epoch.load(Ordering::Relaxed)), signed(self.sequence));
        let parameters: Parameters<'_> = &[
            (&epoch, Type::INT8),
            (&self.id, Type::TEXT),
            (&sequence, Type::INT8),
            (&distinct, Type::BOOL),
            (&keys, Type::TEXT_ARRAY),
            (&expects, Type::INT8_ARRAY),
            (&values, Type::BYTEA_ARRAY),
        ];
        let rows = match timeout(pool.config.answer, session.client.query_typed(COMMIT, parameters)).await {
            Err(_) => return Err(Attempt::Lost(format!("nothing within {:?}", pool.config.answer))),
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                let attempt = match meaning(&error) {
                    Meaning::Lost => return Err(Attempt::Lost(words(&error))),
                    Meaning::Again => Attempt::Again(pool.explain(DOING, &error)),
                    _ => Attempt::Failed(pool.explain(DOING, &error)),
                };
                self.session = Some(session);
                return Err(attempt);
            }
        };
        self.session = Some(session);
        outcomes(writes, &rows).map_err(|fault| {
            // Committed, but not as we understand it.
            tracing::error!(%fault, "an answer to a commit is not readable");
            Attempt::Failed(Error::Unknown { doing: "a commit" })
        })
    }
}

/// What became of one attempt that brought no outcomes.
enum Attempt {
    /// It may have been carried out.
    Lost(String),
    /// It was not, and may be the next time.
    Again(Error),
    /// It was not, and would not be.
    Failed(Error),
}

fn outcomes(writes: &[Write], rows: &[Row]) -> Result<Vec<Outcome>, Fault> {
    if rows.len() != writes.len() {
        return Err(Fault::Damaged(format!("{} outcomes for {} writes", rows.len(), writes.len())));
    }
    let unreadable = |error: tokio_postgres::Error| Fault::Damaged(words(&error));
    let outcome = |(write, row): (&Write, &Row)| {
        if let Some(done) = row.try_get::<_, Option<i64>>(1).map_err(unreadable)? {
            return Ok(Outcome::Done(Revision(done.cast_unsigned())));
        }
        let found: Option<i64> = row.try_get(2).map_err(unreadable)?;
        let content: Option<&[u8]> = row.try_get(3).map_err(unreadable)?;
        let there = |(found, content): (i64, &[u8])| Stored {
            key: Key::clone(&write.key),
            value: bytes::Bytes::copy_from_slice(content),
            revision: Revision(found.cast_unsigned()),
        };
        Ok(Outcome::Clash(found.zip(content).map(there)))
    };
    writes.iter().zip(rows).map(outcome).collect()
}

/// As `keelson.admits` reads it.
fn expectation(expect: Expect) -> i64 {
    match expect {
        Expect::Absent => -1,
        Expect::Any => -2,
        Expect::At(revision) => signed(revision.0),
    }
}

/// Revisions beyond what PostgreSQL can count are expected by nobody and found nowhere.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What is waiting and fits into one statement with `first`, and the batch after that, if it was taken.
/// No two batches of a statement write the same key: those of one batch may.
fn collect(first: Waiting, queue: &mut mpsc::Receiver<Waiting>) -> (Vec<Waiting>, Option<Waiting>) {
    let size = |batch: &[Write]| -> usize {
        batch.iter().map(|write| 64 + write.value.as_ref().map_or(0, bytes::Bytes::len)).sum()
    };
    let (mut bytes, mut writes) = (size(&first.batch), first.batch.len());
    let mut keys: HashSet<Key> = first.batch.iter().map(|write| write.key.clone()).collect();
    let mut group = vec![first];
    while let Ok(next) = queue.try_recv() {
        bytes += size(&next.batch);
        writes += next.batch.len();
        let meets = next.batch.iter().any(|write| keys.contains(&write.key));
        if meets || bytes > GROUP_BYTES || writes > GROUP_WRITES {
            return (group, Some(next));
        }
        keys.extend(next.batch.iter().map(|write| write.key.clone()));
        group.push(next);
    }
    (group, None)
}
