//! The one REST engine: every verb for every kind.
//!
//! A write goes: decode -> default -> mutate (admission) -> prepare (strategy) -> validate (schema,
//! strategy) -> validate (admission) -> commit with the revision it was decided on -> answer. Whoever
//! changed the object meanwhile makes the decision run again, unless the client named a revision.

mod act;
mod charge;
mod create;
mod delete;
mod metadata;
mod options;
mod page;
mod patch;
mod pipeline;
mod read;
mod repair;
mod scale;
mod select;
#[cfg(test)]
mod tests;
mod update;
mod watch;

use std::sync::Arc;

use meta::{Clock, Entry, Object, ObjectKey, Random, Revision, Status};
use resource::{Admission, Attributes, Context, Convert, ConvertAll, Operation, Resource};
use store::Expect;
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    Cache, Registry,
    cache::Kind,
    committer::{Commit, Committed, Committer},
    metrics::{Metrics, Write},
    trace,
};

pub use options::{
    At, Caller, DeleteOptions, Duplicates, FieldValidation, ListOptions, Patch, PatchKind, Propagation,
    Target,
};
#[cfg(any(test, feature = "decoders"))]
pub(crate) use page::decode_token;
pub use watch::{Watch, WatchEvent};

/// How often a write is decided anew when others change the same object meanwhile, before the client gets
/// the conflict. Each try needs another writer to have succeeded.
const TRIES_MAX: usize = 64;

/// What [`Rest`] stands on.
pub struct Parts {
    /// Where objects are kept.
    pub store: Arc<dyn store::Store>,
    /// Committed state, loaded.
    pub cache: Arc<Cache>,
    /// Which kinds are served.
    pub registry: Arc<Registry>,
    /// Admission plugins in order.
    pub admission: Vec<Arc<dyn Admission>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance: UIDs, name suffixes, watch time-outs.
    pub random: Arc<dyn Random>,
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Rest {
    cache: Arc<Cache>,
    registry: Arc<Registry>,
    admission: Arc<[Arc<dyn Admission>]>,
    turns: Arc<charge::Turns>,
    metrics: Arc<Metrics>,
    committer: Committer,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// Objects in key order.
    pub entries: Vec<Arc<Entry>>,
    /// The revision they stand at.
    pub revision: Revision,
    /// How to ask for the next page; `None` at the end.
    pub continue_token: Option<String>,
    /// How many objects follow, where it is known.
    pub remaining: Option<u64>,
}

/// A successful write.
#[derive(Debug)]
pub struct Written {
    /// The object as it is now; with `dryRun` as it would be.
    pub entry: Arc<Entry>,
    /// Whether it was new (201 instead of 200).
    pub created: bool,
}

/// A successful delete.
#[derive(Debug)]
pub enum Deleted {
    /// It is gone; this is how it was last.
    Gone(Arc<Entry>),
    /// It is marked and waits for its finalizers or its grace period.
    Pending(Arc<Entry>),
}

impl Rest {
    /// Starts the engine. The returned task ends when all clones are dropped and every write is answered.
    pub fn start(parts: Parts) -> (Self, JoinHandle<()>) {
        let Parts { store, cache, registry, admission, clock, random } = parts;
        let (committer, task) = Committer::start(store, cache.clone(), registry.clone());
        let metrics = Metrics::new(admission.iter().map(|plugin| plugin.name()));
        let admission = admission.into();
        let turns = Arc::default();
        (Self { cache, registry, admission, turns, metrics, committer, clock, random }, task)
    }

    /// Committed state.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Which kinds are served.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// What is counted of this server.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The clock the engine uses.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The source of chance the engine uses.
    pub fn random(&self) -> &Arc<dyn Random> {
        &self.random
    }

    fn kind(&self, resource: &Resource) -> Arc<Kind> {
        self.cache.kind(&resource.stored_as)
    }

    fn context<'a>(&'a self, attributes: &'a Attributes) -> Context<'a> {
        Context { attributes, view: &*self.cache, clock: &*self.clock, random: &*self.random }
    }

