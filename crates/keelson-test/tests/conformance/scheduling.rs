//! Where pods go, and who has to give way.

use keelson_test::Machine;
use serde_json::{Value, json};

use crate::kit::{Kit, condition, is_ready, names, pod, workload};

fn asking(name: &str, resource: &str, amount: &str) -> Value {
    let mut pod = pod(name);
    let amounts = json!({ resource: amount });
    pod["spec"]["containers"][0]["resources"] = json!({ "requests": amounts, "limits": amounts });
    pod
}

/// Waits until the scheduler has said that a pod fits nowhere; its words.
async fn unschedulable(kit: &Kit, at: &str) -> String {
    let refused = |pod: &Value| condition(pod, "PodScheduled")["reason"] == "Unschedulable";
    let pod = kit.until(at, "is refused", refused).await;
    assert!(pod["spec"]["nodeName"].is_null());
    condition(&pod, "PodScheduled")["message"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_full_node_takes_no_more() {
    let kit = Kit::machine(Machine { cpus: 4, ..Machine::new("node-0".to_owned(), 0) }).await;
    for name in ["a", "b"] {
        kit.create("pods", asking(name, "cpu", "1800m")).await;
        kit.until(&format!("pods/{name}"), "is ready", is_ready).await;
    }
    kit.create("pods", asking("c", "cpu", "1")).await;
    let said = unschedulable(&kit, "pods/c").await;
    assert!(said.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{said}");
    let events = kit.list("events?fieldSelector=involvedObject.name%3Dc,reason%3DFailedScheduling").await;
    assert!(!events.is_empty());
    kit.delete("pods/a").await;
    kit.until("pods/c", "has its place", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_selector_that_matches_is_followed() {
    let kit = Kit::nodes(2).await;
    kit.merge("nodes/node-1", json!({ "metadata": { "labels": { "example.dev/here": "42" } } })).await;
    let mut pod = pod("web");
    pod["spec"]["nodeSelector"] = json!({ "example.dev/here": "42" });
    kit.create("pods", pod).await;
    assert_eq!(kit.until("pods/web", "is ready", is_ready).await["spec"]["nodeName"], "node-1");
}

#[tokio::test(start_paused = true)]
async fn a_node_selector_that_matches_nothing_is_said() {
    let kit = Kit::nodes(2).await;
    let mut pod = pod("web");
    pod["spec"]["nodeSelector"] = json!({ "label": "nonempty" });
    kit.create("pods", pod).await;
    let said = unschedulable(&kit, "pods/web").await;
    assert!(said.contains("2 node(s) didn't match Pod's node affinity/selector"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_port_on_all_addresses_is_in_the_way_of_one_on_any() {
    let kit = Kit::nodes(1).await;
    let bound = |name: &str, address: &str| {
        let mut pod = pod(name);
        pod["spec"]["containers"][0]["ports"] =
            json!([{ "containerPort": 80, "hostPort": 54322, "hostIP": address, "protocol": "TCP" }]);
        pod
    };
    kit.create("pods", bound("all", "")).await;
    kit.until("pods/all", "is ready", is_ready).await;
    kit.create("pods", bound("one", "10.0.0.1")).await;
    let said = unschedulable(&kit, "pods/one").await;
    assert!(said.contains("1 node(s) didn't have free ports for the requested pod ports"), "{said}");
}

async fn class(kit: &Kit, name: &str, value: i32) {
    kit.create("priorityclasses", json!({ "metadata": { "name": name }, "value": value })).await;
}

fn of_class(name: &str, class: &str, cpu: &str) -> Value {
    let mut pod = asking(name, "cpu", cpu);
    pod["spec"]["priorityClassName"] = json!(class);
    pod
}

/// Two nodes of which each is filled by a pod of low and one of medium priority.
async fn filled() -> Kit {
    let kit = Kit::nodes(2).await;
    class(&kit, "low", 1).await;
    class(&kit, "medium", 100).await;
    class(&kit, "high", 1000).await;
    for (node, low, medium) in [("node-0", "low-0", "medium-0"), ("node-1", "low-1", "medium-1")] {
        for (name, class) in [(low, "low"), (medium, "medium")] {
            let mut pod = of_class(name, class, "8");
            pod["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
            kit.create("pods", pod).await;
            kit.until(&format!("pods/{name}"), "is ready", is_ready).await;
        }
    }
    kit
}

/// The one of lowest priority goes, and none of the others.
async fn one_low_gives_way(kit: &Kit, at: &str) {
    kit.until(at, "has its place", is_ready).await;
    kit.cluster.settle().await.unwrap();
    let left = names(&kit.list("pods").await);
    assert_eq!(left.iter().filter(|name| name.starts_with("medium")).count(), 2, "{left:?}");
    assert_eq!(left.iter().filter(|name| name.starts_with("low")).count(), 1, "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_high_priority_takes_the_place_of_the_lowest() {
    let kit = filled().await;
    kit.create("pods", of_class("high", "high", "8")).await;
    one_low_gives_way(&kit, "pods/high").await;
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_takes_the_place_of_the_lowest() {
    let kit = filled().await;
    kit.create("kube-system:pods", of_class("critical", "system-cluster-critical", "8")).await;
    one_low_gives_way(&kit, "kube-system:pods/critical").await;
}

#[tokio::test(start_paused = true)]
async fn who_gives_way_says_why() {
    let kit = Kit::nodes(1).await;
    class(&kit, "low", 1).await;
    class(&kit, "high", 1000).await;
    let mut victim = of_class("victim", "low", "16");
    victim["metadata"]["finalizers"] = json!(["example.dev/held"]);
    kit.create("pods", victim).await;
    kit.until("pods/victim", "is ready", is_ready).await;
    kit.create("pods", of_class("preemptor", "high", "16")).await;
    let told = |pod: &Value| {
        let target = condition(pod, "DisruptionTarget");
        target["status"] == "True" && target["reason"] == "PreemptionByScheduler"
    };
    kit.until("pods/victim", "is told", told).await;
    kit.merge("pods/victim", json!({ "metadata": { "finalizers": null } })).await;
    kit.until("pods/preemptor", "has its place", is_ready).await;
}

/// Upstream counts by an extended resource of the node, of which it has five.
#[tokio::test(start_paused = true)]
async fn replica_sets_give_way_in_the_order_of_their_priority() {
    let kit = Kit::nodes(1).await;
    let resource = "example.com/fakecpu";
    kit.merge("nodes/node-0/status", json!({ "status": { "capacity": { resource: "1000" } } })).await;
    let offered = |node: &Value| node["status"]["allocatable"][resource].is_string();
    kit.until("nodes/node-0", "offers it", offered).await;
    for (n, replicas, amount) in [(1, 5, "40"), (2, 4, "50"), (3, 4, "95")] {
        class(&kit, &format!("p{n}"), n).await;
        let mut set = workload(&format!("set-{n}"), replicas);
        set["spec"]["template"]["spec"] = asking("x", resource, amount)["spec"].clone();
        set["spec"]["template"]["spec"]["priorityClassName"] = json!(format!("p{n}"));
        kit.ready("replicasets", set).await;
    }
    class(&kit, "p4", 4).await;
    let mut set = workload("set-4", 1);
    set["spec"]["template"]["spec"] = asking("x", resource, "400")["spec"].clone();
    set["spec"]["template"]["spec"]["priorityClassName"] = json!("p4");
    kit.ready("replicasets", set).await;
    kit.cluster.settle().await.unwrap();
    let mut ready = Vec::new();
    for n in 1..=4 {
        let set = kit.get(&format!("replicasets/set-{n}")).await;
        ready.push(set["status"]["readyReplicas"].as_u64().unwrap_or(0));
    }
    // 780 are taken before; the fourth needs 180 more than are free: five pods of the lowest, no other.
    assert_eq!(ready, [0, 4, 4, 1]);
}
