//! The scheduler without I/O: changes of objects go in, steps to carry out come out, their outcomes
//! go in again.
//!
//! Guarantees: a decided pod is counted on its node until its binding is seen or given up, so two
//! decisions never use the same room; what the API server shows always wins over what was assumed;
//! the same changes, outcomes and times give the same steps.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use meta::ObjectKey;

use crate::{
    classes::Classes,
    decide::{Decision, Unfit},
    node::NodeInfo,
    plugins::Wake,
    pod::PodInfo,
    profile::Profile,
    queue::Queue,
    relations::Labels,
    snapshot::Snapshot,
    volumes::{Bindings, Claim, Progress, StorageClass, Volume},
};

/// How long a pod's claims may take to be bound (upstream `VolumeBindingArgs.bindTimeoutSeconds`).
const VOLUMES_WAIT_MAX: Duration = Duration::from_secs(600);

/// Something that happened in the cluster.
#[derive(Debug)]
pub enum Change {
    /// A pod was added or changed.
    Pod(Box<PodInfo>),
    /// A pod is gone.
    PodGone(Arc<str>),
    /// A node was added or changed.
    Node(Box<NodeInfo>),
    /// A node is gone.
    NodeGone(String),
    /// A claim was added or changed.
    Claim(Box<Claim>),
    /// A claim is gone.
    ClaimGone(ObjectKey),
    /// A volume was added or changed.
    Volume(Box<Volume>),
    /// A volume is gone.
    VolumeGone(String),
    /// A class was added or changed.
    Class(Box<StorageClass>),
    /// A class is gone.
    ClassGone(String),
    /// A namespace was added or changed: its name and labels.
    Namespace(String, Labels),
    /// A namespace is gone.
    NamespaceGone(String),
}

/// Something to carry out.
#[derive(Clone, Debug)]
pub enum Step {
    /// Write these volume bindings, then report with [`Core::volumes_written`].
    WriteVolumes {
        /// The pod they are for.
        pod: Arc<PodInfo>,
        /// Its node.
        node: Arc<str>,
        /// What to write.
        bindings: Bindings,
    },
    /// Bind the pod, then report with [`Core::bound`].
    Bind {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Its node.
        node: Arc<str>,
    },
    /// Tell that the pod fits nowhere; nothing to report.
    Tell {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why.
        why: Arc<Unfit>,
        /// It was last told so long ago that it bears repeating.
        remind: bool,
    },
}

/// The whole state of a scheduler.
#[derive(Debug)]
pub struct Core {
    name: Arc<str>,
    profile: Profile,
    snapshot: Snapshot,
    classes: Classes,
    queue: Queue,
    assumed: HashMap<Arc<str>, Assumed>,
    waiting: BTreeMap<Arc<str>, Duration>,
    ready: BTreeSet<Arc<str>>,
}

/// A decision whose binding is under way.
#[derive(Debug)]
struct Assumed {
    node: Arc<str>,
    bindings: Bindings,
}

impl Core {
    /// A scheduler for pods whose `schedulerName` is `name`.
    pub fn new(name: &str, profile: Profile) -> Self {
        Self {
            name: name.into(),
            profile,
            snapshot: Snapshot::new(),
            classes: Classes::default(),
            queue: Queue::new(),
            assumed: HashMap::new(),
            waiting: BTreeMap::new(),
            ready: BTreeSet::new(),
        }
    }

    /// Takes note of a change.
    pub fn apply(&mut self, now: Duration, change: Change) {
        match change {
            Change::Pod(pod) => self.apply_pod(now, *pod),
            Change::PodGone(uid) => {
                self.queue.remove(&uid);
                self.give_back(now, &uid);
            }
            Change::Node(node) => self.apply_node(now, *node),
            Change::NodeGone(name) => self.snapshot.remove_node(&name),
            Change::Claim(claim) => {
                self.snapshot.volumes.set_claim(*claim);
                self.volumes_changed(now);
            }
            Change::ClaimGone(key) => {
                self.snapshot.volumes.remove_claim(&key);
                self.volumes_changed(now);
            }
            Change::Volume(volume) => {
                self.snapshot.volumes.set_volume(*volume);
                self.volumes_changed(now);
            }
            Change::VolumeGone(name) => {
                self.snapshot.volumes.remove_volume(&name);
                self.volumes_changed(now);
            }
            Change::Class(class) => {
                self.snapshot.volumes.set_class(*class);
                self.volumes_changed(now);
            }
            Change::ClassGone(name) => self.snapshot.volumes.remove_class(&name),
            Change::Namespace(name, labels) => self.snapshot.set_namespace(&name, Some(labels)),
            Change::NamespaceGone(name) => self.snapshot.set_namespace(&name, None),
        }
    }

    /// The next step, if there is anything to do now.
    pub fn next(&mut self, now: Duration) -> Option<Step> {
        self.queue.flush(now);
        if let Some(step) = self.next_ready(now) {
            return Some(step);
        }
        let pod = self.queue.pop()?;
        match self.classes.decide(&pod, &self.snapshot, &self.profile) {
            Decision::Place(placement) => {
                self.snapshot.set_pod(&pod, &placement.node);
                self.queue.wake(now, Wake::POD_PLACED);
                self.snapshot.volumes.assume(&placement.bindings, &placement.node);
                let (node, bindings) = (placement.node, placement.bindings);
                let assumed = Assumed { node: Arc::clone(&node), bindings: bindings.clone() };
                self.assumed.insert(Arc::clone(&pod.uid), assumed);
                Some(if bindings.is_empty() {
                    Step::Bind { pod, node }
                } else {
                    Step::WriteVolumes { pod, node, bindings }
                })
            }
            Decision::Unfit(why) => {
                self.queue.reject(now, &pod.uid, why.wake);
                let remind = self.queue.remind(now, &pod.uid);
                Some(Step::Tell { pod, why, remind })
            }
        }
    }

