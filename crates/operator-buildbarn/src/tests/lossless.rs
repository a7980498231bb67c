//! Pools through the whole reconciler: scaling, rollouts, emptied nodes, a scheduler that does not answer.

use k8s_openapi::api::core::v1::Node;

use super::*;

const POOL: [(&str, &str); 2] =
    [("OSFamily", "linux"), ("container-image", "docker://ghcr.io/catthehacker/ubuntu:act-22.04")];

fn pods(farm: &Farm) -> Vec<String> {
    farm.list::<Pod>().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Every pod's worker comes.
fn register(farm: &Farm) {
    for pod in pods(farm) {
        farm.queue.register(&queue(&POOL), &pod, 4);
    }
}

/// A farm with three pods, registered.
async fn three() -> Farm {
    let farm = Farm::new(FARM);
    farm.edit::<BuildbarnWorker>("ubuntu", json!({"autoscaling": null, "replicas": 3}));
    farm.run().await;
    register(&farm);
    assert_eq!(pods(&farm).len(), 3);
    farm
}

#[tokio::test]
async fn a_busy_pod_is_not_taken_away_before_its_actions_end() {
    let farm = three().await;
    farm.queue.submit(&queue(&POOL), 12);
    farm.queue.assign();
    farm.edit::<BuildbarnWorker>("ubuntu", json!({"replicas": 1}));
    farm.run().await;
    assert_eq!(pods(&farm).len(), 3, "all are busy");
    let status = farm.status::<BuildbarnWorker>("ubuntu");
    assert_eq!(status["draining"], 2);
    assert!(farm.condition::<BuildbarnWorker>("ubuntu", "Ready").starts_with("False Draining: 2 pod(s) end"));
    for pod in pods(&farm) {
        farm.queue.finish(&pod);
    }
    farm.run().await;
    assert_eq!(pods(&farm).len(), 1);
    assert_eq!(farm.queue.drains(), 0, "drains go with their pods");
    assert!(farm.queue.calls().iter().any(|call| call.starts_with("TerminateWorkers")));
    assert!(farm.condition::<BuildbarnWorker>("ubuntu", "Ready").starts_with("True"));
}

#[tokio::test]
async fn idle_pods_go_first_and_who_is_needed_again_stays() {
    let farm = three().await;
    farm.queue.submit(&queue(&POOL), 4);
    farm.queue.assign();
    let busy: Vec<String> = pods(&farm).into_iter().filter(|pod| farm.queue.busy(pod)).collect();
    assert_eq!(busy.len(), 1);
    farm.edit::<BuildbarnWorker>("ubuntu", json!({"replicas": 1}));
    farm.run().await;
    assert_eq!(pods(&farm), busy);
    farm.edit::<BuildbarnWorker>("ubuntu", json!({"replicas": 0}));
    farm.run().await;
    assert_eq!((pods(&farm), farm.queue.drains()), (busy.clone(), 1));
    farm.edit::<BuildbarnWorker>("ubuntu", json!({"replicas": 1}));
    farm.run().await;
    assert_eq!((pods(&farm), farm.queue.drains()), (busy, 0));
}

#[tokio::test]
async fn a_rollout_waits_for_every_action() {
    let farm = three().await;
    farm.queue.submit(&queue(&POOL), 12);
    farm.queue.assign();
    let before = pods(&farm);
    farm.edit::<BuildbarnWorker>("ubuntu", json!({"inputDownloadConcurrency": 20}));
    farm.run().await;
    register(&farm);
    assert!(before.iter().all(|pod| pods(&farm).contains(pod)), "all run something");
    assert!(pods(&farm).len() > 3, "pods of the new template come beside them");
    for _ in 0..5 {
        for pod in pods(&farm) {
            farm.queue.finish(&pod);
        }
        farm.run().await;
        register(&farm);
    }
    assert_eq!(pods(&farm).len(), 3);
    assert!(before.iter().all(|pod| !pods(&farm).contains(pod)));
    let deployments =
        farm.list::<Deployment>().into_iter().filter(|d| d["metadata"]["labels"]["app"] == "worker");
    assert_eq!(deployments.count(), 1, "the earlier Deployment is gone");
    assert_eq!(farm.list::<ConfigMap>().len(), 5, "and its configuration");
}

#[tokio::test]
async fn a_node_is_emptied_action_by_action() {
    let farm = three().await;
    farm.queue.submit(&queue(&POOL), 4);
    farm.queue.assign();
    let busy: Vec<String> = pods(&farm).into_iter().filter(|pod| farm.queue.busy(pod)).collect();
    let before = pods(&farm);
    farm.storage.api.put(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"unschedulable": true}}));
    // One step at a time: a pod that is deleted stays until its node has stopped it.
    for _ in 0..6 {
        farm.worker.step(&key("ubuntu")).await;
    }
    let deleted: Vec<String> = farm
        .list::<Pod>()
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_string())
        .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    let idle: Vec<String> = before.into_iter().filter(|pod| !busy.contains(pod)).collect();
    assert_eq!(deleted, idle);
    assert!(
        farm.get::<PodDisruptionBudget>("ubuntu").unwrap()["spec"]["maxUnavailable"] == 0,
        "evictions are refused"
    );
    let _ = Kind::of::<Node>();
}

#[tokio::test]
async fn a_scheduler_that_does_not_answer_changes_nothing() {
    let farm = three().await;
    farm.queue.silence(true);
    farm.edit::<BuildbarnWorker>("ubuntu", json!({"replicas": 1}));
    let plan = farm.worker.plan(&key("ubuntu")).await.unwrap();
    assert!(plan.delete.is_empty());
    for _ in 0..3 {
        farm.worker.step(&key("ubuntu")).await;
        farm.run_pods();
    }
    assert_eq!(pods(&farm).len(), 3);
    let said = farm.condition::<BuildbarnWorker>("ubuntu", "QueueReachable");
    assert!(said.starts_with("False NoAnswer") && said.contains("no answer within 5 s"), "{said}");
    let said = farm.condition::<BuildbarnWorker>("ubuntu", "Ready");
    assert!(
        said.starts_with("False Draining: 2 pod(s) are to end, and stay until the scheduler tells"),
        "{said}"
    );
    farm.queue.silence(false);
    farm.run().await;
    assert_eq!(pods(&farm).len(), 1);
}

#[tokio::test]
async fn a_pool_follows_its_queue_and_scales_to_zero() {
    let farm = Farm::new(FARM);
    farm.edit::<BuildbarnWorker>(
        "ubuntu",
        json!({"autoscaling": {"min": 0, "max": 8, "scaleDownStabilizationSeconds": 60}}),
    );
    farm.run().await;
    assert_eq!(pods(&farm).len(), 0);
    let declared = &farm.files("scheduler")[0].1["predeclaredPlatformQueues"];
    assert_eq!(declared[0]["sizeClasses"], json!([0]), "a queue without workers has to be declared");
    farm.queue.submit(&queue(&POOL), 17);
    farm.run().await;
    assert_eq!(pods(&farm).len(), 5, "17 actions, 4 at a time and pod");
    register(&farm);
    farm.queue.assign();
    farm.run().await;
    for pod in pods(&farm) {
        farm.queue.finish(&pod);
    }
    farm.run().await;
    assert_eq!(pods(&farm).len(), 5, "not yet");
    farm.worker.advance(61);
    farm.run().await;
    assert_eq!(pods(&farm).len(), 0);
    let status = farm.status::<BuildbarnWorker>("ubuntu");
    assert_eq!((&status["queues"][0]["queued"], &status["autoscaling"]["replicas"]), (&json!(0), &json!(0)));
}
