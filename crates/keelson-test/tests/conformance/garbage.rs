//! Garbage collection, the end of namespaces, and what each of them begins with.

use serde_json::{Value, json};

use crate::kit::{Kit, controller, name, owners, pod, workload};

fn policy(policy: &str) -> Value {
    json!({ "propagationPolicy": policy })
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_goes_with_its_deployment() {
    let kit = Kit::nodes(1).await;
    kit.ready("deployments", workload("web", 2)).await;
    kit.delete_with("deployments/web", policy("Background")).await;
    kit.gone("deployments/web").await;
    kit.until_list("replicasets", "collected", <[Value]>::is_empty).await;
    kit.until_list("pods", "collected", <[Value]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn pods_go_with_their_controller() {
    let kit = Kit::nodes(1).await;
    kit.ready("replicationcontrollers", controller("web", 10)).await;
    kit.delete_with("replicationcontrollers/web", policy("Background")).await;
    kit.until_list("pods", "collected", <[Value]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_deleted_in_the_foreground_outlives_its_pods() {
    let kit = Kit::nodes(1).await;
    let mut owner = controller("web", 3);
    owner["spec"]["template"]["metadata"]["annotations"] =
        json!({ "simulated.keelson.dev/stop-delay": "20s" });
    kit.ready("replicationcontrollers", owner).await;
    kit.delete_with("replicationcontrollers/web", policy("Foreground")).await;
    let mut seen = 0;
    loop {
        // The owner first: whatever is gone when it is read is gone afterwards.
        let owner = kit.find("replicationcontrollers/web").await;
        let pods = kit.list("pods").await.len();
        let Some(owner) = owner else {
            assert_eq!(pods, 0, "the owner went first");
            break;
        };
        assert_eq!(owner["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        seen += usize::from(pods > 0);
        kit.seconds(1).await;
    }
    assert!(seen > 5, "pods were seen on their way out {seen} times");
}

#[tokio::test(start_paused = true)]
async fn a_circle_of_owners_is_no_obstacle() {
    let kit = Kit::nodes(1).await;
    let mut uids = Vec::new();
    for name in ["a", "b", "c"] {
        uids.push(kit.create("pods", pod(name)).await["metadata"]["uid"].clone());
    }
    for (at, owner, name) in [("a", 2, "c"), ("b", 0, "a"), ("c", 1, "b")] {
        let uid: &Value = &uids[owner];
        let owner = json!({
            "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid,
            "controller": true, "blockOwnerDeletion": true,
        });
        kit.merge(&format!("pods/{at}"), json!({ "metadata": { "ownerReferences": [owner] } })).await;
    }
    kit.delete_with("pods/a", policy("Foreground")).await;
    kit.until_list("pods", "the circle is gone", <[Value]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn a_dependent_stays_for_its_other_owner() {
    let kit = Kit::nodes(1).await;
    kit.ready("replicationcontrollers", controller("goes", 10)).await;
    let stays = kit.ready("replicationcontrollers", controller("stays", 0).clone()).await;
    let second = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "name": "stays", "uid": stays["metadata"]["uid"],
    });
    let pods = kit.list("pods").await;
    for pod in &pods[..5] {
        let mut owners = pod["metadata"]["ownerReferences"].as_array().unwrap().clone();
        owners.push(second.clone());
        let at = format!("pods/{}", name(pod));
        kit.merge(&at, json!({ "metadata": { "ownerReferences": owners } })).await;
    }
    kit.delete_with("replicationcontrollers/goes", policy("Foreground")).await;
    kit.gone("replicationcontrollers/goes").await;
    let left = kit.until_list("pods", "those of one owner are gone", |pods| pods.len() == 5).await;
    kit.cluster.settle().await.unwrap();
    assert_eq!(kit.list("pods").await.len(), 5);
    assert!(left.iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_null()));
    for pod in kit.list("pods").await {
        assert_eq!(owners(&pod), ["stays"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_replica_set_stays() {
    let kit = Kit::nodes(1).await;
    kit.ready("deployments", workload("web", 2)).await;
    kit.delete_with("deployments/web", policy("Orphan")).await;
    kit.gone("deployments/web").await;
    kit.seconds(30).await;
    let sets = kit.list("replicasets").await;
    assert_eq!(sets.len(), 1);
    assert_eq!(owners(&sets[0]), Vec::<String>::new());
    assert_eq!(kit.list("pods").await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn orphaned_pods_stay() {
    let kit = Kit::nodes(1).await;
    kit.ready("replicationcontrollers", controller("web", 10)).await;
    kit.delete_with("replicationcontrollers/web", policy("Orphan")).await;
    kit.gone("replicationcontrollers/web").await;
    kit.seconds(30).await;
    let pods = kit.list("pods").await;
    assert_eq!(pods.len(), 10);
    assert!(pods.iter().all(|pod| owners(pod).is_empty()));
}

async fn ends_with_its_namespace(plural: &str, object: Value) {
    let kit = Kit::nodes(1).await;
    let team = json!({ "metadata": { "name": "team" } });
    kit.create("namespaces", team.clone()).await;
    kit.until("team:serviceaccounts/default", "the account that pods run as", |_| true).await;
    kit.create(&format!("team:{plural}"), object).await;
    kit.delete("namespaces/team").await;
    kit.gone("namespaces/team").await;
    kit.create("namespaces", team).await;
    assert_eq!(kit.list(&format!("team:{plural}")).await, Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn pods_go_with_their_namespace() {
    ends_with_its_namespace("pods", pod("web")).await;
}

#[tokio::test(start_paused = true)]
async fn services_go_with_their_namespace() {
    let service = json!({ "metadata": { "name": "web" }, "spec": { "selector": { "a": "b" }, "ports": [{ "port": 80 }] } });
    ends_with_its_namespace("services", service).await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_namespace_go_before_all_else() {
    let kit = Kit::nodes(1).await;
    kit.create("namespaces", json!({ "metadata": { "name": "team" } })).await;
    kit.until("team:serviceaccounts/default", "the account that pods run as", |_| true).await;
    let mut held = pod("held");
    held["metadata"]["finalizers"] = json!(["example.dev/held"]);
    kit.create("team:pods", held).await;
    kit.create("team:configmaps", json!({ "metadata": { "name": "settings" } })).await;
    kit.delete("namespaces/team").await;
    let at = "team:pods/held";
    kit.until(at, "is told to go", |pod| !pod["metadata"]["deletionTimestamp"].is_null()).await;
    kit.seconds(120).await;
    let map = kit.get("team:configmaps/settings").await;
    assert!(map["metadata"]["deletionTimestamp"].is_null(), "while there is a pod, it stays");
    let namespace = kit.get("namespaces/team").await;
    let remaining = crate::kit::condition(&namespace, "NamespaceContentRemaining");
    assert_eq!(remaining["status"], "True", "{namespace}");
    kit.merge(at, json!({ "metadata": { "finalizers": null } })).await;
    kit.gone("namespaces/team").await;
}

#[tokio::test(start_paused = true)]
async fn the_root_certificate_is_made_again_and_put_right() {
    let kit = Kit::nodes(1).await;
    let at = "configmaps/kube-root-ca.crt";
    let published = kit.until(at, "is published", |map| map["data"]["ca.crt"].is_string()).await;
    kit.delete(at).await;
    kit.until(at, "is made again", |map| map["metadata"]["uid"] != published["metadata"]["uid"]).await;
    kit.update(at, |map| map["data"] = json!({ "ca.crt": "forged" })).await;
    kit.until(at, "is put right", |map| map["data"] == published["data"]).await;
}
