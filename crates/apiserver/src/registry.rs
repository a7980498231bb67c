//! Which kinds are served now. Built-in kinds are installed at start, CRDs as they come and go; readers
//! never wait.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use meta::{GroupResource, GroupVersion, GroupVersionResource};
use resource::Resource;
use schema::{TypeId, TypeSet};
use tokio::sync::watch;

use crate::aggregation::{Remote, Remotes};

type Plurals = HashMap<String, Arc<Resource>>;

#[derive(Default, Clone)]
struct Table {
    served: HashMap<String, HashMap<String, Plurals>>,
    /// What other servers answer for.
    remotes: Arc<Remotes>,
    generation: u64,
}

/// The kinds that the server answers for.
pub struct Registry {
    table: ArcSwap<Table>,
    writing: Mutex<()>,
    changed: watch::Sender<u64>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { table: ArcSwap::default(), writing: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Registry {
    /// A registry that serves nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves a kind from now on, instead of what had the same group, version and plural.
    pub fn install(&self, resource: Resource) {
        self.install_all([resource]);
    }

    /// Serves several kinds at once, as one change of generation.
    pub fn install_all(&self, resources: impl IntoIterator<Item = Resource>) {
        self.change(|table| {
            for resource in resources {
                let versions = table.served.entry(resource.group.to_string()).or_default();
                let plurals = versions.entry(resource.version.to_string()).or_default();
                plurals.insert(resource.plural.to_string(), Arc::new(resource));
            }
        });
    }

    /// Serves the kind no longer.
    pub fn remove(&self, key: &GroupVersionResource) {
        self.change(|table| {
            let Some(versions) = table.served.get_mut(&key.group) else { return };
            if let Some(plurals) = versions.get_mut(&key.version) {
                plurals.remove(&key.resource);
                if plurals.is_empty() {
                    versions.remove(&key.version);
                }
            }
            if versions.is_empty() {
                table.served.remove(&key.group);
            }
        });
    }

    fn change(&self, edit: impl FnOnce(&mut Table)) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        edit(&mut table);
        table.generation += 1;
        let generation = table.generation;
        self.table.store(Arc::new(table));
        self.changed.send_replace(generation);
    }

    /// Lets another server answer for a version of a group, instead of what answered before.
    pub(crate) fn set_remote(&self, remote: Remote) {
        self.change(|table| {
            let remotes = Arc::make_mut(&mut table.remotes);
            remotes.insert(remote.of.clone(), Arc::new(remote));
        });
    }

    /// Notes what became of another server; nothing when it is reached in another way by now.
    pub(crate) fn update_remote(&self, remote: &Remote) {
        if self.remote(&remote.of).is_some_and(|present| present.is_as(remote)) {
            return;
        }
        self.change(|table| {
            if let Some(present) = Arc::make_mut(&mut table.remotes).get_mut(&remote.of)
                && present.is_reached_as(remote)
            {
                *present = Arc::new(remote.clone());
            }
        });
    }

    /// Answers for a version of a group here again, if there is anything to answer.
    pub(crate) fn remove_remote(&self, of: &GroupVersion) {
        self.change(|table| {
            Arc::make_mut(&mut table.remotes).remove(of);
        });
    }

    /// The other server that answers for a version of a group.
    pub(crate) fn remote(&self, of: &GroupVersion) -> Option<Arc<Remote>> {
        self.table.load().remotes.get(of).cloned()
    }

    /// All other servers.
    pub(crate) fn remotes(&self) -> Arc<Remotes> {
        self.table.load().remotes.clone()
    }

    /// The kind behind a request path.
    pub fn resolve(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.table.load().served.get(group)?.get(version)?.get(plural).cloned()
    }

    /// Whether the group and version serve anything.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.table.load().served.get(group).is_some_and(|versions| versions.contains_key(version))
    }

    /// The kind with this `kind` name.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Resource>> {
        let table = self.table.load();
        table.served.get(group)?.get(version)?.values().find(|r| &*r.kind == kind).cloned()
    }

    /// Any served version of a stored kind, the stored version before others.
    pub fn stored(&self, stored_as: &GroupResource) -> Option<Arc<Resource>> {
        let table = self.table.load();
        let versions = table.served.get(&stored_as.group)?;
        let mut found: Option<Arc<Resource>> = None;
        for resource in versions.values().filter_map(|plurals| plurals.get(&stored_as.resource)) {
            if *resource.stored_version.version == *resource.version {
                return Some(resource.clone());
            }
            found = Some(resource.clone());
        }
        found
    }

    /// The other versions of a kind, under whatever group, sorted by group and version.
    pub fn others(&self, of: &Resource) -> Vec<Arc<Resource>> {
        let table = self.table.load();
        let plurals = table.served.values().flat_map(HashMap::values);
        let same = |other: &&Arc<Resource>| {
            other.stored_as == of.stored_as && (&other.group, &other.version) != (&of.group, &of.version)
        };
        let mut others: Vec<_> =
            plurals.filter_map(|plurals| plurals.get(&*of.plural)).filter(same).cloned().collect();
        others.sort_by(|a, b| (&a.group, &a.version).cmp(&(&b.group, &b.version)));
        others
    }

    /// Every kind, sorted by group, version and plural.
    pub fn all(&self) -> Vec<Arc<Resource>> {
        let table = self.table.load();
        let mut sorted: BTreeMap<_, _> = BTreeMap::new();
        for resource in table.served.values().flat_map(HashMap::values).flat_map(HashMap::values) {
            let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
            sorted.insert(key, resource.clone());
        }
        sorted.into_values().collect()
    }

    /// A type that built-in kinds are made of, by its definition name.
    pub(crate) fn builtin_type(&self, name: &str) -> Option<(Arc<TypeSet>, TypeId)> {
        let table = self.table.load();
        let mut all = table.served.values().flat_map(HashMap::values).flat_map(HashMap::values);
        all.find_map(|resource| {
            let set = resource.schema.set();
            (!resource.custom).then(|| set.find(name)).flatten().map(|of| (set.clone(), of))
        })
    }

    /// Changes whenever what is served changes; documents derived from the registry are cached under it.
    pub fn generation(&self) -> u64 {
        self.table.load().generation
    }

    /// Wakes when what is served has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
