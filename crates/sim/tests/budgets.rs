//! Evictions under faults that harm no pod: a budget is kept at every moment, whatever happens to those who
//! count.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, EvictParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use meta::{Random, Seeded};
use serde_json::{Value, json};
use sim::{Cluster, Rates, Settings};

const HEALTHY: usize = 4;

async fn apply(cluster: &Cluster, group: &str, version: &str, kind: &str, object: Value) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::default_namespaced_with(cluster.client(), &resource);
    let mut object = object;
    object["apiVersion"] = json!(resource.api_version);
    object["kind"] = json!(kind);
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.unwrap();
}

/// Names of the pods that count: ready and not on their way out.
fn healthy(cluster: &Cluster) -> Vec<String> {
    let pods: Vec<Pod> = cluster.truth().unwrap().all();
    let counts = |pod: &&Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
        ready && pod.metadata.deletion_timestamp.is_none()
    };
    pods.iter().filter(counts).map(ResourceExt::name_any).collect()
}

async fn check(seed: u64) {
    let mut cluster = Cluster::start(&Settings::new(seed, 3)).await.unwrap();
    let random = Seeded::new(seed);
    let template = json!({
        "metadata": { "labels": { "app": "web" }, "annotations": { "simulated.keelson.dev/start-delay": "3s" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    let selector = json!({ "matchLabels": { "app": "web" } });
    let spec = json!({ "replicas": 6, "selector": selector, "template": template });
    apply(&cluster, "apps", "v1", "Deployment", json!({ "metadata": { "name": "web" }, "spec": spec })).await;
    let budget = json!({ "minAvailable": HEALTHY, "selector": selector });
    apply(
        &cluster,
        "policy",
        "v1",
        "PodDisruptionBudget",
        json!({ "metadata": { "name": "web" }, "spec": budget }),
    )
    .await;
    cluster.settle(Duration::from_secs(20), Duration::from_secs(600)).await.unwrap();
    assert_eq!(healthy(&cluster).len(), 6);
    let controllers = cluster.parts.iter_mut().position(|part| part.name == "controllers").unwrap();
    let (mut evicted, mut refused) = (0, 0);
    for second in 0..90 {
        let part = &mut cluster.parts[controllers];
        match random.below(12) {
            0 => part.crash(),
            1 | 2 => part.start(),
            3 => {
                part.faults.set(Rates { conflict: 200, lost_answer: 100, cut_watch: 100, ..Rates::default() })
            }
            4 => part.faults.set(Rates::default()),
            5 => cluster.slow_store(random.below(500)),
            _ => {}
        }
        let names = healthy(&cluster);
        if !names.is_empty() {
            let pods: Api<Pod> = Api::default_namespaced(cluster.client());
            let name = &names[usize::try_from(random.below(names.len() as u64)).unwrap()];
            match pods.evict(name, &EvictParams::default()).await {
                Ok(_) => evicted += 1,
                Err(_) => refused += 1,
            }
        }
        let left = healthy(&cluster).len();
        assert!(left >= HEALTHY, "seed {seed}: {left} healthy pods at {second} s");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(evicted > 5 && refused > 5, "seed {seed}: {evicted} evicted, {refused} refused");
}

#[tokio::test(start_paused = true)]
async fn evictions_never_break_a_budget() {
    for seed in 1..=2 {
        check(seed).await;
    }
}
