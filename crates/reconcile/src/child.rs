//! One write of one object, as data.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use meta::ObjectKey;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Error, Kind, Note, Severity, merge_diff};

/// How a [`Child`] is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Write {
    /// Server-side apply, forced, as field manager `keelson-<controller>`. Skipped while what was
    /// applied last and the live object are both unchanged.
    Apply,
    /// POST to the collection; a name may be left to the server with `metadata.generateName`.
    /// Consecutive creates go out in batches of 1, 2, 4, ... and stop at the first failure
    /// (upstream `slowStartBatch`).
    Create,
    /// JSON merge patch, of a subresource or of the object itself.
    Patch(Option<&'static str>),
    /// POST to a subresource, such as `eviction`.
    Post(&'static str),
    /// PUT to a subresource, such as a namespace's `finalize`.
    Put(&'static str),
}

/// One object as a plan wants it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Child {
    /// Its kind.
    #[serde(serialize_with = "crate::plan::as_display")]
    pub kind: Kind,
    /// Its key; the name is empty where the server makes it.
    #[serde(serialize_with = "crate::plan::as_display")]
    pub key: ObjectKey,
    /// How to write it.
    pub write: Write,
    /// The body of the request.
    pub body: Value,
    /// Tell of the outcome in events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announce: Option<Announce>,
}

/// Events about the creation of a child: the name may be known only afterwards.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Announce {
    /// The object the events are about: the owner of the child.
    pub regarding: ObjectReference,
}

impl Announce {
    pub(crate) fn created(&self, child: &Child, made: &Value) -> Note {
        let name = made.pointer("/metadata/name").and_then(Value::as_str).unwrap_or(&child.key.name);
        let message = format!("Created {}: {name}", child.kind.kind.to_lowercase());
        self.note(Severity::Normal, "SuccessfulCreate", message)
    }

    pub(crate) fn failed(&self, error: &Error) -> Note {
        self.note(Severity::Warning, "FailedCreate", format!("Error creating: {}", crate::error::text(error)))
    }

    fn note(&self, severity: Severity, reason: &str, message: String) -> Note {
        let regarding = ObjectReference { resource_version: None, ..self.regarding.clone() };
        Note { regarding, severity, reason: reason.to_owned(), action: "Create".to_owned(), message }
    }
}

impl Child {
    /// Applies a typed object: the fields it sets are owned and kept so, all others are left alone.
    pub fn apply<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        Self::object(Kind::of::<K>(), crate::key_of(object), Write::Apply, tree(object))
    }

    /// Creates a typed object.
    pub fn create<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        Self::object(Kind::of::<K>(), crate::key_of(object), Write::Create, tree(object))
    }

    /// Changes `old` into `new` by a merge patch of what differs, on condition that `old` is still the
    /// live version. `None` when nothing differs. Changes below `status` are not meant: see
    /// [`Child::patch_status`].
    pub fn patch<K: Resource<DynamicType = ()> + Serialize>(old: &K, new: &K) -> Option<Self> {
        let patch = merge_diff(&tree(old), &tree(new))?;
        Some(Self::patch_body(Kind::of::<K>(), old, None, patch))
    }

    /// Writes `status` (all of it) over the status of `object`, on condition that `object` is still
    /// the live version. `None` when the status is already so.
    pub fn patch_status<K, S>(object: &K, status: &S) -> Option<Self>
    where
        K: Resource<DynamicType = ()> + Serialize,
        S: Serialize,
    {
        let encoded = tree(object);
        let before = encoded.get("status").cloned().unwrap_or_else(|| json!({}));
        let patch = merge_diff(&before, &tree(status))?;
        Some(Self::patch_body(Kind::of::<K>(), object, Some("status"), json!({ "status": patch })))
    }

    /// A merge patch of `object` (or its subresource) given as JSON, on condition that `object` is
    /// still the live version.
    pub fn patch_body<K: Resource>(
        kind: Kind,
        object: &K,
        subresource: Option<&'static str>,
        patch: Value,
    ) -> Self {
        let meta = object.meta();
        let mut body = patch;
        if let Some(root) = body.as_object_mut() {
            let metadata = root.entry("metadata").or_insert_with(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.insert("uid".into(), json!(meta.uid));
                metadata.insert("resourceVersion".into(), json!(meta.resource_version));
            }
        }
        Self { kind, key: crate::key_of(object), write: Write::Patch(subresource), body, announce: None }
    }

    /// Any object as JSON; `apiVersion` and `kind` are filled in from `kind`.
    pub fn object(kind: Kind, key: ObjectKey, write: Write, body: Value) -> Self {
        let mut body = body;
        if let Some(root) = body.as_object_mut() {
            root.insert("apiVersion".into(), json!(kind.api_version()));
            root.insert("kind".into(), json!(kind.kind));
        }
        Self { kind, key, write, body, announce: None }
    }

    /// Tells of the creation, or of its failure, in events about `owner`.
    #[must_use]
    pub fn announced_to<K: Resource<DynamicType = ()>>(mut self, owner: &K) -> Self {
        self.announce = Some(Announce { regarding: crate::reference_to(owner) });
        self
    }
}

/// A typed value as JSON. Types with string keys cannot fail; one that does is a bug, becomes null,
/// and is refused by the server with the object named.
fn tree(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| {
        tracing::error!(%error, "a planned value is not JSON");
        Value::Null
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace, NamespaceStatus};

    use super::*;

    #[test]
    fn a_patch_holds_the_difference_and_its_precondition() {
        let mut old = ConfigMap::default();
        old.metadata.name = Some("a".into());
        old.metadata.uid = Some("u".into());
        old.metadata.resource_version = Some("7".into());
        assert_eq!(Child::patch(&old, &old), None);
        let mut new = old.clone();
        new.data = Some([("k".to_owned(), "v".to_owned())].into());
        let child = Child::patch(&old, &new).unwrap();
        assert_eq!(child.body, json!({"data": {"k": "v"}, "metadata": {"uid": "u", "resourceVersion": "7"}}));
    }

    #[test]
    fn an_equal_status_is_no_write() {
        let mut object = Namespace::default();
        let status = NamespaceStatus { phase: Some("Active".into()), conditions: None };
        assert!(Child::patch_status(&object, &status).is_some());
        object.status = Some(status.clone());
        assert_eq!(Child::patch_status(&object, &status), None);
    }
}
