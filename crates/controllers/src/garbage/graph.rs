//! Who depends on whom. Kept small: of an object without owners only the UID is remembered. As it hears of
//! every object, it also tells others in which namespaces objects come and go ([`Graph::hear`]).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::runtime::watcher::Event;
use meta::ObjectKey;
use parking_lot::Mutex;
use reconcile::{Enqueue, Kind, Progress};
use tokio::sync::watch;

use crate::discovery::Found;

/// Set by the API server on an object deleted with propagation Foreground.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Set by the API server on an object deleted with propagation Orphan.
pub(super) const ORPHAN: &str = "orphan";

/// A UID in 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Uid(u128);

impl Uid {
    fn of(text: &str) -> Self {
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        if hex.len() == 32
            && let Ok(number) = u128::from_str_radix(&hex, 16)
        {
            return Self(number);
        }
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, text).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        Self(half(0) << 64 | half(1))
    }
}

/// An object that has owners or is being deleted with the collector's help.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) kind: Arc<Kind>,
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) deleting: bool,
    /// Being deleted in the foreground: waits for its dependents.
    pub(super) waits_for_dependents: bool,
    /// Being deleted with its dependents to be left behind.
    pub(super) orphans_dependents: bool,
}

/// Told where objects of a kind came or went; `None` when nobody knows where: a list shows that some went.
type Hear = Box<dyn Fn(&Kind, Option<&str>) + Send + Sync>;

/// The graph, shared by the watches that feed it and the collector that reads it.
#[derive(Default)]
pub(crate) struct Graph {
    state: Mutex<State>,
    enqueue: Mutex<Option<Enqueue>>,
    hear: Mutex<Option<Hear>>,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct State {
    /// UIDs of the live objects of each watched kind.
    alive: HashMap<Arc<Kind>, HashSet<Uid>>,
    /// UIDs of a list in progress.
    listing: HashMap<Arc<Kind>, HashSet<Uid>>,
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, BTreeSet<Uid>>,
    resources: Vec<Found>,
    due: BTreeSet<String>,
}

impl Graph {
    /// Who is told where objects come and go from now on: one listener. It is called on the task of a watch
    /// and must be quick.
    pub(crate) fn hear(&self, hear: impl Fn(&Kind, Option<&str>) + Send + Sync + 'static) {
        *self.hear.lock() = Some(Box::new(hear));
    }

    /// Where UIDs to look at go; those due already go there at once. The answer says when all watches
    /// have been listed.
    pub(super) fn feed(&self, enqueue: Enqueue) -> watch::Receiver<Progress> {
        *self.enqueue.lock() = Some(enqueue);
        self.flush();
        self.progress.subscribe()
    }

    /// What discovery found, for resolving the kinds of owners.
    pub(super) fn set_resources(&self, resources: Vec<Found>) {
        self.state.lock().resources = resources;
    }

    /// The resource an owner reference names; `None` when nobody serves it.
    pub(super) fn resource(&self, owner: &OwnerReference) -> Option<Found> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let state = self.state.lock();
        state
            .resources
            .iter()
            .find(|found| found.kind.kind == owner.kind && found.kind.group == group)
            .cloned()
    }

    /// All watches have been listed: look at every object whose owners were not seen.
    pub(super) fn complete(&self) {
        {
            let mut state = self.state.lock();
            let due: Vec<String> = state
                .nodes
                .values()
                .filter(|node| state.concerns(node))
                .map(|node| node.uid.clone())
                .collect();
            state.due.extend(due);
        }
        self.progress.send_modify(|progress| progress.lists_done = progress.lists_done.max(1));
        self.flush();
    }

    /// A kind is no longer served.
    pub(super) fn drop_kind(&self, kind: &Arc<Kind>) {
        let mut state = self.state.lock();
        state.alive.remove(kind);
        let gone: Vec<Uid> =
            state.nodes.iter().filter(|(_, node)| node.kind == *kind).map(|(uid, _)| *uid).collect();
        for uid in gone {
            state.unlink(uid);
        }
    }

    /// Takes one event of the watch of `kind`.
    pub(super) fn take(&self, kind: &Arc<Kind>, event: Event<ObjectMeta>) {
        let mut state = self.state.lock();
        let moved = match event {
            Event::Init => {
                state.listing.insert(Arc::clone(kind), HashSet::new());
                None
            }
            Event::InitApply(meta) => {
                let uid = Uid::of(meta.uid.as_deref().unwrap_or_default());
                state.listing.entry(Arc::clone(kind)).or_default().insert(uid);
                state.upsert(kind, &meta).then_some(meta.namespace)
            }
            Event::InitDone => {
                let listed = state.listing.remove(kind).unwrap_or_default();
                let alive = state.alive.get(kind).cloned().unwrap_or_default();
                let mut some_went = false;
                for gone in alive.difference(&listed) {
                    some_went = true;
                    state.remove(kind, *gone);
                }
                some_went.then_some(None)
            }
            Event::Apply(meta) => state.upsert(kind, &meta).then_some(meta.namespace),
            Event::Delete(meta) => {
                state.remove(kind, Uid::of(meta.uid.as_deref().unwrap_or_default()));
                Some(meta.namespace)
            }
        };
        drop(state);
        if let Some(namespace) = moved
            && let Some(hear) = &*self.hear.lock()
        {
            hear(kind, namespace.as_deref());
        }
        if self.progress.borrow().lists_done > 0 {
            self.flush();
        }
    }

