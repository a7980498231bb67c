//! Moving pods from the old ReplicaSets to the new one (upstream `rolling.go` and `recreate.go`).

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;
use reconcile::Plan;

use super::{
    World,
    limits::{max_surge, max_unavailable, replicas},
    revision::{create_new, sync_existing},
    scale::{is_recreate, set_size},
    sets::{Sets, actual, available, replicas as set_replicas},
    status::Conditions,
};

/// One step of a rolling update: grow the new ReplicaSet as far as surge allows, else shrink old ones
/// as far as availability allows.
pub(super) fn rolling(plan: &mut Plan, conditions: &mut Conditions, world: &World, sets: &Sets) {
    let deployment = &*world.deployment;
    let Some(new) = &sets.new else { return create_new(plan, conditions, world, sets) };
    if sync_existing(plan, conditions, deployment, sets) {
        return;
    }
    let size = set_replicas(new);
    let wanted =
        if size > replicas(deployment) { replicas(deployment) } else { new_set_size(deployment, sets, size) };
    if wanted == size || !set_size(plan, deployment, new, wanted) {
        shrink_old(plan, deployment, sets, new);
    }
}

/// How large the new ReplicaSet (now of `size`) may be (upstream `NewRSNewReplicas`).
pub(super) fn new_set_size(deployment: &Deployment, sets: &Sets, size: i32) -> i32 {
    let wanted = replicas(deployment);
    if is_recreate(deployment) {
        return wanted;
    }
    let room = wanted + max_surge(deployment) - sets.total();
    if room <= 0 { size } else { size + room.min(wanted - size) }
}

/// Takes away first the pods of old ReplicaSets that are not available anyway, then as many available
/// ones as the new pods make up for.
fn shrink_old(plan: &mut Plan, deployment: &Deployment, sets: &Sets, new: &ReplicaSet) {
    if sets.active_old().next().is_none() {
        return;
    }
    let min_available = replicas(deployment) - max_unavailable(deployment);
    let new_unavailable = set_replicas(new) - available(new);
    let removable = sets.total() - min_available - new_unavailable;
    if removable <= 0 {
        return;
    }
    let mut sizes: BTreeMap<String, i32> = BTreeMap::new();
    let mut removed = 0;
    for set in sets.active_old() {
        let unhealthy = (set_replicas(set) - available(set)).max(0);
        let take = unhealthy.min(removable - removed);
        removed += take;
        sizes.insert(set.name_any(), set_replicas(set) - take);
    }
    let mut spare = sets.all().map(|set| available(set)).sum::<i32>() - min_available;
    for set in sets.active_old() {
        if let Some(size) = sizes.get_mut(&set.name_any()) {
            let take = (*size).min(spare.max(0));
            spare -= take;
            *size -= take;
        }
    }
    for set in sets.active_old() {
        let size = sizes.get(&set.name_any()).copied().unwrap_or_else(|| set_replicas(set));
        if size != set_replicas(set) {
            set_size(plan, deployment, set, size);
        }
    }
}

/// One step of a recreation: no new pod before the last old one has gone.
pub(super) fn recreate(plan: &mut Plan, conditions: &mut Conditions, world: &World, sets: &Sets) {
    let deployment = &*world.deployment;
    if sync_existing(plan, conditions, deployment, sets) {
        return;
    }
    let mut shrunk = false;
    for set in sets.active_old() {
        shrunk |= set_size(plan, deployment, set, 0);
    }
    if shrunk || old_pods_run(world, sets) {
        return;
    }
    match &sets.new {
        None => create_new(plan, conditions, world, sets),
        Some(new) if set_replicas(new) != replicas(deployment) => {
            set_size(plan, deployment, new, replicas(deployment));
        }
        Some(_) => {}
    }
}

fn old_pods_run(world: &World, sets: &Sets) -> bool {
    let runs = |set: &Arc<ReplicaSet>| {
        actual(set) > 0 || world.running.get(&set.uid().unwrap_or_default()).is_some_and(|count| *count > 0)
    };
    sets.old.iter().any(runs)
}
