//! ReplicaSet and ReplicationController: as many active pods as `spec.replicas` says.
//!
//! The two differ in the form of their selector and in a field of their status ([`Replicated`]).
//!
//! Guarantees what upstream's `pkg/controller/replicaset` does: adoption and release by selector,
//! creation in slow-start batches (the driver's), deletion in the order of [`crate::rank`], at most
//! 500 of either at once, and a status from what was observed. Knows nothing of Deployments but that
//! ReplicaSets with the same controller count as one when colocated pods are ranked.

use std::{collections::HashMap, fmt::Debug, marker::PhantomData, sync::Arc};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::{Pod, PodTemplateSpec, ReplicationController},
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, Time},
};
use kube::{Resource, ResourceExt};
use meta::{ObjectKey, Timestamp};
use reconcile::{
    Change, Child, Context, Error, Note, Plan, Precondition, Reconciler, Result, Store, Stores, Watches,
    controller_of, key_of, owner_reference,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    claims::{Claims, claim, matches, selector},
    pods, rank,
    spec::HasSpec,
};

/// Upstream `BurstReplicas`: bounds what one plan creates or deletes.
const BURST_REPLICAS: usize = 500;

/// The controller of one of the kinds.
pub struct Replicas<K>(PhantomData<fn() -> K>);

/// The controller of ReplicaSets.
pub type ReplicaSets = Replicas<ReplicaSet>;
/// The controller of ReplicationControllers.
pub type ReplicationControllers = Replicas<ReplicationController>;

impl<K> Default for Replicas<K> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// A kind that keeps a number of equal pods.
pub trait Replicated:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Name of the controller.
    const CONTROLLER: &'static str;

    /// `spec.replicas`, 1 when unset.
    fn replicas(&self) -> i32;
    /// `spec.minReadySeconds`.
    fn min_ready_seconds(&self) -> i32;
    /// `spec.selector` as a label selector.
    fn label_selector(&self) -> LabelSelector;
    /// `spec.template`.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// The status there is, in the form of a ReplicaSet's.
    fn observed(&self) -> ReplicaSetStatus;
    /// A status in the form of the kind's own.
    fn shown(status: &ReplicaSetStatus) -> Value;
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset";

    fn replicas(&self) -> i32 {
        self.spec().replicas.unwrap_or(1)
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec().min_ready_seconds.unwrap_or(0)
    }
    fn label_selector(&self) -> LabelSelector {
        self.spec().selector.clone()
    }
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec().template.as_ref()
    }
    fn observed(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }
    fn shown(status: &ReplicaSetStatus) -> Value {
        json!(status)
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replicationcontroller";

    fn replicas(&self) -> i32 {
        self.spec().replicas.unwrap_or(1)
    }
    fn min_ready_seconds(&self) -> i32 {
        self.spec().min_ready_seconds.unwrap_or(0)
    }
    fn label_selector(&self) -> LabelSelector {
        LabelSelector { match_labels: self.spec().selector.clone(), match_expressions: None }
    }
    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec().template.as_ref()
    }
    fn observed(&self) -> ReplicaSetStatus {
        // The fields it has are the same ones.
        serde_json::from_value(json!(self.status)).unwrap_or_default()
    }
    fn shown(status: &ReplicaSetStatus) -> Value {
        json!(ReplicaSetStatus { terminating_replicas: None, ..status.clone() })
    }
}

/// What one plan looks at.
pub struct World<K> {
    set: Arc<K>,
    pods: Claims<Pod>,
    /// Active pods of all ReplicaSets with the same controller, counted by node, where that decides which pods go.
    related_by_node: HashMap<String, usize>,
}

impl<K: Replicated> Reconciler for Replicas<K> {
    type World = World<K>;
    const NAME: &'static str = K::CONTROLLER;

    fn watches(&self) -> Watches {
        Watches::of::<K>().owns::<Pod>().also::<Pod>(sets_of_orphan::<K>)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World<K>>> {
        let sets = cx.stores.ready::<K>().await;
        let Some(set) = sets.get(key) else { return Ok(None) };
        let store = cx.stores.ready::<Pod>().await;
        let pods = claim(cx, &*set, &selector(&set.label_selector())?, &store, |_| true).await?;
        let too_many = pods.mine.iter().filter(|pod| pods::is_active(pod)).count() > wanted(&*set);
        let related_by_node = if too_many { related_by_node(&set, &sets, &store) } else { HashMap::new() };
        Ok(Some(World { set, pods, related_by_node }))
    }

    fn plan(&self, world: &World<K>, now: Timestamp) -> Plan {
        let World { set, pods: claims, related_by_node } = world;
        let mut plan = Plan::default();
        if !claims.is_settled() {
            claims.plan(&mut plan, &**set);
            return plan;
        }
        let active: Vec<Arc<Pod>> = claims.mine.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        if set.meta().deletion_timestamp.is_none() {
            manage(&mut plan, &**set, &active, related_by_node, now);
        }
        let status = status(&**set, &active, &claims.mine, now);
        plan.set_status(&**set, &K::shown(&status));
        if let Some(wait) = pods::next_availability(&active, set.min_ready_seconds(), now) {
            plan.recheck(wait);
        }
        plan
    }

    fn failed(&self, world: &World<K>, error: &Error, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let mut status = world.set.observed();
        let mut present = status.conditions.iter().flatten();
        if error.is_conflict() || present.any(|condition| condition.type_ == REPLICA_FAILURE) {
            return plan;
        }
        let wanted = wanted(&*world.set);
        let active = world.pods.mine.iter().filter(|pod| pods::is_active(pod)).count();
        status.conditions.get_or_insert_default().push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(if active < wanted { "FailedCreate" } else { "FailedDelete" }.to_owned()),
            message: Some(error.text()),
            last_transition_time: Some(Time(pods::whole_second(now))),
        });
        plan.status.extend(unconditional_status(&*world.set, &status));
        plan
    }
}