    /// An entry as the requested version shows it.
    async fn serve(&self, resource: &Resource, entry: Arc<Entry>) -> Result<Arc<Entry>, Status> {
        match converter(resource) {
            None => self.serve_local(resource, entry),
            Some(_) => {
                let mut all = self.serve_all(resource, vec![entry]).await?;
                all.pop().ok_or_else(|| Status::internal("conversion lost an object"))
            }
        }
    }

    /// Entries as the requested version shows them: all or none.
    async fn serve_all(
        &self,
        resource: &Resource,
        mut entries: Vec<Arc<Entry>>,
    ) -> Result<Vec<Arc<Entry>>, Status> {
        let Some(converter) = converter(resource) else {
            return entries.into_iter().map(|entry| self.serve_local(resource, entry)).collect();
        };
        let wanted = resource.api_version();
        let (mut strangers, mut shown) = (Vec::new(), Vec::new());
        for (at, entry) in entries.iter().enumerate() {
            let object = entry.object().map_err(Status::internal)?;
            if object.api_version() != wanted {
                strangers.push((at, object));
            } else if entry.revision < resource.complete_since {
                shown.push((at, object));
            }
        }
        let (places, objects): (Vec<usize>, Vec<Object>) = strangers.into_iter().unzip();
        let converted = converter.convert(objects, &wanted).await?;
        for (at, mut object) in places.into_iter().zip(converted).chain(shown) {
            complete(resource, &mut object);
            if let Some(entry) = entries.get_mut(at) {
                object.remove(&["metadata", "resourceVersion"]);
                let stored = Entry::encode(&object).map_err(Status::internal)?;
                *entry =
                    Entry::commit(&stored, entry.header.clone(), entry.revision).map_err(Status::internal)?;
            }
        }
        Ok(entries)
    }

    fn serve_local(&self, resource: &Resource, entry: Arc<Entry>) -> Result<Arc<Entry>, Status> {
        if is_shown_as_stored(resource, entry.revision) {
            return Ok(entry);
        }
        let mut object = entry.object().map_err(Status::internal)?;
        local_to_served(resource, &mut object)?;
        let stored = Entry::encode(&object).map_err(Status::internal)?;
        Entry::commit(&stored, entry.header.clone(), entry.revision).map_err(Status::internal)
    }

    /// The newest state of an object as a tree in the requested version.
    async fn current(
        &self,
        resource: &Resource,
        key: &ObjectKey,
    ) -> Result<Option<(Arc<Entry>, Object)>, Status> {
        let Some(entry) = self.kind(resource).get(key) else { return Ok(None) };
        let mut object = entry.object().map_err(Status::internal)?;
        to_served(resource, &mut object).await?;
        Ok(Some((entry, object)))
    }

    /// Why this server can no longer follow its store and has to stop: others write to it, and have taken it
    /// over, or it went back. Never set where nobody else writes.
    pub fn broken(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        self.committer.broken()
    }

