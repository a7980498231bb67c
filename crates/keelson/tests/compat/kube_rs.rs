//! kube-rs with the features its users use: streaming lists, metadata watches, apply, scale, eviction.

use std::collections::BTreeSet;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret},
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, ValidationDirective},
    config::{KubeConfigOptions, Kubeconfig},
    core::PartialObjectMeta,
    discovery::Discovery,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;

use crate::cluster::{Cluster, PATIENCE, Runtime};

pub(crate) async fn client(cluster: &Cluster) -> Client {
    let kubeconfig = Kubeconfig::read_from(cluster.data_dir().join("admin.kubeconfig")).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(
        json!({"metadata": {"name": name, "labels": {"app": "compat"}}, "data": {"k": "1"}}),
    )
    .unwrap()
}

/// Reads a watcher until it has shown these names.
async fn shows<K: kube::Resource>(
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    expected: &[&str],
) {
    let mut stream = std::pin::pin!(stream.applied_objects());
    let mut missing: BTreeSet<&str> = expected.iter().copied().collect();
    let reading = async {
        while !missing.is_empty() {
            let object = stream.next().await.expect("a watcher never ends").expect("a watcher's event");
            missing.remove(&*object.name_any());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the watcher shows every object");
}

#[tokio::test]
async fn kube_rs_cannot_tell() {
    let mut cluster = Cluster::up(Runtime::Simulated, &["--operators", "none"]);
    let client = client(&cluster).await;
    discovers(&client).await;
    watches(&client).await;
    applies(&client).await;
    acts(&client).await;
    drop(client);
    assert_eq!(cluster.stop(), 0);
}

async fn discovers(client: &Client) {
    let aggregated = Discovery::new(client.clone()).run_aggregated().await.unwrap();
    let legacy = Discovery::new(client.clone()).run().await.unwrap();
    for found in [aggregated, legacy] {
        let apps = found.get("apps").expect("group apps");
        let (resource, capabilities) = apps.recommended_kind("Deployment").expect("Deployment");
        assert_eq!(resource.plural, "deployments");
        assert!(capabilities.subresources.iter().any(|(name, _)| name.plural.ends_with("scale")));
    }
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
}

async fn watches(client: &Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for name in ["a", "b"] {
        api.create(&PostParams::default(), &config_map(name)).await.unwrap();
    }
    let config = || watcher::Config::default().labels("app=compat");
    shows(watcher(api.clone(), config()), &["a", "b"]).await;
    shows(watcher(api.clone(), config().page_size(1)), &["a", "b"]).await;
    shows(watcher(api.clone(), config().streaming_lists()), &["a", "b"]).await;
    let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(client.clone());
    shows(watcher(metadata, config().streaming_lists()), &["a", "b"]).await;
    let pages = api.list(&ListParams::default().labels("app=compat").limit(1)).await.unwrap();
    assert!(pages.metadata.continue_.is_some() && pages.items.len() == 1);
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app=compat"))
        .await
        .unwrap();
    assert!(api.list_metadata(&ListParams::default().labels("app=compat")).await.unwrap().items.is_empty());
}

async fn applies(client: &Client) {
    let api: Api<Secret> = Api::default_namespaced(client.clone());
    let want = |value: &str| {
        Patch::Apply(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": value}}),
        )
    };
    let mine = PatchParams::apply("mine");
    let first = api.patch("s", &mine, &want("1")).await.unwrap();
    assert_eq!(first.data.unwrap()["k"].0, b"1");
    let refused = api.patch("s", &PatchParams::apply("theirs"), &want("2")).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 409), "{refused}");
    api.patch("s", &PatchParams::apply("theirs").force(), &want("2")).await.unwrap();
    let strict = PatchParams { field_validation: Some(ValidationDirective::Strict), ..mine };
    let unknown =
        Patch::Apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "other": 1}));
    let refused = api.patch("s", &strict, &unknown).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if matches!(status.code, 400 | 422 | 500)),
        "{refused}"
    );
    api.entry("s").await.unwrap().and_modify(|secret| {
        secret.labels_mut().insert("by".to_owned(), "entry".to_owned());
    });
}

async fn acts(client: &Client) {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }))
    .unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    let patch = Patch::Merge(json!({"spec": {"replicas": 1}}));
    deployments.patch_scale("web", &PatchParams::default(), &patch).await.unwrap();
    let scale = deployments.get_scale("web").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(1));
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let mut stream =
        std::pin::pin!(watcher(pods.clone(), watcher::Config::default().labels("app=web")).applied_objects());
    let running = async {
        loop {
            let pod = stream.next().await.unwrap().unwrap();
            if pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running") {
                return pod.name_any();
            }
        }
    };
    let name = tokio::time::timeout(PATIENCE, running).await.expect("the pod runs");
    pods.evict(&name, &EvictParams::default()).await.unwrap();
}
