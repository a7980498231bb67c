//! DaemonSet: one pod on each node that it is for.
//!
//! Follows upstream's `pkg/controller/daemon`: the pod of a node is bound by the scheduler through a node
//! affinity ([`placement`]); updates replace pods within `maxUnavailable`, or beside the old ones within
//! `maxSurge` ([`rollout`]); versions of the template are ControllerRevisions ([`history`]). Knows nothing
//! of what else is on a node: whether a pod fits there is the scheduler's to find out.

mod failures;
mod history;
mod placement;
mod rollout;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus},
    core::v1::{Node, Pod},
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{Change, Context, Plan, Reconciler, Result, Stores, Watches, controller_of, key_of};

use crate::{
    claims::{Claims, claim, matches, selector},
    pods,
    spec::HasSpec,
};
use failures::{Failures, Memory};
use history::History;
use placement::{Place, place};

/// The controller.
#[derive(Default)]
pub struct DaemonSets {
    failures: Memory,
}

/// What one plan looks at.
pub struct World {
    set: Arc<DaemonSet>,
    pods: Claims<Pod>,
    revisions: Claims<ControllerRevision>,
    history: History,
    /// Every node there is, and how it stands to the set.
    places: BTreeMap<String, Place>,
    failures: Failures,
}

impl Reconciler for DaemonSets {
    type World = World;
    const NAME: &'static str = "daemonset";

    fn watches(&self) -> Watches {
        Watches::of::<DaemonSet>()
            .owns::<Pod>()
            .also::<Pod>(sets_of_orphan)
            .owns::<ControllerRevision>()
            .also::<Node>(sets_of_node)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let nodes = cx.stores.ready::<Node>().await;
        let set = cx.stores.ready::<DaemonSet>().await.get(key);
        let Some(set) = set.filter(|set| set.metadata.deletion_timestamp.is_none()) else {
            self.failures.forget(key);
            return Ok(None);
        };
        let selector = selector(&set.spec().selector)?;
        let pods = claim(cx, &*set, &selector, &*cx.stores.ready::<Pod>().await, |_| true).await?;
        let store = cx.stores.ready::<ControllerRevision>().await;
        let revisions = claim(cx, &*set, &selector, &store, |_| true).await?;
        let namesake = |name: &str| store.get(&ObjectKey::new(&key.namespace, name));
        let history = History::resolve(&set, &revisions.mine, namesake);
        let places = nodes.all().iter().map(|node| (node.name_any(), place(&set, node))).collect();
        let failures = self.failures.learn(key, &pods.mine, cx.clock.now());
        Ok(Some(World { set, pods, revisions, history, places, failures }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let set = &*world.set;
        if !world.pods.is_settled() || !world.revisions.is_settled() {
            world.revisions.plan(&mut plan, set);
            world.pods.plan(&mut plan, set);
            return plan;
        }
        if world.history.present.collided {
            let before = set.status.clone().unwrap_or_default();
            let count = before.collision_count.unwrap_or(0).saturating_add(1);
            plan.set_status(set, &DaemonSetStatus { collision_count: Some(count), ..before });
            return plan;
        }
        plan.apply.extend(world.history.present.write.clone());
        rollout::step(&mut plan, world, now);
        world.history.truncate(&mut plan, set, &world.pods.mine);
        plan.set_status(set, &status(world, now));
        let min_ready = set.spec().min_ready_seconds.unwrap_or(0);
        if let Some(wait) = pods::next_availability(&world.pods.mine, min_ready, now) {
            plan.recheck(wait);
        }
        plan
    }
}

fn status(world: &World, now: Timestamp) -> DaemonSetStatus {
    let set = &*world.set;
    let pods = rollout::by_node(world);
    let min_ready = set.spec().min_ready_seconds.unwrap_or(0);
    let before = set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: before.collision_count,
        conditions: before.conditions,
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for (node, place) in &world.places {
        let oldest = pods.get(node).and_then(|here| here.first());
        if *place != Place::Wanted {
            status.number_misscheduled += i32::from(oldest.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = oldest else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods::is_ready(pod));
        available += i32::from(pods::is_available(pod, min_ready, now));
        updated += i32::from(rollout::is_updated(world, pod));
    }
    let nonzero = |count: i32| Some(count).filter(|count| *count != 0);
    status.updated_number_scheduled = nonzero(updated);
    status.number_available = nonzero(available);
    status.number_unavailable = nonzero(status.desired_number_scheduled - available);
    status
}

fn sets_of_orphan(change: &Change<Pod>, stores: &Stores) -> Vec<ObjectKey> {
    let Some(pod) = change.new.as_ref().filter(|pod| controller_of(&***pod).is_none()) else {
        return Vec::new();
    };
    let sets = stores.of::<DaemonSet>().in_namespace(&pod.namespace().unwrap_or_default());
    let matching =
        sets.iter().filter(|set| selector(&set.spec().selector).is_ok_and(|s| matches(&s, &**pod)));
    matching.map(|set| key_of(&**set)).collect()
}

/// Labels and taints decide where pods belong; a node's heartbeats do not.
fn sets_of_node(change: &Change<Node>, stores: &Stores) -> Vec<ObjectKey> {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && old.metadata.labels == new.metadata.labels
        && old.spec == new.spec
    {
        return Vec::new();
    }
    stores.of::<DaemonSet>().all().iter().map(|set| key_of(&**set)).collect()
}
