//! The pods of this node and their tasks: who is new, who is gone, who is to be woken.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, stream::BoxStream};
use k8s_openapi::{
    api::core::v1::{Node, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api,
    runtime::watcher::{self, watcher},
};
use runtime::{Event, ObservedPod};
use tokio::{
    sync::{Notify, watch},
    task::{Id, JoinSet},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::{
    Agent,
    worker::{Want, Worker},
};
use crate::{
    admission::{self, NodeView},
    node::object::extended,
    plan::Rejection,
    pod, sandbox,
};

/// Wait after a watch failed, before jitter.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// How long a pod that is about to be refused waits for what the API server says of the node.
const NODE_READ_MAX: Duration = Duration::from_secs(10);

/// Every pod that has a task.
#[derive(Default)]
pub(crate) struct Pods(Mutex<HashMap<String, Handle>>);

struct Handle {
    want: watch::Sender<Want>,
    wake: Arc<Notify>,
    rejected: bool,
}

impl Pods {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All pods, for the kubelet API.
    pub(crate) fn list(&self) -> Vec<Arc<Pod>> {
        let pods = self.lock();
        pods.values()
            .map(|handle| handle.want.borrow())
            .filter(|want| !want.gone)
            .map(|want| Arc::clone(&want.pod))
            .collect()
    }

    /// The pod of this namespace and name, and its uid when one is given.
    pub(crate) fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>> {
        let is_it = |want: &Pod| {
            pod::namespace(want) == namespace
                && pod::name(want) == name
                && uid.is_none_or(|uid| pod::uid(want) == uid)
        };
        self.list().into_iter().find(|want| is_it(want))
    }

    fn wake(&self, uid: &str) {
        if let Some(handle) = self.lock().get(uid) {
            handle.wake.notify_one();
        }
    }

    fn wake_all(&self) {
        for handle in self.lock().values() {
            handle.wake.notify_one();
        }
    }

    /// Pods that hold resources of the node.
    pub(super) fn active(&self) -> Vec<Arc<Pod>> {
        let pods = self.lock();
        let live = pods.values().filter(|handle| !handle.rejected).map(|handle| handle.want.borrow());
        live.filter(|want| !pod::is_terminal(pod::phase(&want.pod)))
            .map(|want| Arc::clone(&want.pod))
            .collect()
    }
}

/// Keeps a task for each pod until told to stop; then ends them.
pub(super) async fn run(agent: Arc<Agent>, stop: CancellationToken) {
    let mut registry = Registry {
        agent: Arc::clone(&agent),
        stop: stop.clone(),
        workers: JoinSet::new(),
        uids: HashMap::new(),
        listed: BTreeSet::new(),
        synced: false,
        swept: false,
    };
    let pods: Api<Pod> = Api::all(agent.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", agent.options.name));
    let mut changes = paced(Arc::clone(&agent), watcher(pods, config));
    let mut events = agent.runtime.events();
    let mut relist = tokio::time::interval(agent.options.relist);
    relist.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            change = changes.next() => match change {
                Some(Ok(change)) => registry.change(change).await,
                Some(Err(error)) => tracing::warn!(error = reconcile::text(&error), "cannot watch the pods of this node"),
                None => changes = paced(Arc::clone(&agent), watcher(
                    Api::all(agent.client.clone()),
                    watcher::Config::default().fields(&format!("spec.nodeName={}", agent.options.name)),
                )),
            },
            event = events.next() => match event {
                Some(Event::Pod { uid }) => agent.pods.wake(&uid),
                Some(Event::Lost) => agent.pods.wake_all(),
                None => {
                    events = later(agent.runtime.as_ref());
                    agent.pods.wake_all();
                }
            },
            Some(ended) = registry.workers.join_next_with_id(), if !registry.workers.is_empty() => registry.ended(ended),
            _ = relist.tick() => {
                agent.pods.wake_all();
                registry.sweep().await;
            }
        }
    }
    while let Some(ended) = registry.workers.join_next_with_id().await {
        registry.ended(ended);
    }
}

/// The runtime's events after it was unreachable: not at once, so that a runtime that is away is not
/// asked in a busy loop.
fn later(runtime: &dyn runtime::Runtime) -> BoxStream<'static, Event> {
    let events = runtime.events();
    let pause = futures::stream::once(async {
        tokio::time::sleep(WATCH_RETRY).await;
        Event::Lost
    });
    pause.chain(events).boxed()
}

/// A watch that waits a moment after each failure; `kube` itself retries at once.
pub(super) fn paced<T: Send + 'static>(
    agent: Arc<Agent>,
    stream: impl Stream<Item = watcher::Result<watcher::Event<T>>> + Send + 'static,
) -> BoxStream<'static, watcher::Result<watcher::Event<T>>> {
    stream
        .then(move |item| {
            let jitter = Duration::from_millis(agent.options.random.below(500));
            async move {
                if item.is_err() {
                    tokio::time::sleep(WATCH_RETRY + jitter).await;
                }
                item
            }
        })
        .boxed()
}

struct Registry {
    agent: Arc<Agent>,
    stop: CancellationToken,
    workers: JoinSet<()>,
    uids: HashMap<Id, String>,
    /// Uids of the list that is being received.
    listed: BTreeSet<String>,
    /// The first list is complete.
    synced: bool,
    /// What an earlier run left behind has been taken care of.
    swept: bool,
}

