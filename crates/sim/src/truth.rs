//! What the API server has committed, read without asking anybody.

use std::collections::BTreeMap;

use apiserver::rest::Rest;
use k8s_openapi::Resource;
use meta::{Entry, GroupResource};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Kinds that change although nothing happens.
const RESTLESS: [&str; 2] = ["leases", "events"];
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
        resting.map(|(name, kind)| (name.clone(), kind.snapshot().revision.0)).collect()
    }
}
