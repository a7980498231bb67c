//! The caches of one process: one watch and one [`Store`] per kind, however many controllers read it.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt::Debug,
    pin::pin,
    sync::{Arc, Weak},
};

use futures::StreamExt;
use kube::{Api, Resource, runtime::watcher};
use meta::{ObjectKey, Random};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    Kind, Progress, Store,
    applied::{Seen, fingerprint},
    events::events,
    store::revision_of,
};

/// The caches of one process. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Stores {
    shared: Arc<Shared>,
}

#[derive(Clone)]
pub(crate) struct WeakStores {
    shared: Weak<Shared>,
}

impl WeakStores {
    pub(crate) fn upgrade(&self) -> Option<Stores> {
        self.shared.upgrade().map(|shared| Stores { shared })
    }
}

struct Shared {
    client: kube::Client,
    random: Arc<dyn Random>,
    /// By type and field selector; the empty selector is the whole kind.
    open: Mutex<HashMap<(TypeId, &'static str), Opened>>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Clone)]
struct Opened {
    kind: Kind,
    typed: Arc<dyn Any + Send + Sync>,
    erased: Arc<dyn Cache>,
}

/// What the driver asks of a cache whose type it does not know.
pub(crate) trait Cache: Send + Sync {
    fn progress(&self) -> watch::Receiver<Progress>;
    /// UID of the object, and whether it is being deleted.
    fn life(&self, key: &ObjectKey) -> Option<(String, bool)>;
    /// What is there now, for comparing with what was applied.
    fn seen(&self, key: &ObjectKey) -> Option<Seen>;
}

impl<K: Resource + Serialize + Send + Sync + 'static> Cache for Store<K> {
    fn progress(&self) -> watch::Receiver<Progress> {
        self.watch_progress()
    }

    fn life(&self, key: &ObjectKey) -> Option<(String, bool)> {
        let object = self.get(key)?;
        let meta = object.meta();
        Some((meta.uid.clone().unwrap_or_default(), meta.deletion_timestamp.is_some()))
    }

    fn seen(&self, key: &ObjectKey) -> Option<Seen> {
        let object = self.get(key)?;
        Some(Seen { revision: revision_of(&*object), fingerprint: fingerprint(&*object)? })
    }
}

impl Stores {
    /// No caches yet; each is opened by the first who asks for it.
    pub fn new(client: kube::Client, random: Arc<dyn Random>) -> Self {
        let shared = Shared { client, random, open: Mutex::default(), tasks: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The cache of a kind, over all namespaces. Opened (and its watch begun) on first use; it may
    /// not be [`Store::ready`] yet. Must be called within a tokio runtime.
    pub fn of<K>(&self) -> Arc<Store<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.with_fields("")
    }

    /// The cache of the objects of a kind that a field selector admits. Writes to such a kind are not
    /// waited for (read-your-writes needs the cache of the whole kind): plan only what is safe to
    /// repeat.
    pub fn with_fields<K>(&self, fields: &'static str) -> Arc<Store<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let slot = (TypeId::of::<K>(), fields);
        let mut open = self.shared.open.lock();
        let present = open.get(&slot).and_then(|opened| Arc::clone(&opened.typed).downcast().ok());
        if let Some(store) = present {
            return store;
        }
        let store = Arc::new(Store::<K>::default());
        let opened =
            Opened { kind: Kind::of::<K>(), typed: Arc::clone(&store) as _, erased: Arc::clone(&store) as _ };
        open.insert(slot, opened);
        let feed =
            feed(Arc::clone(&store), fields, self.shared.client.clone(), Arc::clone(&self.shared.random));
        self.shared.tasks.lock().spawn(feed);
        store
    }

    /// The cache of a kind once its first full list is in.
    pub async fn ready<K>(&self) -> Arc<Store<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let store = self.of::<K>();
        store.ready().await;
        store
    }

    /// A handle that does not keep the caches alive (subscribers live inside them).
    pub(crate) fn downgrade(&self) -> WeakStores {
        WeakStores { shared: Arc::downgrade(&self.shared) }
    }

    pub(crate) fn find(&self, kind: &Kind) -> Option<Arc<dyn Cache>> {
        let open = self.shared.open.lock();
        open.iter()
            .find(|((_, fields), opened)| fields.is_empty() && opened.kind == *kind)
            .map(|(_, opened)| Arc::clone(&opened.erased))
    }

    /// Waits until every open cache is listed and satisfies `shown`.
    #[cfg(feature = "testkit")]
    pub(crate) async fn caught_up(&self, shown: impl Fn(&Kind, &dyn Cache, Progress) -> bool) {
        let open: Vec<Opened> = self.shared.open.lock().values().cloned().collect();
        for opened in open {
            let mut progress = opened.erased.progress();
            // Fails only when the cache is gone, and we hold it.
            let _closed = progress
                .wait_for(|now| now.lists_done > 0 && shown(&opened.kind, &*opened.erased, *now))
                .await;
        }
    }

    /// Ends every watch. The caches keep what they had.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock());
        tasks.shutdown().await;
    }
}

/// Keeps `store` up to date for ever. Errors end nothing: the watch is taken up again after a wait.
async fn feed<K>(store: Arc<Store<K>>, fields: &'static str, client: kube::Client, random: Arc<dyn Random>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let mut config = watcher::Config::default();
    if !fields.is_empty() {
        config = config.fields(fields);
    }
    let mut events = pin!(events(Api::<K>::all(client), config, random));
    while let Some(event) = events.next().await {
        store.take(event);
    }
}