    /// The API said the object is not there (any more).
    pub(super) fn forget(&self, node: &Node) {
        self.state.lock().remove(&node.kind, Uid::of(&node.uid));
        self.flush();
    }

    fn flush(&self) {
        let Some(enqueue) = self.enqueue.lock().clone() else { return };
        let due = std::mem::take(&mut self.state.lock().due);
        due.into_iter().for_each(|uid| enqueue(ObjectKey::new("", uid)));
    }

    /// The object with this UID, if it has owners or is being deleted with our help.
    pub(super) fn node(&self, uid: &str) -> Option<Node> {
        self.state.lock().nodes.get(&Uid::of(uid)).cloned()
    }

    /// The objects that name this UID as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Node> {
        let state = self.state.lock();
        let uids = state.dependents.get(&Uid::of(uid)).into_iter().flatten();
        uids.filter_map(|uid| state.nodes.get(uid).cloned()).collect()
    }

    /// Whether a live object with this UID was seen, and if so whether it waits for its dependents.
    pub(super) fn seen(&self, uid: &str) -> Option<bool> {
        let state = self.state.lock();
        let id = Uid::of(uid);
        state.is_alive(id).then(|| state.nodes.get(&id).is_some_and(|node| node.waits_for_dependents))
    }
}

impl State {
    fn is_alive(&self, uid: Uid) -> bool {
        self.alive.values().any(|kind| kind.contains(&uid))
    }

    /// Whether the collector may have something to do for the object.
    fn concerns(&self, node: &Node) -> bool {
        let acts = node.waits_for_dependents || node.orphans_dependents;
        acts || (!node.deleting
            && node.owners.iter().any(|owner| {
                let uid = Uid::of(&owner.uid);
                !self.is_alive(uid) || self.nodes.get(&uid).is_some_and(|owner| owner.waits_for_dependents)
            }))
    }

    /// Whether the object was not known before.
    fn upsert(&mut self, kind: &Arc<Kind>, meta: &ObjectMeta) -> bool {
        let Some(text) = meta.uid.clone() else { return false };
        let uid = Uid::of(&text);
        let came = self.alive.entry(Arc::clone(kind)).or_default().insert(uid);
        let deleting = meta.deletion_timestamp.is_some();
        let has = |finalizer: &str| deleting && meta.finalizers.iter().flatten().any(|f| f == finalizer);
        let node = Node {
            kind: Arc::clone(kind),
            key: ObjectKey::new(
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone().unwrap_or_default(),
            ),
            uid: text,
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting,
            waits_for_dependents: has(FOREGROUND),
            orphans_dependents: has(ORPHAN),
        };
        let before = self.unlink(uid);
        if before.as_ref() != Some(&node) {
            // An owner that waits may have lost a dependent that blocked it.
            self.due_waiting_owners(before.as_ref());
            let began =
                node.waits_for_dependents && before.as_ref().is_none_or(|old| !old.waits_for_dependents);
            if began {
                self.due_dependents(uid);
            }
            if self.concerns(&node) {
                self.due.insert(node.uid.clone());
            }
        }
        if !node.owners.is_empty() || node.waits_for_dependents || node.orphans_dependents {
            for owner in &node.owners {
                self.dependents.entry(Uid::of(&owner.uid)).or_default().insert(uid);
            }
            self.nodes.insert(uid, node);
        }
        came
    }

    fn remove(&mut self, kind: &Arc<Kind>, uid: Uid) {
        if let Some(alive) = self.alive.get_mut(kind) {
            alive.remove(&uid);
        }
        let before = self.unlink(uid);
        self.due_waiting_owners(before.as_ref());
        self.due_dependents(uid);
    }

    fn unlink(&mut self, uid: Uid) -> Option<Node> {
        let node = self.nodes.remove(&uid)?;
        for owner in &node.owners {
            let owner = Uid::of(&owner.uid);
            if let Some(dependents) = self.dependents.get_mut(&owner) {
                dependents.remove(&uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner);
                }
            }
        }
        Some(node)
    }

    fn due_dependents(&mut self, owner: Uid) {
        let uids = self.dependents.get(&owner).into_iter().flatten();
        let due: Vec<String> =
            uids.filter_map(|uid| self.nodes.get(uid)).map(|node| node.uid.clone()).collect();
        self.due.extend(due);
    }

    fn due_waiting_owners(&mut self, dependent: Option<&Node>) {
        let owners = dependent.iter().flat_map(|node| &node.owners);
        let waits = |owner: &&OwnerReference| {
            self.nodes.get(&Uid::of(&owner.uid)).is_some_and(|node| node.waits_for_dependents)
        };
        let due: Vec<String> = owners.filter(waits).map(|owner| owner.uid.clone()).collect();
        self.due.extend(due);
    }
}
