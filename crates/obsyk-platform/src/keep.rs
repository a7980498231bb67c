//! How clusters are kept in a store: one entry for each object, one for each cluster's record, one for each
//! assertion that was used. What is acknowledged was committed first, in one batch with the record.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use meta::{GroupResource, ObjectKey};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::{Expect, InvalidKey, Key, Loaded, Store, Write};

use crate::{
    cluster::{Cluster, Edit, Kept, Record},
    digest,
    kinds::{KINDS, Kind},
};

const GROUP: &str = "inventory.obsyk.io";
const CLUSTERS: &str = "clusters";
const ASSERTIONS: &str = "assertions";
/// Writes of one commit: below the store's own bound.
const COMMIT_WRITES_MAX: usize = 4096;
/// Bytes of one commit, likewise.
const COMMIT_BYTES_MAX: usize = 16 << 20;
/// History is forgotten whenever so many writes have been made: nobody follows it.
const COMPACT_EVERY: u64 = 4096;

/// What cannot be kept or read back.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] store::Error),
    /// An entry is not of the form that is written here.
    #[error("the entry {0} is not an inventory's: is this the right directory?")]
    Entry(String),
    /// An identity makes no key.
    #[error("an identity cannot be kept")]
    Key(#[from] InvalidKey),
}

/// An object's entry, borrowed for writing and reading alike.
#[derive(Deserialize, Serialize)]
struct Entry<'a> {
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    namespace: std::borrow::Cow<'a, str>,
    epoch: u64,
    seq: u64,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// What a store holds.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) clusters: BTreeMap<String, Cluster>,
    /// When each assertion that was used expires, by its digest.
    pub(crate) assertions: BTreeMap<String, i64>,
}

fn key(resource: &str, namespace: &str, name: &str) -> Result<Key, KeepError> {
    Ok(Key::new(&GroupResource::new(GROUP, resource), &ObjectKey::new(namespace, name))?)
}

/// Reads everything.
pub(crate) async fn load(store: &dyn Store) -> Result<Held, KeepError> {
    let mut held = Held::default();
    let mut loading = store.load();
    while let Some(loaded) = loading.next().await {
        let Loaded::Object(stored) = loaded? else { break };
        let wrong = || KeepError::Entry(stored.key.as_str().to_owned());
        let (resource, cluster, name) = (stored.key.resource(), stored.key.namespace(), stored.key.name());
        if stored.key.group() != GROUP {
            return Err(wrong());
        }
        match resource {
            CLUSTERS => {
                let record: Record = serde_json::from_slice(&stored.value).map_err(|_| wrong())?;
                held.clusters.entry(name.to_owned()).or_default().record = record;
            }
            ASSERTIONS => {
                let expires = serde_json::from_slice(&stored.value).map_err(|_| wrong())?;
                held.assertions.insert(name.to_owned(), expires);
            }
            list => {
                let kind = KINDS.iter().find(|kind| kind.list == list).ok_or_else(wrong)?;
                let entry: Entry<'_> = serde_json::from_slice(&stored.value).map_err(|_| wrong())?;
                let object = Bytes::copy_from_slice(entry.object.get().as_bytes());
                let kept = Kept::new(name, &entry.name, &entry.namespace, object, (entry.epoch, entry.seq));
                let of = held.clusters.entry(cluster.to_owned()).or_default();
                of.objects.entry(kind.list).or_default().insert(name.to_owned(), kept);
            }
        }
    }
    Ok(held)
}

/// Makes edits of a cluster and its record durable; in one commit when they fit, else the record last.
pub(crate) async fn edits(
    store: &dyn Store,
    cluster: &str,
    edits: &[Edit],
    record: Option<&Record>,
) -> Result<(), KeepError> {
    let mut batch = Vec::new();
    let mut bytes = 0_usize;
    for edit in edits {
        let write = write(cluster, edit)?;
        bytes += write.value.as_ref().map_or(0, Bytes::len);
        batch.push(write);
        if batch.len() >= COMMIT_WRITES_MAX || bytes >= COMMIT_BYTES_MAX {
            commit(store, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    }
    if let Some(record) = record {
        let value = serde_json::to_vec(record).map_err(|_| KeepError::Entry(cluster.to_owned()))?;
        batch.push(Write::put(key(CLUSTERS, "", cluster)?, value));
    }
    commit(store, batch).await
}

fn write(cluster: &str, edit: &Edit) -> Result<Write, KeepError> {
    let place = |kind: &Kind, uid: &str| key(kind.list, cluster, uid);
    match edit {
        Edit::Remove { kind, uid } => Ok(Write { key: place(kind, uid)?, expect: Expect::Any, value: None }),
        Edit::Put { kind, uid, kept } => {
            let wrong = |_| KeepError::Entry(uid.clone());
            let object: &RawValue = serde_json::from_slice(&kept.object).map_err(wrong)?;
            let (epoch, seq) = kept.at;
            let (name, namespace) = ((&*kept.name).into(), (&*kept.namespace).into());
            let entry = Entry { name, namespace, epoch, seq, object };
            Ok(Write::put(place(kind, uid)?, serde_json::to_vec(&entry).map_err(wrong)?))
        }
    }
}

/// Remembers an assertion, and forgets those that have expired.
pub(crate) async fn assertion(
    store: &dyn Store,
    name: &str,
    expires: i64,
    expired: &[String],
) -> Result<(), KeepError> {
    let mut batch = vec![Write::put(key(ASSERTIONS, "", name)?, expires.to_string())];
    for name in expired {
        batch.push(Write { key: key(ASSERTIONS, "", name)?, expect: Expect::Any, value: None });
    }
    commit(store, batch).await
}

/// The name of an assertion in the store: identities may hold anything.
pub(crate) fn assertion_name(client_id: &str, id: &str) -> String {
    digest::sha256(format!("{client_id}\n{id}").as_bytes())
}

async fn commit(store: &dyn Store, batch: Vec<Write>) -> Result<(), KeepError> {
    if batch.is_empty() {
        return Ok(());
    }
    store.commit(batch).await?;
    let head = store.head().await?;
    if head.revision.0.saturating_sub(head.compacted.0) >= COMPACT_EVERY {
        store.compact(head.revision).await?;
    }
    Ok(())
}
