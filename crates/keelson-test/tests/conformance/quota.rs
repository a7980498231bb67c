//! ResourceQuotas: what is counted, when it is given back, and what is refused.

use serde_json::{Value, json};

use crate::kit::{Kit, collection, controller, pod, status, template, workload};

fn quota(hard: Value) -> Value {
    json!({ "metadata": { "name": "q", "labels": {} }, "spec": { "hard": hard } })
}

async fn uses(kit: &Kit, of: &str, amount: &str) {
    let at = "resourcequotas/q";
    kit.until(at, &format!("{of} is {amount}"), |quota| quota["status"]["used"][of] == amount).await;
}

/// One object of a kind is counted as `of`, a second refused, and the first given back.
async fn counts(of: &str, plural: &str, object: Value) {
    let kit = Kit::nodes(1).await;
    let before = kit.list(plural).await.len();
    let hard = (before + 1).to_string();
    kit.create("resourcequotas", quota(json!({ of: hard }))).await;
    uses(&kit, of, &before.to_string()).await;
    kit.create(plural, object.clone()).await;
    uses(&kit, of, &hard).await;
    let mut second = object.clone();
    second["metadata"]["name"] = json!("second");
    let refused = kit.try_create(plural, &second).await.unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.contains(&format!("exceeded quota: q, requested: {of}=1")), "{refused:?}");
    kit.delete(&format!("{plural}/{}", object["metadata"]["name"].as_str().unwrap())).await;
    uses(&kit, of, &before.to_string()).await;
    kit.create(plural, second).await;
}

#[tokio::test(start_paused = true)]
async fn status_is_counted_promptly() {
    let kit = Kit::nodes(1).await;
    kit.create("resourcequotas", quota(json!({ "pods": "5", "services": "10", "secrets": "10" }))).await;
    kit.seconds(5).await;
    let status = kit.get("resourcequotas/q").await["status"].clone();
    assert_eq!(status["hard"], json!({ "pods": "5", "services": "10", "secrets": "10" }));
    assert_eq!((&status["used"]["pods"], &status["used"]["secrets"]), (&json!("0"), &json!("0")));
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_changed_and_deleted() {
    let kit = Kit::nodes(1).await;
    kit.create("resourcequotas", quota(json!({ "cpu": "1", "memory": "500Mi" }))).await;
    kit.update("resourcequotas/q", |quota| quota["spec"]["hard"] = json!({ "cpu": "2", "memory": "1Gi" }))
        .await;
    let changed = |quota: &Value| quota["status"]["hard"] == json!({ "cpu": "2", "memory": "1Gi" });
    kit.until("resourcequotas/q", "the change is in its status", changed).await;
    kit.delete("resourcequotas/q").await;
    kit.gone("resourcequotas/q").await;
}

#[tokio::test(start_paused = true)]
async fn config_maps_are_counted() {
    counts("configmaps", "configmaps", json!({ "metadata": { "name": "first" } })).await;
}

#[tokio::test(start_paused = true)]
async fn secrets_are_counted() {
    counts("secrets", "secrets", json!({ "metadata": { "name": "first" } })).await;
}

#[tokio::test(start_paused = true)]
async fn replica_sets_are_counted() {
    counts("count/replicasets.apps", "replicasets", workload("first", 0)).await;
}

#[tokio::test(start_paused = true)]
async fn replication_controllers_are_counted() {
    counts("replicationcontrollers", "replicationcontrollers", controller("first", 0)).await;
}

#[tokio::test(start_paused = true)]
async fn services_are_counted_by_type() {
    let kit = Kit::nodes(1).await;
    let hard = json!({ "services": "3", "services.nodeports": "1", "services.loadbalancers": "1" });
    kit.create("resourcequotas", quota(hard)).await;
    uses(&kit, "services.nodeports", "0").await;
    let service = |name: &str, kind: &str| {
        let ports = json!([{ "port": 80 }]);
        json!({ "metadata": { "name": name }, "spec": { "type": kind, "ports": ports } })
    };
    kit.create("services", service("inside", "ClusterIP")).await;
    kit.create("services", service("outside", "NodePort")).await;
    uses(&kit, "services.nodeports", "1").await;
    let refused = kit.try_create("services", &service("balanced", "LoadBalancer")).await.unwrap_err();
    assert!(refused.message.contains("requested: services.nodeports=1"), "{refused:?}");
    kit.delete("services/inside").await;
    kit.delete("services/outside").await;
    uses(&kit, "services.nodeports", "0").await;
    kit.create("services", service("balanced", "LoadBalancer")).await;
    uses(&kit, "services.loadbalancers", "1").await;
}

fn asking(name: &str, cpu: &str, memory: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({
        "requests": { "cpu": cpu, "memory": memory, "example.com/dongle": "2" },
        "limits": { "cpu": cpu, "memory": memory, "example.com/dongle": "2" },
    });
    pod
}

#[tokio::test(start_paused = true)]
async fn pods_are_counted_with_what_they_ask_for() {
    let kit = Kit::nodes(1).await;
    let hard = json!({ "pods": "5", "cpu": "1", "memory": "500Mi", "requests.example.com/dongle": "3" });
    kit.create("resourcequotas", quota(hard)).await;
    uses(&kit, "pods", "0").await;
    kit.create("pods", asking("first", "500m", "252Mi")).await;
    uses(&kit, "cpu", "500m").await;
    uses(&kit, "memory", "252Mi").await;
    uses(&kit, "requests.example.com/dongle", "2").await;
    let much = kit.try_create("pods", &asking("much", "600m", "100Mi")).await.unwrap_err();
    assert!(much.message.contains("cpu=600m"), "{much:?}");
    let dongles = kit.try_create("pods", &asking("dongles", "100m", "100Mi")).await.unwrap_err();
    assert!(dongles.message.contains("requests.example.com/dongle"), "{dongles:?}");
    let grown = json!({ "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "100m" } } }] } });
    let grown = kit.ask("PATCH", "pods/first", "application/strategic-merge-patch+json", &grown).await;
    assert_eq!(grown.unwrap_err().code, 422, "what a pod asks for is not changed");
    kit.delete("pods/first").await;
    uses(&kit, "pods", "0").await;
    uses(&kit, "cpu", "0").await;
}

#[tokio::test(start_paused = true)]
async fn quotas_are_listed_patched_and_deleted_together() {
    let kit = Kit::nodes(1).await;
    collection(&kit, "resourcequotas", &quota(json!({ "pods": "1" }))).await;
}

#[tokio::test(start_paused = true)]
async fn a_quotas_status_is_changed_and_then_counted_again() {
    let kit = Kit::nodes(1).await;
    kit.create("resourcequotas", quota(json!({ "pods": "5", "services": "10" }))).await;
    uses(&kit, "pods", "0").await;
    let hard = json!({ "hard": { "pods": "50", "services": "100" } });
    status(&kit, "resourcequotas/q", hard.clone(), hard).await;
    let right = |quota: &Value| quota["status"]["hard"] == json!({ "pods": "5", "services": "10" });
    kit.until("resourcequotas/q", "its status is put right", right).await;
}

fn scoped(name: &str, scope: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "hard": { "pods": "5" }, "scopes": [scope] } })
}

