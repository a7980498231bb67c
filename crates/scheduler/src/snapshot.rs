//! The cluster as the scheduler counts it: nodes as columns, and what the pods on each of them use.
//!
//! Guarantees: after any order of events it equals one built afresh from the same nodes and pods; a
//! pod event costs one node; the journal tells a reader which nodes changed since it last looked.
//! Pods may name nodes that are not known yet; their use is counted when the node appears.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use meta::{ObjectKey, Timestamp};

use crate::{
    budgets::Budgets,
    node::NodeInfo,
    nominees::Nominees,
    pod::{HostPort, PodInfo, Shape},
    profile::Profile,
    relations::{Labels, Relations},
    shared::Shared,
    volumes::Volumes,
    workloads::Workloads,
};

/// A node's place in the columns. Valid until the node goes away.
pub type Slot = usize;

/// Changes the journal remembers; a reader further behind looks at every node again. Several
/// thousand binds pass between two looks of a class that is still worth keeping.
const JOURNAL_MAX: usize = 8192;

/// Where a reader of the journal stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Counts changes of the node set and of nodes' descriptions.
    pub epoch: u64,
    /// Counts changes of what pods use.
    pub usage: u64,
}

/// Nodes, their pods' use, and volumes.
#[derive(Debug, Default)]
pub struct Snapshot {
    names: Vec<Arc<str>>,
    hashes: Vec<u64>,
    nodes: Vec<Option<NodeInfo>>,
    used: Usage,
    extended: Vec<BTreeMap<Arc<str>, i64>>,
    ports: Vec<Vec<HostPort>>,
    index: HashMap<Arc<str>, Slot>,
    free: Vec<Slot>,
    pods: HashMap<Arc<str>, Arc<Tenant>>,
    tenants: Vec<Vec<Arc<Tenant>>>,
    priorities: BTreeMap<i32, usize>,
    with_terms: HashSet<Arc<str>>,
    namespaces: HashMap<String, Labels>,
    shapes: Shared<Shape>,
    labels: Shared<Labels>,
    image_nodes: HashMap<String, usize>,
    present: usize,
    mark: Mark,
    journal: VecDeque<Touch>,
    nominees: Nominees,
    /// Claims, volumes and classes.
    pub volumes: Volumes,
    /// PodDisruptionBudgets.
    pub budgets: Budgets,
    /// Services and workloads, for the spread of pods that ask for none.
    pub workloads: Workloads,
}

/// What changed on a node.
#[derive(Clone, Debug)]
pub struct Touch {
    /// The node.
    pub slot: Slot,
    /// The pod that came or went there, and which it did.
    pub pod: Option<(Arc<Tenant>, Turn)>,
}

/// A pod came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is counted now.
    Came,
    /// It is not counted any more.
    Went,
}

/// The columns that every filter and score reads.
#[derive(Debug, Default)]
struct Usage {
    cpu: Vec<i64>,
    memory: Vec<i64>,
    ephemeral: Vec<i64>,
    cpu_nonzero: Vec<i64>,
    memory_nonzero: Vec<i64>,
    pods: Vec<i64>,
}

/// A pod that is counted on a node.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its node.
    pub slot: Slot,
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: Arc<str>,
    /// `spec.priority`.
    pub priority: i32,
    /// When it started.
    pub started: Timestamp,
    /// It is being deleted to make room for another.
    pub preempted: bool,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// What it says about other pods.
    pub relations: Option<Arc<Relations>>,
    /// Deletion has begun.
    pub deleting: bool,
    /// What it uses.
    pub shape: Arc<Shape>,
}

impl Tenant {
    /// A pod as it would be on a node.
    pub(crate) fn imagined(pod: &PodInfo, slot: Slot) -> Self {
        Self {
            slot,
            key: pod.key.clone(),
            uid: Arc::clone(&pod.uid),
            priority: pod.priority,
            started: pod.started,
            preempted: pod.preempted,
            labels: Arc::clone(&pod.labels),
            relations: pod.relations.clone(),
            deleting: pod.deleting,
            shape: Arc::clone(&pod.shape),
        }
    }
}

/// What the pods of one node use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Thousandths of a cpu.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Cpu as scoring counts it.
    pub cpu_milli_nonzero: i64,
    /// Memory as scoring counts it.
    pub memory_nonzero: i64,
    /// Number of pods.
    pub pods: i64,
}

