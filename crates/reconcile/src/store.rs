//! The cache of one kind, fed by one watch.
//!
//! Guarantees: readers see whole objects (minus `managedFields`) in key order; subscribers hear of a
//! change after the cache shows it, in the order of the watch, once per change (a fresh subscriber
//! hears of everything present, possibly twice if it changes in that moment). Deliberately unaware of
//! how the watch is kept up ([`crate::Stores`] does that).
//!
//! `kube::runtime::reflector::Store` has no owner index, no synchronous subscribers and does not say
//! up to which revision it has seen; read-your-writes needs the last.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use kube::{Resource, runtime::watcher::Event};
use meta::ObjectKey;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::{controller_of, key_of};

/// One change of one object: at least one side is there.
#[derive(Debug)]
pub struct Change<K> {
    /// The version before; `None` when it is new.
    pub old: Option<Arc<K>>,
    /// The version now; `None` when it is gone.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The newest version there is.
    pub fn object(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Both versions, the old one first.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(self.new.iter())
    }
}

/// How far a cache has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The highest `resourceVersion` seen.
    pub revision: u64,
    /// Full lists begun.
    pub lists_begun: u64,
    /// Full lists finished; 0 until the cache is usable.
    pub lists_done: u64,
}

type Subscriber<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// The cache of one kind.
pub struct Store<K> {
    objects: RwLock<Objects<K>>,
    subscribers: Mutex<Vec<Subscriber<K>>>,
    progress: watch::Sender<Progress>,
}

struct Objects<K> {
    by_key: BTreeMap<ObjectKey, Arc<K>>,
    /// By the UID of its controller, empty for none: read in order, however many one has.
    by_controller: HashMap<String, BTreeMap<ObjectKey, Arc<K>>>,
    listing: BTreeMap<ObjectKey, Arc<K>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: RwLock::new(Objects {
                by_key: BTreeMap::new(),
                by_controller: HashMap::new(),
                listing: BTreeMap::new(),
            }),
            subscribers: Mutex::new(Vec::new()),
            progress: watch::Sender::new(Progress::default()),
        }
    }
}

impl<K: Resource + Send + Sync + 'static> Store<K> {
    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects.read().by_key.get(key).cloned()
    }

    /// Every object, in key order.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.objects.read().by_key.values().cloned().collect()
    }

    /// Every object of one namespace, in name order.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = ObjectKey::new(namespace, "");
        let objects = self.objects.read();
        objects
            .by_key
            .range(from..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, o)| Arc::clone(o))
            .collect()
    }

    /// Every object whose controller has this UID, in key order.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<K>> {
        let objects = self.objects.read();
        objects.by_controller.get(uid).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Every object of one namespace that has no controller, in name order.
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.objects.read();
        let Some(orphans) = objects.by_controller.get("") else { return Vec::new() };
        let of_namespace =
            orphans.range(ObjectKey::new(namespace, "")..).take_while(|(key, _)| key.namespace == namespace);
        of_namespace.map(|(_, object)| Arc::clone(object)).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.read().by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How far the cache has come.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Follows the progress.
    pub fn watch_progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Waits until the first full list is in.
    pub async fn ready(&self) {
        let mut progress = self.progress.subscribe();
        // The sender lives as long as self, so this cannot fail while we are called.
        let _closed = progress.wait_for(|progress| progress.lists_done > 0).await;
    }

    /// Calls `hear` for everything present and then for every change. It runs on the task that feeds
    /// the cache: it must be quick and must not subscribe.
    pub fn subscribe(&self, hear: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut subscribers = self.subscribers.lock();
        for object in self.all() {
            hear(&Change { old: None, new: Some(object) });
        }
        subscribers.push(Box::new(hear));
    }

    /// Takes one event of the watch: cache first, progress next, subscribers last.
    pub fn take(&self, event: Event<K>) {
        match event {
            Event::Init => {
                self.objects.write().listing.clear();
                self.progress.send_modify(|progress| progress.lists_begun += 1);
            }
            Event::InitApply(object) => {
                let object = lean(object);
                self.objects.write().listing.insert(key_of(&*object), object);
            }
            Event::InitDone => {
                let (changes, revision) = self.swap();
                self.progress.send_modify(|progress| {
                    progress.revision = progress.revision.max(revision);
                    progress.lists_done = progress.lists_begun;
                });
                self.notify(&changes);
            }
            Event::Apply(object) => {
                let object = lean(object);
                let revision = revision_of(&*object);
                let old = self.objects.write().insert(Arc::clone(&object));
                self.reached(revision);
                self.notify(&[Change { old, new: Some(object) }]);
            }
            Event::Delete(object) => {
                let object = lean(object);
                let old = self.objects.write().remove(&key_of(&*object));
                self.reached(revision_of(&*object));
                self.notify(&[Change { old: Some(object).or(old), new: None }]);
            }
        }
    }

    fn swap(&self) -> (Vec<Change<K>>, u64) {
        let mut objects = self.objects.write();
        let listing = std::mem::take(&mut objects.listing);
        let gone: Vec<ObjectKey> =
            objects.by_key.keys().filter(|key| !listing.contains_key(key)).cloned().collect();
        let mut revision = 0;
        let mut changes: Vec<Change<K>> =
            gone.iter().map(|key| Change { old: objects.remove(key), new: None }).collect();
        for object in listing.into_values() {
            revision = revision.max(revision_of(&*object));
            let old = objects.insert(Arc::clone(&object));
            let same =
                old.as_ref().is_some_and(|old| old.meta().resource_version == object.meta().resource_version);
            if !same {
                changes.push(Change { old, new: Some(object) });
            }
        }
        (changes, revision)
    }

    fn reached(&self, revision: u64) {
        self.progress.send_modify(|progress| progress.revision = progress.revision.max(revision));
    }

    fn notify(&self, changes: &[Change<K>]) {
        let subscribers = self.subscribers.lock();
        for change in changes {
            for hear in subscribers.iter() {
                hear(change);
            }
        }
    }
}

