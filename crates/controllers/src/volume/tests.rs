use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use meta::ObjectKey;
use reconcile::{Kind, Reconciler, testkit::Bench};
use serde_json::{Value, json};

use super::*;

const FIXTURE: &str = r#"
apiVersion: v1
kind: Node
metadata: { name: n1, labels: { kubernetes.io/hostname: host-1 } }
status: { conditions: [ { type: Ready, status: "True" } ] }
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: { name: local }
provisioner: keelson.dev/local-path
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: { name: now }
provisioner: keelson.dev/local-path
volumeBindingMode: Immediate
reclaimPolicy: Delete
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: { name: manual }
provisioner: kubernetes.io/no-provisioner
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: data, namespace: ns, uid: uid-data }
spec: { storageClassName: local, accessModes: [ ReadWriteOnce ], resources: { requests: { storage: 1Gi } } }
"#;

/// All controllers of this folder at one API.
struct Cluster {
    binder: Bench<ClaimBinder>,
    reclaimer: Bench<VolumeBinder>,
    provisioner: Bench<LocalPathProvisioner>,
    claims: Bench<ClaimProtection>,
    volumes: Bench<VolumeProtection>,
}

impl Cluster {
    fn new() -> Self {
        let binder = Bench::new(ClaimBinder);
        binder.put_yaml(FIXTURE);
        Self {
            reclaimer: binder.beside(VolumeBinder),
            provisioner: binder.beside(LocalPathProvisioner { root: "/data/volumes/".to_owned() }),
            claims: binder.beside(ClaimProtection),
            volumes: binder.beside(VolumeProtection),
            binder,
        }
    }

    async fn rest(&self) {
        let mut before = 0;
        while before != self.binder.api.revision() {
            before = self.binder.api.revision();
            for key in keys(&self.binder.api.list(&Kind::of::<PersistentVolumeClaim>(), "")) {
                settle(&self.claims, &key).await;
                settle(&self.binder, &key).await;
                settle(&self.provisioner, &key).await;
            }
            for key in keys(&self.binder.api.list(&Kind::of::<PersistentVolume>(), "")) {
                settle(&self.volumes, &key).await;
                settle(&self.reclaimer, &key).await;
            }
        }
    }

    fn claim(&self, name: &str) -> Value {
        self.binder
            .api
            .get(&Kind::of::<PersistentVolumeClaim>(), &ObjectKey::new("ns", name))
            .unwrap_or_default()
    }

    fn volume(&self, name: &str) -> Value {
        self.binder.api.get(&Kind::of::<PersistentVolume>(), &ObjectKey::new("", name)).unwrap_or_default()
    }

    fn edit_claim(&self, name: &str, patch: Value) {
        self.binder.api.patch(&Kind::of::<PersistentVolumeClaim>(), &ObjectKey::new("ns", name), "", &patch);
    }

    fn select_node(&self, claim: &str, node: &str) {
        self.edit_claim(claim, json!({ "metadata": { "annotations": { SELECTED_NODE: node } } }));
    }

    fn delete_claim(&self, name: &str) {
        self.binder.api.delete(&Kind::of::<PersistentVolumeClaim>(), &ObjectKey::new("ns", name));
    }

    fn add_volume(&self, name: &str, size: &str, class: &str, more: Value) {
        let mut volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name },
            "spec": { "capacity": { "storage": size }, "accessModes": ["ReadWriteOnce"], "storageClassName": class, "hostPath": { "path": "/x" } },
        });
        for (field, value) in more.as_object().unwrap() {
            volume["spec"][field] = value.clone();
        }
        self.binder.api.put(&volume);
    }
}

/// Events that repeat a complaint are the recorder's to hold back; here only writes count.
async fn settle<R: Reconciler>(bench: &Bench<R>, key: &ObjectKey) {
    for _ in 0..20 {
        match bench.step(key).await {
            Some((_, acted)) if acted.writes > 0 => acted.result.unwrap(),
            Some(_) | None => return,
        }
    }
    panic!("{} {key} does not come to rest", R::NAME);
}

fn keys(objects: &[Value]) -> Vec<ObjectKey> {
    let part =
        |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    objects.iter().map(|object| ObjectKey::new(part(object, "namespace"), part(object, "name"))).collect()
}

const VOLUME: &str = "pvc-uid-data";

