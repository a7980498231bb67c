//! Custom resources: a loop that serves what CustomResourceDefinitions define.
//!
//! Guarantees: a definition whose names are free is served before its condition `Established` says so; one
//! that goes is served until its last instance is gone. Watches end when what they watch becomes something
//! else or nothing; objects of an earlier definition are never shown under a new one. All writes go through
//! the engine like anybody's.
//! Validation of the definition's own fields is its kind's; here is what needs the schema functions and the
//! registry.

mod columns;
mod conversion;
mod definition;
mod guard;
mod jsonpath;
mod names;
mod strategy;

use std::{collections::HashMap, sync::Arc};

use meta::{
    Condition, ConditionStatus, Entry, GroupResource, GroupVersionResource, Object, Revision, Status, Value,
};
use resource::Resource;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    cache::Happened,
    rest::{Caller, DeleteOptions, Duplicates, ListOptions, Patch, PatchKind, Rest, Target},
    webhook::Webhooks,
};

use conversion::Conversion;
use definition::Definition;
pub use guard::Definitions;
#[cfg(any(test, feature = "decoders"))]
pub(crate) use jsonpath::decode_json_path;

/// While a definition has it, it stays: its instances are deleted first. The write that begins the deletion adds it
/// (the kind's strategy), so no definition goes without, however soon after its creation.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Pause before a broken watch is begun anew.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(200);

/// The custom resources of a server.
pub struct CustomResources(Option<Custom>);

impl CustomResources {
    /// Serves what was established before the server stopped, so that the first request finds it. Serves
    /// nothing when the registry has no CustomResourceDefinition.
    pub fn install_stored(rest: &Rest) -> Self {
        let Some(resource) = definitions(rest) else { return Self(None) };
        let rest = rest.clone();
        let webhooks = Webhooks::new(rest.cache().clone());
        let mut custom =
            Custom { rest, resource, webhooks, installed: HashMap::new(), cleaning: JoinSet::new() };
        for entry in custom.stored() {
            if let Some(object) = custom.read(&entry).filter(|o| meta::is_condition_true(o, "Established")) {
                let definition = Definition::read(&object);
                let name = &entry.header.key.name;
                let (accepted, _) = names::accept(&definition, &custom.taken(name), custom.rest.registry());
                let (resources, _) = definition.resources(
                    &accepted,
                    object.is_deleting(),
                    custom.conversion(&object),
                    entry.revision,
                );
                custom.install(name, &object, &definition, resources);
            }
        }
        Self(Some(custom))
    }

    /// Follows the definitions until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Some(mut custom) = self.0 else { return };
        tokio::select! {
            () = stop.cancelled() => {}
            () = custom.follow() => {}
        }
        custom.cleaning.shutdown().await;
    }
}

