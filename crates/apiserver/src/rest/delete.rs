//! delete and deletecollection.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use meta::{Entry, GroupResource, Object, ObjectKey, Status, Value, format_second};
use resource::{Operation, Resource, Verb};
use store::Expect;

use super::{
    Caller, DeleteOptions, Deleted, ListOptions, Page, Propagation, Rest, TRIES_MAX, Target, attributes,
    update::{finished, modified},
};
use crate::committer::{Commit, Committed};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Deletions of a collection that run side by side.
const PARALLEL: usize = 32;
/// Objects that are discarded side by side: a share of the committer's batch, so that others' writes are
/// not kept waiting.
const DISCARDED_MAX: usize = 256;

impl Rest {
    /// Deletes an object, or begins its deletion where something waits for it.
    pub async fn delete(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        self.decide((), |()| self.try_delete(caller, resource, key, options)).await
    }

    async fn try_delete(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        if !resource.verbs.contains(&Verb::Delete) {
            return Err(Status::method_not_allowed(&resource.group_resource(), "delete"));
        }
        let target = Target { key: key.clone(), subresource: String::new() };
        let mut attributes = attributes(caller, resource, &target, Operation::Delete);
        attributes.options = options.raw.clone();
        let cx = self.context(&attributes);
        for _ in 0..TRIES_MAX {
            let Some((entry, mut object)) = self.current(resource, key).await? else {
                return Err(Status::not_found(&resource.group_resource(), &key.name));
            };
            preconditions(resource, &entry, options)?;
            self.mutate(&cx, None, Some(&object)).await?;
            self.admit(&cx, None, Some(&object)).await?;
            let changed = self.begin_deletion(&cx, resource, &mut object, options);
            let deleted = if finished(resource, &object) {
                self.remove(caller, resource, &entry, &object).await?
            } else if !changed || caller.dry_run {
                Some(Deleted::Pending(self.pretend(&object, Some(&entry))?))
            } else {
                self.mark(resource, &entry, object).await?.map(Deleted::Pending)
            };
            match deleted {
                Some(Deleted::Gone(entry)) => return Ok(Deleted::Gone(self.serve(resource, entry).await?)),
                Some(Deleted::Pending(entry)) if caller.dry_run || !changed => {
                    return Ok(Deleted::Pending(entry));
                }
                Some(Deleted::Pending(entry)) => {
                    return Ok(Deleted::Pending(self.serve(resource, entry).await?));
                }
                None if options.resource_version.is_some() => break,
                None => {}
            }
        }
        Err(modified(resource, &key.name))
    }

    /// Sets the deletion time, grace period and dependents' finalizers. Tells whether anything changed.
    fn begin_deletion(
        &self,
        cx: &resource::Context<'_>,
        resource: &Resource,
        object: &mut Object,
        options: &DeleteOptions,
    ) -> bool {
        let before = object.clone();
        propagate(resource, object, options.propagation);
        let asked = resource.strategy.grace_period(object, options.grace_period_seconds).unwrap_or(0).max(0);
        let running = object.is_deleting().then(|| object.int(&["metadata", "deletionGracePeriodSeconds"]));
        let grace = match running {
            None => asked,
            // A grace period can be shortened, not extended (upstream `BeforeDelete`).
            Some(left) => left.unwrap_or(0).min(asked),
        };
        if running.is_none() {
            let generation = object.int(&["metadata", "generation"]).unwrap_or(0);
            if resource.strategy.has_generation() && generation > 0 {
                object.set(&["metadata", "generation"], generation.saturating_add(1));
            }
            resource.strategy.begin_deletion(cx, object);
        }
        if running.is_none() || running.flatten() != Some(grace) {
            let until = self.clock.now().checked_add(jiff::SignedDuration::from_secs(grace));
            let until = until.unwrap_or_else(|_| self.clock.now());
            object.set(&["metadata", "deletionTimestamp"], format_second(until));
            object.set(&["metadata", "deletionGracePeriodSeconds"], grace);
        }
        *object != before
    }

