//! DaemonSets and the revisions that are kept of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kit::{Kit, collection, is_ready, name, names, owners, status, template};

const AT: &str = "daemonsets/agent";

fn daemons() -> Value {
    json!({
        "metadata": { "name": "agent", "labels": { "app": "agent" } },
        "spec": { "selector": { "matchLabels": { "app": "agent" } }, "template": template("agent") },
    })
}

/// Waits until each node has a ready pod, and no other is left.
async fn on_all(kit: &Kit) -> Vec<Value> {
    let nodes = names(&kit.list("nodes").await);
    kit.until_list("pods", "a ready pod on each node", |pods| {
        let mut on: Vec<_> = pods.iter().map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or("-")).collect();
        on.sort_unstable();
        on == nodes && pods.iter().all(|pod| is_ready(pod) && pod["metadata"]["deletionTimestamp"].is_null())
    })
    .await
}

fn image(image: &str) -> Value {
    json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } })
}

async fn node_label(kit: &Kit, node: &str, color: Value) {
    kit.merge(&format!("nodes/{node}"), json!({ "metadata": { "labels": { "color": color } } })).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_on_each_node_and_comes_back() {
    let kit = Kit::nodes(2).await;
    kit.create("daemonsets", daemons()).await;
    let pods = on_all(&kit).await;
    let first = name(&pods[0]);
    kit.delete(&format!("pods/{first}")).await;
    kit.gone(&format!("pods/{first}")).await;
    assert!(!names(&on_all(&kit).await).contains(&first));
}

#[tokio::test(start_paused = true)]
async fn node_selectors_follow_labels() {
    let kit = Kit::nodes(2).await;
    let mut set = daemons();
    set["spec"]["template"]["spec"]["nodeSelector"] = json!({ "color": "blue" });
    kit.create("daemonsets", set).await;
    kit.seconds(30).await;
    assert_eq!(kit.list("pods").await, Vec::<Value>::new());
    node_label(&kit, "node-1", json!("blue")).await;
    let on_one =
        |pods: &[Value]| pods.len() == 1 && pods[0]["spec"]["nodeName"] == "node-1" && is_ready(&pods[0]);
    kit.until_list("pods", "one runs", on_one).await;
    node_label(&kit, "node-1", json!("green")).await;
    kit.until_list("pods", "none runs", <[Value]>::is_empty).await;
    let green = json!({
        "spec": {
            "updateStrategy": { "type": "RollingUpdate" },
            "template": { "spec": { "nodeSelector": { "color": "green" } } },
        },
    });
    kit.merge(AT, green).await;
    kit.until_list("pods", "one runs again", on_one).await;
    let status = kit.until(AT, "is counted", |set| set["status"]["numberReady"] == 1).await["status"].clone();
    assert_eq!((&status["desiredNumberScheduled"], &status["numberMisscheduled"]), (&json!(1), &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn a_failed_pod_is_replaced() {
    let kit = Kit::nodes(2).await;
    kit.create("daemonsets", daemons()).await;
    let failed = name(&on_all(&kit).await[0]);
    kit.merge(&format!("pods/{failed}/status"), json!({ "status": { "phase": "Failed" } })).await;
    kit.gone(&format!("pods/{failed}")).await;
    on_all(&kit).await;
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_replaces_pods_and_keeps_a_revision() {
    let kit = Kit::nodes(2).await;
    kit.create("daemonsets", daemons()).await;
    let hash = |pod: &Value| pod["metadata"]["labels"]["controller-revision-hash"].clone();
    let old = hash(&on_all(&kit).await[0]);
    kit.strategic(AT, image("image:2")).await;
    kit.until(AT, "all are updated", |set| {
        set["status"]["observedGeneration"] == set["metadata"]["generation"]
            && set["status"]["updatedNumberScheduled"] == 2
            && set["status"]["numberAvailable"] == 2
    })
    .await;
    for pod in on_all(&kit).await {
        assert_eq!(pod["spec"]["containers"][0]["image"], "image:2");
        assert_ne!(hash(&pod), old);
    }
    let revisions = kit.list("controllerrevisions").await;
    let numbers: Vec<_> = revisions.iter().map(|revision| revision["revision"].as_i64().unwrap()).collect();
    assert_eq!((revisions.len(), numbers.iter().max()), (2, Some(&2)));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_restarts_nothing_that_is_right() {
    let kit = Kit::nodes(3).await;
    kit.create("daemonsets", daemons()).await;
    on_all(&kit).await;
    kit.strategic(AT, image("missing.invalid/image:1")).await;
    let bad = |pod: &Value| pod["spec"]["containers"][0]["image"] == "missing.invalid/image:1";
    kit.until_list("pods", "the rollout hangs", |pods| pods.iter().any(bad)).await;
    kit.seconds(30).await;
    let uids = |pods: &[Value]| -> BTreeMap<String, String> {
        let right = pods.iter().filter(|pod| !bad(pod));
        right.map(|pod| (name(pod), pod["metadata"]["uid"].to_string())).collect()
    };
    let right = uids(&kit.list("pods").await);
    assert_eq!(right.len(), 2);
    kit.strategic(AT, image("image:1")).await;
    let all = uids(&on_all(&kit).await);
    assert!(right.iter().all(|(name, uid)| all.get(name) == Some(uid)), "{right:?} {all:?}");
}

#[tokio::test(start_paused = true)]
async fn daemon_sets_are_listed_and_deleted_together() {
    let kit = Kit::nodes(1).await;
    collection(&kit, "daemonsets", &daemons()).await;
    kit.until_list("pods", "collected", <[Value]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_sets_status_is_replaced_and_patched() {
    let kit = Kit::nodes(1).await;
    kit.create("daemonsets", daemons()).await;
    on_all(&kit).await;
    kit.until(AT, "is counted", |set| set["status"]["numberAvailable"] == 1).await;
    let conditions = |reason: &str| json!({ "conditions": [{ "type": "StatusUpdate", "status": "True", "reason": reason }] });
    status(&kit, AT, conditions("E2E"), conditions("Patched")).await;
}

#[tokio::test(start_paused = true)]
async fn revisions_are_made_changed_and_deleted() {
    let kit = Kit::nodes(1).await;
    kit.create("daemonsets", daemons()).await;
    on_all(&kit).await;
    let revisions = kit.list("controllerrevisions?labelSelector=app%3Dagent").await;
    assert_eq!(revisions.len(), 1);
    assert_eq!(owners(&revisions[0]), ["agent"]);
    let first = format!("controllerrevisions/{}", name(&revisions[0]));
    let patched = kit.merge(&first, json!({ "metadata": { "labels": { "patched": "yes" } } })).await;
    assert_eq!(patched["metadata"]["labels"]["patched"], "yes");
    let mut second = revisions[0].clone();
    let labels = json!({ "app": "agent", "second": "yes" });
    second["metadata"] = json!({
        "name": "second", "labels": labels, "ownerReferences": revisions[0]["metadata"]["ownerReferences"],
    });
    second["revision"] = json!(2);
    kit.create("controllerrevisions", second).await;
    let replaced = |revision: &mut Value| revision["metadata"]["labels"]["replaced"] = json!("yes");
    kit.update("controllerrevisions/second", replaced).await;
    kit.delete("controllerrevisions/second").await;
    kit.gone("controllerrevisions/second").await;
    kit.strategic(AT, image("image:2")).await;
    kit.until_list("controllerrevisions", "the next is kept", |all| all.len() == 2).await;
    kit.delete("controllerrevisions?labelSelector=patched%3Dyes").await;
    kit.until_list("controllerrevisions", "the newest is left", |all| {
        all.len() == 1 && all[0]["revision"] == 2
    })
    .await;
}
