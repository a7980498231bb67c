//! One metadata-only watch for each resource that discovery names. A resource that appears (a CRD) is
//! watched within a second of its CRD's event, or with the next look at discovery after 30 s
//! (upstream's period); one that goes is dropped.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    Api,
    core::{ApiResource, DynamicObject, PartialObjectMeta},
    runtime::watcher::{Config, Event, watcher},
};
use reconcile::{Backoff, CancellationToken, Context, Kind};
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
};

use super::Graph;
use crate::discovery::{Discovered, Found, discover};

const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
/// A CRD takes a moment from its event to being served.
const CRD_SETTLES: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub(crate) async fn monitors(graph: Arc<Graph>, cx: Context, stop: CancellationToken) {
    let mut monitors = Monitors {
        graph,
        cx,
        crd_changed: Arc::default(),
        tasks: JoinSet::new(),
        running: HashMap::new(),
        listed: watch::Sender::new(0),
    };
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let wait = match discover(&monitors.cx.client).await {
            Ok(discovered) => {
                failures = 0;
                monitors.follow(discovered);
                DISCOVERY_PERIOD
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                tracing::debug!(error = error.text(), "garbage collector cannot discover resources");
                Backoff::WATCH.after(failures, &*monitors.cx.random)
            }
        };
        let mut listed = monitors.listed.subscribe();
        let all = monitors.running.len();
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
            () = async {
                monitors.crd_changed.notified().await;
                tokio::time::sleep(CRD_SETTLES).await;
            } => {}
            // Completes once; after that only the other branches end the wait.
            () = async {
                drop(listed.wait_for(|count| failures == 0 && *count >= all).await);
                monitors.graph.complete();
                std::future::pending::<()>().await;
            } => {}
        }
    }
    monitors.tasks.shutdown().await;
}

struct Monitors {
    graph: Arc<Graph>,
    cx: Context,
    crd_changed: Arc<Notify>,
    tasks: JoinSet<()>,
    running: HashMap<Arc<Kind>, AbortHandle>,
    /// How many watches have had their first full list.
    listed: watch::Sender<usize>,
}

impl Monitors {
    fn follow(&mut self, discovered: Discovered) {
        let watched = |found: &&Found| {
            // Events have no dependents and nobody waits for them; upstream ignores them as well.
            found.can(&["list", "watch", "delete"]) && found.kind.plural != "events"
        };
        let kinds: Vec<Kind> =
            discovered.resources.iter().filter(watched).map(|found| found.kind.clone()).collect();
        let unsure =
            |kind: &Kind| discovered.failed.iter().any(|f| f.starts_with(&format!("{}/", kind.group)));
        let gone: Vec<Arc<Kind>> =
            self.running.keys().filter(|kind| !kinds.contains(kind) && !unsure(kind)).cloned().collect();
        self.graph.set_resources(discovered.resources);
        for kind in gone {
            if let Some(task) = self.running.remove(&kind) {
                task.abort();
            }
            self.graph.drop_kind(&kind);
            self.listed.send_modify(|count| *count = count.saturating_sub(1));
        }
        for kind in kinds {
            if !self.running.contains_key(&kind) {
                let kind = Arc::new(kind);
                let task = self.tasks.spawn(self.monitor(Arc::clone(&kind)));
                self.running.insert(kind, task);
            }
        }
    }

    fn monitor(&self, kind: Arc<Kind>) -> impl Future<Output = ()> + Send + use<> {
        let resource = ApiResource {
            group: kind.group.to_string(),
            version: kind.version.to_string(),
            api_version: kind.api_version(),
            kind: kind.kind.to_string(),
            plural: kind.plural.to_string(),
        };
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(self.cx.client.clone(), &resource);
        let (graph, random, listed) =
            (Arc::clone(&self.graph), Arc::clone(&self.cx.random), self.listed.clone());
        let crd_changed = (kind.plural == "customresourcedefinitions").then(|| Arc::clone(&self.crd_changed));
        async move {
            let mut events = pin!(watcher(api, Config::default()));
            let (mut failures, mut first) = (0_u32, true);
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        failures = 0;
                        let done = matches!(event, Event::InitDone);
                        graph.take(&kind, metadata_of(event));
                        if done && std::mem::take(&mut first) {
                            listed.send_modify(|count| *count += 1);
                        }
                        if let Some(changed) = &crd_changed {
                            changed.notify_one();
                        }
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        let wait = Backoff::WATCH.after(failures, &*random);
                        tracing::debug!(%kind, error = reconcile::text(&error), ?wait, "garbage collector's watch failed, trying again");
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        }
    }
}

fn metadata_of(
    event: Event<PartialObjectMeta<DynamicObject>>,
) -> Event<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta> {
    match event {
        Event::Apply(object) => Event::Apply(object.metadata),
        Event::Delete(object) => Event::Delete(object.metadata),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(object.metadata),
        Event::InitDone => Event::InitDone,
    }
}