#[tokio::test]
async fn a_local_volume_from_first_consumer_to_cleanup() {
    let cluster = Cluster::new();
    cluster.rest().await;
    assert_eq!(cluster.claim("data")["status"]["phase"], "Pending");
    assert!(cluster.volume(VOLUME).is_null(), "nothing before the scheduler has chosen a node");

    cluster.select_node("data", "n1");
    cluster.rest().await;
    let mut volume = cluster.volume(VOLUME);
    for unstable in ["uid", "resourceVersion"] {
        volume["metadata"].as_object_mut().unwrap().remove(unstable);
    }
    insta::assert_yaml_snapshot!("bound_volume", volume, { ".spec.claimRef.resourceVersion" => "[version]" });
    insta::assert_yaml_snapshot!(
        "bound_claim",
        json!({ "spec": cluster.claim("data")["spec"], "status": cluster.claim("data")["status"], "annotations": cluster.claim("data")["metadata"]["annotations"] })
    );

    // In use: the claim stays, and so does its volume.
    cluster.binder.api.put(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "namespace": "ns" },
        "spec": { "nodeName": "n1", "containers": [], "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }] },
    }));
    cluster.delete_claim("data");
    cluster.rest().await;
    assert!(!cluster.claim("data").is_null());
    cluster.binder.api.delete(&Kind::of::<Pod>(), &ObjectKey::new("ns", "p"));
    cluster.rest().await;
    assert!(cluster.claim("data").is_null());
    // Released and deleted, but held for the node to remove the directory.
    let volume = cluster.volume(VOLUME);
    assert_eq!(
        (&volume["status"]["phase"], &volume["metadata"]["finalizers"]),
        (&json!("Released"), &json!([CLEANUP]))
    );
    assert!(volume["metadata"]["deletionTimestamp"].is_string());
    // The node goes: with it goes the data, and nothing holds the volume any longer.
    cluster.binder.api.delete(&Kind::of::<Node>(), &ObjectKey::new("", "n1"));
    cluster.rest().await;
    assert!(cluster.volume(VOLUME).is_null());
}

#[tokio::test]
async fn an_immediate_claim_takes_any_ready_node_and_an_impossible_one_says_why() {
    let cluster = Cluster::new();
    cluster.edit_claim("data", json!({ "spec": { "storageClassName": "now" } }));
    cluster.rest().await;
    assert_eq!(cluster.claim("data")["status"]["phase"], "Bound");

    let cluster = Cluster::new();
    cluster.edit_claim(
        "data",
        json!({ "spec": { "storageClassName": "now", "accessModes": ["ReadWriteMany"] } }),
    );
    cluster.rest().await;
    assert_eq!(cluster.claim("data")["status"]["phase"], "Pending");
    let events = cluster.binder.api.list(&Kind::new("events.k8s.io", "v1", "Event", "events"), "ns");
    let told = events.iter().any(|event| {
        event["note"].as_str().unwrap().contains("ReadWriteMany is not supported by local volumes")
    });
    assert!(told, "{events:?}");
}

#[tokio::test]
async fn a_selected_node_that_is_gone_is_chosen_anew() {
    let cluster = Cluster::new();
    cluster.select_node("data", "gone");
    cluster.rest().await;
    assert!(cluster.claim("data")["metadata"]["annotations"][SELECTED_NODE].is_null());
}

#[tokio::test]
async fn static_binding_takes_the_smallest_that_fits() {
    let cluster = Cluster::new();
    cluster.edit_claim(
        "data",
        json!({ "spec": { "storageClassName": "manual", "selector": { "matchLabels": null } } }),
    );
    cluster.add_volume("big", "10Gi", "manual", json!({}));
    cluster.add_volume("fits", "2Gi", "manual", json!({}));
    cluster.add_volume("small", "500Mi", "manual", json!({}));
    cluster.add_volume("other-class", "1Gi", "", json!({}));
    cluster.add_volume("shared", "1Gi", "manual", json!({ "accessModes": ["ReadOnlyMany"] }));
    cluster.add_volume(
        "taken",
        "1Gi",
        "manual",
        json!({ "claimRef": { "namespace": "ns", "name": "another" } }),
    );
    cluster.rest().await;
    assert_eq!(cluster.claim("data")["spec"]["volumeName"], "fits");
    assert_eq!(cluster.claim("data")["status"]["capacity"]["storage"], "2Gi");
    assert_eq!(cluster.volume("fits")["status"]["phase"], "Bound");
    assert_eq!(cluster.volume("big")["status"]["phase"], "Available");
    cluster.delete_claim("data");
    cluster.rest().await;
    assert_eq!(cluster.volume("fits")["status"]["phase"], "Released", "Retain keeps it");
    assert_eq!(cluster.volume("fits")["spec"]["claimRef"]["name"], "data");
}

#[tokio::test]
async fn prebound_volumes_and_named_ones() {
    let cluster = Cluster::new();
    cluster.add_volume("meant", "5Gi", "local", json!({ "claimRef": { "namespace": "ns", "name": "data" } }));
    cluster.rest().await;
    assert_eq!(cluster.claim("data")["spec"]["volumeName"], "meant", "even before a consumer");

    let cluster = Cluster::new();
    cluster.edit_claim("data", json!({ "spec": { "volumeName": "named", "storageClassName": "manual" } }));
    cluster.rest().await;
    assert_eq!(cluster.claim("data")["status"]["phase"], "Pending");
    cluster.add_volume("named", "1Gi", "manual", json!({}));
    cluster.rest().await;
    assert_eq!(cluster.claim("data")["status"]["phase"], "Bound");
    cluster.binder.api.patch(
        &Kind::of::<PersistentVolume>(),
        &ObjectKey::new("", "named"),
        "",
        &json!({ "metadata": { "finalizers": null } }),
    );
    cluster.binder.api.delete(&Kind::of::<PersistentVolume>(), &ObjectKey::new("", "named"));
    cluster.rest().await;
    assert_eq!(cluster.claim("data")["status"]["phase"], "Lost");
}
