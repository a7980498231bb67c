//! ReplicaSets, ReplicationControllers and StatefulSets.

use serde_json::{Value, json};

use crate::kit::{
    Kit, collection, condition, controller, name, names, owners, pod, status, template, workload,
};

/// A pod that was there before its owner is adopted; one whose label changes is let go, and replaced.
async fn adopts(plural: &str, owner: Value) {
    let kit = Kit::nodes(1).await;
    kit.create("pods", pod("web")).await;
    kit.ready(plural, owner).await;
    let adopted = kit.until("pods/web", "is adopted", |pod| owners(pod) == ["web"]).await;
    assert_eq!(names(&kit.list("pods").await), ["web"]);
    assert_eq!(adopted["metadata"]["ownerReferences"][0]["controller"], true);
}

async fn releases(plural: &str, owner: Value) {
    let kit = Kit::nodes(1).await;
    kit.ready(plural, owner).await;
    let at = format!("pods/{}", name(&kit.list("pods").await[0]));
    kit.merge(&at, json!({ "metadata": { "labels": { "app": "other" } } })).await;
    kit.until(&at, "is let go", |pod| owners(pod).is_empty()).await;
    kit.until_list("pods", "is replaced", |pods| pods.len() == 2).await;
}

async fn scales(plural: &str, owner: Value) {
    let kit = Kit::nodes(1).await;
    kit.ready(plural, owner).await;
    let (at, scale) = (format!("{plural}/web"), format!("{plural}/web/scale"));
    assert_eq!(kit.get(&scale).await["spec"]["replicas"], 1);
    kit.update(&scale, |scale| scale["spec"]["replicas"] = json!(2)).await;
    assert_eq!(kit.get(&at).await["spec"]["replicas"], 2);
    kit.until(&at, "has grown", |owner| owner["status"]["readyReplicas"] == 2).await;
    kit.merge(&scale, json!({ "spec": { "replicas": 4 } })).await;
    let grown = |owner: &Value| owner["status"]["readyReplicas"] == 4;
    kit.until(&at, "has grown again", grown).await;
    assert_eq!(kit.get(&scale).await["status"]["replicas"], 4);
}

async fn shows_status(plural: &str, owner: Value) {
    let kit = Kit::nodes(1).await;
    kit.ready(plural, owner).await;
    let conditions = |reason: &str| json!([{ "type": "StatusUpdate", "status": "True", "reason": reason }]);
    let (set, patch) = (json!({ "conditions": conditions("E2E") }), conditions("Patched"));
    status(&kit, &format!("{plural}/web"), set, json!({ "conditions": patch })).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_adopts_and_releases() {
    adopts("replicasets", workload("web", 1)).await;
    releases("replicasets", workload("web", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_is_scaled() {
    scales("replicasets", workload("web", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_is_replaced_and_patched() {
    let kit = Kit::nodes(1).await;
    kit.ready("replicasets", workload("web", 1)).await;
    kit.update("replicasets/web", |set| set["spec"]["replicas"] = json!(3)).await;
    kit.until("replicasets/web", "has grown", |set| set["status"]["readyReplicas"] == 3).await;
    let patch = json!({
        "metadata": { "labels": { "patched": "yes" } },
        "spec": { "replicas": 2, "template": { "spec": { "terminationGracePeriodSeconds": 0 } } },
    });
    kit.strategic("replicasets/web", patch).await;
    let shrunk =
        |set: &Value| set["status"]["replicas"] == 2 && set["metadata"]["labels"]["patched"] == "yes";
    kit.until("replicasets/web", "has shrunk", shrunk).await;
}

#[tokio::test(start_paused = true)]
async fn replica_sets_are_listed_and_deleted_together() {
    let kit = Kit::nodes(1).await;
    collection(&kit, "replicasets", &workload("web", 1)).await;
    kit.until_list("pods", "collected", <[Value]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_sets_status_is_replaced_and_patched() {
    shows_status("replicasets", workload("web", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replication_controller_adopts() {
    adopts("replicationcontrollers", controller("web", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replication_controller_releases() {
    releases("replicationcontrollers", controller("web", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replication_controller_is_scaled() {
    scales("replicationcontrollers", controller("web", 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replication_controller_says_that_quota_stops_it_until_it_fits() {
    let kit = Kit::nodes(1).await;
    kit.create("resourcequotas", json!({ "metadata": { "name": "q" }, "spec": { "hard": { "pods": "2" } } }))
        .await;
    kit.until("resourcequotas/q", "is counted", |quota| quota["status"]["used"]["pods"] == "0").await;
    kit.create("replicationcontrollers", controller("web", 3)).await;
    let at = "replicationcontrollers/web";
    let failed = kit.until(at, "fails", |rc| condition(rc, "ReplicaFailure")["status"] == "True").await;
    let said = condition(&failed, "ReplicaFailure");
    assert_eq!(said["reason"], "FailedCreate");
    assert!(said["message"].as_str().unwrap().contains("exceeded quota"), "{said}");
    kit.merge(at, json!({ "spec": { "replicas": 2 } })).await;
    kit.until(at, "fails no more", |rc| condition(rc, "ReplicaFailure").is_null()).await;
}

#[tokio::test(start_paused = true)]
async fn a_replication_controller_is_made_changed_listed_and_deleted() {
    shows_status("replicationcontrollers", controller("web", 1)).await;
    let kit = Kit::nodes(1).await;
    kit.ready("replicationcontrollers", controller("web", 1)).await;
    kit.update("replicationcontrollers/web", |rc| rc["metadata"]["labels"]["updated"] = json!("yes")).await;
    assert_eq!(kit.list("*:replicationcontrollers?labelSelector=updated%3Dyes").await.len(), 1);
    kit.delete("replicationcontrollers/web").await;
    kit.gone("replicationcontrollers/web").await;
    collection(&kit, "replicationcontrollers", &controller("web", 1)).await;
}

fn stateful(replicas: u32) -> Value {
    let mut set = workload("web", replicas);
    set["spec"]["serviceName"] = json!("web");
    set
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_is_scaled() {
    scales("statefulsets", stateful(1)).await;
}

#[tokio::test(start_paused = true)]
async fn stateful_sets_are_listed_patched_and_deleted_together() {
    let kit = Kit::nodes(1).await;
    kit.ready("statefulsets", stateful(1)).await;
    let patch = json!({ "spec": { "replicas": 2, "template": template("web") } });
    kit.strategic("statefulsets/web", patch).await;
    let set = kit.until("statefulsets/web", "has grown", |set| set["status"]["readyReplicas"] == 2).await;
    assert_eq!(set["status"]["currentRevision"], set["status"]["updateRevision"]);
    assert_eq!(names(&kit.list("pods").await), ["web-0", "web-1"]);
    kit.delete("statefulsets?labelSelector=app%3Dweb").await;
    kit.until_list("statefulsets", "all are gone", <[Value]>::is_empty).await;
    kit.until_list("pods", "collected", <[Value]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn a_stateful_sets_status_is_replaced_and_patched() {
    shows_status("statefulsets", stateful(1)).await;
}