impl Snapshot {
    /// No nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node or takes its new description. Returns whether anything changed.
    pub fn set_node(&mut self, node: NodeInfo) -> bool {
        let slot = self.slot_for(&node.name);
        let Some(place) = self.nodes.get_mut(slot) else { return false };
        if place.as_ref() == Some(&node) {
            return false;
        }
        for image in node.images.keys() {
            *self.image_nodes.entry(image.clone()).or_default() += 1;
        }
        match place.replace(node) {
            Some(old) => forget_images(&mut self.image_nodes, &old),
            None => self.present += 1,
        }
        self.mark.epoch += 1;
        true
    }

    /// Takes a node away. Its pods stay counted, for when it comes back, until they go too.
    pub fn remove_node(&mut self, name: &str) {
        let Some(&slot) = self.index.get(name) else { return };
        if let Some(old) = self.nodes.get_mut(slot).and_then(Option::take) {
            forget_images(&mut self.image_nodes, &old);
            self.present -= 1;
            self.mark.epoch += 1;
        }
        self.release_if_unused(slot);
    }

    /// Counts a pod on a node, moving or changing it if it was counted before. Returns whether anything
    /// changed.
    pub fn set_pod(&mut self, pod: &PodInfo, node: &str) -> bool {
        if let Some(known) = self.pods.get(&pod.uid)
            && self.names.get(known.slot).is_some_and(|n| &**n == node)
            && known.shape == pod.shape
            && known.labels == pod.labels
            && known.relations == pod.relations
            && known.deleting == pod.deleting
            && known.preempted == pod.preempted
            && known.priority == pod.priority
            && known.started == pod.started
        {
            return false;
        }
        self.remove_pod(&pod.uid);
        let slot = self.slot_for(node);
        let shape = self.shapes.intern(&pod.shape);
        let labels = self.labels.intern(&pod.labels);
        self.count_tenant(Arc::new(Tenant { shape, labels, ..Tenant::imagined(pod, slot) }));
        true
    }

    /// Stops counting a pod for a while; what it gives goes to [`Snapshot::put_back`].
    pub(crate) fn take_out(&mut self, uid: &str) -> Option<(Arc<str>, Arc<Tenant>)> {
        let tenant = Arc::clone(self.pods.get(uid)?);
        let node = Arc::clone(self.names.get(tenant.slot)?);
        self.remove_pod(uid).then_some((node, tenant))
    }

    /// Counts a pod again that was taken out.
    pub(crate) fn put_back(&mut self, node: &str, tenant: &Tenant) {
        let slot = self.slot_for(node);
        self.count_tenant(Arc::new(Tenant { slot, ..tenant.clone() }));
    }

    fn count_tenant(&mut self, tenant: Arc<Tenant>) {
        let (slot, shape) = (tenant.slot, Arc::clone(&tenant.shape));
        self.count(slot, &shape, 1);
        if let Some(ports) = self.ports.get_mut(slot) {
            ports.extend(shape.host_ports.iter().cloned());
        }
        if tenant.relations.as_ref().is_some_and(|r| r.concerns_others()) {
            self.with_terms.insert(Arc::clone(&tenant.uid));
        }
        if let Some(here) = self.tenants.get_mut(slot) {
            here.push(Arc::clone(&tenant));
        }
        *self.priorities.entry(tenant.priority).or_default() += 1;
        self.volumes.use_claims(&tenant.shape, 1);
        self.pods.insert(Arc::clone(&tenant.uid), Arc::clone(&tenant));
        self.touch(slot, Some((tenant, Turn::Came)));
    }

