//! The watches that feed the scheduler: each object is projected as it arrives and dropped, so memory
//! holds projections only. A list after a broken watch becomes changes and removals.

use std::{collections::HashSet, fmt::Debug, hash::Hash, sync::Arc};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, StatefulSet},
        core::v1::{
            Namespace, Node, PersistentVolume, PersistentVolumeClaim, ReplicationController, Service,
        },
        policy::v1::PodDisruptionBudget,
        storage::v1::{CSINode, StorageClass as WireClass},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::watcher::{self, Event},
};
use meta::{ObjectKey, Random};
use serde::de::DeserializeOwned;

use crate::{
    budgets::Budget,
    core::Change,
    node::NodeInfo,
    pod::PodInfo,
    volumes::{Claim, StorageClass, Volume},
    wire::SlimPod,
    workloads::Workload,
};

/// Kinds that [`all`] watches; each says [`Signal::Synced`] once.
pub(crate) const KINDS: usize = 12;

/// What a watch says.
#[derive(Debug)]
pub(crate) enum Signal {
    /// An object changed.
    Change(Change),
    /// One more kind is known completely.
    Synced,
}

/// Everything the scheduler looks at. Never ends; broken watches are resumed as [`reconcile::events`] says.
pub(crate) fn all(client: &Client, random: &Arc<dyn Random>) -> impl Stream<Item = Signal> + Send + use<> {
    stream::select_all(placing(client, random).into_iter().chain(spreading(client, random)))
}

