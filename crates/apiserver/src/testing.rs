//! A view for tests: objects in a map.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use meta::{Entry, GroupResource, Header, Object, Revision, Value};
use resource::View;

type Key = (GroupResource, String, String);

/// Objects by kind, namespace and name.
#[derive(Default)]
pub(crate) struct Objects(Mutex<BTreeMap<Key, Arc<Entry>>>);

impl Objects {
    /// Adds an object, or replaces it.
    pub(crate) fn with(self, resource: &GroupResource, value: Value) -> Self {
        let object = Object::from_value(value).unwrap();
        let header = Header {
            key: object.key(),
            uid: object.uid().to_owned(),
            deleting: object.is_deleting(),
            labels: serde_json::from_value(
                object.get(&["metadata", "labels"]).cloned().unwrap_or_else(|| serde_json::json!({})),
            )
            .unwrap(),
            ..Header::default()
        };
        let mut objects = self.0.lock().unwrap();
        let revision = Revision(objects.len() as u64 + 1);
        let entry = Entry::commit(&Entry::encode(&object).unwrap(), header, revision).unwrap();
        objects.insert((resource.clone(), object.namespace().into(), object.name().into()), entry);
        drop(objects);
        self
    }

    /// Removes an object.
    pub(crate) fn remove(&self, resource: &GroupResource, namespace: &str, name: &str) {
        self.0.lock().unwrap().remove(&(resource.clone(), namespace.into(), name.into())).unwrap();
    }
}

impl View for Objects {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.0.lock().unwrap().get(&(resource.clone(), namespace.into(), name.into())).cloned()
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Entry>> {
        let objects = self.0.lock().unwrap();
        let wanted = |key: &Key| key.0 == *resource && namespace.is_none_or(|n| n == key.1);
        objects.iter().filter(|(key, _)| wanted(key)).map(|(_, entry)| entry.clone()).collect()
    }
}