fn definitions(rest: &Rest) -> Option<Arc<Resource>> {
    rest.registry().resolve("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

struct Custom {
    rest: Rest,
    resource: Arc<Resource>,
    /// The client of conversion webhooks.
    webhooks: Webhooks,
    /// By name of the definition.
    installed: HashMap<String, Installed>,
    /// Deletion of the instances of definitions that go.
    cleaning: JoinSet<()>,
}

struct Installed {
    uid: String,
    generation: i64,
    terminating: bool,
    /// Its instances are being deleted.
    cleaning: bool,
    stored_as: GroupResource,
    resources: Vec<GroupVersionResource>,
}

impl Custom {
    async fn follow(&mut self) {
        loop {
            let options = ListOptions { bookmarks: false, ..ListOptions::default() };
            let mut watch = match self.rest.watch(&self.resource, None, &options).await {
                Ok(watch) => watch,
                Err(status) => {
                    tracing::warn!(%status, "watch custom resource definitions");
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
            };
            while let Some(event) = watch.next().await {
                let event = match event {
                    Ok(event) => event,
                    Err(status) => {
                        tracing::warn!(%status, "watch of custom resource definitions broke");
                        break;
                    }
                };
                // A finished cleaning needs no more attention.
                while self.cleaning.try_join_next().is_some() {}
                match event.happened {
                    Happened::Deleted => self.remove(&event.entry.header.key.name).await,
                    Happened::Added | Happened::Modified => self.settle(&event.entry).await,
                    Happened::Bookmark => {}
                }
            }
            // Definitions deleted while no watch was open.
            let gone: Vec<String> = {
                let kind = self.rest.cache().kind(&self.resource.stored_as);
                let snapshot = kind.snapshot();
                let there = |name: &str| snapshot.get(&meta::ObjectKey::new("", name)).is_some();
                self.installed.keys().filter(|name| !there(name)).cloned().collect()
            };
            for name in gone {
                self.remove(&name).await;
            }
        }
    }

    async fn remove(&mut self, name: &str) {
        if let Some(installed) = self.installed.remove(name) {
            installed.resources.iter().for_each(|key| self.rest.registry().remove(key));
            let kind = self.rest.cache().kind(&installed.stored_as);
            kind.end_watches();
            kind.forget(self.rest.cache().head());
        }
        // A name that was taken by it may now be free for another.
        for entry in self.stored() {
            let object = self.read(&entry);
            if object.is_some_and(|object| !meta::is_condition_true(&object, "NamesAccepted")) {
                self.installed.remove(&entry.header.key.name);
                self.settle(&entry).await;
            }
        }
    }

    /// All definitions as they are now.
    fn stored(&self) -> Vec<Arc<Entry>> {
        self.rest.cache().kind(&self.resource.stored_as).snapshot().range(None, None).cloned().collect()
    }

    fn read(&self, entry: &Entry) -> Option<Object> {
        let object = entry.object();
        if object.is_err() {
            tracing::error!(name = entry.header.key.name, "stored custom resource definition is damaged");
        }
        object.ok()
    }

    /// Brings one definition and what is served in line.
    async fn settle(&mut self, entry: &Arc<Entry>) {
        let name = entry.header.key.name.clone();
        let Some(object) = self.read(entry) else { return };
        if let Err(status) = self.try_settle(&name, object, entry.revision).await {
            // A conflict: somebody wrote it meanwhile, and that write wakes this loop again.
            let conflict = status.reason == Some(meta::Reason::Conflict);
            if !conflict {
                tracing::warn!(name, %status, "custom resource definition");
            }
        }
    }

    async fn try_settle(&mut self, name: &str, object: Object, revision: Revision) -> Result<(), Status> {
        let definition = Definition::read(&object);
        let (accepted, names) = names::accept(&definition, &self.taken(name), self.rest.registry());
        let before = meta::is_condition_true(&object, "Established");
        let established = before || names.status == ConditionStatus::True;
        let terminating = object.is_deleting();
        let held = object.list(&["metadata", "finalizers"]).iter().any(|f| f.as_str() == Some(CLEANUP));
        let mut conditions = vec![names];
        if established {
            if !before && !held && !self.installed.contains_key(name) {
                self.discard_earlier(&definition.stored_as(), revision).await?;
            }
            let (resources, violation) = definition.resources(
                &accepted,
                terminating,
                self.conversion(&object),
                // What is there now may have been written under an earlier schema.
                Revision(self.rest.cache().head().0 + 1),
            );
            self.install(name, &object, &definition, resources);
            conditions.extend(violation);
            conditions.push(
                condition("Established", ConditionStatus::True, "InitialNamesAccepted")
                    .message("the initial names have been accepted"),
            );
        } else {
            conditions.push(
                condition("Established", ConditionStatus::False, "NotAccepted")
                    .message("not all names are accepted"),
            );
        }
        if terminating {
            conditions.push(going(established, held));
        }
        let fresh = self.report(&object, &accepted, conditions).await?;
        match (terminating && held, established) {
            (false, _) => {}
            (true, true) => self.clean(name, object.uid().to_owned()),
            (true, false) => release(&self.rest, &self.resource, &fresh).await?,
        }
        Ok(())
    }

    fn conversion(&self, definition: &Object) -> Arc<dyn resource::Convert> {
        Arc::new(Conversion::read(definition, &self.webhooks, self.rest.random()))
    }

    /// Names that other definitions hold.
    fn taken(&self, name: &str) -> Vec<Definition> {
        let kind = self.rest.cache().kind(&self.resource.stored_as);
        let snapshot = kind.snapshot();
        let others = snapshot.range(None, None).filter(|entry| entry.header.key.name != name);
        others.filter_map(|entry| entry.object().ok()).map(|object| Definition::accepted(&object)).collect()
    }

    /// Drops objects that were left by a definition of the same name, which somebody made go without its
    /// finalizer. Nothing can have been written under a new definition before its `revision`.
    async fn discard_earlier(&self, stored_as: &GroupResource, revision: Revision) -> Result<(), Status> {
        let kind = self.rest.cache().kind(stored_as);
        let snapshot = kind.snapshot();
        let left: Vec<_> = snapshot.range(None, None).filter(|e| e.revision < revision).cloned().collect();
        if !left.is_empty() {
            let count = self.rest.discard(stored_as, left).await?;
            tracing::warn!(kind = %stored_as, count, "dropped objects of an earlier definition");
        }
        kind.forget(self.rest.cache().head());
        Ok(())
    }

    fn install(&mut self, name: &str, object: &Object, definition: &Definition, resources: Vec<Resource>) {
        let terminating = object.is_deleting();
        let generation = object.int(&["metadata", "generation"]).unwrap_or(0);
        let before = self.installed.get(name);
        if before.is_some_and(|b| {
            b.uid == object.uid() && b.generation == generation && b.terminating == terminating
        }) {
            return;
        }
        let key = |r: &Resource| GroupVersionResource {
            group: r.group.to_string(),
            version: r.version.to_string(),
            resource: r.plural.to_string(),
        };
        let keys: Vec<_> = resources.iter().map(key).collect();
        let registry = self.rest.registry();
        for gone in before.into_iter().flat_map(|b| &b.resources).filter(|old| !keys.contains(old)) {
            registry.remove(gone);
        }
        if let Some(first) = resources.first().cloned() {
            self.rest.cache().reindex(&first, || registry.install_all(resources));
        }
        let uid = object.uid().to_owned();
        let same = before.filter(|b| b.uid == uid);
        let cleaning = same.is_some_and(|b| b.cleaning);
        let stored_as = definition.stored_as();
        // Beginning to go changes nothing for watchers: they see the instances go.
        if !same.is_some_and(|b| !b.terminating && terminating) {
            self.rest.cache().kind(&stored_as).end_watches();
        }
        let installed = Installed { uid, generation, terminating, cleaning, stored_as, resources: keys };
        self.installed.insert(name.to_owned(), installed);
    }

    /// Writes conditions and accepted names where they changed; gives the definition as it is then.
    async fn report(
        &self,
        object: &Object,
        accepted: &Value,
        conditions: Vec<Condition>,
    ) -> Result<Object, Status> {
        let mut new = object.clone();
        let now = self.rest.clock().now();
        for condition in conditions {
            condition.set_in(&mut new, now);
        }
        new.set(&["status", "acceptedNames"], accepted.clone());
        if new == *object {
            return Ok(new);
        }
        let target = Target { key: object.key(), subresource: "status".to_owned() };
        let written =
            self.rest.update(&Caller::server(), &self.resource, &target, new, Duplicates::default()).await?;
        written.entry.object().map_err(Status::internal)
    }

    /// Deletes all instances in the background, then lets the definition go. Tried until it is gone.
    fn clean(&mut self, name: &str, uid: String) {
        let Some(installed) = self.installed.get_mut(name).filter(|installed| !installed.cleaning) else {
            return;
        };
        installed.cleaning = true;
        let served = installed
            .resources
            .iter()
            .find_map(|key| self.rest.registry().resolve(&key.group, &key.version, &key.resource));
        let (rest, definitions, name) = (self.rest.clone(), self.resource.clone(), name.to_owned());
        self.cleaning.spawn(async move {
            while let Err(status) = clean(&rest, &definitions, served.as_ref(), &name, &uid).await {
                tracing::warn!(name, %status, "delete instances of custom resource definition");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        });
    }
}

async fn clean(
    rest: &Rest,
    definitions: &Arc<Resource>,
    served: Option<&Arc<Resource>>,
    name: &str,
    uid: &str,
) -> Result<(), Status> {
    let kind = rest.cache().kind(&definitions.stored_as);
    let key = meta::ObjectKey::new("", name);
    let definition = || kind.get(&key).filter(|entry| entry.header.uid == uid);
    if let Some(served) = served {
        delete_instances(rest, served, || definition().is_some()).await?;
    }
    let Some(current) = definition() else { return Ok(()) };
    release(rest, definitions, &current.object().map_err(Status::internal)?).await
}

/// What is said of a definition that goes (upstream `crd_finalizer.go`).
fn going(established: bool, held: bool) -> Condition {
    let (status, reason, message) = match (established, held) {
        (false, _) => (ConditionStatus::False, "NeverEstablished", "resource was never established"),
        (true, true) => {
            (ConditionStatus::True, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
        }
        (true, false) => (ConditionStatus::False, "InstanceDeletionCompleted", "removed all instances"),
    };
    condition("Terminating", status, reason).message(message)
}

/// Deletes all instances and waits until they are gone, or until the definition is not `there` any more:
/// what is stored then may belong to its successor.
async fn delete_instances(
    rest: &Rest,
    served: &Arc<Resource>,
    there: impl Fn() -> bool,
) -> Result<(), Status> {
    let options = ListOptions::default();
    let instances = rest.cache().kind(&served.stored_as);
    let mut watch = rest.watch(served, None, &options).await?;
    if there() {
        rest.delete_collection(&Caller::server(), served, None, &DeleteOptions::default(), &options).await?;
    }
    // Instances with finalizers go when their controllers let them; each deletion wakes this.
    while there() && !instances.snapshot().is_empty() {
        match watch.next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) if status.reason != Some(meta::Reason::Expired) => return Err(status),
            Some(Err(_)) | None => {
                // A definition that changes while it goes ends each watch of what it was.
                tokio::time::sleep(RETRY_AFTER).await;
                watch = rest.watch(served, None, &options).await?;
            }
        }
    }
    Ok(())
}

/// Takes off the finalizer that its deletion began with, so that the definition goes.
async fn release(rest: &Rest, definitions: &Arc<Resource>, object: &Object) -> Result<(), Status> {
    let mut finalizers = object.list(&["metadata", "finalizers"]).to_vec();
    finalizers.retain(|finalizer| finalizer.as_str() != Some(CLEANUP));
    let target = Target { key: object.key(), subresource: String::new() };
    let body = json!({ "metadata": {
        "uid": object.uid(), "resourceVersion": object.str(&["metadata", "resourceVersion"]),
        "finalizers": finalizers,
    } });
    let patch = Patch { kind: PatchKind::Merge, body, duplicates: Duplicates::default() };
    rest.patch(&Caller::server(), definitions, &target, patch).await.map(|_| ())
}

fn condition(r#type: &str, status: ConditionStatus, reason: &str) -> Condition {
    Condition::new(r#type, status, reason)
}

#[cfg(test)]
mod tests;