fn key<K: ResourceExt>(object: &K) -> ObjectKey {
    ObjectKey { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// Kinds that say where pods can go.
fn placing(client: &Client, random: &Arc<dyn Random>) -> [stream::BoxStream<'static, Signal>; 8] {
    [
        follow(
            Api::<SlimPod>::all(client.clone()),
            random,
            |pod| Arc::from(pod.uid().unwrap_or_default()),
            |pod| Change::Pod(Box::new(PodInfo::read(&pod.0))),
            Change::PodGone,
        ),
        follow(
            Api::<Node>::all(client.clone()),
            random,
            ResourceExt::name_any,
            |node| Change::Node(Box::new(NodeInfo::read(&node))),
            Change::NodeGone,
        ),
        follow(
            Api::<PersistentVolumeClaim>::all(client.clone()),
            random,
            key::<PersistentVolumeClaim>,
            |claim| Change::Claim(Box::new(Claim::read(&claim))),
            Change::ClaimGone,
        ),
        follow(
            Api::<PersistentVolume>::all(client.clone()),
            random,
            ResourceExt::name_any,
            |volume| Change::Volume(Box::new(Volume::read(&volume))),
            Change::VolumeGone,
        ),
        follow(
            Api::<WireClass>::all(client.clone()),
            random,
            ResourceExt::name_any,
            |class| Change::Class(Box::new(StorageClass::read(&class))),
            Change::ClassGone,
        ),
        follow(
            Api::<Namespace>::all(client.clone()),
            random,
            ResourceExt::name_any,
            |namespace| {
                Change::Namespace(namespace.name_any(), namespace.metadata.labels.unwrap_or_default())
            },
            Change::NamespaceGone,
        ),
        follow(
            Api::<PodDisruptionBudget>::all(client.clone()),
            random,
            key::<PodDisruptionBudget>,
            |budget| Change::Budget(Box::new(Budget::read(&budget))),
            Change::BudgetGone,
        ),
        follow(
            Api::<CSINode>::all(client.clone()),
            random,
            ResourceExt::name_any,
            |node| {
                let drivers = node.spec.drivers.iter();
                let limits = drivers.filter_map(|driver| {
                    let count = driver.allocatable.as_ref()?.count?;
                    Some((driver.name.clone(), i64::from(count)))
                });
                Change::Limits(node.name_any(), Some(limits.collect()))
            },
            |name| Change::Limits(name, None),
        ),
    ]
}

/// Kinds that say which pods belong together.
fn spreading(client: &Client, random: &Arc<dyn Random>) -> [stream::BoxStream<'static, Signal>; 4] {
    [
        follow(
            Api::<Service>::all(client.clone()),
            random,
            key::<Service>,
            |service| {
                let selector = service.spec.as_ref().and_then(|s| s.selector.clone());
                Change::Service(key(&service), selector)
            },
            |key| Change::Service(key, None),
        ),
        follow(
            Api::<ReplicationController>::all(client.clone()),
            random,
            key::<ReplicationController>,
            |controller| {
                let labels = controller.spec.as_ref().and_then(|s| s.selector.clone());
                let selector = LabelSelector { match_labels: labels, match_expressions: None };
                Change::Workload(Workload::ReplicationController, key(&controller), Some(selector))
            },
            |key| Change::Workload(Workload::ReplicationController, key, None),
        ),
        follow(
            Api::<ReplicaSet>::all(client.clone()),
            random,
            key::<ReplicaSet>,
            |set| {
                let selector = set.spec.as_ref().map(|s| s.selector.clone());
                Change::Workload(Workload::ReplicaSet, key(&set), selector)
            },
            |key| Change::Workload(Workload::ReplicaSet, key, None),
        ),
        follow(
            Api::<StatefulSet>::all(client.clone()),
            random,
            key::<StatefulSet>,
            |set| {
                let selector = set.spec.as_ref().map(|s| s.selector.clone());
                Change::Workload(Workload::StatefulSet, key(&set), selector)
            },
            |key| Change::Workload(Workload::StatefulSet, key, None),
        ),
    ]
}

fn follow<K, Key>(
    api: Api<K>,
    random: &Arc<dyn Random>,
    key: fn(&K) -> Key,
    set: fn(K) -> Change,
    gone: fn(Key) -> Change,
) -> stream::BoxStream<'static, Signal>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    Key: Eq + Hash + Clone + Send + 'static,
{
    let mut known = Known { keys: HashSet::new(), listed: HashSet::new(), synced: false };
    reconcile::events(api, watcher::Config::default(), Arc::clone(random))
        .flat_map(move |event| stream::iter(known.signals(event, key, set, gone)))
        .boxed()
}

/// Keys that were reported, to tell after a list what went away unseen.
struct Known<Key> {
    keys: HashSet<Key>,
    listed: HashSet<Key>,
    synced: bool,
}

impl<Key: Eq + Hash + Clone> Known<Key> {
    fn signals<K: Resource<DynamicType = ()>>(
        &mut self,
        event: Event<K>,
        key: fn(&K) -> Key,
        set: fn(K) -> Change,
        gone: fn(Key) -> Change,
    ) -> Vec<Signal> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.insert(key(&object));
                vec![Signal::Change(set(object))]
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let before = std::mem::replace(&mut self.keys, listed);
                let lost = before.into_iter().filter(|k| !self.keys.contains(k));
                let mut signals: Vec<Signal> = lost.map(|k| Signal::Change(gone(k))).collect();
                if !std::mem::replace(&mut self.synced, true) {
                    signals.push(Signal::Synced);
                }
                signals
            }
            Event::Apply(object) => {
                self.keys.insert(key(&object));
                vec![Signal::Change(set(object))]
            }
            Event::Delete(object) => {
                let key = key(&object);
                self.keys.remove(&key);
                vec![Signal::Change(gone(key))]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_after_a_broken_watch_removes_what_went_away() {
        let mut known = Known { keys: HashSet::new(), listed: HashSet::new(), synced: false };
        let node = |name: &str| {
            serde_json::from_value::<Node>(serde_json::json!({"metadata": {"name": name}})).unwrap()
        };
        let mut feed = |event| -> Vec<String> {
            let set = |node| Change::Node(Box::new(NodeInfo::read(&node)));
            let signals = known.signals(event, ResourceExt::name_any, set, Change::NodeGone);
            signals
                .into_iter()
                .map(|signal| match signal {
                    Signal::Change(Change::Node(node)) => format!("+{}", node.name),
                    Signal::Change(Change::NodeGone(name)) => format!("-{name}"),
                    Signal::Change(other) => panic!("{other:?}"),
                    Signal::Synced => "synced".into(),
                })
                .collect()
        };
        assert!(feed(Event::Init).is_empty());
        assert_eq!(feed(Event::InitApply(node("a"))), ["+a"]);
        assert_eq!(feed(Event::InitDone), ["synced"]);
        assert_eq!(feed(Event::Apply(node("b"))), ["+b"]);
        assert!(feed(Event::Init).is_empty());
        assert_eq!(feed(Event::InitApply(node("b"))), ["+b"]);
        assert_eq!(feed(Event::InitDone), ["-a"]);
        assert_eq!(feed(Event::Delete(node("b"))), ["-b"]);
    }
}
