//! Which pods belong together though they do not say so: those of a Service and those of a workload. A pod
//! without spread constraints of its own is spread among them (upstream `plugins/helper.DefaultSelector`).

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector};
use meta::ObjectKey;

use crate::{
    pod::PodInfo,
    profile::DefaultSpread,
    relations::{Labels, Spread},
};

/// Kinds whose pods are spread by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Workload {
    /// ReplicationController.
    ReplicationController,
    /// ReplicaSet.
    ReplicaSet,
    /// StatefulSet.
    StatefulSet,
}

impl Workload {
    /// The kind of this API version and name, if it is one.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "ReplicationController") => Some(Self::ReplicationController),
            ("apps/v1", "ReplicaSet") => Some(Self::ReplicaSet),
            ("apps/v1", "StatefulSet") => Some(Self::StatefulSet),
            _ => None,
        }
    }
}

/// Selectors of Services and workloads.
#[derive(Debug, Default)]
pub struct Workloads {
    services: HashMap<String, BTreeMap<String, Labels>>,
    selectors: HashMap<(Workload, ObjectKey), Selector>,
}

impl Workloads {
    /// Takes the selector of a Service; `None` when it has none or is gone.
    pub fn set_service(&mut self, key: &ObjectKey, selector: Option<Labels>) {
        let here = self.services.entry(key.namespace.clone()).or_default();
        match selector.filter(|s| !s.is_empty()) {
            Some(selector) => here.insert(key.name.clone(), selector),
            None => here.remove(&key.name),
        };
        if here.is_empty() {
            self.services.remove(&key.namespace);
        }
    }

    /// Takes the selector of a workload; `None` when it is gone.
    pub fn set_workload(&mut self, kind: Workload, key: &ObjectKey, selector: Option<LabelSelector>) {
        match selector.and_then(|s| Selector::try_from(s).ok()) {
            Some(selector) => self.selectors.insert((kind, key.clone()), selector),
            None => self.selectors.remove(&(kind, key.clone())),
        };
    }

    /// The default constraints of a pod that has none; none when it belongs to nothing.
    pub(crate) fn default_spread(&self, pod: &PodInfo, defaults: &DefaultSpread) -> Vec<Spread> {
        if matches!(defaults, DefaultSpread::List(list) if list.is_empty()) {
            return Vec::new();
        }
        let Some(selector) = self.selector(pod) else { return Vec::new() };
        match defaults {
            DefaultSpread::System => {
                let host = Spread::system("kubernetes.io/hostname", 3);
                let zone = Spread::system("topology.kubernetes.io/zone", 5);
                vec![host.of_pods(&selector), zone.of_pods(&selector)]
            }
            DefaultSpread::List(list) => list.iter().map(|s| s.of_pods(&selector)).collect(),
        }
    }

    fn selector(&self, pod: &PodInfo) -> Option<Selector> {
        let mut together = Selector::default();
        let mut any = false;
        let services = self.services.get(&pod.key.namespace).into_iter().flat_map(BTreeMap::values);
        let mine = |selector: &&Labels| selector.iter().all(|(k, v)| pod.labels.get(k) == Some(v));
        let mut labels = Labels::new();
        for selector in services.filter(mine) {
            labels.extend(selector.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        for (key, value) in labels {
            any = true;
            together.extend([Expression::Equal(key, value)]);
        }
        if let Some((kind, name)) = &pod.owner {
            let key = ObjectKey::new(&pod.key.namespace, name);
            if let Some(selector) = self.selectors.get(&(*kind, key)) {
                any = true;
                together.extend(selector.clone());
            }
        }
        any.then_some(together)
    }
}
