//! Twenty watches, each projected while it is decoded, into one channel.
//!
//! The channel is bounded: a reader that falls behind slows the watches down, and a watch that stands for
//! too long is answered with 410 by the API server and lists again, which loses nothing.

use std::{pin::Pin, pin::pin, sync::Arc};

use futures::StreamExt;
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use meta::Random;
use reconcile::Backoff;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    Kind,
    project::{Inventory, Projected, Visit, visit},
    watched::Watched,
};

/// Objects of one page of a list: some 1 MB of Pods while it is read.
pub(super) const PAGE_SIZE: u32 = 100;
/// First lists at once: each holds a page, here and at the API server.
const LISTS_MAX: usize = 3;

/// What a watch said.
#[derive(Debug)]
pub(crate) enum Observed {
    /// A list begins.
    Begin(Kind),
    /// An object is so.
    Seen(Projected),
    /// An object is gone.
    Gone(Projected),
    /// The list is complete.
    End(Kind),
    /// The kind cannot be read now; the text is for the user.
    Failed(Kind, String),
}

type Feed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The watches of all kinds; each runs until it is dropped or nobody reads.
pub(crate) fn feeds(
    client: &kube::Client,
    random: &Arc<dyn Random>,
    to: &mpsc::Sender<Observed>,
) -> Vec<Feed> {
    struct Start {
        client: kube::Client,
        random: Arc<dyn Random>,
        permits: Arc<Semaphore>,
        to: mpsc::Sender<Observed>,
    }
    impl Visit for Start {
        type Output = Feed;
        fn visit<I: Inventory>(self) -> Feed {
            Box::pin(feed::<I>(self.client, self.random, self.permits, self.to))
        }
    }
    let permits = Arc::new(Semaphore::new(LISTS_MAX));
    Kind::ALL
        .into_iter()
        .map(|kind| {
            let start = Start {
                client: client.clone(),
                random: Arc::clone(random),
                permits: Arc::clone(&permits),
                to: to.clone(),
            };
            visit(kind, start)
        })
        .collect()
}

async fn feed<I: Inventory>(
    client: kube::Client,
    random: Arc<dyn Random>,
    permits: Arc<Semaphore>,
    to: mpsc::Sender<Observed>,
) {
    let kind = I::KIND;
    // Closed never: the semaphore lives as long as its last feed.
    let mut permit = permits.acquire_owned().await.ok();
    let config = watcher::Config::default().page_size(PAGE_SIZE);
    let mut events = pin!(watcher(Api::<Watched<I>>::all(client), config));
    let mut failures = 0_u32;
    while let Some(event) = events.next().await {
        let observed = match event {
            Ok(Event::Init) => Observed::Begin(kind),
            Ok(Event::InitApply(watched) | Event::Apply(watched)) => Observed::Seen(watched.object),
            Ok(Event::Delete(watched)) => Observed::Gone(watched.object),
            Ok(Event::InitDone) => {
                permit = None;
                Observed::End(kind)
            }
            Err(error) => {
                // Others need not wait for a kind that fails.
                permit = None;
                failures = failures.saturating_add(1);
                let wait = Backoff::WATCH.after(failures, &*random);
                let text = reason(&error);
                tracing::debug!(
                    kind = kind.name(),
                    failures,
                    ?wait,
                    error = text,
                    "watch failed, trying again"
                );
                if to.send(Observed::Failed(kind, text)).await.is_err() {
                    return;
                }
                tokio::time::sleep(wait).await;
                continue;
            }
        };
        failures = 0;
        if to.send(observed).await.is_err() {
            return;
        }
    }
    drop(permit);
}

/// The API server's words where it has some. A text of the decoder is left out: it may quote what it read.
fn reason(error: &watcher::Error) -> String {
    let status = match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => match source {
            kube::Error::Api(status) => Some(&**status),
            kube::Error::SerdeError(_) => return "the API server's answer could not be decoded".to_owned(),
            _ => None,
        },
        watcher::Error::WatchError(status) => Some(&**status),
        _ => None,
    };
    status.map_or_else(|| error.to_string(), |status| status.message.clone())
}
