//! How many pods may be evicted: the status of PodDisruptionBudgets, which `pods/eviction` reads and
//! charges (upstream `pkg/controller/disruption`).
//!
//! Guarantees that the count is never too high: a pod that an eviction was charged for does not count as
//! healthy until it is gone, or until two minutes have shown that it will not go. Pods of a controller
//! without scale ([`scales`]) cannot be counted by percentage or `maxUnavailable`, and the condition says
//! so.

mod scales;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, Time},
        util::intstr::IntOrString,
    },
};
use kube::{ResourceExt, core::Selector};
use meta::{ObjectKey, Timestamp};
use reconcile::{
    Change, Condition, Context, Error, Note, Plan, Reconciler, Result, Stores, Watches, key_of, set_condition,
};

use crate::{claims::matches, deployment::scaled, pods};

/// An evicted pod that is still not being deleted after so long never will be (upstream
/// `DeletionTimeout`).
const DELETION_S: i64 = 120;

/// The controller.
pub struct DisruptionBudgets;

/// What one plan looks at.
pub struct World {
    budget: Arc<PodDisruptionBudget>,
    /// The pods it selects.
    pods: Vec<Arc<Pod>>,
    /// The wanted pods of each of their controllers, by UID; or why they cannot be told.
    scales: Result<BTreeMap<String, i32>, String>,
}

impl Reconciler for DisruptionBudgets {
    type World = World;
    const NAME: &'static str = "disruption";

    fn watches(&self) -> Watches {
        Watches::of::<PodDisruptionBudget>()
            .also::<Pod>(budgets_of_pod)
            .also::<ReplicaSet>(|change, stores| {
                budgets_in(change.object().and_then(|set| set.namespace()), stores)
            })
            .also::<Deployment>(|change, stores| {
                budgets_in(change.object().and_then(|set| set.namespace()), stores)
            })
            .also::<StatefulSet>(|change, stores| {
                budgets_in(change.object().and_then(|set| set.namespace()), stores)
            })
            .also::<ReplicationController>(|change, stores| {
                budgets_in(change.object().and_then(|set| set.namespace()), stores)
            })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(budget) = cx.stores.ready::<PodDisruptionBudget>().await.get(key) else { return Ok(None) };
        let wanted = selector(&budget).map_err(Error::Rejected)?;
        let mut pods = cx.stores.ready::<Pod>().await.in_namespace(&key.namespace);
        pods.retain(|pod| wanted.as_ref().is_some_and(|wanted| matches(wanted, &**pod)));
        let scales = scales::of(cx, &key.namespace, &pods).await;
        Ok(Some(World { budget, pods, scales }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let budget = &*world.budget;
        let before = budget.status.clone().unwrap_or_default();
        let (expected, desired) = match expected(world) {
            Ok(counts) => counts,
            Err(why) => {
                let mut status = PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..before };
                allowed_condition(&mut status, Some(&why), now);
                if budget.status.as_ref() != Some(&status) {
                    let message = format!("Failed to calculate the number of expected pods: {why}");
                    plan.events.push(Note::warning(
                        budget,
                        "CalculateExpectedPodCountFailed",
                        "Sync",
                        message,
                    ));
                }
                plan.set_status(budget, &status);
                return plan;
            }
        };
        let disrupted = disrupted(&mut plan, world, now);
        let healthy = world.pods.iter().filter(|pod| {
            !pods::is_deleting(pod) && !disrupted.contains_key(&pod.name_any()) && pods::is_ready(pod)
        });
        let healthy = count(healthy);
        let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
        let mut status = PodDisruptionBudgetStatus {
            conditions: before.conditions,
            current_healthy: Some(healthy),
            desired_healthy: Some(desired),
            expected_pods: Some(expected),
            disruptions_allowed: Some(allowed),
            disrupted_pods: Some(disrupted).filter(|map| !map.is_empty()),
            observed_generation: budget.metadata.generation,
        };
        allowed_condition(&mut status, None, now);
        plan.set_status(budget, &status);
        plan
    }
}

/// The selector of a budget; `None` selects nothing, an empty one every pod of the namespace.
fn selector(budget: &PodDisruptionBudget) -> Result<Option<Selector>, String> {
    let Some(wanted) = budget.spec.as_ref().and_then(|spec| spec.selector.clone()) else { return Ok(None) };
    if wanted == LabelSelector::default() {
        return Ok(Some(Selector::default()));
    }
    Selector::try_from(wanted).map(Some).map_err(|error| format!("invalid label selector: {error}"))
}

fn count<I: IntoIterator>(items: I) -> i32 {
    i32::try_from(items.into_iter().count()).unwrap_or(i32::MAX)
}

/// How many pods there should be, and how many of them healthy.
fn expected(world: &World) -> Result<(i32, i32), String> {
    let spec = world.budget.spec.clone().unwrap_or_default();
    let total = || -> Result<i32, String> {
        let scales = world.scales.as_ref().map_err(Clone::clone)?;
        Ok(scales.values().fold(0_i32, |sum, scale| sum.saturating_add(*scale)))
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let total = total()?;
            Ok((total, (total - scaled(most, total, true)).max(0)))
        }
        (None, Some(IntOrString::Int(least))) => Ok((count(&world.pods), *least)),
        (None, Some(least)) => {
            let total = total()?;
            Ok((total, scaled(least, total, true)))
        }
        (None, None) => Ok((0, 0)),
    }
}

