//! The watchers of a kind, found by what each waits for: a change costs what those it may concern cost, whoever
//! else is there.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use meta::{Entry, ObjectKey};

use super::{
    event::{Batch, Event},
    queue::Queue,
};

/// Which changes a watcher is woken for: a superset of those it selects. The rest it filters itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// One object.
    Object(ObjectKey),
    /// All objects, in one namespace or in all.
    All { namespace: Option<String> },
    /// Those with a value, before the change or after it, in one namespace or in all.
    Valued { by: By, value: String, namespace: Option<String> },
}

/// Where the value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Position in `Resource::selectable`.
    Field(usize),
    Label(String),
}

type Group = Vec<Arc<Queue>>;

/// Watchers that differ in their namespace only.
#[derive(Default)]
struct Places {
    everywhere: Group,
    namespaces: HashMap<String, Group>,
}

type Values = HashMap<String, Places>;

#[derive(Default)]
pub(super) struct Watchers {
    objects: HashMap<ObjectKey, Group>,
    all: Places,
    fields: HashMap<usize, Values>,
    labels: HashMap<String, Values>,
    count: usize,
}

impl Watchers {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn add(&mut self, interest: &Interest, queue: Arc<Queue>) {
        let group = match interest {
            Interest::Object(key) => self.objects.entry(key.clone()).or_default(),
            Interest::All { namespace } => self.all.group(namespace.as_ref()),
            Interest::Valued { by, value, namespace } => {
                self.values(by).entry(value.clone()).or_default().group(namespace.as_ref())
            }
        };
        group.push(queue);
        self.count += 1;
    }

    fn values(&mut self, by: &By) -> &mut Values {
        match by {
            By::Label(key) => self.labels.entry(key.clone()).or_default(),
            By::Field(at) => self.fields.entry(*at).or_default(),
        }
    }

    /// Takes out what [`add`](Self::add) put in, if it is still there.
    pub(super) fn remove(&mut self, interest: &Interest, queue: &Arc<Queue>) {
        let mut removed = 0;
        let mut leave = |group: &mut Group| {
            let before = group.len();
            group.retain(|other| !Arc::ptr_eq(other, queue));
            removed = before - group.len();
            group.is_empty()
        };
        match interest {
            Interest::Object(key) => prune(&mut self.objects, key, leave),
            Interest::All { namespace } => {
                self.all.leave(namespace.as_ref(), &mut leave);
            }
            Interest::Valued { by, value, namespace } => {
                let of_values = |values: &mut Values| {
                    prune(values, value, |places| places.leave(namespace.as_ref(), &mut leave));
                    values.is_empty()
                };
                match by {
                    By::Field(at) => prune(&mut self.fields, at, of_values),
                    By::Label(key) => prune(&mut self.labels, key, of_values),
                }
            }
        }
        self.count -= removed;
    }

