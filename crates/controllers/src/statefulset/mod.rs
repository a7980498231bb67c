//! StatefulSet: pods with stable names, storage and order.
//!
//! Follows upstream's `pkg/controller/statefulset`: revisions of the template as ControllerRevisions,
//! claims from templates, one step at a time in order (or all at once when Parallel), updates from the
//! highest ordinal down to the partition. `rollingUpdate.maxUnavailable` counts as 1, as upstream has
//! it while `MaxUnavailableStatefulSet` is off by default (1.36). Knows nothing of volumes but the
//! names of claims.

mod identity;
mod revisions;
mod rollout;
mod status;
mod storage;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod},
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
use revisions::Revisions;

/// The controller.
pub struct StatefulSets;

/// What one plan looks at.
pub struct World {
    set: Arc<StatefulSet>,
    pods: Claims<Pod>,
    history: Claims<ControllerRevision>,
    revisions: Revisions,
    /// The claims of all members, by name.
    storage: BTreeMap<String, Arc<PersistentVolumeClaim>>,
}

impl Reconciler for StatefulSets {
    type World = World;
    const NAME: &'static str = "statefulset";

    fn watches(&self) -> Watches {
        Watches::of::<StatefulSet>()
            .owns::<Pod>()
            .also::<Pod>(sets_of_orphan)
            .owns::<ControllerRevision>()
            .also::<PersistentVolumeClaim>(sets_of_gone_claim)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(set) = cx.stores.ready::<StatefulSet>().await.get(key) else { return Ok(None) };
        let selector = selector(&set.spec().selector)?;
        let member = |pod: &Pod| identity::ordinal(&set, pod).is_some();
        let pods = claim(cx, &*set, &selector, &*cx.stores.ready::<Pod>().await, member).await?;
        let store = cx.stores.ready::<ControllerRevision>().await;
        let history = claim(cx, &*set, &selector, &store, |_| true).await?;
        let namesake = |name: &str| store.get(&ObjectKey::new(&key.namespace, name));
        let revisions = Revisions::resolve(&set, &history.mine, namesake)?;
        let mut storage = BTreeMap::new();
        let claims = cx.stores.ready::<PersistentVolumeClaim>().await;
        for name in storage::claim_names(&set, &pods.mine) {
            if let Some(claim) = claims.get(&ObjectKey::new(&key.namespace, &name)) {
                storage.insert(name, claim);
            }
        }
        Ok(Some(World { set, pods, history, revisions, storage }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let set = &*world.set;
        if !world.pods.is_settled() || !world.history.is_settled() {
            world.history.plan(&mut plan, set);
            world.pods.plan(&mut plan, set);
            return plan;
        }
        if set.metadata.deletion_timestamp.is_none() {
            if !world.revisions.write(&mut plan) {
                plan.set_status(set, &status::collided(set));
                return plan;
            }
            rollout::step(&mut plan, world, now);
            revisions::truncate(&mut plan, world);
        }
        plan.set_status(set, &status::calculate(world, now));
        if let Some(wait) =
            pods::next_availability(&world.pods.mine, set.spec().min_ready_seconds.unwrap_or(0), now)
        {
            plan.recheck(wait);
        }
        plan
    }

    fn failed(&self, world: &World, error: &Error, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if let Error::Write { verb, kind, key, .. } = error
            && !error.is_conflict()
        {
            let reason = if *verb == "delete" { "FailedDelete" } else { "FailedCreate" };
            let message = format!("{verb} {kind} {} failed error: {}", key.name, error.text());
            plan.events.push(Note::warning(&*world.set, reason, "Reconcile", message));
        }
        plan
    }
}

fn sets_of_orphan(change: &Change<Pod>, stores: &Stores) -> Vec<ObjectKey> {
    let Some(pod) = change.new.as_ref().filter(|pod| controller_of(&***pod).is_none()) else {
        return Vec::new();
    };
    let sets = stores.of::<StatefulSet>().in_namespace(&pod.namespace().unwrap_or_default());
    let fits = |set: &&Arc<StatefulSet>| {
        identity::ordinal(set, pod).is_some()
            && selector(&set.spec().selector).is_ok_and(|s| matches(&s, &**pod))
    };
    sets.iter().filter(fits).map(|set| key_of(&**set)).collect()
}

/// A pod may wait for a stale claim to go.
fn sets_of_gone_claim(change: &Change<PersistentVolumeClaim>, stores: &Stores) -> Vec<ObjectKey> {
    let (Some(claim), None) = (&change.old, &change.new) else { return Vec::new() };
    let sets = stores.of::<StatefulSet>().in_namespace(&claim.namespace().unwrap_or_default());
    let of_set = |set: &&Arc<StatefulSet>| storage::is_claim_of(set, &claim.name_any());
    sets.iter().filter(of_set).map(|set| key_of(&**set)).collect()
}
