//! Which changes of which kinds lead to which keys of a controller.

use std::{fmt::Debug, sync::Arc};

use kube::Resource;
use meta::ObjectKey;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use crate::{Change, Kind, Progress, Stores, key_of};

/// Puts a key into a controller's queue.
pub type Enqueue = Arc<dyn Fn(ObjectKey) + Send + Sync>;

type Source = Box<dyn Fn(&Stores, &Enqueue) -> watch::Receiver<Progress> + Send + Sync>;

/// The watches of one controller. Mappings see both versions of a changed object, so that a key that
/// only the old version leads to is found as well.
#[derive(Default)]
pub struct Watches {
    sources: Vec<Source>,
    primary: Option<Kind>,
}

impl Watches {
    /// Watches the kind the controller is about: each object leads to its own key.
    pub fn of<K>() -> Self
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let watches = Self { sources: Vec::new(), primary: Some(Kind::of::<K>()) };
        watches.also::<K>(|change, _| change.object().map(|object| key_of(&**object)).into_iter().collect())
    }

    /// Watches a kind whose objects lead to the object of the primary kind that controls them.
    #[must_use]
    pub fn owns<C>(self) -> Self
    where
        C: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let primary = self.primary.clone();
        self.also::<C>(move |change, _| {
            let Some(primary) = &primary else { return Vec::new() };
            change.versions().filter_map(|child| owner_key(&**child, primary)).collect()
        })
    }

    /// Watches a kind with a mapping of its own. The mapping may look at caches and must be quick.
    #[must_use]
    pub fn also<C>(self, map: impl Fn(&Change<C>, &Stores) -> Vec<ObjectKey> + Send + Sync + 'static) -> Self
    where
        C: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.also_where("", map)
    }

    /// Watches the objects of a kind that a field selector admits ([`Stores::with_fields`]).
    #[must_use]
    pub fn also_where<C>(
        mut self,
        fields: &'static str,
        map: impl Fn(&Change<C>, &Stores) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self
    where
        C: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let map = Arc::new(map);
        self.sources.push(Box::new(move |stores, enqueue| {
            let store = stores.with_fields::<C>(fields);
            let (map, stores, enqueue) = (Arc::clone(&map), stores.downgrade(), Arc::clone(enqueue));
            store.subscribe(move |change| {
                if let Some(stores) = stores.upgrade() {
                    map(change, &stores).into_iter().for_each(|key| enqueue(key));
                }
            });
            store.watch_progress()
        }));
        self
    }

    /// Takes keys from elsewhere than a cache: `feed` is given where to put them and says when what it
    /// knows is complete ([`Progress::lists_done`] above 0). Of the caches it may keep single ones, never
    /// all of them.
    #[must_use]
    pub fn fed_by(
        mut self,
        feed: impl Fn(&Stores, Enqueue) -> watch::Receiver<Progress> + Send + Sync + 'static,
    ) -> Self {
        self.sources.push(Box::new(move |stores, enqueue| feed(stores, Arc::clone(enqueue))));
        self
    }

    /// Opens the cache of a kind that `observe` reads but whose changes lead to no key.
    #[must_use]
    pub fn reads<C>(mut self) -> Self
    where
        C: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.sources.push(Box::new(|stores, _| stores.of::<C>().watch_progress()));
        self
    }

    /// Subscribes to everything and waits until all caches are usable.
    pub(crate) async fn start(&self, stores: &Stores, enqueue: &Enqueue) {
        let progresses: Vec<_> = self.sources.iter().map(|source| source(stores, enqueue)).collect();
        for mut progress in progresses {
            // Fails only when the caches are gone, and then nothing is left to wait for.
            let _closed = progress.wait_for(|progress| progress.lists_done > 0).await;
        }
    }
}

fn owner_key<C: Resource>(child: &C, primary: &Kind) -> Option<ObjectKey> {
    let owner = crate::controller_of(child)?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    let ours = owner.kind == primary.kind && group == primary.group;
    ours.then(|| ObjectKey::new(child.meta().namespace.clone().unwrap_or_default(), owner.name.clone()))
}
