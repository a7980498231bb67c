use k8s_openapi::api::core::v1::Pod;
use meta::ObjectKey;
use reconcile::{Kind, testkit::Bench};
use serde_json::{Value, json};

use super::*;
use crate::replicaset::ReplicaSets;

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: ns
  uid: uid-web
  annotations: { team: blue }
spec:
  replicas: 4
  progressDeadlineSeconds: 600
  revisionHistoryLimit: 1
  selector: { matchLabels: { app: web } }
  strategy: { type: RollingUpdate, rollingUpdate: { maxSurge: 1, maxUnavailable: 1 } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [ { name: c, image: "web:1" } ] }
"#;

fn key() -> ObjectKey {
    ObjectKey::new("ns", "web")
}

fn kind<K: kube::Resource<DynamicType = ()>>() -> Kind {
    Kind::of::<K>()
}

/// A Deployment, its ReplicaSets and a kubelet that can be told to make pods ready.
struct Cluster {
    deployments: Bench<Deployments>,
    sets: Bench<ReplicaSets>,
}

impl Cluster {
    fn new(yaml: &str) -> Self {
        let deployments = Bench::new(Deployments);
        deployments.put_yaml(yaml);
        let sets = deployments.beside(ReplicaSets::default());
        Self { deployments, sets }
    }

    async fn round(&self) {
        self.deployments.step(&key()).await;
        for set in self.sets() {
            self.sets.step(&ObjectKey::new("ns", set["metadata"]["name"].as_str().unwrap())).await;
        }
    }

    fn sets(&self) -> Vec<Value> {
        self.deployments.api.list(&kind::<ReplicaSet>(), "ns")
    }

