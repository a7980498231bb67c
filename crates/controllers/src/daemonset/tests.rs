use reconcile::{Kind, testkit::Bench};
use serde_json::{Value, json};

use super::*;

const SET: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: agent, namespace: ns, uid: uid-agent }
spec:
  selector: { matchLabels: { app: agent } }
  revisionHistoryLimit: 1
  updateStrategy: { type: RollingUpdate, rollingUpdate: { maxSurge: 0, maxUnavailable: 1 } }
  template:
    metadata: { labels: { app: agent } }
    spec: { containers: [ { name: c, image: "agent:1" } ] }
"#;

fn key() -> ObjectKey {
    ObjectKey::new("ns", "agent")
}

fn bench(edit: Value) -> Bench<DaemonSets> {
    let bench = Bench::new(DaemonSets::default());
    bench.put_yaml(SET);
    bench.edit(edit);
    for name in ["n1", "n2", "n3"] {
        bench.api.put(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } }));
    }
    bench
}

trait Cluster {
    fn edit(&self, spec: Value);
    fn set_image(&self, image: &str);
    fn pods(&self) -> Vec<(String, String)>;
    fn make_ready(&self, image: &str, count: usize);
    fn status(&self) -> Value;
    async fn rest_and_ready(&self, image: &str);
}

fn place_of(pod: &Value) -> (String, String) {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    let image = pod.spec().containers[0].image.clone().unwrap();
    (placement::node_of(&pod).unwrap().to_owned(), image)
}

impl Cluster for Bench<DaemonSets> {
    fn edit(&self, spec: Value) {
        self.api.patch(&Kind::of::<DaemonSet>(), &key(), "", &json!({ "spec": spec }));
    }
    fn set_image(&self, image: &str) {
        self.edit(json!({ "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } }));
    }
    fn pods(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self.api.list(&Kind::of::<Pod>(), "ns").iter().map(place_of).collect();
        all.sort();
        all
    }
    fn make_ready(&self, image: &str, count: usize) {
        let pods = self.api.list(&Kind::of::<Pod>(), "ns");
        let waiting = pods.iter().filter(|pod| pod["status"].is_null() && place_of(pod).1 == image);
        for pod in waiting.take(count) {
            let name = ObjectKey::new("ns", pod["metadata"]["name"].as_str().unwrap());
            let status = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
            self.api.patch(&Kind::of::<Pod>(), &name, "status", &json!({ "status": status }));
        }
    }
    fn status(&self) -> Value {
        self.api.get(&Kind::of::<DaemonSet>(), &key()).unwrap()["status"].clone()
    }
    async fn rest_and_ready(&self, image: &str) {
        let mut before = 0;
        while before != self.api.revision() {
            before = self.api.revision();
            self.settle(&key()).await;
            self.make_ready(image, 1);
        }
    }
}

fn on(nodes: &[&str], image: &str) -> Vec<(String, String)> {
    nodes.iter().map(|node| ((*node).to_owned(), image.to_owned())).collect()
}

#[tokio::test]
async fn the_first_plan_makes_a_revision_and_a_pod_for_each_node() {
    insta::assert_yaml_snapshot!(bench(json!({})).plan(&key()).await.unwrap());
}

#[tokio::test]
async fn pods_follow_the_nodes() {
    let set = bench(json!({}));
    set.rest_and_ready("agent:1").await;
    assert_eq!(set.pods(), on(&["n1", "n2", "n3"], "agent:1"));
    insta::assert_yaml_snapshot!("status_when_complete", set.status());
    let nodes = Kind::of::<Node>();
    let taint = json!({ "spec": { "taints": [{ "key": "own", "effect": "NoExecute" }] } });
    set.api.patch(&nodes, &ObjectKey::new("", "n2"), "", &taint);
    set.api.put(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n4" } }));
    set.rest_and_ready("agent:1").await;
    assert_eq!(set.pods(), on(&["n1", "n3", "n4"], "agent:1"));
    set.api.delete(&nodes, &ObjectKey::new("", "n4"));
    set.settle(&key()).await;
    assert_eq!(set.pods(), on(&["n1", "n3"], "agent:1"), "a pod that waits for a lost node goes");
}

#[tokio::test]
async fn an_update_replaces_pods_one_by_one() {
    let set = bench(json!({}));
    set.rest_and_ready("agent:1").await;
    set.set_image("agent:2");
    let mut before = 0;
    while before != set.api.revision() {
        before = set.api.revision();
        set.settle(&key()).await;
        assert!(set.status()["numberUnavailable"].as_i64().unwrap_or(0) <= 1);
        set.make_ready("agent:2", 1);
    }
    assert_eq!(set.pods(), on(&["n1", "n2", "n3"], "agent:2"));
    for image in ["agent:3", "agent:1"] {
        set.set_image(image);
        set.rest_and_ready(image).await;
    }
    let history = set.api.list(&Kind::of::<ControllerRevision>(), "ns");
    assert_eq!(history.len(), 2, "the present one and one before it");
}

#[tokio::test]
async fn a_stuck_update_stops_at_the_first_node() {
    let set = bench(json!({}));
    set.rest_and_ready("agent:1").await;
    set.set_image("agent:broken");
    set.rest_and_ready("agent:1").await;
    assert_eq!(set.pods().iter().filter(|(_, image)| image == "agent:1").count(), 2);
}

#[tokio::test]
async fn surge_makes_the_new_pod_before_the_old_one_goes() {
    let set = bench(json!({ "updateStrategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } } }));
    set.rest_and_ready("agent:1").await;
    set.set_image("agent:2");
    set.settle(&key()).await;
    assert_eq!(set.pods().len(), 4);
    set.rest_and_ready("agent:2").await;
    assert_eq!(set.pods(), on(&["n1", "n2", "n3"], "agent:2"));
}

#[tokio::test]
async fn on_delete_waits_for_the_user() {
    let set = bench(json!({ "updateStrategy": { "type": "OnDelete" } }));
    set.rest_and_ready("agent:1").await;
    set.set_image("agent:2");
    set.rest_and_ready("agent:2").await;
    assert_eq!(set.pods(), on(&["n1", "n2", "n3"], "agent:1"));
    assert!(set.status()["updatedNumberScheduled"].is_null());
}

#[tokio::test]
async fn a_pod_that_fails_again_is_replaced_later() {
    let set = bench(json!({}));
    set.rest_and_ready("agent:1").await;
    let fail = || {
        let pods = set.api.list(&Kind::of::<Pod>(), "ns");
        let pod = pods.iter().find(|pod| place_of(pod).0 == "n1").unwrap();
        let name = ObjectKey::new("ns", pod["metadata"]["name"].as_str().unwrap());
        set.api.patch(&Kind::of::<Pod>(), &name, "status", &json!({ "status": { "phase": "Failed" } }));
    };
    fail();
    set.settle(&key()).await;
    fail();
    let plan = set.plan(&key()).await.unwrap();
    assert_eq!((plan.delete.len(), plan.recheck_after.unwrap().as_secs()), (0, 1));
    set.advance(1);
    assert_eq!(set.plan(&key()).await.unwrap().delete.len(), 1);
}
