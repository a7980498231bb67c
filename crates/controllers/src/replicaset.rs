//! ReplicaSet: as many active pods as `spec.replicas` says.
//!
//! Guarantees what upstream's `pkg/controller/replicaset` does: adoption and release by selector,
//! creation in slow-start batches (the driver's), deletion in the order of [`crate::rank`], at most
//! 500 of either at once, and a status from what was observed. Knows nothing of Deployments but that
//! ReplicaSets with the same controller count as one when colocated pods are ranked.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{
    Change, Child, Context, Error, Note, Plan, Precondition, Reconciler, Result, Stores, Watches,
    controller_of, key_of, owner_reference,
};

use crate::{
    claims::{Claims, claim, matches, selector},
    pods, rank,
    spec::HasSpec,
};

/// Upstream `BurstReplicas`: bounds what one plan creates or deletes.
const BURST_REPLICAS: usize = 500;

/// The controller.
pub struct ReplicaSets;

/// What one plan looks at.
pub struct World {
    set: Arc<ReplicaSet>,
    pods: Claims<Pod>,
    /// Active pods of all ReplicaSets with the same controller, counted by node.
    related_by_node: HashMap<String, usize>,
}

impl Reconciler for ReplicaSets {
    type World = World;
    const NAME: &'static str = "replicaset";

    fn watches(&self) -> Watches {
        Watches::of::<ReplicaSet>().owns::<Pod>().also::<Pod>(sets_of_orphan)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let sets = cx.stores.ready::<ReplicaSet>().await;
        let Some(set) = sets.get(key) else { return Ok(None) };
        let store = cx.stores.ready::<Pod>().await;
        let pods = claim(cx, &*set, &selector(&set.spec().selector)?, &store, |_| true).await?;
        let family = match controller_of(&*set) {
            Some(owner) => sets.controlled_by(&owner.uid),
            None => vec![Arc::clone(&set)],
        };
        let mut related_by_node = HashMap::new();
        for member in family {
            for pod in store.controlled_by(&member.uid().unwrap_or_default()) {
                if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone())
                    && pods::is_active(&pod)
                {
                    *related_by_node.entry(node).or_insert(0) += 1;
                }
            }
        }
        Ok(Some(World { set, pods, related_by_node }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let World { set, pods: claims, related_by_node } = world;
        let mut plan = Plan::default();
        if !claims.is_settled() {
            claims.plan(&mut plan, &**set);
            return plan;
        }
        let active: Vec<Arc<Pod>> = claims.mine.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        if set.metadata.deletion_timestamp.is_none() {
            manage(&mut plan, set, &active, related_by_node, now);
        }
        let status = status(set, &active, &claims.mine, now);
        plan.set_status(&**set, &status);
        if let Some(wait) = pods::next_availability(&active, set.spec().min_ready_seconds.unwrap_or(0), now) {
            plan.recheck(wait);
        }
        plan
    }

    fn failed(&self, world: &World, error: &Error, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let present = world.set.status.iter().flat_map(|status| status.conditions.iter().flatten());
        if error.is_conflict() || present.clone().any(|condition| condition.type_ == REPLICA_FAILURE) {
            return plan;
        }
        let wanted = wanted(&world.set);
        let active = world.pods.mine.iter().filter(|pod| pods::is_active(pod)).count();
        let mut status = world.set.status.clone().unwrap_or_default();
        status.conditions.get_or_insert_default().push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(if active < wanted { "FailedCreate" } else { "FailedDelete" }.to_owned()),
            message: Some(error.text()),
            last_transition_time: Some(Time(pods::whole_second(now))),
        });
        plan.status.extend(unconditional_status(&world.set, &status));
        plan
    }
}

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The plan that failed may have moved the version already; the condition is worth saying regardless.
fn unconditional_status(set: &ReplicaSet, status: &ReplicaSetStatus) -> Option<Child> {
    let mut child = Child::patch_status(set, status)?;
    if let Some(metadata) = child.body.pointer_mut("/metadata").and_then(|m| m.as_object_mut()) {
        metadata.remove("resourceVersion");
    }
    Some(child)
}

/// An orphan may be adopted by any set of its namespace whose selector matches.
fn sets_of_orphan(change: &Change<Pod>, stores: &Stores) -> Vec<ObjectKey> {
    let Some(pod) = change.new.as_ref().filter(|pod| controller_of(&***pod).is_none()) else {
        return Vec::new();
    };
    let sets = stores.of::<ReplicaSet>().in_namespace(&pod.namespace().unwrap_or_default());
    let matching =
        sets.iter().filter(|set| selector(&set.spec().selector).is_ok_and(|s| matches(&s, &**pod)));
    matching.map(|set| key_of(&**set)).collect()
}

fn wanted(set: &ReplicaSet) -> usize {
    usize::try_from(set.spec().replicas.unwrap_or(1)).unwrap_or(0)
}

fn manage(
    plan: &mut Plan,
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    related_by_node: &HashMap<String, usize>,
    now: Timestamp,
) {
    let wanted = wanted(set);
    for _ in active.len()..wanted.min(active.len() + BURST_REPLICAS) {
        let template = set.spec().template.clone().unwrap_or_default();
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

fn status(set: &ReplicaSet, active: &[Arc<Pod>], all: &[Arc<Pod>], now: Timestamp) -> ReplicaSetStatus {
    let labels = set.spec().template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.clone());
    let labelled =
        |pod: &&Arc<Pod>| labels.iter().flatten().all(|(key, value)| pod.labels().get(key) == Some(value));
    let min_ready = set.spec().min_ready_seconds.unwrap_or(0);
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let mut conditions = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
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
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}
