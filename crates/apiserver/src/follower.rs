//! Keeps the cache with a store that others write to as well: follows its stream, loads anew when history is
//! gone, and says when this server must stop.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use meta::{Revision, Status};
use store::{Error, Store};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{Cache, Registry, merge::Merge};

/// Changes applied together at most; between two such rounds readers and the committer have their turn.
const ROUND_MAX: usize = 1_024;
/// Pause before a stream that broke is begun anew.
const AGAIN: Duration = Duration::from_millis(200);
/// Reads that wait to be let in to the next question for the head; further ones wait to wait.
const ASKING_MAX: usize = 4_096;

/// Why a server can no longer follow its store; `None` while it can.
pub(crate) type Broken = watch::Sender<Option<String>>;

/// Follows until the store says that there is no use in it; then tells `broken` why and answers what waits.
pub(crate) async fn run(
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    registry: Arc<Registry>,
    merge: Arc<Merge>,
    broken: Arc<Broken>,
) {
    let why = loop {
        match follow(&*store, &cache, &merge).await {
            End::Stop(why) => break why,
            End::Again(why) => tracing::warn!(why, "the stream of changes broke, beginning anew"),
            End::Compacted => match Cache::gather(&*store, &registry).await {
                Ok(gathered) => {
                    let at = gathered.revision;
                    if !merge.reload(gathered) {
                        break format!("the store went back to revision {at}");
                    }
                    tracing::warn!(revision = %at, "history was compacted before it was seen here: loaded everything anew");
                    continue;
                }
                Err(error) => tracing::warn!(error = chain(&error), "load the store anew"),
            },
        }
        tokio::time::sleep(AGAIN).await;
    };
    tracing::error!(why, "this server can no longer follow its store");
    merge.give_up();
    broken.send_replace(Some(why));
}

enum End {
    Stop(String),
    Again(String),
    Compacted,
}

async fn follow(store: &dyn Store, cache: &Cache, merge: &Merge) -> End {
    let mut changes = store.follow(cache.head()).ready_chunks(ROUND_MAX);
    while let Some(round) = changes.next().await {
        let mut error = None;
        let mut good = Vec::with_capacity(round.len());
        for change in round {
            match change {
                Ok(change) => good.push(change),
                Err(why) => error = Some(why),
            }
        }
        if let Err(damaged) = merge.followed(good) {
            return End::Stop(chain(&damaged));
        }
        match error {
            None => {}
            Some(Error::Compacted { .. }) => return End::Compacted,
            Some(error @ (Error::Deposed { .. } | Error::Stopped { .. } | Error::Damaged { .. })) => {
                return End::Stop(error.to_string());
            }
            Some(error) => return End::Again(chain(&error)),
        }
    }
    End::Stop("the store's stream of changes ended".to_owned())
}

/// A question for the newest revision of the store.
pub(crate) type Asked = oneshot::Sender<Result<Revision, Status>>;

/// A queue of questions for [`answer`].
pub(crate) fn questions() -> (mpsc::Sender<Asked>, mpsc::Receiver<Asked>) {
    mpsc::channel(ASKING_MAX)
}

/// Asks the store for its head, once for all who wait; those who come meanwhile need the next answer, since
/// this one may be older than what they must see. Ends when nobody can ask any more.
pub(crate) async fn answer(store: Arc<dyn Store>, mut asked: mpsc::Receiver<Asked>) {
    let mut waiting: Vec<Asked> = Vec::new();
    while asked.recv_many(&mut waiting, ASKING_MAX).await > 0 {
        let head = store.head().await.map(|head| head.revision).map_err(|error| refused(&error));
        for one in waiting.drain(..) {
            // Whoever asked may have gone.
            drop(one.send(head.clone()));
        }
    }
}

/// Storage failures that the client should see as what they are.
pub(crate) fn refused(error: &Error) -> Status {
    match error {
        Error::DiskFull { .. } => Status::new(507, meta::Reason::InternalError, error.to_string()),
        Error::TooLarge { .. } => Status::new(413, meta::Reason::RequestEntityTooLarge, error.to_string()),
        Error::Unknown { .. } => Status::new(504, meta::Reason::Timeout, error.to_string()),
        Error::Backend { .. } | Error::Deposed { .. } | Error::Stopped { .. } => {
            Status::new(503, meta::Reason::ServiceUnavailable, chain(error)).retry_after(1)
        }
        other => Status::internal(other),
    }
}

/// An error and its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
