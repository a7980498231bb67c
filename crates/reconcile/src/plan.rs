//! What a reconciler decided, as data. Nothing here has happened yet.
//!
//! Order of acting: `finalizer` when it adds; `apply` in order (neighbours of one kind at the same
//! time); `effects` in order; `delete` at the same time; `status`; `events`; `finalizer` when it
//! removes. The first failure ends it, save that the status, which says what was observed, is still
//! written.

use std::time::Duration;

use kube::Resource;
use meta::ObjectKey;
use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::json;

use crate::{Child, Effect, Kind, Note, Write, key_of};

/// What to do for one key.
#[derive(Debug, Default)]
pub struct Plan {
    /// Objects to write, in order.
    pub apply: Vec<Child>,
    /// Objects to delete.
    pub delete: Vec<Precondition>,
    /// Status patches; usually one. Built by [`Plan::set_status`], which leaves out the unchanged.
    pub status: Vec<Child>,
    /// What to tell the user.
    pub events: Vec<Note>,
    /// What is not a write of an object.
    pub effects: Vec<Box<dyn Effect>>,
    /// Plan again after this long even if nothing changes.
    pub recheck_after: Option<Duration>,
    /// A finalizer to add before, or to remove after, everything else.
    pub finalizer: Option<Finalizer>,
}

/// A change of an object's finalizers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Finalizer {
    /// Written before anything else is done.
    Add(Child),
    /// Written after all else has succeeded.
    Remove(Child),
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Propagation {
    /// The garbage collector deletes them afterwards.
    Background,
    /// The object stays until they are gone.
    Foreground,
    /// They lose their owner and stay.
    Orphan,
}

/// One deletion and the conditions under which it may happen.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Precondition {
    /// Kind of the object.
    #[serde(serialize_with = "crate::plan::as_display")]
    pub kind: Kind,
    /// Its key.
    #[serde(serialize_with = "crate::plan::as_display")]
    pub key: ObjectKey,
    /// Only the object with this UID is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Only this version is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Instead of the kind's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<u32>,
    /// Instead of the kind's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
}

pub(crate) fn as_display<S: Serializer>(value: &impl std::fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

impl Precondition {
    /// Deletes this very object (by UID), in the background, with its own grace period.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            kind: Kind::of::<K>(),
            key: key_of(object),
            uid: object.meta().uid.clone(),
            resource_version: None,
            grace_period_seconds: None,
            propagation: Some(Propagation::Background),
        }
    }

    /// Only while the object is the version that was seen.
    #[must_use]
    pub fn unchanged<K: Resource>(mut self, object: &K) -> Self {
        self.resource_version.clone_from(&object.meta().resource_version);
        self
    }
}

impl Plan {
    /// Whether there is nothing to write or do. Applied children count as work here; whether the
    /// server has to be asked is the driver's knowledge ([`crate::Acted::writes`]).
    pub fn is_empty(&self) -> bool {
        let Self { apply, delete, status, events, effects, recheck_after: _, finalizer } = self;
        apply.is_empty()
            && delete.is_empty()
            && status.is_empty()
            && events.is_empty()
            && effects.is_empty()
            && finalizer.is_none()
    }

    /// Plans `status` as the status of `object`, unless it is already.
    pub fn set_status<K, S>(&mut self, object: &K, status: &S)
    where
        K: Resource<DynamicType = ()> + Serialize,
        S: Serialize,
    {
        self.status.extend(Child::patch_status(object, status));
    }

    /// Plans the change from `old` to `new`, unless there is none.
    pub fn change<K: Resource<DynamicType = ()> + Serialize>(&mut self, old: &K, new: &K) {
        self.apply.extend(Child::patch(old, new));
    }

    /// Plans the finalizer onto `object`, unless it is there or the object is being deleted (the API
    /// server refuses new finalizers then).
    pub fn add_finalizer<K: Resource<DynamicType = ()>>(&mut self, object: &K, finalizer: &str) {
        let present = object.meta().finalizers.iter().flatten().any(|f| f == finalizer);
        if present || object.meta().deletion_timestamp.is_some() {
            return;
        }
        let mut list: Vec<&str> = object.meta().finalizers.iter().flatten().map(String::as_str).collect();
        list.push(finalizer);
        self.finalizer = Some(Finalizer::Add(finalizers_patch(object, &list)));
    }

    /// Plans the finalizer off `object`, if it is there.
    pub fn remove_finalizer<K: Resource<DynamicType = ()>>(&mut self, object: &K, finalizer: &str) {
        let present: Vec<&str> = object.meta().finalizers.iter().flatten().map(String::as_str).collect();
        let left: Vec<&str> = present.iter().copied().filter(|f| *f != finalizer).collect();
        if left.len() != present.len() {
            self.finalizer = Some(Finalizer::Remove(finalizers_patch(object, &left)));
        }
    }

    /// Plans the deletion of every observed object of one kind that the plan does not write: what was
    /// wanted once and no longer is. Pass the children the primary controls, nothing else.
    pub fn prune<'a, K>(&mut self, observed: impl IntoIterator<Item = &'a K>)
    where
        K: Resource<DynamicType = ()> + 'a,
    {
        let kind = Kind::of::<K>();
        for object in observed {
            let key = key_of(object);
            let wanted = self.apply.iter().any(|child| child.kind == kind && child.key == key);
            if !wanted && object.meta().deletion_timestamp.is_none() {
                self.delete.push(Precondition::of(object));
            }
        }
    }

    /// Plans again no later than `after` from now.
    pub fn recheck(&mut self, after: Duration) {
        self.recheck_after = Some(self.recheck_after.map_or(after, |earlier| earlier.min(after)));
    }
}

fn finalizers_patch<K: Resource<DynamicType = ()>>(object: &K, list: &[&str]) -> Child {
    let patch = json!({ "metadata": { "finalizers": list } });
    let child = Child::patch_body(Kind::of::<K>(), object, None, patch);
    debug_assert_eq!(child.write, Write::Patch(None));
    child
}

/// The form snapshots have; empty parts are left out.
impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { apply, delete, status, events, effects, recheck_after, finalizer } = self;
        let mut out = serializer.serialize_struct("Plan", 7)?;
        if let Some(Finalizer::Add(child)) = finalizer {
            out.serialize_field("addFinalizer", child)?;
        }
        if !apply.is_empty() {
            out.serialize_field("apply", apply)?;
        }
        if !effects.is_empty() {
            let shown: Vec<String> = effects.iter().map(|effect| format!("{effect:?}")).collect();
            out.serialize_field("effects", &shown)?;
        }
        if !delete.is_empty() {
            out.serialize_field("delete", delete)?;
        }
        if !status.is_empty() {
            out.serialize_field("status", status)?;
        }
        if !events.is_empty() {
            out.serialize_field("events", events)?;
        }
        if let Some(after) = recheck_after {
            out.serialize_field("recheckAfterSeconds", &after.as_secs_f64())?;
        }
        if let Some(Finalizer::Remove(child)) = finalizer {
            out.serialize_field("removeFinalizer", child)?;
        }
        out.end()
    }
}
