//! Deployments.

use serde_json::{Value, json};

use crate::kit::{Kit, collection, condition, owners, status, workload};

const BAD: &str = "missing.invalid/image:1";

fn image(image: &str) -> Value {
    json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } })
}

async fn complete(kit: &Kit, at: &str) -> Value {
    kit.until(at, "is complete", |object| {
        let (spec, status) = (&object["spec"], &object["status"]);
        status["observedGeneration"] == object["metadata"]["generation"]
            && ["replicas", "updatedReplicas", "availableReplicas"]
                .iter()
                .all(|f| status[f] == spec["replicas"])
    })
    .await
}

/// Desired replicas of the ReplicaSet whose pods have this image.
async fn of_image(kit: &Kit, image: &str) -> u64 {
    let sets = kit.list("replicasets").await;
    let set = sets.iter().find(|set| set["spec"]["template"]["spec"]["containers"][0]["image"] == image);
    set.map_or(0, |set| set["spec"]["replicas"].as_u64().unwrap())
}

#[tokio::test(start_paused = true)]
async fn scale_is_read_replaced_and_patched() {
    let kit = Kit::nodes(1).await;
    kit.ready("deployments", workload("web", 1)).await;
    let scale = kit.get("deployments/web/scale").await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    kit.update("deployments/web/scale", |scale| scale["spec"]["replicas"] = json!(2)).await;
    assert_eq!(kit.get("deployments/web").await["spec"]["replicas"], 2);
    complete(&kit, "deployments/web").await;
    kit.merge("deployments/web/scale", json!({ "spec": { "replicas": 4 } })).await;
    assert_eq!(complete(&kit, "deployments/web").await["status"]["readyReplicas"], 4);
}

/// Whether the status is of what the spec asks for now.
fn seen(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

#[tokio::test(start_paused = true)]
async fn recreate_never_has_old_and_new_at_once() {
    let kit = Kit::nodes(1).await;
    let mut web = workload("web", 3);
    web["spec"]["strategy"] = json!({ "type": "Recreate" });
    kit.ready("deployments", web).await;
    kit.strategic("deployments/web", image("image:2")).await;
    let mut looks = 0;
    loop {
        let pods = kit.list("pods").await;
        let has = |image: &str| pods.iter().any(|pod| pod["spec"]["containers"][0]["image"] == image);
        assert!(!(has("image:1") && has("image:2")), "old and new pods at once");
        looks += 1;
        let web = kit.get("deployments/web").await;
        let status = &web["status"];
        if seen(&web) && status["updatedReplicas"] == 3 && status["availableReplicas"] == 3 {
            break;
        }
        assert!(looks < 2000, "{status}");
        kit.cluster.advance(std::time::Duration::from_millis(20)).await;
    }
    assert!(looks > 1);
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_adopts_a_replica_set() {
    let kit = Kit::nodes(1).await;
    let mut set = workload("old", 1);
    set["spec"]["selector"] = json!({ "matchLabels": { "app": "web" } });
    set["spec"]["template"]["metadata"]["labels"] = json!({ "app": "web" });
    set["metadata"]["labels"] = json!({ "app": "web" });
    set["metadata"]["annotations"] = json!({ "deployment.kubernetes.io/revision": "3546343826724305832" });
    kit.ready("replicasets", set).await;
    let mut web = workload("web", 1);
    web["spec"]["template"]["spec"]["containers"][0]["image"] = json!("image:2");
    kit.create("deployments", web).await;
    let web = complete(&kit, "deployments/web").await;
    assert_eq!(web["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3546343826724305833");
    let sets = kit.list("replicasets").await;
    assert_eq!(sets.len(), 2);
    assert!(sets.iter().all(|set| owners(set) == ["web"]));
    assert_eq!((of_image(&kit, "image:1").await, of_image(&kit, "image:2").await), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn old_replica_sets_are_removed_beyond_the_limit() {
    let kit = Kit::nodes(1).await;
    let mut web = workload("web", 1);
    web["spec"]["revisionHistoryLimit"] = json!(0);
    kit.ready("deployments", web).await;
    kit.strategic("deployments/web", image("image:2")).await;
    complete(&kit, "deployments/web").await;
    let sets = kit.until_list("replicasets", "one is left", |sets| sets.len() == 1).await;
    assert_eq!(sets[0]["spec"]["template"]["spec"]["containers"][0]["image"], "image:2");
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_hangs_is_rolled_over() {
    let kit = Kit::nodes(1).await;
    let mut web = workload("web", 1);
    web["spec"]["strategy"] =
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } });
    web["spec"]["minReadySeconds"] = json!(10);
    kit.ready("deployments", web).await;
    kit.strategic("deployments/web", image(BAD)).await;
    let begun = |web: &Value| seen(web) && web["status"]["updatedReplicas"] == 1;
    kit.until("deployments/web", "the bad one is begun", begun).await;
    assert_eq!((of_image(&kit, "image:1").await, of_image(&kit, BAD).await), (1, 1));
    kit.strategic("deployments/web", image("image:2")).await;
    complete(&kit, "deployments/web").await;
    assert_eq!((of_image(&kit, "image:1").await, of_image(&kit, BAD).await), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn scaling_in_a_rollout_is_in_proportion() {
    let kit = Kit::nodes(1).await;
    let mut web = workload("web", 10);
    web["spec"]["strategy"] =
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2, "maxSurge": 3 } });
    kit.ready("deployments", web).await;
    complete(&kit, "deployments/web").await;
    kit.strategic("deployments/web", image(BAD)).await;
    let stuck = |web: &Value| {
        let status = &web["status"];
        status["observedGeneration"] == web["metadata"]["generation"]
            && status["availableReplicas"] == 8
            && status["updatedReplicas"] == 5
    };
    kit.until("deployments/web", "hangs at 8 old and 5 new", stuck).await;
    assert_eq!((of_image(&kit, "image:1").await, of_image(&kit, BAD).await), (8, 5));
    kit.merge("deployments/web", json!({ "spec": { "replicas": 30 } })).await;
    let scaled = |web: &Value| web["status"]["replicas"] == 33;
    kit.until("deployments/web", "has grown", scaled).await;
    assert_eq!((of_image(&kit, "image:1").await, of_image(&kit, BAD).await), (20, 13));
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_made_changed_listed_and_deleted() {
    let kit = Kit::nodes(1).await;
    kit.ready("deployments", workload("web", 1)).await;
    kit.strategic("deployments/web", image("image:2")).await;
    kit.merge("deployments/web", json!({ "spec": { "replicas": 2 } })).await;
    let web = complete(&kit, "deployments/web").await;
    assert_eq!(condition(&web, "Available")["status"], "True");
    assert_eq!(kit.list("*:deployments?labelSelector=app%3Dweb").await.len(), 1);
    kit.delete("deployments/web").await;
    kit.gone("deployments/web").await;
    collection(&kit, "deployments", &workload("web", 0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_deployments_status_is_replaced_and_patched() {
    let kit = Kit::nodes(1).await;
    kit.ready("deployments", workload("web", 1)).await;
    complete(&kit, "deployments/web").await;
    let of = |reason: &str| json!({ "conditions": [{ "type": "StatusUpdate", "status": "True", "reason": reason, "message": "set by a test" }] });
    let updated = kit
        .update("deployments/web/status", |web| web["status"]["conditions"] = of("E2E")["conditions"].clone())
        .await;
    assert_eq!(condition(&updated, "StatusUpdate")["reason"], "E2E");
    status(&kit, "deployments/web", json!({ "collisionCount": 0 }), of("Patched")).await;
}
