//! The committed state of all kinds in memory. Readers take immutable snapshots and never wait for
//! writers; watchers share the events of each commit.

mod event;
mod kind;
mod load;
mod measured;
mod queue;
mod snapshot;
mod watchers;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use meta::{Entry, GroupResource, ObjectKey, Revision, Status};
use resource::{Resource, View};
use tokio::sync::watch;

pub(crate) use event::line_of;
pub use event::{Batch, Event, Happened, line};
pub use kind::Kind;
pub(crate) use kind::{Backlog, RING_EVENTS_MAX, Subscription};
pub use load::LoadError;
pub(crate) use load::{Gathered, entry, fields};
use measured::Source;
pub use measured::{Measured, Take};
pub(crate) use queue::Taken;
pub use snapshot::Snapshot;
pub(crate) use watchers::{By, Interest};

/// How long a read waits for a revision that this server has not reached yet, as upstream.
const FRESH_WAIT: Duration = Duration::from_secs(3);

/// All kinds, and the revision they stand at.
pub struct Cache {
    kinds: ArcSwap<HashMap<GroupResource, Arc<Kind>>>,
    adding: Mutex<()>,
    head: watch::Sender<Revision>,
    /// Where everything was loaded last; nothing before it can be watched.
    loaded: ArcSwap<Revision>,
    /// Held by whoever changes what readers see, and while the table of kinds changes what is extracted.
    order: Mutex<()>,
}

impl Cache {
    /// The newest committed revision that readers can see.
    pub fn head(&self) -> Revision {
        *self.head.borrow()
    }

    /// The state of one stored kind, made empty when it is new.
    pub fn kind(&self, stored_as: &GroupResource) -> Arc<Kind> {
        if let Some(kind) = self.kinds.load().get(stored_as) {
            return kind.clone();
        }
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kind) = self.kinds.load().get(stored_as) {
            return kind.clone();
        }
        let mut kinds = HashMap::clone(&self.kinds.load());
        let kind = Arc::new(Kind::new(Snapshot::default(), **self.loaded.load()));
        kinds.insert(stored_as.clone(), kind.clone());
        self.kinds.store(Arc::new(kinds));
        kind
    }

    /// Every stored kind that has or had objects or readers.
    pub fn kinds(&self) -> Vec<(GroupResource, Arc<Kind>)> {
        let kinds = self.kinds.load();
        let mut all: Vec<_> = kinds.iter().map(|(name, kind)| (name.clone(), kind.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Waits until readers can see `revision`; after three seconds answers upstream's "too large" error.
    pub async fn reach(&self, revision: Revision) -> Result<(), Status> {
        if self.head() >= revision {
            return Ok(());
        }
        let mut head = self.head.subscribe();
        let reached = tokio::time::timeout(FRESH_WAIT, head.wait_for(|head| *head >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Status::internal("the server is shutting down")),
            Err(_) => Err(too_large(revision, self.head())),
        }
    }

    /// Recomputes the selectable fields of all stored objects of a kind, and then has `install` serve it: no
    /// change comes in between, so that each is seen with the fields of the one or the other.
    pub fn reindex(&self, resource: &Resource, install: impl FnOnce()) {
        let _order = self.order();
        if !resource.selectable.is_empty() {
            self.kind(&resource.stored_as).reindex(|entry| load::with_fields(entry, resource));
        }
        install();
    }

    /// Changes enter the cache while this is held, one round after the other.
    pub(crate) fn order(&self) -> MutexGuard<'_, ()> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what was loaded anew. Every watch ends with 410: what happened in between is not known. Called
    /// while the order is held.
    pub(crate) fn replace(&self, gathered: Gathered) {
        let Gathered { mut kinds, revision } = gathered;
        self.loaded.store(Arc::new(revision));
        for (name, kind) in self.kinds() {
            kind.replace(Snapshot::collect(kinds.remove(&name).unwrap_or_default(), revision));
        }
        for (name, entries) in kinds {
            self.kind(&name).replace(Snapshot::collect(entries, revision));
        }
        self.advance(revision);
    }

    /// Has the objects of a kind measured instead of stored. They are listed and read like any other, at the revision
    /// the cache stands at; the kind must not have watch. The first who says so for a kind decides.
    pub fn measure(&self, stored_as: &GroupResource, measured: Arc<dyn Measured>) {
        self.kind(stored_as).measure(Source::new(measured, self.head.subscribe()));
    }

    /// Shows these objects of a kind instead of those before.
    #[cfg(test)]
    pub(crate) fn show(&self, stored_as: &GroupResource, objects: &[meta::Object]) {
        let entry = |object: &meta::Object| {
            let stored = Entry::encode(object).unwrap();
            Entry::commit(&stored, meta::Header::of(object, Box::default()), self.head()).unwrap()
        };
        self.kind(stored_as).show(Snapshot::collect(objects.iter().map(entry).collect(), self.head()));
    }

    pub(crate) fn advance(&self, revision: Revision) {
        self.head.send_replace(revision);
    }
}

fn too_large(asked: Revision, current: Revision) -> Status {
    let message = format!("Too large resource version: {asked}, current: {current}");
    let mut status = Status::new(504, meta::Reason::Timeout, message).retry_after(1);
    if let Some(details) = &mut status.details {
        details.causes.push(meta::Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        });
    }
    status
}

impl View for Cache {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.kinds.load().get(resource)?.get(&ObjectKey::new(namespace, name))
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Entry>> {
        let Some(kind) = self.kinds.load().get(resource).cloned() else { return Vec::new() };
        kind.snapshot().range(namespace, None).cloned().collect()
    }

    fn indexed(&self, resource: &GroupResource, namespace: Option<&str>, value: &str) -> Vec<Arc<Entry>> {
        let Some(kind) = self.kinds.load().get(resource).cloned() else { return Vec::new() };
        let snapshot = kind.snapshot();
        let wanted = snapshot.indexed().map(|at| (at, value));
        snapshot.valued(wanted, namespace, None).cloned().collect()
    }
}
