use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Pod},
};
use kube::{Api, api::DeleteParams};
use meta::{Fixed, ObjectKey, Seeded, Timestamp};
use reconcile::{CancellationToken, Context, Controller, Kind, run, testkit::FakeApi};
use serde_json::{Value, json};

use super::*;

/// The collector at work against a fake API, in virtual time.
struct Cluster {
    api: FakeApi,
    stop: CancellationToken,
}

impl Cluster {
    async fn start(objects: &[Value]) -> Self {
        let clock = Arc::new(Fixed::new(Timestamp::UNIX_EPOCH));
        let api = FakeApi::new(clock.clone(), Arc::new(Seeded::new(1)));
        api.register(Kind::new("example.com", "v1", "Widget", "widgets"), true);
        for object in objects {
            api.put(object);
        }
        let cx = Context::new(api.client(), clock, Arc::new(Seeded::new(2)));
        let graph = Arc::new(Graph::default());
        let (feed, stop) = (Arc::clone(&graph), CancellationToken::new());
        let watches = Controller::custom("monitors", move |cx, stop| monitors(feed, cx, stop));
        tokio::spawn(run(vec![watches, Controller::new(GarbageCollector { graph })], cx, stop.clone()));
        let cluster = Self { api, stop };
        cluster.quiet().await;
        cluster
    }

    async fn quiet(&self) {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    fn has<K: kube::Resource<DynamicType = ()>>(&self, name: &str) -> bool {
        self.api.get(&Kind::of::<K>(), &ObjectKey::new("ns", name)).is_some()
    }

    async fn delete<K>(&self, name: &str, how: &DeleteParams)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        Api::<K>::namespaced(self.api.client(), "ns").delete(name, how).await.unwrap();
        self.quiet().await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn object(api_version: &str, kind: &str, name: &str, owners: &[(&str, &str, &str)]) -> Value {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(api_version, kind, name)| {
            json!({ "apiVersion": api_version, "kind": kind, "name": name, "uid": format!("uid-{name}"), "blockOwnerDeletion": true })
        })
        .collect();
    json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "ownerReferences": owners } })
}

/// Deployment `d` owns ReplicaSet `r` owns pods `p` and `q`.
fn tree() -> Vec<Value> {
    vec![
        object("apps/v1", "Deployment", "d", &[]),
        object("apps/v1", "ReplicaSet", "r", &[("apps/v1", "Deployment", "d")]),
        object("v1", "Pod", "p", &[("apps/v1", "ReplicaSet", "r")]),
        object("v1", "Pod", "q", &[("apps/v1", "ReplicaSet", "r")]),
    ]
}

#[tokio::test(start_paused = true)]
async fn background_deletes_what_depended_on_it() {
    let cluster = Cluster::start(&tree()).await;
    assert!(
        cluster.has::<Pod>("p") && cluster.has::<ReplicaSet>("r"),
        "nothing is deleted while owners live"
    );
    cluster.delete::<Deployment>("d", &DeleteParams::background()).await;
    assert!(!cluster.has::<ReplicaSet>("r") && !cluster.has::<Pod>("p") && !cluster.has::<Pod>("q"));
}

#[tokio::test(start_paused = true)]
async fn foreground_waits_for_the_last_dependent() {
    let cluster = Cluster::start(&tree()).await;
    // A pod on a node leaves only when its kubelet lets it.
    cluster.api.patch(
        &Kind::of::<Pod>(),
        &ObjectKey::new("ns", "p"),
        "",
        &json!({ "spec": { "nodeName": "n1" } }),
    );
    cluster.delete::<Deployment>("d", &DeleteParams::foreground()).await;
    assert!(cluster.has::<Deployment>("d") && cluster.has::<ReplicaSet>("r") && cluster.has::<Pod>("p"));
    assert!(!cluster.has::<Pod>("q"));
    cluster.api.delete(&Kind::of::<Pod>(), &ObjectKey::new("ns", "p"));
    cluster.quiet().await;
    assert!(!cluster.has::<ReplicaSet>("r") && !cluster.has::<Deployment>("d"));
}

#[tokio::test(start_paused = true)]
async fn orphaned_dependents_stay_without_owner() {
    let cluster = Cluster::start(&tree()).await;
    cluster.delete::<Deployment>("d", &DeleteParams::orphan()).await;
    assert!(!cluster.has::<Deployment>("d") && cluster.has::<Pod>("p"));
    let set = cluster.api.get(&Kind::of::<ReplicaSet>(), &ObjectKey::new("ns", "r")).unwrap();
    assert_eq!(set["metadata"]["ownerReferences"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn one_living_owner_is_enough_and_the_dead_one_is_struck() {
    let mut objects = tree();
    objects.push(object("v1", "ConfigMap", "both", &[("apps/v1", "Deployment", "d"), ("v1", "Pod", "p")]));
    let cluster = Cluster::start(&objects).await;
    cluster.api.delete(&Kind::of::<Pod>(), &ObjectKey::new("ns", "p"));
    cluster.quiet().await;
    let map = cluster.api.get(&Kind::of::<ConfigMap>(), &ObjectKey::new("ns", "both")).unwrap();
    let owners: Vec<&Value> =
        map["metadata"]["ownerReferences"].as_array().unwrap().iter().map(|o| &o["kind"]).collect();
    assert_eq!(owners, ["Deployment"]);
    cluster.delete::<Deployment>("d", &DeleteParams::background()).await;
    assert!(!cluster.has::<ConfigMap>("both"));
}

#[tokio::test(start_paused = true)]
async fn owners_gone_before_the_start_or_of_another_uid_are_found() {
    let mut stranger = object("v1", "ConfigMap", "stranger", &[("apps/v1", "Deployment", "d")]);
    stranger["metadata"]["ownerReferences"][0]["uid"] = json!("uid-of-an-earlier-d");
    let mut objects = tree();
    objects.extend([stranger, object("v1", "ConfigMap", "late", &[("v1", "Pod", "long-gone")])]);
    let cluster = Cluster::start(&objects).await;
    assert!(!cluster.has::<ConfigMap>("stranger") && !cluster.has::<ConfigMap>("late"));
    assert!(cluster.has::<Pod>("p"));
}

#[tokio::test(start_paused = true)]
async fn custom_resources_are_owners_and_dependents_too() {
    let cluster = Cluster::start(&[
        object("example.com/v1", "Widget", "w", &[]),
        object("v1", "ConfigMap", "c", &[("example.com/v1", "Widget", "w")]),
        object("example.com/v1", "Widget", "v", &[("v1", "ConfigMap", "c")]),
        object("v1", "ConfigMap", "unknown", &[("nobody.example.com/v1", "Ghost", "g")]),
    ])
    .await;
    let widgets = Kind::new("example.com", "v1", "Widget", "widgets");
    cluster.api.delete(&widgets, &ObjectKey::new("ns", "w"));
    cluster.quiet().await;
    assert!(!cluster.has::<ConfigMap>("c") && cluster.api.list(&widgets, "ns").is_empty());
    assert!(cluster.has::<ConfigMap>("unknown"), "an owner of a kind nobody serves is not known to be gone");
}
