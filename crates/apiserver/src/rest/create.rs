//! create.

use std::sync::Arc;

use meta::{Object, ObjectKey, Status};
use resource::{Operation, Resource, Verb};
use store::Expect;

use super::{Caller, Duplicates, Rest, TRIES_MAX, Target, Written, attributes, metadata, pipeline};
use crate::committer::{Commit, Committed};

/// How a new object comes to its managed fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Sent whole: the caller owns what it sent.
    Sent,
    /// Made by server-side apply, which has recorded ownership.
    Applied,
    /// Decided by an act such as a binding: the caller owns it, and it is no new wish of a user's, so that the
    /// generation stays (upstream's acts write past the strategy).
    Acted,
}

impl Rest {
    /// Creates an object in `namespace` (empty for cluster scope). `duplicates` are repeated keys that the
    /// decoder found in the body.
    pub async fn create(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        namespace: &str,
        object: Object,
        duplicates: Duplicates,
    ) -> Result<Written, Status> {
        self.decide((object, duplicates), |(object, duplicates)| {
            self.try_create(caller, resource, namespace, object, duplicates)
        })
        .await
    }

    async fn try_create(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        namespace: &str,
        mut object: Object,
        duplicates: Duplicates,
    ) -> Result<Written, Status> {
        if !resource.verbs.contains(&Verb::Create) {
            return Err(Status::method_not_allowed(&resource.group_resource(), "create"));
        }
        let key = ObjectKey::new(namespace, object.name());
        pipeline::decode(resource, caller, &mut object, duplicates)?;
        if !object.str(&["metadata", "resourceVersion"]).unwrap_or_default().is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        metadata::settle_namespace(resource, &key, &mut object)?;
        let entry = self.create_decoded(caller, resource, key, object, Origin::Sent).await?;
        Ok(Written { entry, created: true })
    }

    /// The part of create that comes after decoding.
    pub(super) async fn create_decoded(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        key: ObjectKey,
        mut object: Object,
        origin: Origin,
    ) -> Result<Arc<meta::Entry>, Status> {
        let target = Target { key, subresource: String::new() };
        let attributes = attributes(caller, resource, &target, Operation::Create);
        let cx = self.context(&attributes);
        self.begin(resource, &mut object);
        if resource.has_status() && !resource.strategy.keeps_status_on_create() {
            // A built-in kind begins with what upstream's empty struct reads as: `status: {}` or with zeros.
            let begin = schema::default::field(&resource.schema, "status").filter(|_| !resource.custom);
            match begin {
                Some(status) => object.set(&["status"], status),
                None => {
                    object.remove(&["status"]);
                }
            }
        }
        // Before admission, as upstream: what the server adds (a claim's default class) belongs to nobody,
        // so that a later apply that does not name it leaves it alone.
        if origin != Origin::Applied {
            self.manage(resource, caller, "", None, &mut object);
        }
        self.mutate(&cx, Some(&mut object), None).await?;
        let generated = object.name().is_empty();
        for _ in 0..TRIES_MAX {
            let mut object = object.clone();
            self.generate_name(&mut object);
            let attributes = pipeline::named(attributes.clone(), object.name());
            let cx = self.context(&attributes);
            resource.strategy.prepare(&cx, &mut object, None)?;
            pipeline::validate(resource, &cx, &mut object, None)?;
            self.admit(&cx, Some(&object), None).await?;
            caller.notes.warn_all(resource.strategy.warnings(&object, None));
            let name = object.name().to_owned();
            if caller.dry_run {
                drop(self.charge(&cx, &object, None).await?);
                return match self.kind(resource).get(&object.key()) {
                    Some(_) => Err(Status::already_exists(&resource.group_resource(), &name)),
                    None => self.pretend(&object, None),
                };
            }
            if self.kind(resource).get(&object.key()).is_some() {
                // Known before anything is taken from a quota for it.
                if generated {
                    continue;
                }
                return Err(Status::already_exists(&resource.group_resource(), &name));
            }
            let taken = self.charge(&cx, &object, None).await?;
            match self.store_new(resource, object).await {
                Ok(Stored::Done(entry)) => return self.serve(resource, entry).await,
                // Another object took the claim since `prepare` chose it: choose again.
                Ok(Stored::Claimed) => self.give_back(taken).await,
                Ok(Stored::Exists) => {
                    self.give_back(taken).await;
                    if !generated {
                        return Err(Status::already_exists(&resource.group_resource(), &name));
                    }
                }
                Err(status) => {
                    self.give_back_after(&status, taken).await;
                    return Err(status);
                }
            }
        }
        Err(Status::new(
            504,
            meta::Reason::ServerTimeout,
            format!("could not find a free name for a new {} in {TRIES_MAX} tries", resource.kind),
        )
        .retry_after(1))
    }

    async fn store_new(&self, resource: &Resource, object: Object) -> Result<Stored, Status> {
        let claims = resource.strategy.claims(&object);
        let key = object.key();
        if !claims.is_empty() && self.kind(resource).get(&key).is_some() {
            return Ok(Stored::Exists);
        }
        let Some(taken) = self.claim(&claims).await? else { return Ok(Stored::Claimed) };
        let put = Some(self.put(resource, object).await?);
        let commit = Commit { kind: resource.stored_as.clone(), key, expect: Expect::Absent, put };
        match self.commit(commit).await {
            Ok(Committed::Done(entry)) => Ok(Stored::Done(entry)),
            Ok(Committed::Clash) => {
                self.release(&taken).await;
                Ok(Stored::Exists)
            }
            Ok(Committed::Gone(_)) => Err(Status::internal("a create deleted something")),
            Err(status) => {
                self.release_after(&status, &taken).await;
                Err(status)
            }
        }
    }
}

enum Stored {
    Done(Arc<meta::Entry>),
    Exists,
    Claimed,
}
