//! What a plan needs to know of a kind to address its objects, and the small facts about one object
//! (key, owner) that every controller asks for.

use std::{borrow::Cow, fmt};

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::Resource;
use meta::ObjectKey;
use serde::Serialize;

/// A kind as a client addresses it. Equality is by all four names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Kind {
    /// API group; empty for core.
    pub group: Cow<'static, str>,
    /// Version, such as `v1`.
    pub version: Cow<'static, str>,
    /// Kind, such as `Deployment`.
    pub kind: Cow<'static, str>,
    /// Plural, such as `deployments`.
    pub plural: Cow<'static, str>,
}

impl Kind {
    /// The kind of a typed object.
    pub fn of<K: Resource<DynamicType = ()>>() -> Self {
        let owned = |name: Cow<'_, str>| Cow::Owned(name.into_owned());
        Self {
            group: owned(K::group(&())),
            version: owned(K::version(&())),
            kind: owned(K::kind(&())),
            plural: owned(K::plural(&())),
        }
    }

    /// A kind known only at run time (from discovery).
    pub fn new(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        let owned = |name: &str| Cow::Owned(name.to_owned());
        Self { group: owned(group), version: owned(version), kind: owned(kind), plural: owned(plural) }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The collection's URL path. An empty namespace is the cluster scope, or all namespaces.
    pub fn url(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        let api_version = self.api_version();
        if namespace.is_empty() {
            format!("/{root}/{api_version}/{}", self.plural)
        } else {
            format!("/{root}/{api_version}/namespaces/{namespace}/{}", self.plural)
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plural)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// Namespace and name of an object.
pub fn key_of<K: Resource>(object: &K) -> ObjectKey {
    let meta = object.meta();
    ObjectKey::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// The owner reference with `controller: true`, if the object has one.
pub fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.meta().owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether the object's controller is the one with this UID.
pub fn controlled_by<K: Resource>(object: &K, uid: &str) -> bool {
    controller_of(object).is_some_and(|owner| owner.uid == uid)
}

/// Whether both are versions of one object (same UID), not two that share a name.
pub fn same_object<A: Resource, B: Resource>(a: &A, b: &B) -> bool {
    a.meta().uid.is_some() && a.meta().uid == b.meta().uid
}

/// The owner reference that makes `owner` the controller of a child and makes the owner's foreground
/// deletion wait for it (upstream `metav1.NewControllerRef`).
pub fn owner_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A full reference to an object, as events and claims carry it.
pub fn reference_to<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}