    /// Carries out a write. One that is refused for what others may have changed since is decided once more,
    /// on a state that is not older than the request: what a client has done on another server counts.
    async fn decide<I: Clone, T, F>(&self, input: I, attempt: impl Fn(I) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        if self.committer.alone() {
            return attempt(input).await;
        }
        let before = self.cache.head();
        match attempt(input.clone()).await {
            Err(status) if (400..429).contains(&status.code) => {
                self.committer.newest().await?;
                if self.cache.head() == before { Err(status) } else { attempt(input).await }
            }
            done => done,
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Status> {
        let began = Instant::now();
        let part = trace::part("Commit", trace::SpanKind::Internal);
        if let Some(part) = &part {
            part.note("resource", commit.kind.to_string());
        }
        let kind = self.cache.kind(&commit.kind);
        let write = match (&commit.put, commit.expect) {
            (None, _) => Write::Delete,
            (Some(_), Expect::Absent) => Write::Create,
            (Some(_), _) => Write::Update,
        };
        let committed = self.committer.commit(commit).await;
        if let Some(part) = part.filter(|_| committed.is_err()) {
            part.failed();
        }
        kind.counts.writes.wrote(write, committed.is_err(), began.elapsed());
        committed
    }
}

/// Whether stored bytes are what the version of `resource` shows.
fn is_stored_version(resource: &Resource) -> bool {
    *resource.group == *resource.stored_version.group && *resource.version == *resource.stored_version.version
}

/// Whether the bytes of an object written at `revision` are what `resource` shows.
fn is_shown_as_stored(resource: &Resource, revision: Revision) -> bool {
    is_stored_version(resource) && revision >= resource.complete_since
}

/// What converts the objects of a kind that are stored in several versions.
fn converter(resource: &Resource) -> Option<&dyn ConvertAll> {
    resource.convert.as_deref().and_then(Convert::all)
}

/// Drops what the version of a custom object does not know, and adds its defaults.
fn complete(resource: &Resource, object: &mut Object) {
    let mut tree = std::mem::take(object).into_value();
    drop(schema::prune::unknown(&resource.schema, &mut tree, schema::prune::Mode::Ignore));
    schema::default::apply(&resource.schema, &mut tree);
    *object = Object::from_value(tree).unwrap_or_default();
}

/// Brings a stored object to the version of `resource`.
pub(crate) async fn to_served(resource: &Resource, object: &mut Object) -> Result<(), Status> {
    let Some(converter) = converter(resource) else { return local_to_served(resource, object) };
    let wanted = resource.api_version();
    if object.api_version() == wanted {
        if resource.complete_since > Revision(0) {
            complete(resource, object);
        }
        return Ok(());
    }
    *object = only(converter.convert(vec![std::mem::take(object)], &wanted).await?)?;
    complete(resource, object);
    Ok(())
}

/// Brings an object of the version of `resource` to the stored one.
pub(crate) async fn to_stored(resource: &Resource, object: &mut Object) -> Result<(), Status> {
    let Some(converter) = converter(resource) else { return local_to_stored(resource, object) };
    let wanted = resource.stored_version.to_string();
    if object.api_version() != wanted {
        *object = only(converter.convert(vec![std::mem::take(object)], &wanted).await?)?;
    }
    Ok(())
}

fn only(objects: Vec<Object>) -> Result<Object, Status> {
    objects.into_iter().next().ok_or_else(|| Status::internal("conversion lost an object"))
}

fn local_to_served(resource: &Resource, object: &mut Object) -> Result<(), Status> {
    if is_stored_version(resource) {
        if resource.complete_since > Revision(0) {
            complete(resource, object);
        }
        return Ok(());
    }
    if let Some(convert) = &resource.convert {
        convert.to_served(object)?;
    }
    object.set(&["apiVersion"], resource.api_version());
    object.set(&["kind"], &*resource.kind);
    Ok(())
}

fn local_to_stored(resource: &Resource, object: &mut Object) -> Result<(), Status> {
    if is_stored_version(resource) {
        return Ok(());
    }
    if let Some(convert) = &resource.convert {
        convert.to_stored(object)?;
    }
    object.set(&["apiVersion"], resource.stored_version.to_string());
    Ok(())
}

/// The attributes of a request, as admission and strategies see them.
fn attributes(caller: &Caller, resource: &Resource, target: &Target, operation: Operation) -> Attributes {
    Attributes {
        user: caller.user.clone(),
        operation,
        resource: resource.group_resource(),
        version: resource.version.to_string(),
        kind: resource.kind.to_string(),
        kind_version: meta::GroupVersion::new(&*resource.group, &*resource.version),
        subresource: target.subresource.clone(),
        namespace: target.key.namespace.clone(),
        name: target.key.name.clone(),
        dry_run: caller.dry_run,
        options: options(caller, operation),
        notes: caller.notes.clone(),
    }
}

/// CreateOptions or UpdateOptions as the caller gave them in parameters; a delete brings its own. They are those of the
/// operation, not of the verb: a patch has UpdateOptions, or CreateOptions where it is an apply that creates (upstream
/// `patchToUpdateOptions`, `patchToCreateOptions` in `endpoints/handlers/patch.go`).
fn options(caller: &Caller, operation: Operation) -> serde_json::Value {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete | Operation::Connect => return serde_json::Value::Null,
    };
    let mut options = meta::Object(caller.options.clone());
    options.set(&["kind"], kind);
    options.set(&["apiVersion"], "meta.k8s.io/v1");
    options.into_value()
}