    /// Every watcher.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        let valued = self.fields.values().chain(self.labels.values()).flat_map(HashMap::values);
        let places = std::iter::once(&self.all).chain(valued);
        let groups = places.flat_map(|at| std::iter::once(&at.everywhere).chain(at.namespaces.values()));
        self.objects.values().chain(groups).flatten()
    }

    /// Gives each watcher what concerns it of the changes of one commit, as one batch that all who wait for
    /// the same share: they are woken once, and encode it once.
    pub(super) fn notify(&self, changes: Vec<Arc<Event>>) {
        if self.count == 0 {
            return;
        }
        let mut audiences = Audiences::default();
        for event in &changes {
            let key = &event.entry.header.key;
            if let Some(group) = self.objects.get(key) {
                audiences.add(group, event);
            }
            if let Some(group) = self.all.namespaces.get(&key.namespace) {
                audiences.add(group, event);
            }
            self.by_value(event, &mut audiences);
        }
        audiences.push();
        push(&self.all.everywhere, changes);
    }

    /// A watcher of a value also sees the objects that had it before, so that it learns of their going.
    fn by_value<'a, 'e>(&'a self, event: &'e Arc<Event>, audiences: &mut Audiences<'a>) {
        let mut concerns = |values: &'a Values, value: &str| {
            let Some(places) = values.get(value) else { return };
            audiences.add(&places.everywhere, event);
            if let Some(group) = places.namespaces.get(&event.entry.header.key.namespace) {
                audiences.add(group, event);
            }
        };
        let (now, before) = (&event.entry, event.previous.as_ref());
        for (at, value) in now.header.fields.iter().enumerate() {
            let Some(values) = self.fields.get(&at) else { continue };
            let old = before.and_then(|entry| entry.header.fields.get(at)).filter(|old| *old != value);
            old.into_iter().chain([value]).for_each(|value| concerns(values, value));
        }
        if self.labels.is_empty() {
            return;
        }
        let labels = |entry: &'e Arc<Entry>| entry.header.labels.iter();
        let old = before.into_iter().flat_map(labels);
        let old = old.filter(|(key, value)| now.header.labels.get(key) != Some(*value));
        for (key, value) in old.chain(labels(now)) {
            if let Some(values) = self.labels.get(key) {
                concerns(values, value);
            }
        }
    }
}

impl Places {
    fn group(&mut self, namespace: Option<&String>) -> &mut Group {
        match namespace {
            Some(namespace) => self.namespaces.entry(namespace.clone()).or_default(),
            None => &mut self.everywhere,
        }
    }

    /// Whether nobody is left.
    fn leave(&mut self, namespace: Option<&String>, leave: &mut impl FnMut(&mut Group) -> bool) -> bool {
        match namespace {
            Some(namespace) => prune(&mut self.namespaces, namespace, leave),
            None => {
                leave(&mut self.everywhere);
            }
        }
        self.everywhere.is_empty() && self.namespaces.is_empty()
    }
}

/// Takes the key out where `emptied` says that nothing is left below it.
fn prune<K: Hash + Eq, V>(map: &mut HashMap<K, V>, key: &K, emptied: impl FnOnce(&mut V) -> bool) {
    if map.get_mut(key).is_some_and(emptied) {
        map.remove(key);
    }
}

type Audience<'a> = (&'a [Arc<Queue>], Vec<Arc<Event>>);

/// Groups of watchers and what each is to see of one commit. No watcher is in two groups, so that each sees its
/// changes in order.
#[derive(Default)]
struct Audiences<'a> {
    groups: Vec<Audience<'a>>,
    /// Where a group is, by the address of its watchers.
    places: HashMap<usize, usize>,
}

impl<'a> Audiences<'a> {
    /// To be called once for each event and group.
    fn add(&mut self, group: &'a [Arc<Queue>], event: &Arc<Event>) {
        if group.is_empty() {
            return;
        }
        let place = *self.places.entry(group.as_ptr().addr()).or_insert_with(|| {
            self.groups.push((group, Vec::new()));
            self.groups.len() - 1
        });
        if let Some((_, events)) = self.groups.get_mut(place) {
            events.push(event.clone());
        }
    }

    fn push(self) {
        for (group, events) in self.groups {
            push(group, events);
        }
    }
}

fn push(group: &[Arc<Queue>], events: Vec<Arc<Event>>) {
    if group.is_empty() {
        return;
    }
    let batch = Arc::new(Batch::new(events));
    for queue in group {
        queue.push(batch.clone());
    }
}

#[cfg(test)]
mod tests {
    use meta::Header;

    use super::*;
    use crate::cache::{Happened, Taken};

    /// `namespace/name`, its one field, its labels.
    type Object<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

