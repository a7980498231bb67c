//! PodDisruptionBudgets and evictions.

use serde_json::{Value, json};

use crate::kit::{Kit, Refused, collection, name, pod, workload};

const AT: &str = "poddisruptionbudgets/web";

fn budget(spec: Value) -> Value {
    let mut spec = spec;
    spec["selector"] = json!({ "matchLabels": { "app": "web" } });
    json!({ "metadata": { "name": "web", "labels": {} }, "spec": spec })
}

async fn allows(kit: &Kit, count: u64) -> Value {
    kit.until(AT, &format!("allows {count}"), |budget| {
        budget["status"]["observedGeneration"] == budget["metadata"]["generation"]
            && budget["status"]["disruptionsAllowed"] == count
    })
    .await
}

async fn evict(kit: &Kit) -> Result<Value, Refused> {
    let pods = kit.list("pods").await;
    let first = pods.iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null()).unwrap();
    let body = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": name(first), "namespace": "default" },
    });
    kit.try_create(&format!("pods/{}/eviction", name(first)), &body).await
}

#[tokio::test(start_paused = true)]
async fn budgets_of_all_namespaces_are_listed_and_deleted_together() {
    let kit = Kit::nodes(1).await;
    kit.create("namespaces", json!({ "metadata": { "name": "team" } })).await;
    kit.create("team:poddisruptionbudgets", budget(json!({ "minAvailable": 1 }))).await;
    collection(&kit, "poddisruptionbudgets", &budget(json!({ "minAvailable": "50%" }))).await;
    assert_eq!(kit.list("*:poddisruptionbudgets").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_eviction_waits_until_the_budget_allows_it() {
    let kit = Kit::nodes(1).await;
    kit.ready("replicasets", workload("web", 3)).await;
    kit.create("poddisruptionbudgets", budget(json!({ "minAvailable": 3 }))).await;
    allows(&kit, 0).await;
    let refused = evict(&kit).await.unwrap_err();
    assert_eq!(refused.code, 429);
    assert!(refused.message.contains("would violate the pod's disruption budget"), "{refused:?}");
    kit.update(AT, |budget| budget["spec"]["minAvailable"] = json!(2)).await;
    allows(&kit, 1).await;
    evict(&kit).await.unwrap();
    kit.until("replicasets/web", "is whole again", |set| set["status"]["readyReplicas"] == 3).await;
    kit.merge(AT, json!({ "spec": { "minAvailable": null, "maxUnavailable": 0 } })).await;
    allows(&kit, 0).await;
    assert_eq!(evict(&kit).await.unwrap_err().code, 429);
    kit.delete(AT).await;
    evict(&kit).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_made_changed_and_deleted() {
    let kit = Kit::nodes(1).await;
    kit.create("poddisruptionbudgets", budget(json!({ "minAvailable": 1 }))).await;
    kit.update(AT, |budget| budget["spec"]["minAvailable"] = json!(2)).await;
    let patched = kit.strategic(AT, json!({ "spec": { "minAvailable": "20%" } })).await;
    assert_eq!(patched["spec"]["minAvailable"], "20%");
    kit.delete(AT).await;
    kit.gone(AT).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_budget_allows_follows_its_pods() {
    let kit = Kit::nodes(1).await;
    kit.create("poddisruptionbudgets", budget(json!({ "minAvailable": 1 }))).await;
    allows(&kit, 0).await;
    for name in ["a", "b"] {
        let mut one = pod(name);
        one["metadata"]["labels"] = json!({ "app": "web" });
        kit.create("pods", one).await;
    }
    let status = allows(&kit, 1).await["status"].clone();
    let field = |name: &str| status[name].as_u64();
    assert_eq!(
        (field("currentHealthy"), field("desiredHealthy"), field("expectedPods")),
        (Some(2), Some(1), Some(2))
    );
}

#[tokio::test(start_paused = true)]
async fn a_budgets_status_is_replaced_and_patched() {
    let kit = Kit::nodes(1).await;
    kit.ready("replicasets", workload("web", 1)).await;
    kit.create("poddisruptionbudgets", budget(json!({ "minAvailable": 1 }))).await;
    allows(&kit, 0).await;
    let at = format!("{AT}/status");
    // The controller counts again, so what is asserted is what the requests answer.
    let now = "2026-01-01T00:00:30Z";
    let set = kit.update(&at, |budget| budget["status"]["disruptedPods"] = json!({ "gone": now })).await;
    assert!(!set["status"]["disruptedPods"]["gone"].is_null(), "{set}");
    let patched = kit.merge(&at, json!({ "status": { "disruptedPods": null } })).await;
    assert!(patched["status"]["disruptedPods"].is_null(), "{patched}");
}