    /// Image, wanted and available pods of each ReplicaSet, oldest revision first.
    fn sizes(&self) -> Vec<(String, i64, i64)> {
        let mut sizes: Vec<_> = self
            .sets()
            .iter()
            .map(|set| {
                let revision = set["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                let image =
                    set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
                (
                    revision,
                    image,
                    set["spec"]["replicas"].as_i64().unwrap(),
                    set["status"]["availableReplicas"].as_i64().unwrap_or(0),
                )
            })
            .collect();
        sizes.sort();
        sizes.into_iter().map(|(_, image, wanted, available)| (image, wanted, available)).collect()
    }

    fn pods(&self) -> Vec<Value> {
        self.deployments.api.list(&kind::<Pod>(), "ns")
    }

    /// Makes up to `count` more pods with this image ready.
    fn make_ready(&self, image: &str, count: usize) {
        let waiting = self
            .pods()
            .into_iter()
            .filter(|pod| pod["spec"]["containers"][0]["image"] == image && pod["status"].is_null());
        for pod in waiting.take(count) {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let status = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
            self.deployments.api.patch(
                &kind::<Pod>(),
                &ObjectKey::new("ns", name),
                "status",
                &json!({ "status": status }),
            );
        }
    }

    async fn rest(&self, ready: &[&str]) {
        let mut before = 0;
        while before != self.deployments.api.revision() {
            before = self.deployments.api.revision();
            self.round().await;
            for image in ready {
                self.make_ready(image, 1);
            }
        }
    }

    fn edit(&self, spec: Value) {
        self.deployments.api.patch(&kind::<Deployment>(), &key(), "", &json!({ "spec": spec }));
    }

    fn set_image(&self, image: &str) {
        self.edit(json!({ "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } }));
    }

    fn status(&self) -> Value {
        self.deployments.api.get(&kind::<Deployment>(), &key()).unwrap()["status"].clone()
    }

    fn progressing(&self) -> String {
        let status = self.status();
        let list = status["conditions"].as_array().unwrap();
        list.iter().find(|c| c["type"] == "Progressing").unwrap()["reason"].as_str().unwrap().to_owned()
    }
}

fn size(image: &str, wanted: i64, available: i64) -> (String, i64, i64) {
    (image.to_owned(), wanted, available)
}

#[tokio::test]
async fn the_first_plan_creates_the_first_revision() {
    let cluster = Cluster::new(DEPLOYMENT);
    insta::assert_yaml_snapshot!(cluster.deployments.plan(&key()).await.unwrap());
}

#[tokio::test]
async fn a_rollout_stays_within_surge_and_availability() {
    let cluster = Cluster::new(DEPLOYMENT);
    cluster.rest(&["web:1"]).await;
    assert_eq!(cluster.progressing(), "NewReplicaSetAvailable");
    insta::assert_yaml_snapshot!("status_after_rollout", cluster.status());

    cluster.set_image("web:2");
    let mut before = 0;
    while before != cluster.deployments.api.revision() {
        before = cluster.deployments.api.revision();
        cluster.round().await;
        let total: i64 = cluster.sizes().iter().map(|(_, wanted, _)| wanted).sum();
        assert!(total <= 5, "surge: {:?}", cluster.sizes());
        let ready = cluster.pods().iter().filter(|pod| !pod["status"].is_null()).count();
        assert!(ready >= 3, "availability: {ready} ready, {:?}", cluster.sizes());
        cluster.make_ready("web:2", 1);
    }
    assert_eq!(cluster.sizes(), [size("web:1", 0, 0), size("web:2", 4, 4)]);
    cluster.deployments.settle(&key()).await;
}

#[tokio::test]
async fn a_stuck_rollout_keeps_the_old_pods_and_times_out() {
    let cluster = Cluster::new(DEPLOYMENT);
    cluster.rest(&["web:1"]).await;
    cluster.set_image("web:broken");
    cluster.rest(&[]).await;
    assert_eq!(cluster.sizes(), [size("web:1", 3, 3), size("web:broken", 2, 0)]);
    assert_eq!(cluster.progressing(), "ReplicaSetUpdated");
    let plan = cluster.deployments.plan(&key()).await.unwrap();
    assert_eq!(plan.recheck_after, Some(std::time::Duration::from_secs(601)));
    cluster.deployments.advance(602);
    cluster.rest(&[]).await;
    assert_eq!(cluster.progressing(), "ProgressDeadlineExceeded");

    // Undo: the old template again. Its ReplicaSet is found and becomes revision 3.
    cluster.set_image("web:1");
    cluster.rest(&["web:1"]).await;
    assert_eq!(cluster.sizes(), [size("web:broken", 0, 0), size("web:1", 4, 4)]);
    let history = cluster.sets().iter().find_map(|s| {
        s["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"].as_str().map(str::to_owned)
    });
    assert_eq!(history.as_deref(), Some("1"));
    let deployment = cluster.deployments.api.get(&kind::<Deployment>(), &key()).unwrap();
    assert_eq!(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
}

#[tokio::test]
async fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let cluster = Cluster::new(DEPLOYMENT);
    cluster.rest(&["web:1"]).await;
    cluster.set_image("web:broken");
    cluster.rest(&[]).await;
    assert_eq!(cluster.sizes(), [size("web:1", 3, 3), size("web:broken", 2, 0)]);
    cluster.edit(json!({ "replicas": 9 }));
    cluster.deployments.step(&key()).await;
    assert_eq!(cluster.sizes(), [size("web:1", 6, 3), size("web:broken", 4, 0)]);
}

#[tokio::test]
async fn history_is_kept_to_its_limit() {
    let cluster = Cluster::new(DEPLOYMENT);
    for image in ["web:1", "web:2", "web:3", "web:4"] {
        cluster.set_image(image);
        cluster.rest(&[image]).await;
    }
    assert_eq!(cluster.sizes(), [size("web:3", 0, 0), size("web:4", 4, 4)]);
}

#[tokio::test]
async fn recreate_waits_for_the_last_old_pod() {
    let yaml = DEPLOYMENT
        .replace("type: RollingUpdate, rollingUpdate: { maxSurge: 1, maxUnavailable: 1 }", "type: Recreate");
    let cluster = Cluster::new(&yaml);
    cluster.rest(&["web:1"]).await;
    // Pods on a node leave only when the kubelet lets them.
    for pod in cluster.pods() {
        let name = ObjectKey::new("ns", pod["metadata"]["name"].as_str().unwrap());
        cluster.deployments.api.patch(&kind::<Pod>(), &name, "", &json!({ "spec": { "nodeName": "n" } }));
    }
    cluster.set_image("web:2");
    cluster.rest(&["web:2"]).await;
    assert_eq!(cluster.sizes(), [size("web:1", 0, 0)], "no new ReplicaSet while old pods terminate");
    for pod in cluster.pods() {
        cluster
            .deployments
            .api
            .delete(&kind::<Pod>(), &ObjectKey::new("ns", pod["metadata"]["name"].as_str().unwrap()));
    }
    cluster.rest(&["web:2"]).await;
    assert_eq!(cluster.sizes(), [size("web:1", 0, 0), size("web:2", 4, 4)]);
}

/// Upstream's controller takes such a resize for one to be scaled in proportion, which Recreate has not.
#[tokio::test]
async fn a_recreation_goes_on_when_a_rollout_is_resized_into_it() {
    let cluster = Cluster::new(DEPLOYMENT);
    cluster.rest(&["web:1"]).await;
    cluster.set_image("web:2");
    cluster.rest(&["web:1"]).await;
    assert!(cluster.sizes().iter().filter(|(_, size, _)| *size > 0).count() > 1, "{:?}", cluster.sizes());
    cluster.edit(json!({ "strategy": { "type": "Recreate", "rollingUpdate": null }, "replicas": 2 }));
    cluster.set_image("web:3");
    cluster.rest(&["web:1", "web:2", "web:3"]).await;
    let active: Vec<_> = cluster.sizes().into_iter().filter(|(_, size, _)| *size > 0).collect();
    assert_eq!(active, [size("web:3", 2, 2)]);
}

#[tokio::test]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let cluster = Cluster::new(DEPLOYMENT);
    cluster.rest(&["web:1"]).await;
    cluster.edit(json!({ "paused": true, "replicas": 2 }));
    cluster.set_image("web:2");
    cluster.rest(&["web:1", "web:2"]).await;
    // With nothing new, upstream scales the latest ReplicaSet.
    assert_eq!(cluster.sizes(), [size("web:1", 2, 2)]);
    assert_eq!(cluster.progressing(), "DeploymentPaused");
    cluster.edit(json!({ "paused": null }));
    cluster.rest(&["web:1", "web:2"]).await;
    assert_eq!(cluster.sizes(), [size("web:1", 0, 0), size("web:2", 2, 2)]);
}

#[tokio::test]
async fn a_taken_name_leads_to_another_hash() {
    let cluster = Cluster::new(DEPLOYMENT);
    let deployment: Deployment =
        serde_json::from_value(cluster.deployments.api.get(&kind::<Deployment>(), &key()).unwrap()).unwrap();
    let taken = revision::new_set_name(&deployment);
    cluster.deployments.api.put(&json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": { "name": taken, "namespace": "ns" },
        "spec": { "replicas": 0, "selector": { "matchLabels": { "app": "other" } } },
    }));
    cluster.deployments.settle(&key()).await;
    assert_eq!(cluster.status()["collisionCount"], 1);
    assert_eq!(cluster.sets().len(), 2);
}

#[tokio::test]
async fn matching_orphans_are_adopted_and_strays_released() {
    let cluster = Cluster::new(DEPLOYMENT);
    cluster.rest(&["web:1"]).await;
    let name = cluster.sets()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let set = ObjectKey::new("ns", &name);
    cluster.deployments.api.patch(
        &kind::<ReplicaSet>(),
        &set,
        "",
        &json!({ "metadata": { "ownerReferences": null } }),
    );
    cluster.deployments.settle(&key()).await;
    let owner = |cluster: &Cluster| {
        cluster.deployments.api.get(&kind::<ReplicaSet>(), &set).unwrap()["metadata"]["ownerReferences"]
            .clone()
    };
    assert_eq!(owner(&cluster)[0]["uid"], "uid-web");
    cluster.deployments.api.patch(
        &kind::<ReplicaSet>(),
        &set,
        "",
        &json!({ "metadata": { "labels": { "app": "stray" } } }),
    );
    cluster.deployments.step(&key()).await;
    assert_eq!(owner(&cluster), json!([]));
}
