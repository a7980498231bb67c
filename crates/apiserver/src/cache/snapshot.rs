//! An immutable picture of all objects of one kind, in key order.

use std::{borrow::Borrow, cmp::Ordering, collections::BTreeMap, ops::Bound, sync::Arc};

use imbl::{OrdMap, OrdSet};
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
    /// Position in `Resource::selectable` of the field by which objects are found too.
    indexed: Option<usize>,
    by_value: OrdMap<String, OrdSet<Keyed>>,
    /// The last change that is in it.
    pub revision: Revision,
}

impl Snapshot {
    /// A snapshot of many entries at once.
    pub(crate) fn collect(entries: Vec<Arc<Entry>>, revision: Revision) -> Self {
        Self { objects: entries.into_iter().map(Keyed).collect(), revision, ..Self::default() }
    }

    /// Has objects found by the selectable field at this position too, or by none.
    pub(crate) fn index_by(&mut self, field: Option<usize>) {
        self.indexed = field;
        let mut values: BTreeMap<String, Vec<Keyed>> = BTreeMap::new();
        if let Some(at) = field {
            for keyed in &self.objects {
                values.entry(value(&keyed.0, at).to_owned()).or_default().push(keyed.clone());
            }
        }
        let collected = |(value, objects): (_, Vec<_>)| (value, objects.into_iter().collect::<OrdSet<_>>());
        self.by_value = values.into_iter().map(collected).collect();
    }

    /// The field that [`index_by`](Self::index_by) named.
    pub(crate) fn indexed(&self) -> Option<usize> {
        self.indexed
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
        in_order(Some(&self.objects), namespace, after)
    }

    /// As [`range`](Self::range), of the objects whose selectable fields at these positions have these values;
    /// others may be among them.
    pub fn valued<'a>(
        &'a self,
        wanted: impl IntoIterator<Item = (usize, &'a str)>,
        namespace: Option<&'a str>,
        after: Option<&ObjectKey>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> + 'a {
        let objects = match wanted.into_iter().find(|(at, _)| self.indexed == Some(*at)) {
            Some((_, value)) => self.by_value.get(value),
            None => Some(&self.objects),
        };
        in_order(objects, namespace, after)
    }

    pub(crate) fn insert(&mut self, entry: Arc<Entry>) {
        // An equal key must be replaced, not kept: `OrdSet::insert` replaces.
        let before = self.objects.insert(Keyed(entry.clone()));
        let Some(at) = self.indexed else { return };
        if let Some(Keyed(before)) = before.filter(|before| value(&before.0, at) != value(&entry, at)) {
            self.forget(at, &before);
        }
        match self.by_value.get_mut(value(&entry, at)) {
            Some(objects) => {
                objects.insert(Keyed(entry));
            }
            None => {
                self.by_value.insert(value(&entry, at).to_owned(), OrdSet::unit(Keyed(entry)));
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        let before = self.objects.remove(key);
        if let (Some(at), Some(Keyed(before))) = (self.indexed, before) {
            self.forget(at, &before);
        }
    }

    fn forget(&mut self, at: usize, entry: &Entry) {
        let value = value(entry, at);
        let Some(objects) = self.by_value.get_mut(value) else { return };
        objects.remove(&entry.header.key);
        if objects.is_empty() {
            self.by_value.remove(value);
        }
    }
}

/// What an entry's selectable field at this position reads as.
fn value(entry: &Entry, at: usize) -> &str {
    entry.header.fields.get(at).map_or("", String::as_str)
}

fn in_order<'a>(
    objects: Option<&'a OrdSet<Keyed>>,
    namespace: Option<&'a str>,
    after: Option<&ObjectKey>,
) -> impl Iterator<Item = &'a Arc<Entry>> + 'a {
    let first = ObjectKey::new(namespace.unwrap_or_default(), "");
    let start = match after {
        Some(after) if *after >= first => Bound::Excluded(after.clone()),
        _ => Bound::Included(first),
    };
    objects
        .into_iter()
        .flat_map(move |objects| objects.range::<_, ObjectKey>((start.clone(), Bound::Unbounded)))
        .map(|keyed| &keyed.0)
        .take_while(move |entry| namespace.is_none_or(|ns| entry.header.key.namespace == ns))
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

    fn on(node: &str, key: (&str, &str), revision: u64) -> Arc<Entry> {
        let object = Object::from_value(serde_json::json!({"metadata": {"name": key.1, "namespace": key.0}}));
        let object = object.unwrap();
        let header = Header::of(&object, ["Running".to_owned(), node.to_owned()].into());
        Entry::commit(&Entry::encode(&object).unwrap(), header, Revision(revision)).unwrap()
    }

    #[test]
    fn finds_by_the_indexed_field_what_a_search_finds() {
        let (nodes, names) = (["", "n1", "n2"], ["p", "q", "r", "s"]);
        let mut random = 7_u64;
        let mut below = |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % limit
        };
        let mut snapshot = Snapshot::default();
        let mut past = Snapshot::default();
        for step in 0..500 {
            let key = (["a", "b"][below(2)], names[below(4)]);
            match below(4) {
                0 => snapshot.remove(&ObjectKey::new(key.0, key.1)),
                _ => snapshot.insert(on(nodes[below(3)], key, step)),
            }
            match step {
                // What was there before the index is in it.
                20 => snapshot.index_by(Some(1)),
                100 => past = snapshot.clone(),
                _ => {}
            }
            for of in [&snapshot, &past] {
                for (node, namespace) in nodes.iter().flat_map(|node| [(node, None), (node, Some("a"))]) {
                    let here = |entry: &&Arc<Entry>| value(entry, 1) == *node;
                    let after = ObjectKey::new("a", "q");
                    for after in [None, Some(&after)] {
                        let searched: Vec<_> = of.range(namespace, after).filter(here).collect();
                        let found: Vec<_> =
                            of.valued([(0, "Running"), (1, *node)], namespace, after).collect();
                        let found: Vec<_> = match of.indexed() {
                            Some(_) => found,
                            None => found.into_iter().filter(here).collect(),
                        };
                        let keys = |of: Vec<&Arc<Entry>>| -> Vec<_> {
                            of.iter().map(|entry| (entry.header.key.clone(), entry.revision)).collect()
                        };
                        assert_eq!(keys(found), keys(searched), "{node} in {namespace:?} after {after:?}");
                    }
                }
            }
        }
        for key in snapshot.range(None, None).map(|entry| entry.header.key.clone()).collect::<Vec<_>>() {
            snapshot.remove(&key);
        }
        assert!(snapshot.by_value.is_empty(), "no value without objects is kept");
    }
}