    fn entry((key, field, labels): Object<'_>, revision: u64) -> Arc<Entry> {
        let (namespace, name) = key.split_once('/').unwrap();
        let header = Header {
            key: ObjectKey::new(namespace, name),
            labels: labels.iter().copied().collect(),
            fields: Box::new([field.to_owned()]),
            ..Header::default()
        };
        let mut object = meta::Object::default();
        object.set(&["metadata", "name"], name);
        let stored = Entry::encode(&object).unwrap();
        Entry::commit(&stored, header, meta::Revision(revision)).unwrap()
    }

    fn valued(by: By, value: &str, namespace: Option<&str>) -> Interest {
        Interest::Valued { by, value: value.to_owned(), namespace: namespace.map(str::to_owned) }
    }

    /// The revisions that a watcher is woken for, of changes that are numbered from 1.
    fn check(interest: &Interest, changes: &[(Option<Object<'_>>, Object<'_>)], expected: &[u64]) {
        let mut watchers = Watchers::default();
        let (queue, other) = (Arc::new(Queue::default()), Arc::new(Queue::default()));
        watchers.add(interest, queue.clone());
        watchers.add(interest, other.clone());
        let events = (1..).zip(changes).map(|(revision, (before, now))| {
            let before = before.map(|before| entry(before, 0));
            Arc::new(Event::new(Happened::Modified, entry(*now, revision), before))
        });
        watchers.notify(events.collect());
        for queue in [&queue, &other] {
            let seen: Vec<u64> = match queue.take() {
                Taken::Items(batches) => {
                    assert_eq!(batches.len(), 1, "{interest:?} is woken once");
                    batches[0].events.iter().map(|event| event.revision().0).collect()
                }
                _ => Vec::new(),
            };
            assert_eq!(seen, expected, "{interest:?}");
        }
        assert_eq!((watchers.count(), watchers.queues().count()), (2, 2));
        watchers.remove(interest, &queue);
        watchers.remove(interest, &queue);
        assert_eq!((watchers.count(), watchers.queues().count()), (1, 1));
        watchers.remove(interest, &other);
        assert!(
            watchers.objects.is_empty() && watchers.all.namespaces.is_empty(),
            "{interest:?} leaves something"
        );
        assert!(watchers.fields.is_empty() && watchers.labels.is_empty());
    }

    #[test]
    fn a_change_reaches_those_it_concerns_and_nobody_else() {
        let red: &[(&str, &str)] = &[("colour", "red"), ("size", "1")];
        let blue: &[(&str, &str)] = &[("colour", "blue"), ("size", "1")];
        let changes: &[(Option<Object<'_>>, Object<'_>)] = &[
            (None, ("a/x", "n1", red)),
            (Some(("a/x", "n1", red)), ("a/x", "n2", blue)),
            (None, ("b/x", "n1", &[])),
            (Some(("b/x", "n1", &[])), ("b/x", "n1", red)),
            (Some(("b/x", "n1", red)), ("b/x", "n1", &[])),
        ];
        let colour = |value, namespace| valued(By::Label("colour".to_owned()), value, namespace);
        let all = |namespace: Option<&str>| Interest::All { namespace: namespace.map(str::to_owned) };
        for (interest, expected) in [
            (all(None), &[1, 2, 3, 4, 5][..]),
            (all(Some("a")), &[1, 2]),
            (all(Some("c")), &[]),
            (Interest::Object(ObjectKey::new("b", "x")), &[3, 4, 5]),
            (colour("red", None), &[1, 2, 4, 5]),
            (colour("red", Some("b")), &[4, 5]),
            (colour("blue", None), &[2]),
            (colour("blue", Some("b")), &[]),
            (colour("1", None), &[]),
            (valued(By::Label("size".to_owned()), "1", None), &[1, 2, 4, 5]),
            (valued(By::Field(0), "n1", None), &[1, 2, 3, 4, 5]),
            (valued(By::Field(0), "n2", Some("a")), &[2]),
            (valued(By::Field(1), "n1", None), &[]),
        ] {
            check(&interest, changes, expected);
        }
    }
}
