//! What an operator's author relies on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Pod},
};
use keelson_test::Cluster;
use kube::{Api, ResourceExt, api::DeleteParams};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'nginx:1'}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

#[tokio::test(start_paused = true)]
async fn workloads_run_and_are_collected() {
    let cluster = Cluster::builder().nodes(2).start().await.unwrap();
    cluster.apply(WEB).await.unwrap();
    cluster.settle().await.unwrap();
    assert_eq!(cluster.violations(), Vec::<String>::new());
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
    let status = deployments.get("web").await.unwrap().status.unwrap();
    assert_eq!(status.ready_replicas, Some(3));
    deployments.delete("web", &DeleteParams::default()).await.unwrap();
    cluster.settle().await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    assert_eq!(pods.list(&Default::default()).await.unwrap().items.len(), 0);
    assert_eq!(cluster.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_loses_its_pods_and_comes_back() {
    let mut cluster = Cluster::builder().nodes(2).start().await.unwrap();
    cluster.apply(WEB).await.unwrap();
    cluster.settle().await.unwrap();
    cluster.part("node-0").unwrap().faults.partition(true);
    cluster.advance(Duration::from_secs(600)).await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let all = pods.list(&Default::default()).await.unwrap().items;
    let on_other = all.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.spec.as_ref().unwrap().node_name.as_deref() == Some("node-1")
    });
    assert_eq!(on_other.count(), 3, "evicted from the lost node and placed anew");
    cluster.mend().await.unwrap();
    let whole = cluster.eventually("all is as it should be", async || match cluster.violations() {
        none if none.is_empty() => Ok(()),
        wrong => Err(wrong),
    });
    whole.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn namespaces_end_and_rbac_holds() {
    let cluster = Cluster::start().await.unwrap();
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: team}}").await.unwrap();
    cluster
        .apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: team}, data: {a: b}}")
        .await
        .unwrap();
    let nobody = cluster.client_of("system:serviceaccount:team:default", &["system:serviceaccounts"]);
    let maps: Api<ConfigMap> = Api::namespaced(nobody, "team");
    let refused = maps.get("c").await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    cluster
        .eventually("the namespace is gone", async || match namespaces.get_opt("team").await {
            Ok(None) => Ok(()),
            other => Err(other.map(|found| found.map(|namespace| namespace.name_any()))),
        })
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_cannot_be_applied_says_why() {
    let cluster = Cluster::start().await.unwrap();
    let said = |result: Result<(), keelson_test::Error>| result.unwrap_err().to_string();
    assert!(said(cluster.apply("kind: Pod").await).contains("apiVersion, kind and metadata.name"));
    let unknown = "{apiVersion: x.example/v1, kind: Thing, metadata: {name: t}}";
    assert!(said(cluster.apply(unknown).await).contains("is not served"));
}

const CROWD: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crowds.example.dev}
spec:
  group: example.dev
  scope: Namespaced
  names: {kind: Crowd, plural: crowds}
  versions:
    - name: v1
      served: true
      storage: true
      subresources:
        scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: example.dev/v1
kind: Crowd
metadata: {name: fans}
spec: {replicas: 4}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: fans}
spec: {maxUnavailable: 50%, selector: {matchLabels: {app: fans}}}
";

#[tokio::test(start_paused = true)]
async fn a_budget_counts_the_pods_of_any_kind_with_a_scale() {
    let cluster = Cluster::start().await.unwrap();
    cluster.apply(CROWD).await.unwrap();
    let resource =
        kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("example.dev", "v1", "Crowd"));
    let crowds: Api<kube::api::DynamicObject> = Api::default_namespaced_with(cluster.client(), &resource);
    let uid = crowds.get("fans").await.unwrap().metadata.uid.unwrap();
    for name in ["a", "b", "c", "d"] {
        cluster
            .apply(&format!(
                "
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: fans}}
  ownerReferences: [{{apiVersion: example.dev/v1, kind: Crowd, name: fans, uid: {uid}, controller: true}}]
spec: {{containers: [{{name: c, image: i}}]}}
"
            ))
            .await
            .unwrap();
    }
    cluster.settle().await.unwrap();
    let budgets: Api<k8s_openapi::api::policy::v1::PodDisruptionBudget> =
        Api::default_namespaced(cluster.client());
    let status = budgets.get("fans").await.unwrap().status.unwrap();
    assert_eq!((status.expected_pods, status.disruptions_allowed), (Some(4), Some(2)));
}

const SCALED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  replicas: 2
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}, annotations: {simulated.keelson.dev/cpu-millicores: '900'}}
    spec: {containers: [{name: c, image: i, resources: {requests: {cpu: '1'}}}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: busy}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: busy}
  minReplicas: 1
  maxReplicas: 7
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 30}}}]
";

#[tokio::test(start_paused = true)]
async fn use_of_resources_is_measured_and_scales() {
    let cluster = Cluster::builder().nodes(2).start().await.unwrap();
    cluster.apply(SCALED).await.unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
    let scaled = cluster.eventually("seven replicas", async || {
        let ready = deployments.get("busy").await.unwrap().status.unwrap_or_default().ready_replicas;
        if ready == Some(7) { Ok(()) } else { Err(ready) }
    });
    scaled.await.unwrap();
    let scalers: Api<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler> =
        Api::default_namespaced(cluster.client());
    let conditions = scalers.get("busy").await.unwrap().status.unwrap().conditions.unwrap();
    let reasons: Vec<_> = conditions.iter().map(|c| c.reason.as_deref().unwrap_or_default()).collect();
    assert!(reasons.contains(&"ValidMetricFound"), "{reasons:?}");
}
