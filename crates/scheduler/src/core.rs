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

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use meta::ObjectKey;

use crate::{
    budgets::Budget,
    classes::Classes,
    decide::{Decision, Placement, Unfit},
    node::NodeInfo,
    plugins::{Cycle, Reach, Wake},
    pod::PodInfo,
    preempt::Room,
    profile::Profile,
    queue::{Backoff, Queue},
    relations::Labels,
    snapshot::{Slot, Snapshot, Tenant},
    volumes::{Bindings, Claim, Progress, StorageClass, Volume},
    workloads::Workload,
};

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
    /// A PodDisruptionBudget was added or changed.
    Budget(Box<Budget>),
    /// A PodDisruptionBudget is gone.
    BudgetGone(ObjectKey),
    /// The selector of a Service; `None` when it is gone.
    Service(ObjectKey, Option<Labels>),
    /// The selector of a workload; `None` when it is gone.
    Workload(Workload, ObjectKey, Option<LabelSelector>),
    /// How many volumes of each CSI driver a node can have; `None` when that is not known.
    Limits(String, Option<BTreeMap<String, i64>>),
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
    /// Delete these pods to make room, tell it as [`Step::Tell`] does, then report with
    /// [`Core::evicted`].
    Preempt {
        /// The pod that room is made for.
        pod: Arc<PodInfo>,
        /// Why it fits nowhere yet.
        why: Arc<Unfit>,
        /// Its node, and who goes.
        room: Arc<Room>,
        /// It was last told so long ago that it bears repeating.
        remind: bool,
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
    profiles: Vec<(Profile, Classes)>,
    snapshot: Snapshot,
    queue: Queue,
    assumed: HashMap<Arc<str>, Assumed>,
    evicting: HashMap<Arc<str>, (Arc<Unfit>, Arc<Room>)>,
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
    /// A scheduler for pods whose `schedulerName` is that of one of the profiles.
    pub fn new(profiles: Vec<Profile>) -> Self {
        Self::with_backoff(profiles, Backoff::default())
    }

    /// The same with other waits for failed pods.
    pub fn with_backoff(profiles: Vec<Profile>, backoff: Backoff) -> Self {
        Self {
            profiles: profiles.into_iter().map(|profile| (profile, Classes::default())).collect(),
            snapshot: Snapshot::new(),
            queue: Queue::new(backoff),
            assumed: HashMap::new(),
            evicting: HashMap::new(),
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
            Change::NodeGone(name) => {
                self.snapshot.remove_node(&name);
                // A domain less may make the others even.
                self.wake(now, Wake::NODE_LABELS, None);
            }
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
            Change::Budget(budget) => self.snapshot.budgets.set(*budget),
            Change::BudgetGone(key) => self.snapshot.budgets.remove(&key),
            Change::Service(key, selector) => self.snapshot.workloads.set_service(&key, selector),
            Change::Workload(kind, key, selector) => {
                self.snapshot.workloads.set_workload(kind, &key, selector);
            }
            Change::Limits(node, limits) => {
                self.snapshot.volumes.set_limits(&node, limits);
                self.wake(now, Wake::VOLUMES, None);
            }
        }
    }

    /// The next step, if there is anything to do now.
    pub fn next(&mut self, now: Duration) -> Option<Step> {
        self.queue.flush(now);
        if let Some(step) = self.next_ready(now) {
            return Some(step);
        }
        let pod = self.queue.pop()?;
        let (profile, classes) = profile_of(&mut self.profiles, &pod)?;
        match classes.decide(&pod, &self.snapshot, profile) {
            Decision::Place(placement) => Some(self.assume(now, pod, placement)),
            Decision::Unfit(why) => match classes.preempt(&pod, &self.snapshot, profile, &why) {
                Ok(room) => Some(self.make_room(now, pod, why, room)),
                Err(why) => {
                    if why.no_room {
                        self.snapshot.nominate(&pod, None);
                    }
                    self.queue.reject(now, &pod.uid, &why);
                    let remind = self.queue.remind(now, &pod.uid);
                    Some(Step::Tell { pod, why, remind })
                }
            },
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
            let profile = self.queue.get(&uid).and_then(|pod| self.profile(&pod.scheduler_name));
            let timeout = profile.map(|p| p.args.bind_timeout).unwrap_or_default();
            self.waiting.insert(Arc::clone(&uid), now + timeout);
            self.check_volumes(now, &uid);
        }
    }

    /// The outcome of [`Step::Bind`]. A bound pod stays assumed until the watch shows it.
    pub fn bound(&mut self, now: Duration, uid: &str, done: bool) {
        if !done {
            self.give_up(now, uid);
        }
    }

    /// The outcome of [`Step::Preempt`]. The pod is looked at again when its victims are gone.
    pub fn evicted(&mut self, now: Duration, uid: &str, done: bool) {
        let Some((why, room)) = self.evicting.remove(uid) else { return };
        if !done {
            self.snapshot.forget_nominee(uid);
            return self.queue.retry(now, uid);
        }
        // The watch says the same a little later; until then nobody else is to choose them.
        for victim in &room.victims {
            self.snapshot.set_preempted(&victim.uid);
        }
        self.queue.reject(now, uid, &why);
        if room.victims.iter().all(|victim| self.snapshot.node_of(&victim.uid).is_none()) {
            // They were gone before this was told.
            self.queue.wake(now, Wake::POD_GONE, |_, _| true);
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

    /// The profile for pods of a `schedulerName`.
    pub fn profile(&self, scheduler_name: &str) -> Option<&Profile> {
        self.profiles.iter().map(|(profile, _)| profile).find(|p| *p.name == *scheduler_name)
    }

    /// Leaves a placed pod out of account for a question.
    pub(crate) fn take_out(&mut self, uid: &str) -> Option<(Arc<str>, Arc<Tenant>)> {
        self.snapshot.take_out(uid)
    }

    /// Takes it into account again.
    pub(crate) fn put_back(&mut self, taken: Option<(Arc<str>, Arc<Tenant>)>) {
        if let Some((node, tenant)) = taken {
            self.snapshot.put_back(&node, &tenant);
        }
    }

    /// Counts a pod that is not there on its node, for a question.
    pub(crate) fn imagine(&mut self, pod: &PodInfo, placement: &Placement) {
        self.snapshot.set_pod(pod, &placement.node);
        self.snapshot.volumes.assume(&placement.bindings, &placement.node);
    }

    /// Takes it back.
    pub(crate) fn unimagine(&mut self, uid: &str, bindings: &Bindings) {
        self.snapshot.remove_pod(uid);
        self.snapshot.volumes.forget(bindings);
    }

    fn assume(&mut self, now: Duration, pod: Arc<PodInfo>, placement: Placement) -> Step {
        let Placement { node, bindings, score: _, feasible: _ } = placement;
        self.snapshot.forget_nominee(&pod.uid);
        self.snapshot.set_pod(&pod, &node);
        self.wake(now, Wake::POD_PLACED, None);
        self.snapshot.volumes.assume(&bindings, &node);
        let assumed = Assumed { node: Arc::clone(&node), bindings: bindings.clone() };
        self.assumed.insert(Arc::clone(&pod.uid), assumed);
        if bindings.is_empty() {
            Step::Bind { pod, node }
        } else {
            Step::WriteVolumes { pod, node, bindings }
        }
    }

    fn make_room(&mut self, now: Duration, pod: Arc<PodInfo>, why: Arc<Unfit>, room: Room) -> Step {
        let room = Arc::new(room);
        self.snapshot.nominate(&pod, Some(&room.node));
        for (_, uid) in &room.displaced {
            self.snapshot.forget_nominee(uid);
        }
        self.evicting.insert(Arc::clone(&pod.uid), (Arc::clone(&why), Arc::clone(&room)));
        let remind = self.queue.remind(now, &pod.uid);
        Step::Preempt { pod, why, room, remind }
    }

    /// Something happened, on a certain node or not, that could help pods that fit nowhere: those whose
    /// plugins say that it could are looked at again (upstream's queueing hints).
    fn wake(&mut self, now: Duration, events: Wake, at: Option<Slot>) {
        let (profiles, snapshot) = (&self.profiles, &self.snapshot);
        let mut known: HashMap<(u64, *const Unfit), bool> = HashMap::new();
        self.queue.wake(now, events, |pod, why| {
            let Some(slot) = at else { return true };
            *known
                .entry((pod.shape_hash, Arc::as_ptr(why)))
                .or_insert_with(|| could_help(profiles, snapshot, pod, why, events, slot))
        });
    }

    fn apply_pod(&mut self, now: Duration, pod: PodInfo) {
        let uid = Arc::clone(&pod.uid);
        if let (Some(node), false) = (&pod.node_name, pod.terminal) {
            self.queue.remove(&uid);
            self.settle(&uid);
            self.snapshot.forget_nominee(&uid);
            if self.snapshot.set_pod(&pod, node) {
                self.wake(now, Wake::POD_PLACED, None);
            }
            return;
        }
        if pod.terminal || pod.deleting {
            self.queue.remove(&uid);
            return self.give_back(now, &uid);
        }
        if self.profile(&pod.scheduler_name).is_some() {
            let pod = Arc::new(pod);
            self.nominate(&pod);
            self.queue.push(now, pod);
        }
    }

    /// Follows what the API server says of a pod's nomination. A version of the pod that never had one says
    /// nothing: it may be older than what was decided here.
    fn nominate(&mut self, pod: &Arc<PodInfo>) {
        let had = self.queue.get(&pod.uid).is_some_and(|known| known.nominated.is_some());
        if pod.nominated.is_some() {
            self.snapshot.nominate(pod, pod.nominated.as_deref());
        } else if had {
            self.snapshot.forget_nominee(&pod.uid);
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
        let name = node.name.clone();
        if self.snapshot.set_node(node) {
            let slot = self.snapshot.slot(&name);
            self.wake(now, wake, slot);
        }
    }

    /// A pod holds nothing any more.
    fn give_back(&mut self, now: Duration, uid: &str) {
        self.settle(uid);
        let slot = self.snapshot.slot_of(uid);
        if self.snapshot.remove_pod(uid) {
            self.wake(now, Wake::POD_GONE, slot);
        }
        if self.snapshot.forget_nominee(uid) {
            self.wake(now, Wake::POD_GONE, None);
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
        self.wake(now, Wake::VOLUMES, None);
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

fn profile_of<'a>(
    profiles: &'a mut [(Profile, Classes)],
    pod: &PodInfo,
) -> Option<(&'a Profile, &'a mut Classes)> {
    let found = profiles.iter_mut().find(|(profile, _)| profile.name == pod.scheduler_name);
    found.map(|(profile, classes)| (&*profile, classes))
}

/// Whether an event on a node could help a pod: a filter that refused the pod admits it to the node now, or
/// looks at more than that node.
fn could_help(
    profiles: &[(Profile, Classes)],
    snapshot: &Snapshot,
    pod: &PodInfo,
    why: &Unfit,
    events: Wake,
    slot: Slot,
) -> bool {
    let profile = profiles.iter().map(|(profile, _)| profile).find(|p| p.name == pod.scheduler_name);
    let Some(profile) = profile.filter(|_| why.refusal.is_none() && !why.by.is_empty()) else { return true };
    let Ok(cycle) = Cycle::start(pod, snapshot, profile, None) else { return true };
    let by = profile.filters.iter().filter(|f| why.by.contains(&f.name) && f.wake.meets(events));
    by.into_iter().any(|filter| match filter.reach {
        Reach::Cluster => true,
        Reach::Nodes | Reach::Usage => (filter.check)(&cycle, slot).is_ok(),
    })
}

#[cfg(test)]
mod tests;
