//! The objects that a component consists of, each a pure function of what was checked.

mod config_map;
mod ingress;
mod pod;
mod service;
mod workload;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Map, Value, json};

pub(crate) use config_map::{config_map, config_map_name};
pub(crate) use ingress::{budget, ingress, network_policy};
pub(crate) use pod::{Container, Pod, container, probes, template};
pub(crate) use service::{headless, service};
pub(crate) use workload::{
    amount, claim_names, claim_templates, deployment, pool, present_claim_names, stateful_set, template_hash,
};

use crate::types::Common;

/// Marks the pods of this operator.
pub(crate) const MANAGER: &str = "buildbarn-operator";
/// Hash of the configuration that a pod was started with.
pub(crate) const CONFIG_HASH: &str = "buildbarn.io/config-hash";

/// Whose children they are.
pub(crate) struct Base<'a> {
    /// `scheduler`, `worker`, `storage`, `frontend` or `browser`: the label `app`, as in the original.
    pub(crate) app: &'static str,
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) owner: OwnerReference,
    /// Of workers only.
    pub(crate) instance: Option<&'a str>,
    pub(crate) common: &'a Common,
}

impl Base<'_> {
    /// Labels by which pods are found: the original's. They never change, since selectors cannot.
    pub(crate) fn selector(&self) -> Map<String, Value> {
        let mut labels = Map::new();
        labels.insert("app".to_owned(), self.app.into());
        labels.insert("component".to_owned(), self.name.into());
        if let Some(instance) = self.instance {
            labels.insert("instance".to_owned(), instance.into());
        }
        labels
    }

    /// Labels of every child.
    pub(crate) fn labels(&self) -> Map<String, Value> {
        let mut labels = self.selector();
        for (key, value) in [
            ("app.kubernetes.io/name", "buildbarn"),
            ("app.kubernetes.io/instance", self.name),
            ("app.kubernetes.io/component", self.app),
            ("app.kubernetes.io/part-of", "buildbarn"),
            ("app.kubernetes.io/managed-by", MANAGER),
        ] {
            labels.insert(key.to_owned(), value.into());
        }
        labels
    }

    /// Metadata of a child: named, labelled, owned.
    pub(crate) fn metadata(&self, name: &str) -> Value {
        json!({
            "name": name, "namespace": self.namespace, "labels": self.labels(), "ownerReferences": [self.owner],
        })
    }
}

/// Puts what is there into a map.
pub(crate) fn put(value: &mut Value, key: &str, inner: Option<Value>) {
    if let (Some(map), Some(inner)) = (value.as_object_mut(), inner) {
        map.insert(key.to_owned(), inner);
    }
}
