//! The driver: watches the pods of one node and keeps a task for each ([`run`]).
//!
//! Guarantees: one pod never waits for another; every queue is bounded; the API server and the
//! runtime may go away and come back at any time; containers of known pods that are found running are
//! kept. Ends by stopping its tasks, not the containers.

mod collect;
mod events;
mod fetch;
mod heartbeat;
mod job;
mod local_volumes;
mod pods;
mod range;
mod rotate;
mod start;
mod stop;
mod usage;
mod volumes;
mod worker;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use kube::Client;
use runtime::Runtime;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{admission::NodeView, fields::Place, options::Options, server, status::NodeFacts};
pub use collect::Collection;
pub use local_volumes::LOCAL_PATH_FINALIZER;
pub use range::pod_cidr;

/// Pod statuses on their way to the API server at once, as upstream's status manager. A node full of pods
/// that start together must not take the places of the other nodes' requests.
const REPORTS_MAX: usize = 1;
/// Image pulls at once. More would only share the same disk and uplink; upstream pulls one by one.
const PULLS_MAX: usize = 4;

/// What stopped the agent before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kubelet API could not be served.
    #[error("serve the kubelet API: {0}")]
    Server(#[from] server::ServerError),
    /// A part of the agent ended with a panic.
    #[error("a part of the node agent ended unexpectedly: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// What all tasks of the agent share.
pub(crate) struct Agent {
    pub(crate) client: Client,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) options: Options,
    pub(crate) events: events::Events,
    pub(crate) pulls: Semaphore,
    pub(crate) reports: Semaphore,
    view: Mutex<View>,
    pub(crate) pods: pods::Pods,
}

/// What is known of the node itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) node: NodeView,
    pub(crate) uid: String,
    pub(crate) memory_bytes: u64,
}

impl Agent {
    pub(crate) fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_view(&self, view: View) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    pub(crate) fn facts(&self) -> NodeFacts {
        NodeFacts { host_ips: self.options.addresses.clone(), runtime: self.runtime.name().to_owned() }
    }

    pub(crate) fn place(&self, pod_ips: Vec<String>) -> Place {
        let allocatable = self.view().node.allocatable;
        Place { pod_ips, host_ips: self.options.addresses.clone(), allocatable }
    }

    pub(crate) fn now(&self) -> meta::Timestamp {
        self.options.clock.now()
    }
}

/// Runs the agent until `shutdown`. Containers keep running.
pub async fn run(
    client: Client,
    runtime: Arc<dyn Runtime>,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let (events, recorder) = events::channel(&options);
    let server = match &options.server {
        Some(server) => Some(server::bind(server).await?),
        None => None,
    };
    let view = View {
        node: NodeView { name: options.name.clone(), labels: BTreeMap::new(), allocatable: BTreeMap::new() },
        ..View::default()
    };
    let agent = Arc::new(Agent {
        client,
        runtime,
        options,
        events,
        pulls: Semaphore::new(PULLS_MAX),
        reports: Semaphore::new(REPORTS_MAX),
        view: Mutex::new(view),
        pods: pods::Pods::default(),
    });
    // The node is measured before the first pod is admitted; registering may take longer.
    heartbeat::measure_first(&agent).await;
    let mut parts: JoinSet<()> = JoinSet::new();
    let stop = shutdown.child_token();
    parts.spawn(until(stop.clone(), recorder.run(agent.client.clone())));
    parts.spawn(until(
        stop.clone(),
        heartbeat::keep_status(Arc::clone(&agent), server.as_ref().map(server::Bound::port)),
    ));
    parts.spawn(until(stop.clone(), heartbeat::keep_lease(Arc::clone(&agent))));
    parts.spawn(until(stop.clone(), rotate::run(Arc::clone(&agent))));
    if let Some(collection) = agent.options.image_collection {
        parts.spawn(until(stop.clone(), collect::run(Arc::clone(&agent), collection)));
    }
    if let Some(board) = agent.options.usage.clone() {
        parts.spawn(until(stop.clone(), usage::run(Arc::clone(&agent), board)));
    }
    if agent.options.clean_local_volumes {
        parts.spawn(until(stop.clone(), local_volumes::run(Arc::clone(&agent))));
    }
    parts.spawn(pods::run(Arc::clone(&agent), stop.clone()));
    if let Some(server) = server {
        parts.spawn(server.serve(Arc::clone(&agent), stop.clone()));
    }
    let mut failed = None;
    tokio::select! {
        () = shutdown.cancelled() => {}
        ended = parts.join_next() => if let Some(Err(error)) = ended {
            failed = Some(error);
        },
    }
    stop.cancel();
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = ended {
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Drops `work` when told to stop.
async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}
