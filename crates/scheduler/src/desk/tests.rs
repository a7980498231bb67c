use serde_json::{Value, json};

use super::*;
use crate::{core::Change, node::NodeInfo, profile::Profile};

const S: Duration = Duration::from_secs(1);

fn core(nodes: &[(&str, &str)]) -> Core {
    let mut core = Core::new(vec![Profile::new(1)]);
    for (name, cpu) in nodes {
        let node = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}});
        let node = NodeInfo::read(&serde_json::from_value(node).unwrap());
        core.apply(S, Change::Node(Box::new(node)));
    }
    core
}

fn pod(name: &str, cpu: &str, more: Value) -> Pod {
    let mut pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    for (key, value) in more.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn add(core: &mut Core, pod: &Pod) {
    core.apply(S, Change::Pod(Box::new(PodInfo::read(pod))));
}

#[test]
fn a_pod_that_waits_is_told_why_on_every_node() {
    let mut core = core(&[("big", "4"), ("small", "1")]);
    let waiting = pod("p", "2", json!({"nodeSelector": {"disk": "ssd"}}));
    add(&mut core, &waiting);
    core.next(S);
    let told = explain::explain(&mut core, &PodInfo::read(&waiting));
    assert_eq!((told.node.as_str(), told.queue.as_str()), ("", "unschedulable"));
    let selector = "node(s) didn't match Pod's node affinity/selector";
    assert!(
        told.message.starts_with(&format!("0/2 nodes are available: 2 {selector}. preemption: ")),
        "{}",
        told.message
    );
    let refused: Vec<(&str, Vec<&str>)> = told
        .nodes
        .iter()
        .map(|n| (n.node.as_str(), n.refused.iter().map(|r| r.plugin.as_str()).collect()))
        .collect();
    assert_eq!(refused, [("big", vec!["NodeAffinity"]), ("small", vec!["NodeAffinity", "NodeResourcesFit"])]);
}

#[test]
fn a_placed_pod_is_judged_without_itself() {
    let mut core = core(&[("a", "1"), ("b", "1")]);
    let placed = pod("p", "1", json!({"nodeName": "a"}));
    add(&mut core, &placed);
    let mark = core.snapshot().pods();
    let told = explain::explain(&mut core, &PodInfo::read(&placed));
    assert_eq!((told.node.as_str(), told.message.as_str()), ("a", ""));
    assert!(told.nodes.iter().all(|node| node.fits && node.total > 0), "{told:?}");
    assert_eq!((core.snapshot().pods(), core.snapshot().node_of("p").map(|n| &**n)), (mark, Some("a")));
    let foreign = pod("q", "1", json!({"schedulerName": "mine"}));
    let told = explain::explain(&mut core, &PodInfo::read(&foreign));
    assert!(told.message.contains("left to scheduler \"mine\""), "{told:?}");
}

#[test]
fn simulated_pods_fill_nodes_and_leave_nothing_behind() {
    let mut core = core(&[("a", "2"), ("b", "2")]);
    let low = pod("low", "2", json!({"nodeName": "b"}));
    add(&mut core, &low);
    let before =
        format!("{:?}", core.snapshot().slots().map(|s| core.snapshot().used(s)).collect::<Vec<_>>());
    let pods: Vec<PodInfo> = [
        pod("x", "1", json!({})),
        pod("y", "1", json!({})),
        pod("z", "1", json!({})),
        pod("vip", "2", json!({"priority": 9})),
    ]
    .iter()
    .enumerate()
    .map(|(at, pod)| simulate::imagined(pod, at))
    .collect();
    let told = simulate::simulate(&mut core, &pods).pods;
    let nodes: Vec<&str> = told.iter().map(|pod| pod.node.as_str()).collect();
    assert_eq!(nodes, ["a", "a", "", ""]);
    assert!(told[2].message.starts_with("0/2 nodes are available: 2 Insufficient cpu."), "{:?}", told[2]);
    assert_eq!(told[3].victims, ["ns/low"]);
    let after = format!("{:?}", core.snapshot().slots().map(|s| core.snapshot().used(s)).collect::<Vec<_>>());
    assert_eq!((after, core.snapshot().pods()), (before, 1));
}

#[test]
fn the_queue_says_who_waits_where() {
    let mut core = core(&[("a", "1")]);
    add(&mut core, &pod("stuck", "9", json!({})));
    core.next(S);
    add(&mut core, &pod("gated", "1", json!({"schedulingGates": [{"name": "g"}]})));
    add(&mut core, &pod("next", "1", json!({})));
    let told = queue::queue(&core, 2);
    assert_eq!((told.active, told.unschedulable, told.gated, told.backoff), (1, 1, 1, 0));
    let names: Vec<(&str, &str)> = told.pods.iter().map(|p| (p.name.as_str(), p.queue.as_str())).collect();
    assert_eq!(names, [("next", "active"), ("stuck", "unschedulable")]);
    assert_eq!(told.pods[1].plugins, ["NodeResourcesFit"]);
}

#[tokio::test(start_paused = true)]
async fn questions_that_nobody_answers_end() {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Ok::<_, std::io::Error>(http::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
    });
    let (desk, asks) = desk(Client::new(service, "default"));
    let refused = desk.queue(Request::new(QueueRequest { limit: 0 })).await.unwrap_err();
    assert!(refused.message().contains("does not answer"), "{refused}");
    drop(asks);
    let refused = desk.queue(Request::new(QueueRequest { limit: 0 })).await.unwrap_err();
    assert!(refused.message().contains("has stopped"), "{refused}");
}