impl<K: Resource> Objects<K> {
    fn insert(&mut self, object: Arc<K>) -> Option<Arc<K>> {
        let key = key_of(&*object);
        let old = self.remove(&key);
        let controller = self.by_controller.entry(controller_uid(&*object)).or_default();
        controller.insert(key.clone(), Arc::clone(&object));
        self.by_key.insert(key, object);
        old
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.by_key.remove(key)?;
        let controller = controller_uid(&*old);
        if let Some(keys) = self.by_controller.get_mut(&controller) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_controller.remove(&controller);
            }
        }
        Some(old)
    }
}

/// Empty for an object without a controller.
fn controller_uid<K: Resource>(object: &K) -> String {
    controller_of(object).map(|controller| controller.uid.clone()).unwrap_or_default()
}

/// `managedFields` are the largest part of many objects and nobody plans from them.
fn lean<K: Resource>(mut object: K) -> Arc<K> {
    object.meta_mut().managed_fields = None;
    Arc::new(object)
}

/// The revision of an object; 0 when it has none. Resource versions are comparable numbers since
/// KEP-5504 (1.35).
pub(crate) fn revision_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::OwnerReference};

    use super::*;

    fn pod(name: &str, revision: u64, owner: Option<&str>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("ns".into());
        pod.metadata.name = Some(name.into());
        pod.metadata.resource_version = Some(revision.to_string());
        pod.metadata.owner_references = owner.map(|uid| {
            vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]
        });
        pod
    }

    #[test]
    fn relist_tells_of_what_went_away_meanwhile() {
        let store = Store::<Pod>::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        store.subscribe(move |change: &Change<Pod>| {
            let name = |pod: &Arc<Pod>| format!("{}@{}", key_of(&**pod).name, revision_of(&**pod));
            log.lock().push((change.old.as_ref().map(name), change.new.as_ref().map(name)));
        });
        for event in [
            Event::Init,
            Event::InitApply(pod("a", 1, Some("u"))),
            Event::InitApply(pod("b", 2, None)),
            Event::InitDone,
            Event::Init,
            Event::InitApply(pod("b", 2, None)),
            Event::InitApply(pod("c", 5, Some("u"))),
            Event::InitDone,
        ] {
            store.take(event);
        }
        let text = |s: &str| Some(s.to_owned());
        assert_eq!(
            *heard.lock(),
            [(None, text("a@1")), (None, text("b@2")), (text("a@1"), None), (None, text("c@5"))]
        );
        assert_eq!(store.progress(), Progress { revision: 5, lists_begun: 2, lists_done: 2 });
        assert_eq!(store.controlled_by("u").len(), 1);
    }

    #[test]
    fn the_owner_index_follows_the_owner() {
        let store = Store::<Pod>::default();
        store.take(Event::Apply(pod("a", 1, Some("u"))));
        store.take(Event::Apply(pod("a", 2, Some("v"))));
        assert_eq!((store.controlled_by("u").len(), store.controlled_by("v").len()), (0, 1));
        store.take(Event::Delete(pod("a", 3, Some("v"))));
        assert_eq!((store.controlled_by("v").len(), store.len(), store.progress().revision), (0, 0, 3));
    }
}