/// Pods that an eviction was charged for and that are still to be seen going; the others are struck.
fn disrupted(plan: &mut Plan, world: &World, now: Timestamp) -> BTreeMap<String, Time> {
    let entered = world.budget.status.as_ref().and_then(|status| status.disrupted_pods.clone());
    let mut kept = BTreeMap::new();
    for (name, since) in entered.unwrap_or_default() {
        let pod = world.pods.iter().find(|pod| pod.name_any() == name && !pods::is_deleting(pod));
        let Some(pod) = pod else { continue };
        let left = since.0.as_second().saturating_add(DELETION_S).saturating_sub(now.as_second());
        if let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) {
            plan.recheck(Duration::from_secs(left));
            kept.insert(name, since);
        } else {
            let budget = key_of(&*world.budget);
            let message = format!("Pod was expected by PDB {budget} to be deleted but it wasn't");
            plan.events.push(Note::warning(&**pod, "NotDeleted", "Evict", message));
        }
    }
    kept
}

/// Condition DisruptionAllowed: whether, or why it cannot be told.
fn allowed_condition(status: &mut PodDisruptionBudgetStatus, failure: Option<&str>, now: Timestamp) {
    let (holds, reason) = match failure {
        Some(_) => ("False", "SyncFailed"),
        None if status.disruptions_allowed > Some(0) => ("True", "SufficientPods"),
        None => ("False", "InsufficientPods"),
    };
    let message = failure.unwrap_or_default().to_owned();
    let wanted = Condition { kind: "DisruptionAllowed", status: holds, reason, message };
    set_condition(status.conditions.get_or_insert_default(), wanted, status.observed_generation, now);
}

fn budgets_of_pod(change: &Change<Pod>, stores: &Stores) -> Vec<ObjectKey> {
    let namespace = change.object().and_then(|pod| pod.namespace()).unwrap_or_default();
    let all = stores.of::<PodDisruptionBudget>().in_namespace(&namespace);
    let concerns = |budget: &&Arc<PodDisruptionBudget>| {
        let wanted = selector(budget).ok().flatten();
        wanted.is_some_and(|wanted| change.versions().any(|pod| matches(&wanted, &**pod)))
    };
    all.iter().filter(concerns).map(|budget| key_of(&**budget)).collect()
}

