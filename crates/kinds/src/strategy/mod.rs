//! Behaviour of kinds that no schema can say; one file for each kind or family.

use std::collections::BTreeMap;

use meta::{Object, Value, names};
use serde_json::Map;

mod admission;
mod admission_policy;
mod api_service;
mod autoscaling;
mod binding;
mod certificates;
mod claims;
mod config;
mod cron;
mod definition;
mod devices;
mod eviction;
mod flowcontrol;
mod job;
mod namespace;
mod network;
mod node;
mod plain;
mod pod;
mod pod_defaults;
mod pod_resize;
mod pod_update;
mod policy;
mod quota;
mod rbac;
mod replicas;
mod service;
mod service_fields;
mod service_ip;
mod service_rules;
mod sets;
mod storage;
#[cfg(test)]
mod tests;

pub(crate) use admission::Webhooks;
pub(crate) use admission_policy::{Policy, PolicyBinding};
pub(crate) use api_service::ApiService;
pub(crate) use autoscaling::Autoscaler;
pub(crate) use binding::{Binding, Bindings};
pub(crate) use certificates::SigningRequest;
pub(crate) use claims::{Address, NODE_PORTS, NodePort};
pub(crate) use config::{ConfigMap, Secret};
pub(crate) use cron::CronJob;
pub(crate) use definition::Definition;
pub(crate) use devices::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
pub(crate) use eviction::Eviction;
pub(crate) use flowcontrol::{FlowSchema, PriorityLevel};
pub(crate) use job::Job;
pub(crate) use namespace::Namespace;
pub(crate) use network::{EndpointSlice, Endpoints, Ingress, IngressClass, NetworkPolicy, ServiceCidr};
pub(crate) use node::Node;
pub(crate) use plain::Rules;
pub(crate) use pod::{Pod, PodTemplate, qos_class};
pub(crate) use policy::DisruptionBudget;
pub(crate) use quota::{LimitRange, ResourceQuota};
pub(crate) use rbac::{Binding as RoleBinding, Role};
pub(crate) use replicas::{Deployment, ReplicaSet, ReplicationController};
pub(crate) use service::Service;
pub(crate) use sets::{DaemonSet, StatefulSet};
pub(crate) use storage::{CsiNode, PersistentVolume, PersistentVolumeClaim, StorageClass};

/// A name that is a DNS subdomain: most kinds.
pub(crate) fn subdomain(name: &str) -> Result<(), String> {
    first(names::dns1123_subdomain(name))
}

/// A name that is a DNS label: namespaces, services since 1.34.
pub(crate) fn label(name: &str) -> Result<(), String> {
    first(names::dns1123_label(name))
}

/// A name that fits in a path: RBAC objects.
pub(crate) fn segment(name: &str) -> Result<(), String> {
    first(names::path_segment(name))
}

pub(crate) fn first(messages: Vec<String>) -> Result<(), String> {
    messages.into_iter().next().map_or(Ok(()), Err)
}

/// The labels in a map, as selectors read them.
pub(crate) fn label_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Sets an entry that is absent or null.
pub(crate) fn fill(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Takes a field from the old object, absent or not.
pub(crate) fn keep(new: &mut Object, old: &Object, path: &[&str]) {
    match old.get(path) {
        Some(value) => new.set(path, value.clone()),
        None => {
            new.remove(path);
        }
    }
}

/// The maps in the list at a path.
pub(crate) fn maps_mut<'a>(
    object: &'a mut Object,
    path: &[&str],
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = object.get_mut(path).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}
