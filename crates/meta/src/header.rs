//! The header of an object: what the server needs of it without parsing it again.

use std::borrow::Cow;

use serde::Deserialize;

use crate::{Labels, NotAnObject, Object, ObjectKey, Value};

/// One element of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRef {
    /// `apiVersion` of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner; same namespace, or cluster-scoped.
    pub name: String,
    /// UID of the owner.
    pub uid: String,
    /// Whether the owner is the managing controller.
    pub controller: bool,
    /// Whether the owner's foreground deletion waits for this object.
    pub block_owner_deletion: bool,
}

/// What the server needs of an object without parsing it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: String,
    /// Generation; 0 when unset.
    pub generation: i64,
    /// Labels.
    pub labels: Labels,
    /// Values of the kind's selectable fields, in the order of `Resource::selectable`.
    pub fields: Box<[String]>,
    /// Owners.
    pub owners: Vec<OwnerRef>,
    /// Finalizers.
    pub finalizers: Vec<String>,
    /// Whether deletion has begun.
    pub deleting: bool,
}

impl Header {
    /// The header of a tree. `fields` are the values of the kind's selectable fields.
    pub fn of(object: &Object, fields: Box<[String]>) -> Self {
        let labels = object.get(&["metadata", "labels"]).and_then(Value::as_object);
        let strings = |path: &[&str]| -> Vec<String> {
            object.list(path).iter().filter_map(|v| Some(v.as_str()?.to_owned())).collect()
        };
        Self {
            key: object.key(),
            uid: object.uid().to_owned(),
            generation: object.int(&["metadata", "generation"]).unwrap_or(0),
            labels: labels
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
                .collect(),
            fields,
            owners: object.list(&["metadata", "ownerReferences"]).iter().map(owner).collect(),
            finalizers: strings(&["metadata", "finalizers"]),
            deleting: object.is_deleting(),
        }
    }

    /// The header of JSON, without building a tree; `fields` stay empty.
    pub fn read(json: &[u8]) -> Result<Self, NotAnObject> {
        let Shell { metadata } = serde_json::from_slice(json).map_err(NotAnObject::Json)?;
        let Meta {
            name,
            namespace,
            uid,
            generation,
            labels,
            owner_references,
            finalizers,
            deletion_timestamp,
        } = metadata;
        Ok(Self {
            key: ObjectKey::new(namespace.unwrap_or_default(), name),
            uid: uid.unwrap_or_default().into_owned(),
            generation: generation.unwrap_or(0),
            labels: labels.unwrap_or_default(),
            fields: Box::default(),
            owners: owner_references.unwrap_or_default().into_iter().map(Owner::into_ref).collect(),
            finalizers: finalizers.unwrap_or_default(),
            deleting: deletion_timestamp.is_some(),
        })
    }
}

fn owner(value: &Value) -> OwnerRef {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    OwnerRef {
        api_version: text("apiVersion"),
        kind: text("kind"),
        name: text("name"),
        uid: text("uid"),
        controller: flag("controller"),
        block_owner_deletion: flag("blockOwnerDeletion"),
    }
}

#[derive(Deserialize)]
struct Shell<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    namespace: Option<Cow<'a, str>>,
    uid: Option<Cow<'a, str>>,
    generation: Option<i64>,
    labels: Option<Labels>,
    owner_references: Option<Vec<Owner>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    controller: Option<bool>,
    block_owner_deletion: Option<bool>,
}

impl Owner {
    fn into_ref(self) -> OwnerRef {
        let Self { api_version, kind, name, uid, controller, block_owner_deletion } = self;
        OwnerRef {
            api_version,
            kind,
            name,
            uid,
            controller: controller.unwrap_or(false),
            block_owner_deletion: block_owner_deletion.unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_and_bytes_give_the_same_header() {
        let value = serde_json::json!({"metadata": {
            "name": "web", "namespace": "default", "uid": "u", "generation": 3, "labels": {"a": "b\"c"},
            "finalizers": ["f"], "deletionTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "o", "controller": true}],
        }, "spec": {"metadata": {"name": "other"}}});
        let read = Header::read(value.to_string().as_bytes()).unwrap();
        assert_eq!(read, Header::of(&Object::from_value(value).unwrap(), Box::default()));
        assert_eq!(read.key, ObjectKey::new("default", "web"));
        assert!(read.deleting && read.owners[0].controller);
        assert!(Header::read(b"{}").is_err());
    }
}