fn related_by_node<K: Replicated>(
    set: &Arc<K>,
    sets: &Store<K>,
    pods: &Store<Pod>,
) -> HashMap<String, usize> {
    let family = match controller_of(&**set) {
        Some(owner) => sets.controlled_by(&owner.uid),
        None => vec![Arc::clone(set)],
    };
    let mut by_node = HashMap::new();
    for member in family {
        for pod in pods.controlled_by(&member.uid().unwrap_or_default()) {
            if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref())
                && pods::is_active(&pod)
            {
                *by_node.entry(node.clone()).or_insert(0) += 1;
            }
        }
    }
    by_node
}

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The plan that failed may have moved the version already; the condition is worth saying regardless.
fn unconditional_status<K: Replicated>(set: &K, status: &ReplicaSetStatus) -> Option<Child> {
    let mut child = Child::patch_status(set, &K::shown(status))?;
    if let Some(metadata) = child.body.pointer_mut("/metadata").and_then(|m| m.as_object_mut()) {
        metadata.remove("resourceVersion");
    }
    Some(child)
}

/// An orphan may be adopted by any set of its namespace whose selector matches.
fn sets_of_orphan<K: Replicated>(change: &Change<Pod>, stores: &Stores) -> Vec<ObjectKey> {
    let Some(pod) = change.new.as_ref().filter(|pod| controller_of(&***pod).is_none()) else {
        return Vec::new();
    };
    let sets = stores.of::<K>().in_namespace(&pod.namespace().unwrap_or_default());
    let matching =
        sets.iter().filter(|set| selector(&set.label_selector()).is_ok_and(|s| matches(&s, &**pod)));
    matching.map(|set| key_of(&**set)).collect()
}

fn wanted<K: Replicated>(set: &K) -> usize {
    usize::try_from(set.replicas()).unwrap_or(0)
}

fn manage<K: Replicated>(
    plan: &mut Plan,
    set: &K,
    active: &[Arc<Pod>],
    related_by_node: &HashMap<String, usize>,
    now: Timestamp,
) {
    let wanted = wanted(set);
    for _ in active.len()..wanted.min(active.len() + BURST_REPLICAS) {
        let template = set.template().cloned().unwrap_or_default();
        let mut pod = pods::from_template(&template, set.namespace(), owner_reference(set));
        pod.metadata.generate_name = Some(format!("{}-", set.name_any()));
        plan.apply.push(Child::create(&pod).announced_to(set));
    }
    if active.len() > wanted {
        let surplus = (active.len() - wanted).min(BURST_REPLICAS);
        for pod in rank::for_deletion(active, related_by_node, now).into_iter().take(surplus) {
            plan.delete.push(Precondition::of(&*pod));
            let message = format!("Deleted pod: {}", pod.name_any());
            plan.events.push(Note::normal(set, "SuccessfulDelete", "Delete", message));
        }
    }
}

fn status<K: Replicated>(set: &K, active: &[Arc<Pod>], all: &[Arc<Pod>], now: Timestamp) -> ReplicaSetStatus {
    let labels = set.template().and_then(|template| template.metadata.as_ref()?.labels.clone());
    let labelled =
        |pod: &&Arc<Pod>| labels.iter().flatten().all(|(key, value)| pod.labels().get(key) == Some(value));
    let min_ready = set.min_ready_seconds();
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let mut conditions = set.observed().conditions.unwrap_or_default();
    if active.len() == wanted(set) {
        conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
    }
    let terminating = all.iter().filter(|pod| pods::is_deleting(pod) && !pods::is_terminal(pod)).count();
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(active.iter().filter(labelled).count())),
        ready_replicas: Some(count(active.iter().filter(|pod| pods::is_ready(pod)).count())),
        available_replicas: Some(count(
            active.iter().filter(|p| pods::is_available(p, min_ready, now)).count(),
        )),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.meta().generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};

    use super::*;

    #[tokio::test]
    async fn a_replication_controller_keeps_its_pods_and_counts_them() {
        let bench = Bench::new(ReplicationControllers::default());
        let (key, kind) = (ObjectKey::new("ns", "web"), Kind::of::<ReplicationController>());
        bench.api.register(kind.clone(), true);
        bench.api.put(&json!({
            "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": "web", "namespace": "ns" },
            "spec": { "replicas": 2, "selector": { "app": "web" }, "template": {
                "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] },
            } },
        }));
        bench.settle(&key).await;
        let pods = bench.api.list(&Kind::of::<Pod>(), "ns");
        assert_eq!(
            (pods.len(), &pods[0]["metadata"]["ownerReferences"][0]["kind"]),
            (2, &json!("ReplicationController"))
        );
        bench.api.patch(&kind, &key, "", &json!({ "spec": { "replicas": 1 } }));
        bench.settle(&key).await;
        let status = bench.api.get(&kind, &key).unwrap()["status"].clone();
        assert_eq!((&status["replicas"], &status["terminatingReplicas"]), (&json!(1), &Value::Null));
    }
}
