//! Deployment: one ReplicaSet for each version of the pod template, and replicas moved between them by
//! the update strategy.
//!
//! Follows upstream's `pkg/controller/deployment` step by step: each plan makes one move (claim,
//! revision, scale, rollout, cleanup) and writes the status that was observed; the next plan sees the
//! result. A rollback is a template change, as with `kubectl rollout undo`: the ReplicaSet that has the
//! template is found again and gets the next revision. The annotation `deprecated.deployment.rollback.to`
//! of extensions/v1beta1 is not known here.

mod limits;
mod revision;
mod rollout;
mod scale;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{
    Change, Context, Error, Note, Plan, Reconciler, Result, Stores, Watches, controller_of, key_of,
};

use crate::{
    claims::{Claims, claim, matches, selector},
    pods,
    spec::HasSpec,
};
pub(crate) use limits::scaled;
use sets::Sets;

/// The controller.
pub struct Deployments;

/// What one plan looks at.
pub struct World {
    deployment: Arc<Deployment>,
    sets: Claims<ReplicaSet>,
    /// Every ReplicaSet of the namespace that has the name the next new one would get.
    namesake: Option<Arc<ReplicaSet>>,
    /// Pods that are not finished, by the UID of their ReplicaSet.
    running: BTreeMap<String, usize>,
}

impl Reconciler for Deployments {
    type World = World;
    const NAME: &'static str = "deployment";

    fn watches(&self) -> Watches {
        Watches::of::<Deployment>()
            .owns::<ReplicaSet>()
            .also::<ReplicaSet>(deployments_of_orphan)
            .also::<Pod>(recreated_deployment_of_pod)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(deployment) = cx.stores.ready::<Deployment>().await.get(key) else { return Ok(None) };
        let store = cx.stores.ready::<ReplicaSet>().await;
        let sets = claim(cx, &*deployment, &selector(&deployment.spec().selector)?, &store, |_| true).await?;
        let name = revision::new_set_name(&deployment);
        let namesake = store.get(&ObjectKey::new(&key.namespace, name));
        let pods = cx.stores.ready::<Pod>().await;
        let mut running = BTreeMap::new();
        for set in &sets.mine {
            let uid = set.uid().unwrap_or_default();
            let count = pods.controlled_by(&uid).iter().filter(|pod| !pods::is_terminal(pod)).count();
            running.insert(uid, count);
        }
        Ok(Some(World { deployment, sets, namesake, running }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let deployment = &*world.deployment;
        if !world.sets.is_settled() {
            world.sets.plan(&mut plan, deployment);
            return plan;
        }
        let sets = Sets::of(deployment, &world.sets.mine);
        let mut conditions = status::Conditions::of(deployment, now);
        if deployment.metadata.deletion_timestamp.is_none() {
            conditions.pause_or_resume();
            one_move(&mut plan, &mut conditions, world, &sets);
        }
        let status = status::calculate(deployment, &sets, conditions);
        plan.set_status(deployment, &status.wanted);
        if let Some(wait) = status.recheck_after {
            plan.recheck(wait);
        }
        plan
    }

    fn failed(&self, world: &World, error: &Error, now: Timestamp) -> Plan {
        status::report_failure(&world.deployment, error, now)
    }
}

/// What upstream's `syncDeployment` does between listing and writing the status.
fn one_move(plan: &mut Plan, conditions: &mut status::Conditions, world: &World, sets: &Sets) {
    let deployment = &*world.deployment;
    let paused = deployment.spec().paused == Some(true);
    if paused || scale::is_scaling(deployment, sets) {
        if !revision::sync_existing(plan, conditions, deployment, sets) {
            scale::proportionally(plan, deployment, sets);
        }
        if paused {
            revision::cleanup(plan, deployment, sets);
        }
        return;
    }
    if scale::is_recreate(deployment) {
        rollout::recreate(plan, conditions, world, sets);
    } else {
        rollout::rolling(plan, conditions, world, sets);
    }
    if status::is_complete(deployment) {
        revision::cleanup(plan, deployment, sets);
    }
}

/// An event about scaling one ReplicaSet, worded as upstream's.
fn scaling_note(deployment: &Deployment, set: &str, from: i32, to: i32) -> Note {
    let direction = if to > from { "up" } else { "down" };
    let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
    Note::normal(deployment, "ScalingReplicaSet", "Scale", message)
}

fn deployments_of_orphan(change: &Change<ReplicaSet>, stores: &Stores) -> Vec<ObjectKey> {
    let Some(set) = change.new.as_ref().filter(|set| controller_of(&***set).is_none()) else {
        return Vec::new();
    };
    let all = stores.of::<Deployment>().in_namespace(&set.namespace().unwrap_or_default());
    let matching = all.iter().filter(|d| selector(&d.spec().selector).is_ok_and(|s| matches(&s, &**set)));
    matching.map(|deployment| key_of(&**deployment)).collect()
}

/// Recreate waits for the last old pod: its deletion leads to the deployment.
fn recreated_deployment_of_pod(change: &Change<Pod>, stores: &Stores) -> Vec<ObjectKey> {
    let (Some(pod), None) = (&change.old, &change.new) else { return Vec::new() };
    let Some(owner) = controller_of(&**pod).filter(|owner| owner.kind == "ReplicaSet") else {
        return Vec::new();
    };
    let namespace = pod.namespace().unwrap_or_default();
    let Some(set) = stores.of::<ReplicaSet>().get(&ObjectKey::new(&namespace, &owner.name)) else {
        return Vec::new();
    };
    controller_of(&*set).map(|owner| ObjectKey::new(namespace, &owner.name)).into_iter().collect()
}