    /// Stops counting a pod. Returns whether it was counted.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(tenant) = self.pods.remove(uid) else { return false };
        let (slot, shape) = (tenant.slot, &tenant.shape);
        self.with_terms.remove(uid);
        self.count(slot, shape, -1);
        self.volumes.use_claims(shape, -1);
        if let Some(here) = self.tenants.get_mut(slot)
            && let Some(at) = here.iter().position(|t| *t.uid == *uid)
        {
            here.swap_remove(at);
        }
        if let Some(count) = self.priorities.get_mut(&tenant.priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&tenant.priority);
            }
        }
        if let Some(ports) = self.ports.get_mut(slot) {
            for port in &shape.host_ports {
                if let Some(at) = ports.iter().position(|p| p == port) {
                    ports.swap_remove(at);
                }
            }
        }
        self.touch(slot, Some((tenant, Turn::Went)));
        self.release_if_unused(slot);
        true
    }

    /// Takes note that a pod is being deleted for another, before the API server shows it.
    pub fn set_preempted(&mut self, uid: &str) {
        let Some(known) = self.pods.get(uid).cloned().filter(|t| !t.deleting) else { return };
        let mut tenant = Tenant::clone(&known);
        (tenant.deleting, tenant.preempted) = (true, true);
        let tenant = Arc::new(tenant);
        self.pods.insert(Arc::clone(&known.uid), Arc::clone(&tenant));
        let here = self.tenants.get_mut(known.slot).into_iter().flatten();
        for place in here.filter(|t| t.uid == known.uid) {
            *place = Arc::clone(&tenant);
        }
        let slot = known.slot;
        self.touch(slot, Some((known, Turn::Went)));
        self.touch(slot, Some((tenant, Turn::Came)));
    }

    /// Keeps room for a pod on a node, or for nobody. Returns whether anything changed.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: Option<&str>) -> bool {
        let old = self.nominees.node_of(&pod.uid).cloned();
        if old.as_deref() == node && (old.is_none() || self.nominees.knows(pod)) {
            return false;
        }
        self.nominees.set(pod, node);
        for name in [old.as_deref(), node].into_iter().flatten() {
            if let Some(slot) = self.index.get(name) {
                self.touch(*slot, None);
            }
        }
        true
    }

    /// Keeps room for a pod no longer. Returns whether there was any.
    pub fn forget_nominee(&mut self, uid: &str) -> bool {
        let Some(node) = self.nominees.remove(uid) else { return false };
        if let Some(slot) = self.index.get(&*node) {
            self.touch(*slot, None);
        }
        true
    }

    /// Pods that room is kept for.
    pub fn nominees(&self) -> &Nominees {
        &self.nominees
    }

    /// The pods counted on a node, in no order.
    pub fn tenants_at(&self, slot: Slot) -> &[Arc<Tenant>] {
        self.tenants.get(slot).map(Vec::as_slice).unwrap_or_default()
    }

    /// The lowest priority of a placed pod.
    pub fn lowest_priority(&self) -> Option<i32> {
        self.priorities.first_key_value().map(|(priority, _)| *priority)
    }

    /// Whether a placed or nominated pod has affinity or anti-affinity of its own.
    pub fn has_terms(&self) -> bool {
        !self.with_terms.is_empty() || self.nominees.have_terms()
    }

    /// What a pod says about others: its own words, and the profile's default spread when it says nothing
    /// about that.
    pub fn relations_of(&self, pod: &PodInfo, profile: &Profile) -> Option<Arc<Relations>> {
        if pod.relations.as_ref().is_some_and(|r| !r.spread.is_empty()) {
            return pod.relations.clone();
        }
        let spread = self.workloads.default_spread(pod, &profile.args.default_spread);
        if spread.is_empty() {
            return pod.relations.clone();
        }
        let own = pod.relations.as_deref().cloned().unwrap_or_default();
        Some(Arc::new(Relations { spread, ..own }))
    }

    /// The node a pod is counted on.
    pub fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.names.get(self.pods.get(uid)?.slot)
    }

    /// The slot of the node a pod is counted on.
    pub fn slot_of(&self, uid: &str) -> Option<Slot> {
        self.pods.get(uid).map(|tenant| tenant.slot)
    }

    /// The pods counted.
    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.pods.values().map(|t| &**t)
    }

    /// Those that have affinity or anti-affinity of their own.
    pub fn tenants_with_terms(&self) -> impl Iterator<Item = &Tenant> {
        self.with_terms.iter().filter_map(|uid| self.pods.get(uid)).map(|t| &**t)
    }

    /// Takes the labels of a namespace; `None` when it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        // Namespace selectors may mean other pods now.
        self.mark.epoch += 1;
    }

    /// The labels of a namespace.
    pub fn namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.present
    }

    /// Number of pods counted.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// Slots of the nodes that exist.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.nodes.iter().enumerate().filter_map(|(slot, node)| node.as_ref().map(|_| slot))
    }

    /// One past the largest slot.
    pub fn slots_end(&self) -> Slot {
        self.nodes.len()
    }

    /// The slot of a node that exists.
    pub fn slot(&self, name: &str) -> Option<Slot> {
        let slot = *self.index.get(name)?;
        self.node(slot).map(|_| slot)
    }

    /// The node in a slot.
    pub fn node(&self, slot: Slot) -> Option<&NodeInfo> {
        self.nodes.get(slot)?.as_ref()
    }

    /// The name of the node in a slot.
    pub fn name(&self, slot: Slot) -> Option<&Arc<str>> {
        self.names.get(slot)
    }

    /// A hash of the node's name; the same in every run.
    pub fn name_hash(&self, slot: Slot) -> u64 {
        self.hashes.get(slot).copied().unwrap_or_default()
    }

    /// What the node's pods use.
    pub fn used(&self, slot: Slot) -> Used {
        let at = |column: &Vec<i64>| column.get(slot).copied().unwrap_or_default();
        Used {
            cpu_milli: at(&self.used.cpu),
            memory: at(&self.used.memory),
            ephemeral_storage: at(&self.used.ephemeral),
            cpu_milli_nonzero: at(&self.used.cpu_nonzero),
            memory_nonzero: at(&self.used.memory_nonzero),
            pods: at(&self.used.pods),
        }
    }

    /// What the node's pods use of an extended resource.
    pub fn used_extended(&self, slot: Slot, resource: &str) -> i64 {
        self.extended.get(slot).and_then(|e| e.get(resource)).copied().unwrap_or_default()
    }

    /// What the node's pods use of all extended resources.
    pub(crate) fn extended(&self, slot: Slot) -> &BTreeMap<Arc<str>, i64> {
        static NOTHING: BTreeMap<Arc<str>, i64> = BTreeMap::new();
        self.extended.get(slot).unwrap_or(&NOTHING)
    }

    /// Host ports in use on the node.
    pub fn ports(&self, slot: Slot) -> &[HostPort] {
        self.ports.get(slot).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many nodes have the image.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or_default()
    }

    /// Where the journal stands.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Nodes whose use changed since `mark`, possibly repeated; `None` when nodes changed too or the
    /// journal no longer reaches back, so that every node must be looked at.
    pub fn changed_since(&self, mark: Mark) -> Option<impl Iterator<Item = &Touch> + '_> {
        let behind = usize::try_from(self.mark.usage.checked_sub(mark.usage)?).ok()?;
        let from = self.journal.len().checked_sub(behind)?;
        (mark.epoch == self.mark.epoch).then(|| self.journal.range(from..))
    }

    fn touch(&mut self, slot: Slot, pod: Option<(Arc<Tenant>, Turn)>) {
        if self.journal.len() == JOURNAL_MAX {
            self.journal.pop_front();
        }
        self.journal.push_back(Touch { slot, pod });
        self.mark.usage += 1;
    }

    fn count(&mut self, slot: Slot, shape: &Shape, sign: i64) {
        let (asked, nonzero) = (&shape.requests, &shape.requests_nonzero);
        for (column, amount) in [
            (&mut self.used.cpu, asked.cpu_milli),
            (&mut self.used.memory, asked.memory),
            (&mut self.used.ephemeral, asked.ephemeral_storage),
            (&mut self.used.cpu_nonzero, nonzero.cpu_milli),
            (&mut self.used.memory_nonzero, nonzero.memory),
            (&mut self.used.pods, 1),
        ] {
            if let Some(cell) = column.get_mut(slot) {
                // Wrapping, so that what was added is exactly what is taken away again.
                *cell = cell.wrapping_add(amount.wrapping_mul(sign));
            }
        }
        if let Some(extended) = self.extended.get_mut(slot) {
            for (name, amount) in &asked.extended {
                let cell = extended.entry(Arc::clone(name)).or_default();
                *cell = cell.wrapping_add(amount.wrapping_mul(sign));
                if *cell == 0 {
                    extended.remove(name);
                }
            }
        }
    }

    fn slot_for(&mut self, name: &str) -> Slot {
        if let Some(&slot) = self.index.get(name) {
            return slot;
        }
        let name: Arc<str> = name.into();
        let hash = fnv(&name);
        let slot = if let Some(slot) = self.free.pop() {
            if let (Some(n), Some(h)) = (self.names.get_mut(slot), self.hashes.get_mut(slot)) {
                *n = Arc::clone(&name);
                *h = hash;
            }
            slot
        } else {
            self.names.push(Arc::clone(&name));
            self.hashes.push(hash);
            self.nodes.push(None);
            self.extended.push(BTreeMap::new());
            self.ports.push(Vec::new());
            self.tenants.push(Vec::new());
            let Usage { cpu, memory, ephemeral, cpu_nonzero, memory_nonzero, pods } = &mut self.used;
            for column in [cpu, memory, ephemeral, cpu_nonzero, memory_nonzero, pods] {
                column.push(0);
            }
            self.nodes.len() - 1
        };
        self.index.insert(name, slot);
        slot
    }

    fn release_if_unused(&mut self, slot: Slot) {
        if self.node(slot).is_some() || self.used(slot).pods > 0 {
            return;
        }
        if let Some(name) = self.names.get(slot)
            && self.index.remove(name).is_some()
        {
            self.free.push(slot);
        }
    }
}

fn forget_images(counts: &mut HashMap<String, usize>, node: &NodeInfo) {
    for image in node.images.keys() {
        if let Some(count) = counts.get_mut(image) {
            *count -= 1;
            if *count == 0 {
                counts.remove(image);
            }
        }
    }
}

/// FNV-1a: a hash that is the same in every run and every release.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
