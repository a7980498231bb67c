//! Fills the cache from the store at start.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use futures::StreamExt;
use meta::{Entry, GroupResource, Header, NotAnObject, Object, Revision};
use resource::Resource;
use store::{Key, Loaded, Store, Stored};
use tokio::sync::watch;

use super::{Cache, Kind, Snapshot};
use crate::Registry;

/// Why the cache could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store failed.
    #[error("read the store")]
    Store(#[source] store::Error),
    /// The store ended without saying where it stands.
    #[error("the store ended before its last object")]
    Truncated,
    /// A stored value is not an object.
    #[error("stored object {key} is damaged")]
    Object {
        /// Which one.
        key: Key,
        /// Why.
        #[source]
        source: NotAnObject,
    },
}

/// Values decoded at a time on one thread; bounds what is in flight and keeps threads busy.
const CHUNK: usize = 4_096;

type Entries = Vec<(GroupResource, Arc<Entry>)>;

/// Everything that a store holds.
pub(crate) struct Gathered {
    pub(crate) kinds: HashMap<GroupResource, Vec<Arc<Entry>>>,
    pub(crate) revision: Revision,
}

impl Cache {
    /// Reads everything. Objects of kinds that `registry` does not know yet (CRDs) get their selectable
    /// fields by [`Cache::reindex`] when the kind is installed.
    pub async fn load(store: &dyn Store, registry: &Arc<Registry>) -> Result<Self, LoadError> {
        let Gathered { kinds, revision } = Self::gather(store, registry).await?;
        let kinds = kinds
            .into_iter()
            .map(|(name, entries)| {
                let newest = entries.iter().map(|entry| entry.revision).max().unwrap_or_default();
                (name, Arc::new(Kind::new(Snapshot::collect(entries, newest), revision)))
            })
            .collect();
        let cache = Self::at(kinds, revision);
        for resource in registry.all() {
            if let Some(field) = resource.selectable.iter().position(|field| field.indexed) {
                cache.kind(&resource.stored_as).index_by(field);
            }
        }
        Ok(cache)
    }

    /// An empty cache, as over an empty store.
    pub fn empty() -> Self {
        Self::at(HashMap::new(), Revision(0))
    }

    fn at(kinds: HashMap<GroupResource, Arc<Kind>>, revision: Revision) -> Self {
        Self {
            kinds: ArcSwap::from_pointee(kinds),
            adding: std::sync::Mutex::default(),
            head: watch::Sender::new(revision),
            loaded: ArcSwap::from_pointee(revision),
            order: std::sync::Mutex::default(),
        }
    }

    pub(crate) async fn gather(store: &dyn Store, registry: &Arc<Registry>) -> Result<Gathered, LoadError> {
        let mut stream = store.load();
        let (mut chunk, mut decoding, mut at) = (Vec::with_capacity(CHUNK), Vec::new(), None);
        while let Some(item) = stream.next().await {
            match item.map_err(LoadError::Store)? {
                Loaded::Object(stored) => chunk.push(stored),
                Loaded::At(revision) => at = Some(revision),
            }
            if chunk.len() == CHUNK {
                let (full, registry) = (std::mem::take(&mut chunk), registry.clone());
                decoding.push(tokio::task::spawn_blocking(move || decode(full, &registry)));
            }
        }
        let revision = at.ok_or(LoadError::Truncated)?;
        let mut kinds: HashMap<GroupResource, Vec<Arc<Entry>>> = HashMap::new();
        let mut file = |entries: Entries| {
            for (kind, entry) in entries {
                kinds.entry(kind).or_default().push(entry);
            }
        };
        file(decode(chunk, registry)?);
        for task in decoding {
            file(task.await.map_err(|_| LoadError::Truncated)??);
        }
        Ok(Gathered { kinds, revision })
    }
}

fn decode(chunk: Vec<Stored>, registry: &Registry) -> Result<Entries, LoadError> {
    let mut known: HashMap<GroupResource, Option<Arc<Resource>>> = HashMap::new();
    chunk
        .into_iter()
        .map(|Stored { key, value, revision }| {
            let kind = key.group_resource();
            let resource = known.entry(kind.clone()).or_insert_with(|| registry.stored(&kind));
            entry(&value, revision, resource.as_deref())
                .map(|entry| (kind, entry))
                .map_err(|source| LoadError::Object { key, source })
        })
        .collect()
}

/// A stored value as it is kept here.
pub(crate) fn entry(
    value: &[u8],
    revision: Revision,
    resource: Option<&Resource>,
) -> Result<Arc<Entry>, NotAnObject> {
    let (_, json) = Entry::stored(value)?;
    let header = match resource.filter(|resource| !resource.selectable.is_empty()) {
        None => Header::read(json)?,
        Some(resource) => {
            let tree = serde_json::from_slice(json).map_err(NotAnObject::Json)?;
            let object = Object::from_value(tree).map_err(|_| NotAnObject::Metadata)?;
            Header::of(&object, fields(&object, resource))
        }
    };
    Entry::commit(value, header, revision)
}

/// The values of the selectable fields of an object, in the order of the table entry.
pub(crate) fn fields(object: &Object, resource: &Resource) -> Box<[String]> {
    resource.selectable.iter().map(|field| (field.value)(object)).collect()
}

/// The same entry with its selectable fields computed anew; `None` when it cannot be parsed.
pub(super) fn with_fields(entry: &Arc<Entry>, resource: &Resource) -> Option<Arc<Entry>> {
    let object = entry.object().ok()?;
    let header = Header::of(&object, fields(&object, resource));
    Entry::commit(&Entry::encode(&object).ok()?, header, entry.revision).ok()
}