    /// When [`Core::next`] may have something to do although nothing happened.
    pub fn next_at(&self) -> Option<Duration> {
        self.queue.next_flush().into_iter().chain(self.waiting.values().copied()).min()
    }

    /// The outcome of [`Step::WriteVolumes`].
    pub fn volumes_written(&mut self, now: Duration, uid: &str, done: bool) {
        if !done {
            return self.give_up(now, uid);
        }
        if let Some((uid, _)) = self.assumed.get_key_value(uid) {
            let uid = Arc::clone(uid);
            self.waiting.insert(Arc::clone(&uid), now + VOLUMES_WAIT_MAX);
            self.check_volumes(now, &uid);
        }
    }

    /// The outcome of [`Step::Bind`]. A bound pod stays assumed until the watch shows it.
    pub fn bound(&mut self, now: Duration, uid: &str, done: bool) {
        if !done {
            self.give_up(now, uid);
        }
    }

    /// The cluster as counted now.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The pods that wait.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The plugins in use.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    fn apply_pod(&mut self, now: Duration, pod: PodInfo) {
        let uid = Arc::clone(&pod.uid);
        if let (Some(node), false) = (&pod.node_name, pod.terminal) {
            self.queue.remove(&uid);
            self.settle(&uid);
            if self.snapshot.set_pod(&pod, node) {
                self.queue.wake(now, Wake::POD_PLACED);
            }
            return;
        }
        if pod.terminal || pod.deleting {
            self.queue.remove(&uid);
            return self.give_back(now, &uid);
        }
        if pod.scheduler_name == self.name {
            self.queue.push(now, Arc::new(pod));
        }
    }

    fn apply_node(&mut self, now: Duration, node: NodeInfo) {
        let known = self.snapshot.slot(&node.name).and_then(|slot| self.snapshot.node(slot));
        let wake = match known {
            None => Wake::NODE_ADDED,
            Some(old) => {
                let when = |changed: bool, wake| if changed { wake } else { Wake::NOTHING };
                when(old.labels != node.labels, Wake::NODE_LABELS)
                    | when(
                        old.taints != node.taints || old.unschedulable != node.unschedulable,
                        Wake::NODE_TAINTS,
                    )
                    | when(
                        old.allocatable != node.allocatable || old.pods_max != node.pods_max,
                        Wake::NODE_ALLOCATABLE,
                    )
            }
        };
        if self.snapshot.set_node(node) {
            self.queue.wake(now, wake);
        }
    }

    /// A pod holds nothing any more.
    fn give_back(&mut self, now: Duration, uid: &str) {
        self.settle(uid);
        if self.snapshot.remove_pod(uid) {
            self.queue.wake(now, Wake::POD_GONE);
        }
    }

    /// A decision came to pass or was given up.
    fn settle(&mut self, uid: &str) {
        if let Some(assumed) = self.assumed.remove(uid) {
            self.snapshot.volumes.forget(&assumed.bindings);
            self.waiting.remove(uid);
            self.ready.remove(uid);
        }
    }

    /// A decision did not come to pass; the pod is decided again after its backoff.
    fn give_up(&mut self, now: Duration, uid: &str) {
        // Not assumed any more: the watch has shown the pod bound or gone, and that stands.
        if self.assumed.contains_key(uid) {
            self.give_back(now, uid);
            self.queue.retry(now, uid);
        }
    }

    fn volumes_changed(&mut self, now: Duration) {
        self.queue.wake(now, Wake::VOLUMES);
        let waiting: Vec<Arc<str>> = self.waiting.keys().cloned().collect();
        for uid in waiting {
            self.check_volumes(now, &uid);
        }
    }

    /// Looks whether a waiting pod's claims are bound by now.
    fn check_volumes(&mut self, now: Duration, uid: &Arc<str>) {
        let Some(&deadline) = self.waiting.get(uid) else { return };
        let (Some(assumed), Some(pod)) = (self.assumed.get(uid), self.queue.get(uid)) else { return };
        let node = self.snapshot.slot(&assumed.node).and_then(|slot| self.snapshot.node(slot));
        let progress = match node {
            Some(node) => self.snapshot.volumes.progress(&pod.shape, &node.name, &node.labels),
            None => Progress::Failed(format!("node {} is gone", assumed.node)),
        };
        match progress {
            Progress::Bound => {
                self.waiting.remove(uid);
                self.ready.insert(Arc::clone(uid));
            }
            Progress::Waiting if now < deadline => {}
            Progress::Waiting | Progress::Failed(_) => {
                tracing::warn!(pod = %pod.key, node = %assumed.node, ?progress, "claims of pod were not bound, placing it anew");
                self.give_up(now, uid);
            }
        }
    }

    /// A pod whose claims are bound now; gives up those whose claims took too long.
    fn next_ready(&mut self, now: Duration) -> Option<Step> {
        let late = self.waiting.iter().filter(|(_, deadline)| **deadline <= now);
        for uid in late.map(|(uid, _)| Arc::clone(uid)).collect::<Vec<_>>() {
            self.check_volumes(now, &uid);
        }
        while let Some(uid) = self.ready.pop_first() {
            if let (Some(assumed), Some(pod)) = (self.assumed.get(&uid), self.queue.get(&uid)) {
                return Some(Step::Bind { pod: Arc::clone(pod), node: Arc::clone(&assumed.node) });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
