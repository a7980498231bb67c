//! The operator on a whole cluster: pods really come and go, in virtual time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

use k8s_openapi::api::core::v1::{Pod, Service};
use keelson_test::{Cluster, Error};
use kube::{Api, CustomResourceExt, ResourceExt, api::DeleteParams};
use operator_test::{Website, run};

async fn cluster() -> Result<Cluster, Error> {
    let cluster = Cluster::builder().nodes(3).start().await?;
    cluster.apply_value(&serde_json::to_value(Website::crd()).unwrap()).await?;
    tokio::spawn(run(cluster.client()));
    Ok(cluster)
}

fn website(replicas: i32, annotations: &str) -> String {
    format!(
        "
apiVersion: example.keelson.dev/v1
kind: Website
metadata: {{name: blog, namespace: default, annotations: {{{annotations}}}}}
spec: {{image: 'nginx:1', replicas: {replicas}}}
"
    )
}

async fn ready(cluster: &Cluster) -> Option<i32> {
    let websites: Api<Website> = Api::default_namespaced(cluster.client());
    websites.get("blog").await.unwrap().status.map(|status| status.ready)
}

#[tokio::test(start_paused = true)]
async fn a_website_is_served_scaled_and_deleted() -> Result<(), Error> {
    let cluster = cluster().await?;
    cluster.apply(&website(2, "")).await?;
    cluster.settle().await?;
    assert_eq!(ready(&cluster).await, Some(2));

    cluster.apply(&website(5, "")).await?;
    cluster.settle().await?;
    assert_eq!(ready(&cluster).await, Some(5));
    assert_eq!(cluster.violations(), Vec::<String>::new());

    let websites: Api<Website> = Api::default_namespaced(cluster.client());
    websites.delete("blog", &DeleteParams::default()).await?;
    cluster.settle().await?;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let services: Api<Service> = Api::default_namespaced(cluster.client());
    assert_eq!(pods.list(&Default::default()).await?.items.len(), 0, "owned objects are collected");
    let left = services.list(&Default::default()).await?;
    assert!(left.iter().all(|service| service.name_any() != "blog"));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn slow_pods_take_their_time_and_none_of_ours() -> Result<(), Error> {
    let cluster = cluster().await?;
    let begun = cluster.now();
    cluster.apply(&website(1, "simulated.keelson.dev/start-delay: 30m")).await?;
    cluster
        .eventually("the website is served", async || match ready(&cluster).await {
            Some(1) => Ok(()),
            other => Err(other),
        })
        .await?;
    assert!(cluster.now().duration_since(begun).as_secs() >= 1800);
    Ok(())
}
