use reconcile::{Kind, testkit::Bench};
use serde_json::{Value, json};

use super::*;

const SET: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db, namespace: ns, uid: uid-db }
spec:
  replicas: 3
  serviceName: db-headless
  selector: { matchLabels: { app: db } }
  updateStrategy: { type: RollingUpdate, rollingUpdate: { partition: 0 } }
  template:
    metadata: { labels: { app: db } }
    spec:
      containers: [ { name: c, image: "db:1" } ]
      volumes: [ { name: data, emptyDir: {} }, { name: tmp, emptyDir: {} } ]
  volumeClaimTemplates:
    - metadata: { name: data }
      spec: { accessModes: [ ReadWriteOnce ], resources: { requests: { storage: 1Gi } } }
"#;

fn key() -> ObjectKey {
    ObjectKey::new("ns", "db")
}

fn bench(edit: Value) -> Bench<StatefulSets> {
    let bench = Bench::new(StatefulSets);
    bench.put_yaml(SET);
    bench.api.patch(&Kind::of::<StatefulSet>(), &key(), "", &json!({ "spec": edit }));
    bench
}

trait Cluster {
    fn edit(&self, spec: Value);
    fn pods(&self) -> Vec<Value>;
    fn names(&self) -> Vec<String>;
    fn images(&self) -> Vec<String>;
    fn claims(&self) -> Vec<String>;
    fn set_pod(&self, name: &str, phase: &str, ready: bool);
    fn remove_pod(&self, name: &str);
    fn status(&self) -> Value;
    async fn rest_and_ready(&self);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

impl Cluster for Bench<StatefulSets> {
    fn edit(&self, spec: Value) {
        self.api.patch(&Kind::of::<StatefulSet>(), &key(), "", &json!({ "spec": spec }));
    }
    fn pods(&self) -> Vec<Value> {
        self.api.list(&Kind::of::<Pod>(), "ns")
    }
    fn names(&self) -> Vec<String> {
        self.pods().iter().map(|pod| text(&pod["metadata"]["name"])).collect()
    }
    fn images(&self) -> Vec<String> {
        self.pods().iter().map(|pod| text(&pod["spec"]["containers"][0]["image"])).collect()
    }
    fn claims(&self) -> Vec<String> {
        let claims = self.api.list(&Kind::of::<PersistentVolumeClaim>(), "ns");
        let owner = |claim: &Value| {
            claim["metadata"]["ownerReferences"][0]["kind"].as_str().unwrap_or("-").to_owned()
        };
        claims.iter().map(|claim| format!("{} {}", text(&claim["metadata"]["name"]), owner(claim))).collect()
    }
    fn set_pod(&self, name: &str, phase: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let status = json!({ "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] });
        self.api.patch(
            &Kind::of::<Pod>(),
            &ObjectKey::new("ns", name),
            "status",
            &json!({ "status": status }),
        );
    }
    fn remove_pod(&self, name: &str) {
        self.api.delete(&Kind::of::<Pod>(), &ObjectKey::new("ns", name));
    }
    fn status(&self) -> Value {
        self.api.get(&Kind::of::<StatefulSet>(), &key()).unwrap()["status"].clone()
    }
    async fn rest_and_ready(&self) {
        let mut before = 0;
        while before != self.api.revision() {
            before = self.api.revision();
            self.settle(&key()).await;
            for name in self.names() {
                self.set_pod(&name, "Running", true);
            }
        }
    }
}

#[tokio::test]
async fn the_first_plan_makes_revision_claim_and_pod() {
    insta::assert_yaml_snapshot!(bench(json!({})).plan(&key()).await.unwrap());
}

#[tokio::test]
async fn pods_come_one_by_one_each_waiting_for_the_one_before() {
    let set = bench(json!({}));
    set.settle(&key()).await;
    assert_eq!(set.names(), ["db-0"]);
    set.set_pod("db-0", "Running", false);
    set.settle(&key()).await;
    assert_eq!(set.names(), ["db-0"]);
    set.set_pod("db-0", "Running", true);
    set.settle(&key()).await;
    assert_eq!(set.names(), ["db-0", "db-1"]);
    set.rest_and_ready().await;
    assert_eq!(set.names(), ["db-0", "db-1", "db-2"]);
    insta::assert_yaml_snapshot!("status_when_complete", set.status());
}

#[tokio::test]
async fn parallel_pods_come_at_once() {
    let set = bench(json!({ "podManagementPolicy": "Parallel", "ordinals": { "start": 5 } }));
    set.settle(&key()).await;
    assert_eq!(set.names(), ["db-5", "db-6", "db-7"]);
}

#[tokio::test]
async fn min_ready_seconds_delay_the_successor() {
    let set = bench(json!({ "minReadySeconds": 30 }));
    set.settle(&key()).await;
    let ready = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }] } });
    set.api.patch(&Kind::of::<Pod>(), &ObjectKey::new("ns", "db-0"), "status", &ready);
    set.advance(10);
    set.settle(&key()).await;
    let plan = set.plan(&key()).await.unwrap();
    assert_eq!((set.names().len(), plan.recheck_after), (1, Some(std::time::Duration::from_secs(20))));
    set.advance(20);
    set.settle(&key()).await;
    assert_eq!(set.names(), ["db-0", "db-1"]);
}