/// Which of two quotas with opposite scopes counts a pod.
async fn falls_to(kit: &Kit, pod: Value, counted: &str, other: &str) {
    let at = format!("pods/{}", pod["metadata"]["name"].as_str().unwrap());
    kit.create("pods", pod).await;
    let used = |amount: &'static str| move |quota: &Value| quota["status"]["used"]["pods"] == amount;
    kit.until(&format!("resourcequotas/{counted}"), "counts it", used("1")).await;
    kit.seconds(15).await;
    assert!(used("0")(&kit.get(&format!("resourcequotas/{other}")).await), "{other} counts it too");
    kit.delete(&at).await;
    kit.until(&format!("resourcequotas/{counted}"), "gives it back", used("0")).await;
}

#[tokio::test(start_paused = true)]
async fn scopes_tell_best_effort_from_the_rest() {
    let kit = Kit::nodes(1).await;
    kit.create("resourcequotas", scoped("best", "BestEffort")).await;
    kit.create("resourcequotas", scoped("rest", "NotBestEffort")).await;
    falls_to(&kit, pod("cheap"), "best", "rest").await;
    let mut dear = asking("dear", "1", "1Gi");
    dear["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "1" } });
    falls_to(&kit, dear, "rest", "best").await;
}

#[tokio::test(start_paused = true)]
async fn scopes_tell_terminating_from_the_rest() {
    let kit = Kit::nodes(1).await;
    kit.create("resourcequotas", scoped("ending", "Terminating")).await;
    kit.create("resourcequotas", scoped("lasting", "NotTerminating")).await;
    falls_to(&kit, pod("service"), "lasting", "ending").await;
    let mut ends = json!({ "metadata": { "name": "ends" }, "spec": template("ends")["spec"] });
    ends["spec"]["activeDeadlineSeconds"] = json!(3600);
    falls_to(&kit, ends, "ending", "lasting").await;
}