impl Registry {
    async fn change(&mut self, change: watcher::Event<Pod>) {
        match change {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(want) => {
                self.listed.insert(pod::uid(&want).to_owned());
                self.apply(want).await;
            }
            watcher::Event::InitDone => {
                self.gone_since_list();
                self.synced = true;
                self.sweep().await;
            }
            watcher::Event::Apply(want) => self.apply(want).await,
            watcher::Event::Delete(want) => self.gone(pod::uid(&want)),
        }
    }

    async fn apply(&mut self, want: Pod) {
        let uid = pod::uid(&want).to_owned();
        let want = pod::lean(want);
        let known = {
            let pods = self.agent.pods.lock();
            pods.get(&uid).map(|handle| {
                handle.want.send_replace(Want { pod: Arc::clone(&want), gone: false });
            })
        };
        if known.is_none() {
            let rejected = self.admit(&want).await;
            self.spawn(uid, Want { pod: want, gone: false }, rejected);
        }
    }

    /// Whether the node takes a pod that it sees for the first time. One that has begun here is not
    /// asked again.
    async fn admit(&self, want: &Pod) -> Option<Rejection> {
        let begun = want.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if begun || pod::is_deleting(want) || pod::is_terminal(pod::phase(want)) {
            return None;
        }
        let others = self.agent.pods.active();
        let refuse = |node: &NodeView| admission::refuse(want, others.iter().map(AsRef::as_ref), node);
        let view = self.agent.view().node;
        refuse(&view)?;
        // The scheduler may have read a label or a resource that was changed after the last heartbeat.
        refuse(&self.newest(view).await)
    }

    /// The node as the API server has it now; as last seen where that cannot be said.
    async fn newest(&self, mut view: NodeView) -> NodeView {
        let nodes: Api<Node> = Api::all(self.agent.client.clone());
        if let Ok(Ok(Some(node))) = tokio::time::timeout(NODE_READ_MAX, nodes.get_opt(&view.name)).await {
            view.labels = node.metadata.labels.unwrap_or_default();
            if let Some(status) = &node.status {
                view.allocatable.extend(extended(status));
            }
        }
        view
    }

    fn spawn(&mut self, uid: String, want: Want, rejected: Option<Rejection>) {
        let wake = Arc::new(Notify::new());
        let is_rejected = rejected.is_some();
        let (sender, wants) = watch::channel(want);
        let worker = Worker::new(Arc::clone(&self.agent), wants, Arc::clone(&wake), rejected);
        let task = self.workers.spawn(worker.run(self.stop.clone()));
        self.uids.insert(task.id(), uid.clone());
        self.agent.pods.lock().insert(uid, Handle { want: sender, wake, rejected: is_rejected });
    }

    fn gone(&self, uid: &str) {
        if let Some(handle) = self.agent.pods.lock().get(uid) {
            handle.want.send_modify(|want| want.gone = true);
        }
    }

    /// Pods that a complete list no longer has.
    fn gone_since_list(&self) {
        let pods = self.agent.pods.lock();
        for (_, handle) in pods.iter().filter(|(uid, _)| !self.listed.contains(*uid)) {
            handle.want.send_modify(|want| want.gone = true);
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some(uid) = self.uids.remove(&id) else { return };
        let handle = self.agent.pods.lock().remove(&uid);
        if let (Err(error), Some(handle)) = (ended, handle) {
            // A defect of ours must not leave a pod without an agent.
            tracing::error!(uid, %error, "the task of a pod failed unexpectedly and is started anew");
            let want = handle.want.borrow().clone();
            self.spawn(uid, want, None);
        }
    }

    /// Once the pods are known: stops what the runtime has of others, and removes their files.
    async fn sweep(&mut self) {
        if !self.synced || self.swept {
            return;
        }
        let observed = match self.agent.runtime.observe().await {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(%error, "cannot look for pods of an earlier run yet");
                return;
            }
        };
        let mut orphans: Vec<Pod> = observed.iter().map(orphan).collect();
        match self.agent.options.host.pods().await {
            Ok(uids) => {
                let seen: BTreeSet<&str> = observed.iter().map(|pod| pod.uid.as_str()).collect();
                orphans
                    .extend(uids.iter().filter(|uid| !seen.contains(uid.as_str())).map(|uid| nameless(uid)));
            }
            Err(error) => tracing::warn!(%error, "cannot look for files of pods of an earlier run"),
        }
        self.swept = true;
        for pod in orphans {
            let uid = pod::uid(&pod).to_owned();
            let known = self.agent.pods.lock().contains_key(&uid);
            if !known {
                tracing::info!(pod = %pod::long_name(&pod), "removing what is left of a pod that no longer exists");
                self.spawn(uid, Want { pod: Arc::new(pod), gone: true }, None);
            }
        }
    }
}

/// A pod of which only the runtime knows.
fn orphan(observed: &ObservedPod) -> Pod {
    let grace = observed.sandbox().and_then(|sandbox| sandbox.annotations.get(sandbox::GRACE)?.parse().ok());
    Pod {
        metadata: ObjectMeta {
            uid: Some(observed.uid.clone()),
            namespace: Some(observed.namespace.clone()),
            name: Some(observed.name.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { termination_grace_period_seconds: grace, ..PodSpec::default() }),
        status: None,
    }
}

/// A pod of which only a directory is left.
fn nameless(uid: &str) -> Pod {
    Pod { metadata: ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() }, ..Pod::default() }
}