    async fn remove(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        entry: &Arc<Entry>,
        object: &Object,
    ) -> Result<Option<Deleted>, Status> {
        if caller.dry_run {
            return Ok(Some(Deleted::Gone(entry.clone())));
        }
        let commit = Commit {
            kind: resource.stored_as.clone(),
            key: entry.header.key.clone(),
            expect: Expect::At(entry.revision),
            put: None,
        };
        match self.commit(commit).await? {
            Committed::Gone(revision) => {
                self.release(&resource.strategy.claims(object)).await;
                Ok(Some(Deleted::Gone(entry.at(revision))))
            }
            Committed::Done(_) => Err(Status::internal("a delete stored something")),
            Committed::Clash => Ok(None),
        }
    }

    /// Stores the beginning of a deletion. `None` when the object has changed meanwhile.
    async fn mark(
        &self,
        resource: &Arc<Resource>,
        entry: &Arc<Entry>,
        object: Object,
    ) -> Result<Option<Arc<Entry>>, Status> {
        let commit = Commit {
            kind: resource.stored_as.clone(),
            key: entry.header.key.clone(),
            expect: Expect::At(entry.revision),
            put: Some(self.put(resource, object).await?),
        };
        match self.commit(commit).await? {
            Committed::Done(entry) => Ok(Some(entry)),
            Committed::Gone(_) => Err(Status::internal("a mark deleted something")),
            Committed::Clash => Ok(None),
        }
    }

    /// Deletes every object of a kind that the selectors choose, and answers with what was chosen.
    /// Objects that somebody else deletes meanwhile count as deleted.
    pub async fn delete_collection(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        options: &DeleteOptions,
        list: &ListOptions,
    ) -> Result<Page, Status> {
        if !resource.verbs.contains(&Verb::DeleteCollection) {
            return Err(Status::method_not_allowed(&resource.group_resource(), "deletecollection"));
        }
        let page = self.list(resource, namespace, list).await?;
        let keys: Vec<ObjectKey> = page.entries.iter().map(|entry| entry.header.key.clone()).collect();
        stream::iter(keys)
            .map(|key| async move {
                match self.delete(caller, resource, &key, options).await {
                    Ok(_) => Ok(()),
                    Err(status) if status.reason == Some(meta::Reason::NotFound) => Ok(()),
                    Err(status) => Err(status),
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        Ok(page)
    }

    /// Drops objects from the store as they are, without admission, finalizers or grace; tells how many went.
    /// Those that were written meanwhile stay.
    pub(crate) async fn discard(
        &self,
        kind: &GroupResource,
        entries: Vec<Arc<Entry>>,
    ) -> Result<usize, Status> {
        let drop = |entry: Arc<Entry>| async move {
            let (key, expect) = (entry.header.key.clone(), Expect::At(entry.revision));
            let commit = Commit { kind: kind.clone(), key, expect, put: None };
            self.commit(commit).await.map(|committed| usize::from(matches!(committed, Committed::Gone(_))))
        };
        let dropped = stream::iter(entries).map(drop).buffer_unordered(DISCARDED_MAX);
        dropped.try_fold(0, |sum, one| std::future::ready(Ok(sum + one))).await
    }
}

pub(super) fn preconditions(
    resource: &Resource,
    entry: &Entry,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let conflict = |what: &str, asked: &str, is: &str| {
        let why =
            format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {is}");
        Err(Status::conflict(&resource.group_resource(), &entry.header.key.name, &why))
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != entry.header.uid) {
        return conflict("UID", uid, &entry.header.uid);
    }
    let revision = entry.revision.to_string();
    match options.resource_version.as_deref().filter(|asked| *asked != revision) {
        Some(asked) => conflict("ResourceVersion", asked, &revision),
        None => Ok(()),
    }
}

/// Adds or removes the finalizers that make the garbage collector treat dependents as asked.
fn propagate(resource: &Resource, object: &mut Object, policy: Option<Propagation>) {
    let wanted = match policy {
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) => None,
        // Without a policy, finalizers set earlier say what is wanted (upstream `shouldOrphanDependents`).
        None if resource.strategy.orphans_by_default() => Some(ORPHAN),
        None => return,
    };
    let mut finalizers: Vec<Value> = object.list(&["metadata", "finalizers"]).to_vec();
    finalizers.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    finalizers.extend(wanted.map(Value::from));
    if finalizers.is_empty() {
        object.remove(&["metadata", "finalizers"]);
    } else {
        object.set(&["metadata", "finalizers"], finalizers);
    }
}