#[tokio::test]
async fn an_update_goes_from_the_top_and_stops_at_the_partition() {
    let set = bench(json!({ "updateStrategy": { "rollingUpdate": { "partition": 1 } } }));
    set.rest_and_ready().await;
    set.edit(json!({ "template": { "spec": { "containers": [{ "name": "c", "image": "db:2" }] } } }));
    set.step(&key()).await;
    assert_eq!(set.names(), ["db-0", "db-1"], "the highest goes first");
    set.settle(&key()).await;
    assert_eq!(set.images(), ["db:1", "db:1", "db:2"], "and the next waits for it");
    set.rest_and_ready().await;
    assert_eq!(set.images(), ["db:1", "db:2", "db:2"]);
    let status = set.status();
    assert_ne!(status["currentRevision"], status["updateRevision"]);
    // A pod below the partition comes back as it was.
    set.remove_pod("db-0");
    set.rest_and_ready().await;
    assert_eq!(set.images(), ["db:1", "db:2", "db:2"]);
    set.edit(json!({ "updateStrategy": { "rollingUpdate": { "partition": 0 } } }));
    set.rest_and_ready().await;
    assert_eq!(set.images(), ["db:2", "db:2", "db:2"]);
    let status = set.status();
    assert_eq!(status["currentRevision"], status["updateRevision"]);

    // Back to the first template: its revision is used again and becomes the newest.
    set.edit(json!({ "template": { "spec": { "containers": [{ "name": "c", "image": "db:1" }] } } }));
    set.rest_and_ready().await;
    let history = set.api.list(&Kind::of::<ControllerRevision>(), "ns");
    let mut numbers: Vec<i64> =
        history.iter().map(|revision| revision["revision"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
}

#[tokio::test]
async fn on_delete_waits_for_the_user() {
    let set = bench(json!({ "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } }));
    set.rest_and_ready().await;
    set.edit(json!({ "template": { "spec": { "containers": [{ "name": "c", "image": "db:2" }] } } }));
    set.rest_and_ready().await;
    assert_eq!(set.images(), ["db:1", "db:1", "db:1"]);
    set.remove_pod("db-1");
    set.rest_and_ready().await;
    assert_eq!(set.images(), ["db:1", "db:2", "db:1"]);
}

#[tokio::test]
async fn scaling_down_takes_the_highest_and_keeps_its_claim() {
    let set = bench(json!({}));
    set.rest_and_ready().await;
    set.edit(json!({ "replicas": 1 }));
    set.step(&key()).await;
    assert_eq!(set.names(), ["db-0", "db-1"], "one at a time");
    set.settle(&key()).await;
    assert_eq!(set.names(), ["db-0"]);
    assert_eq!(set.claims(), ["data-db-0 -", "data-db-1 -", "data-db-2 -"]);
}

#[tokio::test]
async fn claims_are_owned_as_the_retention_policy_says() {
    let set = bench(
        json!({ "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Delete", "whenScaled": "Delete" } }),
    );
    set.rest_and_ready().await;
    assert_eq!(set.claims(), ["data-db-0 StatefulSet", "data-db-1 StatefulSet", "data-db-2 StatefulSet"]);
    for name in set.names() {
        set.api.patch(
            &Kind::of::<Pod>(),
            &ObjectKey::new("ns", name),
            "",
            &json!({ "spec": { "nodeName": "n" } }),
        );
    }
    set.edit(json!({ "replicas": 2 }));
    set.settle(&key()).await;
    assert_eq!(set.claims(), ["data-db-0 StatefulSet", "data-db-1 StatefulSet", "data-db-2 Pod"]);
    set.edit(json!({ "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain", "whenScaled": "Retain" } }));
    set.settle(&key()).await;
    assert_eq!(set.claims(), ["data-db-0 -", "data-db-1 -", "data-db-2 -"]);
}

#[tokio::test]
async fn a_failed_pod_is_replaced_and_a_stale_claim_waited_for() {
    let set = bench(json!({ "replicas": 1 }));
    set.rest_and_ready().await;
    let uid = |set: &Bench<StatefulSets>| text(&set.pods()[0]["metadata"]["uid"]);
    let before = uid(&set);
    set.set_pod("db-0", "Failed", false);
    set.settle(&key()).await;
    assert_ne!(uid(&set), before);

    let claim = ObjectKey::new("ns", "data-db-0");
    let claims = Kind::of::<PersistentVolumeClaim>();
    set.api.patch(
        &claims,
        &claim,
        "",
        &json!({ "metadata": { "finalizers": ["kubernetes.io/pvc-protection"] } }),
    );
    set.api.delete(&claims, &claim);
    set.remove_pod("db-0");
    set.settle(&key()).await;
    assert!(set.names().is_empty(), "no pod on a claim that is going away");
    set.api.patch(&claims, &claim, "", &json!({ "metadata": { "finalizers": null } }));
    set.settle(&key()).await;
    assert_eq!((set.names(), set.claims()), (vec!["db-0".to_owned()], vec!["data-db-0 -".to_owned()]));
}
