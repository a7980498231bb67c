//! The API server ends at once and comes back: everybody who was its client goes on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says so by panicking")]

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use sim::{Cluster, Settings, violations};

/// Longer than a watch waits before it is taken up again: a minute, twice.
const QUIET: Duration = Duration::from_secs(180);
const REST_MAX: Duration = Duration::from_secs(1800);

fn deployment(name: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": 3, "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
    }))
    .unwrap()
}

/// Restarts the API server `times` times with work before, while it is down, and after.
async fn check(seed: u64, times: u64, down: Duration) {
    let mut cluster = Cluster::start(&Settings::new(seed, 2)).await.unwrap();
    let api: Api<Deployment> = Api::default_namespaced(cluster.client());
    for round in 0..times {
        api.create(&PostParams::default(), &deployment(&format!("web-{round}"))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500 * round)).await;
        cluster.crash_api();
        tokio::time::sleep(down).await;
        cluster.start_api().await.unwrap();
        let scale = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
        api.patch(&format!("web-{round}"), &PatchParams::default(), &scale).await.unwrap();
    }
    cluster.settle(QUIET, REST_MAX).await.unwrap();
    let wrong = violations(&cluster.truth().unwrap(), cluster.clock().now());
    assert!(wrong.is_empty(), "seed {seed}, down for {down:?}: {wrong:#?}");
}

#[tokio::test(start_paused = true)]
async fn clients_outlive_a_restart_of_the_api_server() {
    check(1, 3, Duration::from_secs(1)).await;
    check(2, 3, Duration::from_millis(1)).await;
}

/// Longer than leases last and nodes are given up after.
#[tokio::test(start_paused = true)]
async fn clients_outlive_a_long_absence_of_the_api_server() {
    check(3, 1, Duration::from_secs(900)).await;
}

/// A client that was away while events were forgotten reads so in the watch, not in the answer's code: kube-rs
/// asks for the same revision for ever otherwise.
#[tokio::test(start_paused = true)]
async fn a_watch_from_a_forgotten_revision_begins_and_says_so() {
    let mut cluster = Cluster::start(&Settings::new(4, 1)).await.unwrap();
    cluster.crash_api();
    cluster.start_api().await.unwrap();
    let uri = "/api/v1/pods?watch=true&resourceVersion=1";
    let request = http::Request::get(uri).body(Vec::new()).unwrap();
    let answer = cluster.client().request_text(request).await.unwrap();
    let event: serde_json::Value = serde_json::from_str(answer.trim()).unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
}