/// A change of scale may concern any budget of the namespace; there are few.
fn budgets_in(namespace: Option<String>, stores: &Stores) -> Vec<ObjectKey> {
    let all = stores.of::<PodDisruptionBudget>().in_namespace(&namespace.unwrap_or_default());
    all.iter().map(|budget| key_of(&**budget)).collect()
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};
    use serde_json::{Value, json};

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey::new("ns", "b")
    }

    /// A ReplicaSet of 4 with 3 ready pods and a budget.
    fn bench(spec: Value) -> Bench<DisruptionBudgets> {
        let bench = Bench::new(DisruptionBudgets);
        bench.api.register(Kind::of::<ReplicationController>(), true);
        let mut budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": { "name": "b", "namespace": "ns", "generation": 1 },
            "spec": { "selector": { "matchLabels": { "app": "a" } } },
        });
        for (key, value) in spec.as_object().unwrap() {
            budget["spec"][key] = value.clone();
        }
        bench.api.put(&budget);
        bench.api.put(&json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": "r", "namespace": "ns", "uid": "uid-r" },
            "spec": { "replicas": 4, "selector": { "matchLabels": { "app": "a" } } },
        }));
        for (name, ready) in [("p0", "True"), ("p1", "True"), ("p2", "True"), ("p3", "False")] {
            let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "uid-r", "controller": true });
            bench.api.put(&json!({
                "apiVersion": "v1", "kind": "Pod", "spec": { "containers": [] },
                "metadata": { "name": name, "namespace": "ns", "labels": { "app": "a" }, "ownerReferences": [owner] },
                "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
            }));
        }
        bench
    }

    fn status(bench: &Bench<DisruptionBudgets>) -> Value {
        bench.api.get(&Kind::of::<PodDisruptionBudget>(), &key()).unwrap()["status"].clone()
    }

    async fn check(spec: Value, counts: [i64; 4]) {
        let bench = bench(spec.clone());
        bench.settle(&key()).await;
        let status = status(&bench);
        let fields = ["expectedPods", "currentHealthy", "desiredHealthy", "disruptionsAllowed"];
        assert_eq!(fields.map(|field| status[field].as_i64().unwrap()), counts, "{spec}");
    }

    #[tokio::test]
    async fn what_is_allowed_follows_from_the_scale_and_the_healthy() {
        check(json!({ "minAvailable": 2 }), [4, 3, 2, 1]).await;
        check(json!({ "minAvailable": "50%" }), [4, 3, 2, 1]).await;
        check(json!({ "maxUnavailable": 1 }), [4, 3, 3, 0]).await;
        check(json!({ "maxUnavailable": "60%" }), [4, 3, 1, 2]).await;
        check(json!({ "minAvailable": 0, "selector": { "matchLabels": { "app": "none" } } }), [0, 0, 0, 0])
            .await;
    }

    #[tokio::test]
    async fn the_first_plan_writes_counts_and_condition() {
        insta::assert_yaml_snapshot!(bench(json!({ "minAvailable": 2 })).plan(&key()).await.unwrap(), { ".**.uid" => "[uid]" });
    }

    #[tokio::test]
    async fn an_evicted_pod_counts_no_more_until_it_proves_to_stay() {
        let bench = bench(json!({ "minAvailable": 1 }));
        bench.settle(&key()).await;
        let charged = json!({ "status": { "disruptionsAllowed": 1, "disruptedPods": { "p0": "2026-01-01T00:00:00Z", "gone": "2026-01-01T00:00:00Z" } } });
        bench.api.patch(&Kind::of::<PodDisruptionBudget>(), &key(), "status", &charged);
        bench.settle(&key()).await;
        assert_eq!(
            (
                status(&bench)["disruptionsAllowed"].as_i64(),
                status(&bench)["disruptedPods"].as_object().unwrap().len()
            ),
            (Some(1), 1)
        );
        assert_eq!(bench.plan(&key()).await.unwrap().recheck_after, Some(Duration::from_secs(120)));
        bench.advance(121);
        bench.settle(&key()).await;
        assert_eq!(
            (status(&bench)["disruptionsAllowed"].as_i64(), &status(&bench)["disruptedPods"]),
            (Some(2), &Value::Null)
        );
    }

    #[tokio::test]
    async fn pods_of_an_unknown_controller_are_reported() {
        let bench = bench(json!({ "maxUnavailable": 1 }));
        bench.api.delete(&Kind::of::<ReplicaSet>(), &ObjectKey::new("ns", "r"));
        bench.settle(&key()).await;
        let condition = &status(&bench)["conditions"][0];
        assert_eq!(
            (condition["reason"].as_str(), status(&bench)["disruptionsAllowed"].as_i64()),
            (Some("SyncFailed"), Some(0))
        );
    }
}
