//! All controllers together against the fake API.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Pod, ReplicationController, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use meta::{Fixed, ObjectKey, Seeded, Timestamp};
use reconcile::{Kind, testkit::FakeApi};
use serde_json::json;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_namespace_lives_and_dies() {
    let clock = Arc::new(Fixed::new(Timestamp::UNIX_EPOCH));
    let api = FakeApi::new(clock.clone(), Arc::new(Seeded::new(1)));
    api.register(Kind::of::<ReplicationController>(), true);
    let options = Options {
        root_ca_pem: "PEM".to_owned(),
        leader_elect: Some("me".to_owned()),
        ..Options::new(clock, Arc::new(Seeded::new(2)))
    };
    let (stop, metrics) = (CancellationToken::new(), options.metrics.clone());
    let running = tokio::spawn(run(api.client(), options, stop.clone()));
    let rest = async || tokio::time::sleep(Duration::from_secs(30)).await;
    api.put(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "ns" } }));
    api.put(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "ns" },
        "spec": { "clusterIP": "10.0.0.1", "selector": { "app": "web" }, "ports": [{ "port": 80, "protocol": "TCP" }] },
    }));
    api.put(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "ns" },
        "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } } },
    }));
    rest().await;
    assert_eq!(api.list(&Kind::of::<Pod>(), "ns").len(), 3);
    assert!(api.get(&Kind::of::<ServiceAccount>(), &ObjectKey::new("ns", "default")).is_some());
    assert!(api.get(&Kind::of::<ConfigMap>(), &ObjectKey::new("ns", "kube-root-ca.crt")).is_some());
    assert_eq!(api.list(&Kind::of::<EndpointSlice>(), "ns").len(), 1);

    let before = api.revision_of_all_but_leases();
    rest().await;
    assert_eq!(before, api.revision_of_all_but_leases(), "a cluster at rest is at rest");

    api.delete(&Kind::of::<Deployment>(), &ObjectKey::new("ns", "web"));
    rest().await;
    assert!(api.list(&Kind::of::<Pod>(), "ns").is_empty(), "collected");

    api.delete(&Kind::of::<Namespace>(), &ObjectKey::new("", "ns"));
    rest().await;
    assert_eq!(api.get(&Kind::of::<Namespace>(), &ObjectKey::new("", "ns")), None);
    assert!(api.list(&Kind::of::<ConfigMap>(), "ns").is_empty());

    let snapshot = metrics.snapshot();
    assert_eq!(snapshot.iter().map(|counters| counters.stale_waits).sum::<u64>(), 0);
    stop.cancel();
    assert!(running.await.unwrap(), "ended because it was told to");
}

#[tokio::test]
async fn every_controller_has_a_name_of_its_own() {
    let options = Options::new(Arc::new(Fixed::new(Timestamp::UNIX_EPOCH)), Arc::new(Seeded::new(2)));
    let names: Vec<&str> = all(&options).iter().map(reconcile::Controller::name).collect();
    insta::assert_yaml_snapshot!(names);
}
