//! Turns "read some changes after R" and "the head is now R" into the stream of `Store::follow`.

use std::{collections::VecDeque, future::Future};

use futures::{StreamExt, stream, stream::BoxStream};
use meta::Revision;
use tokio::sync::watch;

use crate::{Change, Result};

struct Cursor<R> {
    after: Revision,
    head: watch::Receiver<Revision>,
    ready: VecDeque<Change>,
    read: R,
    ended: bool,
}

/// The stream of [`crate::Store::follow`] for a backend in this process.
///
/// `head` shows the newest durable revision. `read(after)` gives a bounded number of the changes that
/// come next after `after`, in order: at least one when `after` is below the head, or
/// [`crate::Error::Compacted`]. The stream ends after an error, and when the sender of `head` is gone
/// and everything was delivered.
pub fn follow_with<'a, R, F>(
    after: Revision,
    head: watch::Receiver<Revision>,
    read: R,
) -> BoxStream<'a, Result<Change>>
where
    R: FnMut(Revision) -> F + Send + 'a,
    F: Future<Output = Result<Vec<Change>>> + Send + 'a,
{
    let start = Cursor { after, head, ready: VecDeque::new(), read, ended: false };
    stream::unfold(start, |mut cursor| async move {
        let item = cursor.next().await?;
        cursor.ended = item.is_err();
        Some((item, cursor))
    })
    .boxed()
}

impl<R, F> Cursor<R>
where
    R: FnMut(Revision) -> F,
    F: Future<Output = Result<Vec<Change>>>,
{
    /// Cancel-safe: what was read stays in `ready`, and `after` moves only with what is handed out.
    async fn next(&mut self) -> Option<Result<Change>> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(change) = self.ready.pop_front() {
                if change.revision <= self.after {
                    continue;
                }
                self.after = change.revision;
                return Some(Ok(change));
            }
            let after = self.after;
            self.head.wait_for(|head| *head > after).await.ok()?;
            match (self.read)(after).await {
                Ok(changes) => self.ready = changes.into(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
