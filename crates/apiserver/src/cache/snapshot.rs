//! An immutable picture of all objects of one kind, in key order.

use std::{borrow::Borrow, cmp::Ordering, ops::Bound, sync::Arc};

use imbl::OrdSet;
use meta::{Entry, ObjectKey, Revision};

/// An entry that sorts and is found by its key.
#[derive(Clone, Debug)]
pub(crate) struct Keyed(pub(crate) Arc<Entry>);

impl PartialEq for Keyed {
    fn eq(&self, other: &Self) -> bool {
        self.0.header.key == other.0.header.key
    }
}

impl Eq for Keyed {}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.header.key.cmp(&other.0.header.key)
    }
}

impl Borrow<ObjectKey> for Keyed {
    fn borrow(&self) -> &ObjectKey {
        &self.0.header.key
    }
}

/// All objects of one kind at one revision. Cloning shares everything.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    objects: OrdSet<Keyed>,
    /// The last change that is in it.
    pub revision: Revision,
}

impl Snapshot {
    /// A snapshot of many entries at once.
    pub(crate) fn collect(entries: Vec<Arc<Entry>>, revision: Revision) -> Self {
        Self { objects: entries.into_iter().map(Keyed).collect(), revision }
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Entry>> {
        self.objects.get(key).map(|keyed| &keyed.0)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Objects in key order, of one namespace or (with `None`) all, after `after` where given.
    pub fn range<'a>(
        &'a self,
        namespace: Option<&'a str>,
        after: Option<&ObjectKey>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> + 'a {
        let first = ObjectKey::new(namespace.unwrap_or_default(), "");
        let start = match after {
            Some(after) if *after >= first => Bound::Excluded(after.clone()),
            _ => Bound::Included(first),
        };
        self.objects
            .range::<_, ObjectKey>((start, Bound::Unbounded))
            .map(|keyed| &keyed.0)
            .take_while(move |entry| namespace.is_none_or(|ns| entry.header.key.namespace == ns))
    }

    pub(crate) fn insert(&mut self, entry: Arc<Entry>) {
        // An equal key must be replaced, not kept: `OrdSet::insert` replaces.
        self.objects.insert(Keyed(entry));
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use meta::{Header, Object};

    use super::*;

    fn entry(namespace: &str, name: &str, revision: u64) -> Arc<Entry> {
        let object =
            Object::from_value(serde_json::json!({"metadata": {"name": name, "namespace": namespace}}))
                .unwrap();
        let header = Header::of(&object, Box::default());
        Entry::commit(&Entry::encode(&object).unwrap(), header, Revision(revision)).unwrap()
    }

    #[test]
    fn ranges_by_namespace_and_replaces_by_key() {
        let mut snapshot = Snapshot::default();
        for (at, (namespace, name)) in [("a", "x"), ("b", "x"), ("b", "y"), ("c", "x")].iter().enumerate() {
            snapshot.insert(entry(namespace, name, at as u64 + 1));
        }
        snapshot.insert(entry("b", "x", 9));
        let names = |namespace, after: Option<&ObjectKey>| -> Vec<String> {
            snapshot.range(namespace, after).map(|e| format!("{}@{}", e.header.key, e.revision)).collect()
        };
        assert_eq!(names(Some("b"), None), ["b/x@9", "b/y@3"]);
        assert_eq!(names(Some("b"), Some(&ObjectKey::new("b", "x"))), ["b/y@3"]);
        assert_eq!(names(None, Some(&ObjectKey::new("b", "x"))), ["b/y@3", "c/x@4"]);
        assert_eq!(names(Some("bb"), None), Vec::<String>::new());
    }
}
