//! What becomes of pods: their generation, their status, taints of their node, and classes of their runtime.

use serde_json::{Value, json};

use crate::kit::{Kit, condition, is_ready, name, names, pod};

async fn runs(kit: &Kit, object: Value) -> Value {
    let at = format!("pods/{}", object["metadata"]["name"].as_str().unwrap());
    kit.create("pods", object).await;
    kit.until(&at, "is ready", is_ready).await
}

#[tokio::test(start_paused = true)]
async fn there_are_two_nodes_without_taints() {
    let kit = Kit::nodes(2).await;
    let nodes = kit.list("nodes").await;
    assert!(
        nodes.iter().all(|node| node["spec"]["taints"].is_null() && node["spec"]["unschedulable"].is_null())
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_made_and_goes_in_good_order() {
    let kit = Kit::nodes(1).await;
    let mut pod = pod("web");
    pod["metadata"]["annotations"] = json!({ "simulated.keelson.dev/stop-delay": "5s" });
    runs(&kit, pod).await;
    kit.delete_with("pods/web", json!({ "gracePeriodSeconds": 30 })).await;
    let going = kit.get("pods/web").await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    kit.seconds(3).await;
    assert!(kit.find("pods/web").await.is_some(), "its container still stops");
    kit.gone("pods/web").await;
}

#[tokio::test(start_paused = true)]
async fn a_pods_labels_are_changed() {
    let kit = Kit::nodes(1).await;
    runs(&kit, pod("web")).await;
    kit.update("pods/web", |pod| pod["metadata"]["labels"]["time"] = json!("later")).await;
    assert_eq!(names(&kit.list("pods?labelSelector=time%3Dlater").await), ["web"]);
}

#[tokio::test(start_paused = true)]
async fn pods_are_deleted_together() {
    let kit = Kit::nodes(1).await;
    for name in ["a", "b", "c"] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({ "type": "testing" });
        runs(&kit, pod).await;
    }
    kit.delete("pods?labelSelector=type%3Dtesting").await;
    kit.until_list("pods", "all are gone", <[Value]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_knows_the_address_of_its_host() {
    let kit = Kit::nodes(1).await;
    let status = runs(&kit, pod("web")).await["status"].clone();
    let node = kit.get("nodes/node-0").await;
    let addresses = node["status"]["addresses"].as_array().unwrap();
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP").unwrap();
    assert_eq!(status["hostIP"], internal["address"]);
    assert_eq!(status["hostIPs"], json!([{ "ip": internal["address"] }]));
}

#[tokio::test(start_paused = true)]
async fn a_pods_status_is_patched() {
    let kit = Kit::nodes(1).await;
    runs(&kit, pod("web")).await;
    let message = json!({ "status": { "message": "patched by a test", "reason": "E2E" } });
    let patched = kit.strategic("pods/web/status", message).await;
    assert_eq!(patched["status"]["message"], "patched by a test");
    assert_eq!(patched["status"]["phase"], "Running");
}

#[tokio::test(start_paused = true)]
async fn a_pod_and_its_status_are_made_changed_and_deleted() {
    let kit = Kit::nodes(1).await;
    runs(&kit, pod("web")).await;
    let patch = json!({
        "metadata": { "labels": { "patched": "yes" } },
        "spec": { "containers": [{ "name": "c", "image": "image:2" }] },
    });
    kit.strategic("pods/web", patch).await;
    let updated = |pod: &Value| pod["status"]["containerStatuses"][0]["image"].as_str() == Some("image:2");
    kit.until("pods/web", "runs the new image", updated).await;
    let failed = kit
        .update("pods/web/status", |pod| {
            let conditions = pod["status"]["conditions"].as_array_mut().unwrap();
            conditions.push(json!({ "type": "example.dev/Checked", "status": "False", "reason": "E2E" }));
        })
        .await;
    assert_eq!(condition(&failed, "example.dev/Checked")["reason"], "E2E");
    kit.delete("pods?labelSelector=patched%3Dyes").await;
    kit.gone("pods/web").await;
}

#[tokio::test(start_paused = true)]
async fn generation_begins_with_one_and_counts_changes() {
    let kit = Kit::nodes(1).await;
    let web = runs(&kit, pod("web")).await;
    assert_eq!(
        (&web["metadata"]["generation"], &web["status"]["observedGeneration"]),
        (&json!(1), &json!(1))
    );
    let generation = |pod: &Value| pod["metadata"]["generation"].as_i64().unwrap();
    let labelled = kit.merge("pods/web", json!({ "metadata": { "labels": { "a": "b" } } })).await;
    assert_eq!(generation(&labelled), 1, "labels are not what is asked of the node");
    let image = json!({ "spec": { "containers": [{ "name": "c", "image": "image:2" }] } });
    assert_eq!(generation(&kit.strategic("pods/web", image).await), 2);
    let seen = |pod: &Value| pod["status"]["observedGeneration"] == 2;
    kit.until("pods/web", "the node has seen it", seen).await;
    let deadline = kit.merge("pods/web", json!({ "spec": { "activeDeadlineSeconds": 5000 } })).await;
    assert_eq!(generation(&deadline), 3);
    let mut forged = pod("forged");
    forged["metadata"]["generation"] = json!(100);
    assert_eq!(generation(&kit.create("pods", forged).await), 1, "is not for clients to choose");
}

#[tokio::test(start_paused = true)]
async fn the_node_has_seen_the_last_of_five_hundred_changes() {
    let kit = Kit::nodes(1).await;
    runs(&kit, pod("web")).await;
    kit.merge("pods/web", json!({ "spec": { "activeDeadlineSeconds": 5000 } })).await;
    for n in 1..500 {
        kit.merge("pods/web", json!({ "spec": { "activeDeadlineSeconds": 5000 - n } })).await;
    }
    assert_eq!(kit.get("pods/web").await["metadata"]["generation"], 501);
    kit.until("pods/web", "is seen", |pod| pod["status"]["observedGeneration"] == 501).await;
}

#[tokio::test(start_paused = true)]
async fn a_graceful_deletion_is_a_generation() {
    let kit = Kit::nodes(1).await;
    let mut held = pod("web");
    held["metadata"]["finalizers"] = json!(["example.dev/held"]);
    runs(&kit, held).await;
    kit.delete_with("pods/web", json!({ "gracePeriodSeconds": 20 })).await;
    let going = kit.until("pods/web", "is seen", |pod| pod["status"]["observedGeneration"] == 2).await;
    assert_eq!(going["metadata"]["generation"], 2);
    kit.merge("pods/web", json!({ "metadata": { "finalizers": null } })).await;
    kit.gone("pods/web").await;
}

fn tolerating(name: &str, seconds: u64) -> Value {
    let mut pod = pod(name);
    pod["spec"]["tolerations"] = json!([{
        "key": "evict", "operator": "Equal", "value": "yes", "effect": "NoExecute", "tolerationSeconds": seconds,
    }]);
    pod["spec"]["nodeName"] = json!("node-0");
    pod
}

async fn taint(kit: &Kit, taints: Value) {
    kit.merge("nodes/node-0", json!({ "spec": { "taints": taints } })).await;
}

fn evict() -> Value {
    json!([{ "key": "evict", "value": "yes", "effect": "NoExecute" }])
}

#[tokio::test(start_paused = true)]
async fn a_taint_evicts_each_pod_when_it_tolerates_it_no_longer() {
    let kit = Kit::nodes(1).await;
    runs(&kit, tolerating("soon", 20)).await;
    runs(&kit, tolerating("later", 70)).await;
    taint(&kit, evict()).await;
    kit.seconds(15).await;
    assert_eq!(names(&kit.list("pods").await), ["later", "soon"]);
    kit.seconds(40).await;
    assert_eq!(names(&kit.list("pods").await), ["later"]);
    kit.seconds(60).await;
    assert_eq!(kit.list("pods").await, Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn an_eviction_is_off_when_the_taint_goes_in_time() {
    let kit = Kit::nodes(1).await;
    let uid = runs(&kit, tolerating("web", 60)).await["metadata"]["uid"].clone();
    taint(&kit, evict()).await;
    kit.seconds(30).await;
    taint(&kit, Value::Null).await;
    kit.seconds(120).await;
    let pod = kit.get("pods/web").await;
    assert_eq!((&pod["metadata"]["uid"], &pod["metadata"]["deletionTimestamp"]), (&uid, &Value::Null));
}

async fn of_class(class: Value) -> Value {
    let kit = Kit::nodes(1).await;
    kit.create("runtimeclasses", class.clone()).await;
    let mut pod = pod("web");
    pod["spec"]["runtimeClassName"] = class["metadata"]["name"].clone();
    kit.create("pods", pod).await;
    let scheduled = |pod: &Value| condition(pod, "PodScheduled")["status"] == "True";
    let pod = kit.until("pods/web", "is placed", scheduled).await;
    assert_eq!((name(&pod), &pod["spec"]["nodeName"]), ("web".to_owned(), &json!("node-0")));
    pod["spec"]["overhead"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_runtime_class_is_placed() {
    let class = json!({ "metadata": { "name": "plain" }, "handler": "runc" });
    assert_eq!(of_class(class).await, Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_runtime_class_is_placed_with_its_overhead() {
    let fixed = json!({ "cpu": "10m", "memory": "1Mi" });
    let class =
        json!({ "metadata": { "name": "heavy" }, "handler": "runc", "overhead": { "podFixed": fixed } });
    assert_eq!(of_class(class).await, fixed);
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_no_runtime_class_is_refused() {
    let kit = Kit::nodes(1).await;
    kit.create("runtimeclasses", json!({ "metadata": { "name": "gone" }, "handler": "runc" })).await;
    kit.delete("runtimeclasses/gone").await;
    for class in ["never", "gone"] {
        let mut pod = pod("web");
        pod["spec"]["runtimeClassName"] = json!(class);
        let refused = kit.try_create("pods", &pod).await.unwrap_err();
        let message = format!("pods \"web\" is forbidden: pod rejected: RuntimeClass \"{class}\" not found");
        assert_eq!((refused.code, refused.message), (403, message));
    }
}
