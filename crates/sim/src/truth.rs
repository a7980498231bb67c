//! What the API server has committed, read without asking anybody.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use apiserver::{
    cache::{Kind, Snapshot},
    rest::Rest,
};
use k8s_openapi::Resource;
use meta::{Entry, GroupResource};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Kinds that change although nothing happens.
const RESTLESS: [&str; 2] = ["leases", "events"];
/// The kind whose objects say every five minutes that all is as it was.
const BEATING: &str = "nodes";
/// The group of kinds that are measured.
const MEASURED: &str = "metrics.k8s.io";

/// A look at the committed state.
pub struct Truth {
    rest: Rest,
}

impl Truth {
    pub(crate) fn new(rest: Rest) -> Self {
        Self { rest }
    }

    /// Every object of a built-in kind, in key order. What cannot be read as its type is left out.
    pub fn all<K: Resource + DeserializeOwned>(&self) -> Vec<K> {
        let kind = self.rest.cache().kind(&GroupResource::new(K::GROUP, K::URL_PATH_SEGMENT));
        let snapshot = kind.snapshot();
        let read = |entry: &std::sync::Arc<Entry>| {
            let object = entry.object().ok()?;
            serde_json::from_value(object.into_value()).ok()
        };
        snapshot.range(None, None).filter_map(read).collect()
    }

    /// Every object there is, with its kind.
    pub fn everything(&self) -> Vec<(GroupResource, Value)> {
        let kinds = self.rest.cache().kinds();
        let mut all = Vec::new();
        for (name, kind) in kinds.into_iter().filter(|(name, _)| name.group != MEASURED) {
            let snapshot = kind.snapshot();
            let objects = snapshot.range(None, None).filter_map(|entry| entry.object().ok());
            all.extend(objects.map(|object| (name.clone(), object.into_value())));
        }
        all
    }

    /// For each kind, a number that stands still while nothing but heartbeats is written.
    pub fn stamps(&self) -> BTreeMap<GroupResource, u64> {
        let kinds = self.rest.cache().kinds();
        let rests = |name: &GroupResource| name.group != MEASURED && !RESTLESS.contains(&&*name.resource);
        let resting = kinds.iter().filter(|(name, _)| rests(name));
        let stamp = |name: &GroupResource, kind: &Kind| match &*name.resource {
            BEATING => said(&kind.snapshot()),
            _ => kind.snapshot().revision.0,
        };
        resting.map(|(name, kind)| (name.clone(), stamp(name, kind))).collect()
    }
}

/// What objects say apart from when they said it.
fn said(snapshot: &Snapshot) -> u64 {
    let mut hasher = DefaultHasher::new();
    for mut object in snapshot.range(None, None).filter_map(|entry| entry.object().ok()) {
        if let Some(metadata) = object.0.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
            metadata.remove("managedFields");
        }
        let conditions = object.0.get_mut("status").and_then(|status| status.get_mut("conditions"));
        for condition in conditions.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(condition) = condition.as_object_mut() {
                condition.remove("lastHeartbeatTime");
            }
        }
        object.into_value().to_string().hash(&mut hasher);
    }
    hasher.finish()
}
