//! The controllers: one reconciler, once for each kind.

use std::{marker::PhantomData, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, Service},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, ResourceExt};
use meta::{ObjectKey, Timestamp};
use reconcile::{Change, Context, Error, Plan, Reconciler, Result, Stores, Watches, key_of};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    component::Component,
    metrics::Readings,
    observe::{World, address_of, is_ours, observe},
    plan::plan,
    queue::QueueSource,
    refusals::Refusals,
    types::{BuildbarnBrowser, BuildbarnFrontend, BuildbarnScheduler, BuildbarnStorage, BuildbarnWorker},
};

/// Reconciles one of the five kinds.
pub(crate) struct Loop<K> {
    queues: Arc<dyn QueueSource>,
    readings: Readings,
    refusals: Arc<Refusals>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Loop<K> {
    pub(crate) fn new(queues: Arc<dyn QueueSource>) -> Self {
        Self { queues, readings: Readings::default(), refusals: Arc::default(), kind: PhantomData }
    }
}

impl<K: Component> Reconciler for Loop<K> {
    type World = World<K>;
    const NAME: &'static str = K::CONTROLLER;

    fn watches(&self) -> Watches {
        let watches = Watches::of::<K>()
            .owns::<Deployment>()
            .owns::<StatefulSet>()
            .owns::<Service>()
            .owns::<ConfigMap>()
            .owns::<Ingress>()
            .owns::<NetworkPolicy>()
            .owns::<PodDisruptionBudget>()
            .also::<ConfigMap>(by_given_config::<K>)
            .also::<BuildbarnScheduler>(neighbours::<K, _>)
            .also::<BuildbarnWorker>(neighbours::<K, _>)
            .also::<BuildbarnStorage>(neighbours::<K, _>)
            .also::<BuildbarnFrontend>(neighbours::<K, _>)
            .also::<BuildbarnBrowser>(neighbours::<K, _>);
        match K::APP {
            "worker" => watches.also::<Pod>(by_label::<K, _>).also::<Node>(by_cordon::<K>),
            "storage" => {
                watches.also::<Pod>(by_label::<K, _>).also::<PersistentVolumeClaim>(by_label::<K, _>)
            }
            "frontend" => watches.also::<Node>(by_address::<K>),
            _ => watches,
        }
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World<K>>> {
        observe(cx, key, &*self.queues, &self.readings, &self.refusals).await
    }

    fn plan(&self, world: &World<K>, now: Timestamp) -> Plan {
        plan(world, now)
    }

    /// Only noted: the next plan, a moment later, says it.
    fn failed(&self, world: &World<K>, error: &Error, _: Timestamp) -> Plan {
        self.refusals.note(&key_of(&*world.object), error);
        Plan::default()
    }
}

/// An object of a farm leads to all others of it: any may refer to any. Its status counts only as far as others
/// read it.
fn neighbours<K, C>(change: &Change<C>, stores: &Stores) -> Vec<ObjectKey>
where
    K: Component,
    C: Component,
{
    if K::kind(&()) == C::kind(&()) && K::APP != "worker" {
        return Vec::new();
    }
    let told = |object: &Arc<C>| {
        let status = object.status().cloned().unwrap_or_default();
        (object.meta().generation, status.topology, status.geometry, status.storage_map)
    };
    let same = change.old.as_ref().map(told) == change.new.as_ref().map(told);
    let Some(object) = change.object().filter(|_| !same) else { return Vec::new() };
    let namespace = object.namespace().unwrap_or_default();
    stores.of::<K>().in_namespace(&namespace).iter().map(|object| key_of(&**object)).collect()
}

/// Pods and claims carry the name of their component in a label.
fn by_label<K: Component, C: Resource>(change: &Change<C>, _: &Stores) -> Vec<ObjectKey> {
    let owner = |object: &C| {
        let name = object.labels().get("component")?;
        is_ours::<K, C>(object, name)
            .then(|| ObjectKey::new(object.namespace().unwrap_or_default(), name.as_str()))
    };
    change.versions().filter_map(|object| owner(object)).collect()
}

/// A node that is emptied, or is not any more, leads to every pool.
fn by_cordon<K: Component>(change: &Change<Node>, stores: &Stores) -> Vec<ObjectKey> {
    let emptied = |node: &Arc<Node>| node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let (before, after) =
        (change.old.as_ref().is_some_and(emptied), change.new.as_ref().is_some_and(emptied));
    if before == after {
        return Vec::new();
    }
    keys(&stores.of::<K>().all())
}

/// A node that clients can reach, or cannot any more, leads to every frontend.
fn by_address<K: Component>(change: &Change<Node>, stores: &Stores) -> Vec<ObjectKey> {
    let address = |node: &Arc<Node>| address_of(node);
    if change.old.as_ref().and_then(address) == change.new.as_ref().and_then(address) {
        return Vec::new();
    }
    keys(&stores.of::<K>().all())
}

/// A ConfigMap that a user brings leads to those that name it.
fn by_given_config<K: Component>(change: &Change<ConfigMap>, stores: &Stores) -> Vec<ObjectKey> {
    let Some(map) = change.object() else { return Vec::new() };
    let name = map.name_any();
    let mut all = stores.of::<K>().in_namespace(&map.namespace().unwrap_or_default());
    all.retain(|object| object.common().config_map_name.as_ref() == Some(&name));
    keys(&all)
}

fn keys<K>(all: &[Arc<K>]) -> Vec<ObjectKey>
where
    K: Resource + Serialize + DeserializeOwned,
{
    all.iter().map(|object| key_of(&**object)).collect()
}
