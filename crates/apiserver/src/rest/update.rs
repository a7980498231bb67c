//! update, and the loop that every change of an existing object goes through.

use std::sync::Arc;

use meta::{Entry, FieldError, Object, Status, Value};
use resource::{Operation, Resource, Subresource, Verb};
use store::Expect;

use super::{
    Caller, Duplicates, Rest, TRIES_MAX, Target, Written, attributes,
    create::Origin,
    metadata::{bump_generation, keep_system_fields, settle_name, settle_namespace},
    pipeline,
};
use crate::committer::{Commit, Committed};

/// What a change asks for.
pub(super) struct Change {
    /// The object as the client wants it, decoded and defaulted.
    pub(super) object: Object,
    /// How it came to its managed fields.
    pub(super) origin: Origin,
    /// Whether the client named the revision it has seen: then a conflict is its own to solve.
    pub(super) conditional: bool,
}

/// The outcome of one try.
enum Tried {
    Done(Arc<Entry>),
    /// Somebody else was faster.
    Again,
}

impl Rest {
    /// Replaces an object, or the part of it that `target.subresource` names.
    pub async fn update(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        object: Object,
        duplicates: Duplicates,
    ) -> Result<Written, Status> {
        self.decide((object, duplicates), |(object, duplicates)| {
            self.try_update(caller, resource, target, object, duplicates)
        })
        .await
    }

    async fn try_update(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        mut object: Object,
        duplicates: Duplicates,
    ) -> Result<Written, Status> {
        if !resource.verbs.contains(&Verb::Update) {
            return Err(Status::method_not_allowed(&resource.group_resource(), "update"));
        }
        if let Some(Subresource::Scale(scale)) = resource.subresource(&target.subresource) {
            return self.update_scale(caller, resource, target, scale, &object).await;
        }
        pipeline::decode(resource, caller, &mut object, duplicates)?;
        settle_name(&target.key, &mut object)?;
        settle_namespace(resource, &target.key, &mut object)?;
        let creates = target.subresource.is_empty() && resource.strategy.creates_on_update();
        if creates && self.kind(resource).get(&target.key).is_none() {
            object.remove(&["metadata", "resourceVersion"]);
            let key = target.key.clone();
            let entry = self.create_decoded(caller, resource, key, object, Origin::Sent).await?;
            return Ok(Written { entry, created: true });
        }
        self.unconditional(resource, &object)?;
        let entry = self
            .change(caller, resource, target, |current, entry| {
                let conditional = preconditions(resource, current, entry, &object)?;
                // A conditional change is tried once and needs no copy for a second time.
                let object = if conditional { std::mem::take(&mut object) } else { object.clone() };
                Ok(Change { object, origin: Origin::Sent, conditional })
            })
            .await?;
        Ok(Written { entry, created: false })
    }

    fn unconditional(&self, resource: &Resource, object: &Object) -> Result<(), Status> {
        let given = object.str(&["metadata", "resourceVersion"]).unwrap_or_default();
        if !given.is_empty() || resource.strategy.allows_unconditional_update() {
            return Ok(());
        }
        let why = "must be specified for an update";
        let error = FieldError::invalid("metadata.resourceVersion", &Value::from(0), why);
        Err(Status::invalid(&resource.group, &resource.kind, object.name(), &[error]))
    }

    /// Decides a change on the newest state and commits it; decides anew when others were faster.
    pub(super) async fn change(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        mut decide: impl FnMut(&Object, &Arc<Entry>) -> Result<Change, Status>,
    ) -> Result<Arc<Entry>, Status> {
        for _ in 0..TRIES_MAX {
            let Some((entry, current)) = self.current(resource, &target.key).await? else {
                return Err(Status::not_found(&resource.group_resource(), &target.key.name));
            };
            let change = decide(&current, &entry)?;
            let conditional = change.conditional;
            match self.try_change(caller, resource, target, &entry, current, change).await? {
                Tried::Done(entry) => return self.serve(resource, entry).await,
                Tried::Again if conditional => break,
                Tried::Again => {}
            }
        }
        Err(modified(resource, &target.key.name))
    }

    async fn try_change(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        entry: &Arc<Entry>,
        mut old: Object,
        change: Change,
    ) -> Result<Tried, Status> {
        let attributes = attributes(caller, resource, target, Operation::Update);
        let cx = self.context(&attributes);
        let Change { object: mut new, origin, .. } = change;
        keep_system_fields(&old, &mut new);
        reset(resource, &target.subresource, &old, &mut new);
        old.remove(&["metadata", "resourceVersion"]);
        self.mutate(&cx, Some(&mut new), Some(&old)).await?;
        resource.strategy.prepare(&cx, &mut new, Some(&old))?;
        if origin != Origin::Acted {
            bump_generation(resource, &old, &mut new);
        }
        if origin != Origin::Applied {
            self.manage(resource, caller, &target.subresource, Some(&old), &mut new);
        }
        pipeline::validate(resource, &cx, &mut new, Some(&mut old))?;
        self.admit(&cx, Some(&new), Some(&old)).await?;
        if origin != Origin::Acted {
            caller.notes.warn_all(resource.strategy.warnings(&new, Some(&old)));
        }
        let taken = self.charge(&cx, &new, Some(&old)).await?;
        if caller.dry_run {
            return Ok(Tried::Done(self.pretend(&new, Some(entry))?));
        }
        if new == old {
            return Ok(Tried::Done(entry.clone()));
        }
        let stored = self.store_change(resource, entry, &old, new).await;
        match &stored {
            Ok(Tried::Done(_)) => {}
            // It is decided anew, and takes anew.
            Ok(Tried::Again) => self.give_back(taken).await,
            Err(status) => self.give_back_after(status, taken).await,
        }
        stored
    }

