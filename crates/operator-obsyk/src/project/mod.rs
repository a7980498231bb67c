//! From a watched object to the object the platform gets, for all twenty kinds.
//!
//! Guarantees: pure; the fields, names and absences of the original's code, field by field; values of
//! Secrets and ConfigMaps, of environment variables, commands and arguments are passed over by the decoder and
//! never become values of this process (`data`); equal content gives equal bytes (keys and set-like lists are
//! sorted). Deliberately unaware of watches and of what has been sent.
//!
//! Each kind decodes only the fields it needs (a typed Pod costs 82 KB, this one 7 KB for a moment), all of
//! them optional, since an absent field and a `null` mean the same to Kubernetes.

mod config;
mod data;
mod event;
mod fields;
mod network;
mod node;
mod pod;
mod rbac;
#[cfg(test)]
mod tests;
mod workload;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::de::DeserializeOwned;

pub(crate) use fields::{Fields, amount, lite, sorted, texts};

use crate::{Kind, digest};

lite! {
    /// What is read of `metadata`.
    Meta {
        name: String,
        namespace: String,
        uid: String,
        resource_version: String,
        creation_timestamp: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        owner_references: Vec<Owner>,
    }
    Owner { kind: String, name: String }
}

/// One kind as it is read.
pub(crate) trait Inventory: DeserializeOwned + Send + 'static {
    /// Which.
    const KIND: Kind;

    /// Its metadata, and the fields the platform gets beside those that all kinds have.
    fn split(self) -> (Meta, Fields);
}

/// What makes an object the same object to the platform.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Its kind.
    pub kind: Kind,
    /// `metadata.uid`.
    pub uid: Arc<str>,
}

/// One version of one object, as the platform gets it.
#[derive(Clone, Debug)]
pub struct Projected {
    /// Which object.
    pub id: Id,
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.namespace`; empty for the cluster's own kinds.
    pub namespace: Box<str>,
    /// `metadata.resourceVersion`; 0 where it is not a number, and then says nothing about order.
    pub revision: u64,
    /// `metadata.resourceVersion` as it is written.
    pub version: Box<str>,
    /// The object as JSON.
    pub body: Bytes,
    /// Hash of `body`, as both ends reckon it.
    pub hash: u64,
}

impl Projected {
    /// Projects one decoded object.
    pub(crate) fn of<I: Inventory>(object: I) -> Self {
        let (meta, own) = object.split();
        let Meta { name, namespace, uid, resource_version, .. } = &meta;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (name, namespace, uid) = (text(name), text(namespace), text(uid));
        let version = text(resource_version);
        let revision = version.parse().unwrap_or(0);
        let fields = common(I::KIND, meta, &name, &namespace, &uid, own);
        let body = fields.into_json();
        Self {
            id: Id { kind: I::KIND, uid: uid.into() },
            name: name.into(),
            namespace: namespace.into(),
            revision,
            version: version.into(),
            hash: digest::hash(&body),
            body,
        }
    }

    /// Decodes and projects one object of a kind.
    pub fn decode(kind: Kind, json: &[u8]) -> Result<Self, serde_json::Error> {
        struct Decode<'a>(&'a [u8]);
        impl Visit for Decode<'_> {
            type Output = Result<Projected, serde_json::Error>;
            fn visit<I: Inventory>(self) -> Self::Output {
                serde_json::from_slice::<I>(self.0).map(Projected::of)
            }
        }
        visit(kind, Decode(json))
    }
}

/// Prints of a creation time that is not set, as Go prints its zero time.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// The block that all kinds have; Kubernetes Events have no labels and no annotations in it.
fn common(kind: Kind, meta: Meta, name: &str, namespace: &str, uid: &str, own: Fields) -> Fields {
    let mut fields = own.always("uid", uid).always("name", name);
    if kind.is_namespaced() {
        fields = fields.always("namespace", namespace);
    }
    let created = meta.creation_timestamp.unwrap_or_else(|| ZERO_TIME.to_owned());
    fields = fields.always("k8s_created_at", created);
    if kind == Kind::Event {
        return fields;
    }
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.retain(|key, value| is_sent(kind, key, value));
    fields.unless_empty("labels", texts(meta.labels)).unless_empty("annotations", texts(Some(annotations)))
}

/// Annotations under which tools keep the manifest that they applied, values included.
const APPLIED: [&str; 4] = [
    "kapp.k14s.io/original",
    "objectset.rio.cattle.io/applied",
    "management.cattle.io/applied",
    "banzaicloud.com/last-applied",
];

/// The original's filter, a literal prefix; beyond it, a Secret or ConfigMap keeps to itself what looks like
/// a copy of it. Sending less is safe by the contract; a copy would carry the values.
fn is_sent(kind: Kind, key: &str, value: &str) -> bool {
    if key.starts_with("kubectl.kubernetes.io/") || key.starts_with("kubernetes.io/") {
        return false;
    }
    let keeps_values = matches!(kind, Kind::Secret | Kind::ConfigMap);
    // A manifest has one of these words; "H4sI" begins gzip in base64, which Rancher stores.
    let is_copy = || {
        ["data\"", "data:", "Data\"", "Data:", "data\\\""].iter().any(|word| value.contains(word))
            || value.starts_with("H4sI")
    };
    !(APPLIED.contains(&key) || (keeps_values && is_copy()))
}

/// Does something with the type that stands for a kind.
pub(crate) trait Visit {
    /// What comes of it.
    type Output;
    /// Does it.
    fn visit<I: Inventory>(self) -> Self::Output;
}

/// The one place where a kind becomes a type.
pub(crate) fn visit<V: Visit>(kind: Kind, visitor: V) -> V::Output {
    match kind {
        Kind::Namespace => visitor.visit::<config::Namespace>(),
        Kind::Pod => visitor.visit::<pod::Pod>(),
        Kind::Service => visitor.visit::<network::Service>(),
        Kind::Node => visitor.visit::<node::Node>(),
        Kind::Deployment => visitor.visit::<workload::Deployment>(),
        Kind::StatefulSet => visitor.visit::<workload::StatefulSet>(),
        Kind::DaemonSet => visitor.visit::<workload::DaemonSet>(),
        Kind::Job => visitor.visit::<workload::Job>(),
        Kind::CronJob => visitor.visit::<workload::CronJob>(),
        Kind::Ingress => visitor.visit::<network::Ingress>(),
        Kind::NetworkPolicy => visitor.visit::<network::NetworkPolicy>(),
        Kind::ConfigMap => visitor.visit::<config::ConfigMap>(),
        Kind::Secret => visitor.visit::<config::Secret>(),
        Kind::PersistentVolumeClaim => visitor.visit::<config::PersistentVolumeClaim>(),
        Kind::ServiceAccount => visitor.visit::<config::ServiceAccount>(),
        Kind::Role => visitor.visit::<rbac::Role>(),
        Kind::ClusterRole => visitor.visit::<rbac::ClusterRole>(),
        Kind::RoleBinding => visitor.visit::<rbac::RoleBinding>(),
        Kind::ClusterRoleBinding => visitor.visit::<rbac::ClusterRoleBinding>(),
        Kind::Event => visitor.visit::<event::Event>(),
    }
}
