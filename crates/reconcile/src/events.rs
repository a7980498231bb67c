//! A watch that never ends: what every cache of a process is fed by.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Resource,
    runtime::watcher::{self, Event, watcher},
};
use meta::Random;
use serde::de::DeserializeOwned;

use crate::{Backoff, Kind, error::text};

/// The list and then the changes of a kind, for ever. After an error the watch is taken up again where it was, or with
/// a list where the API server has forgotten that revision, after a wait of [`Backoff::WATCH`].
pub fn events<K>(
    api: Api<K>,
    config: watcher::Config,
    random: Arc<dyn Random>,
) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = Kind::of::<K>();
    let state = (watcher(api, config).boxed(), 0_u32, kind, random);
    stream::unfold(state, |(mut watch, mut failures, kind, random)| async move {
        loop {
            match watch.next().await? {
                Ok(event) => {
                    // The beginning of a list is no success: it comes before the API server is asked.
                    if !matches!(event, Event::Init) {
                        failures = 0;
                    }
                    return Some((event, (watch, failures, kind, random)));
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let wait = Backoff::WATCH.after(failures, &*random);
                    tracing::debug!(%kind, failures, ?wait, error = text(&error), "watch failed, trying again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    })
}