    /// Commits a decided change. An object whose deletion waited for this very change is gone with it.
    async fn store_change(
        &self,
        resource: &Arc<Resource>,
        entry: &Arc<Entry>,
        old: &Object,
        new: Object,
    ) -> Result<Tried, Status> {
        let kind = resource.stored_as.clone();
        let (key, expect) = (entry.header.key.clone(), Expect::At(entry.revision));
        if finished(resource, &new) {
            let last = self.pretend(&new, Some(entry))?;
            return match self.commit(Commit { kind, key, expect, put: None }).await? {
                Committed::Done(_) | Committed::Gone(_) => {
                    self.release(&resource.strategy.claims(old)).await;
                    Ok(Tried::Done(last))
                }
                Committed::Clash => Ok(Tried::Again),
            };
        }
        let (before, after) = (resource.strategy.claims(old), resource.strategy.claims(&new));
        let gained: Vec<_> = after.iter().filter(|claim| !before.contains(claim)).cloned().collect();
        let lost: Vec<_> = before.into_iter().filter(|claim| !after.contains(claim)).collect();
        let Some(taken) = self.claim(&gained).await? else { return Ok(Tried::Again) };
        let put = Some(self.put(resource, new).await?);
        match self.commit(Commit { kind, key, expect, put }).await {
            Ok(Committed::Done(entry)) => {
                self.release(&lost).await;
                Ok(Tried::Done(entry))
            }
            Ok(Committed::Clash) => {
                self.release(&taken).await;
                Ok(Tried::Again)
            }
            Ok(Committed::Gone(_)) => Err(Status::internal("an update deleted something")),
            Err(status) => {
                self.release_after(&status, &taken).await;
                Err(status)
            }
        }
    }
}

/// Whether nothing holds an object whose deletion has begun.
pub(super) fn finished(resource: &Resource, object: &Object) -> bool {
    object.is_deleting()
        && object.list(&["metadata", "finalizers"]).is_empty()
        && object.int(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
        && !resource.strategy.holds_deletion(object)
}

pub(super) fn modified(resource: &Resource, name: &str) -> Status {
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    Status::conflict(&resource.group_resource(), name, why)
}

/// Checks the revision and UID that a body carries; tells whether it carried a revision.
pub(super) fn preconditions(
    resource: &Resource,
    current: &Object,
    entry: &Entry,
    object: &Object,
) -> Result<bool, Status> {
    let name = current.name();
    let uid = object.uid();
    if !uid.is_empty() && uid != current.uid() {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", current.uid());
        return Err(Status::conflict(&resource.group_resource(), name, &why));
    }
    match object.str(&["metadata", "resourceVersion"]) {
        None | Some("") => Ok(false),
        Some(revision) if *revision == entry.revision.to_string() => Ok(true),
        Some(revision) if revision.parse::<u64>().is_err() => {
            let error = FieldError::invalid("metadata.resourceVersion", &revision.into(), "must be a number");
            Err(Status::invalid(&resource.group, &resource.kind, name, &[error]))
        }
        Some(_) => Err(modified(resource, name)),
    }
}

/// Puts back what this path may not change.
fn reset(resource: &Resource, subresource: &str, old: &Object, new: &mut Object) {
    match resource.subresource(subresource) {
        Some(Subresource::Status) => {
            let status = new.remove(&["status"]);
            let metadata = new.remove(&["metadata"]);
            let mut object = old.clone();
            match status {
                Some(status) => object.set(&["status"], status),
                None => {
                    object.remove(&["status"]);
                }
            }
            let kept: &[&str] = if resource.custom {
                &["managedFields"]
            } else {
                &["managedFields", "labels", "annotations", "finalizers"]
            };
            for field in kept {
                match metadata.as_ref().and_then(|metadata| metadata.get(*field)) {
                    Some(value) => object.set(&["metadata", field], value.clone()),
                    None => {
                        object.remove(&["metadata", field]);
                    }
                }
            }
            object.remove(&["metadata", "resourceVersion"]);
            *new = object;
        }
        _ if subresource.is_empty() && resource.has_status() => match old.get(&["status"]) {
            Some(status) => new.set(&["status"], status.clone()),
            None => {
                new.remove(&["status"]);
            }
        },
        _ => {}
    }
}
