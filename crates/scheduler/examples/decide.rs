//! How many pods a second the scheduler places on 5,000 nodes, without an API server:
//! `cargo run --release -p scheduler --example decide`.
//!
//! Three loads: pods of one shape, pods of fifty shapes in turn, and one shape decided without reuse.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler::{Change, Core, Decision, NodeInfo, PodInfo, Profile, SlimPod, Snapshot, Step, decide};
use serde_json::json;

const NODES: usize = 5_000;
const PODS: usize = 50_000;

fn main() -> Result<(), Box<dyn Error>> {
    println!("{NODES} nodes");
    let mut nodes = Vec::new();
    for n in 0..NODES {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": format!("node-{n}"), "labels": {"zone": format!("z{}", n % 3)}},
            "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}}
        }))?;
        nodes.push(NodeInfo::read(&node));
    }
    report("one shape", &nodes, |_| 100)?;
    report("fifty shapes", &nodes, |n| 100 + n % 50)?;

    let mut snapshot = Snapshot::new();
    for node in &nodes {
        snapshot.set_node(node.clone());
    }
    let (profile, count, start) = (Profile::new(1), 500, Instant::now());
    for n in 0..count {
        let pod = pod(n, 100)?;
        if let Decision::Place(placement) = decide(&pod, &snapshot, &profile) {
            snapshot.set_pod(&pod, &placement.node);
        }
    }
    println!("without reuse: {:.0} pods/s", rate(count, start.elapsed()));

    let text = wire_pod(0, 100).to_string();
    let (count, start) = (100_000, Instant::now());
    for _ in 0..count {
        std::hint::black_box(serde_json::from_str::<Pod>(&text)?);
    }
    println!("decoding whole pods of {} bytes: {:.0} /s", text.len(), rate(count, start.elapsed()));
    let start = Instant::now();
    for _ in 0..count {
        std::hint::black_box(PodInfo::read(&serde_json::from_str::<SlimPod>(&text)?.0));
    }
    println!("decoding and projecting slim pods: {:.0} /s", rate(count, start.elapsed()));
    Ok(())
}

/// Adds pods to a queue, then decides and confirms each as the API server would.
fn report(name: &str, nodes: &[NodeInfo], cpu_milli: impl Fn(usize) -> usize) -> Result<(), Box<dyn Error>> {
    let now = Duration::from_secs(1);
    let mut core = Core::new(vec![Profile::new(1)]);
    for node in nodes {
        core.apply(now, Change::Node(Box::new(node.clone())));
    }
    let pods = (0..PODS).map(|n| pod(n, cpu_milli(n))).collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    for pod in &pods {
        core.apply(now, Change::Pod(Box::new(pod.clone())));
    }
    let mut placed = 0;
    while let Some(step) = core.next(now) {
        if let Step::Bind { pod, node } = step {
            core.bound(now, &pod.uid, true);
            let mut seen = PodInfo::clone(&pod);
            seen.node_name = Some(node);
            core.apply(now, Change::Pod(Box::new(seen)));
            placed += 1;
        }
    }
    println!("{name}: {placed} of {PODS} placed, {:.0} pods/s", rate(PODS, start.elapsed()));
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "for a reader")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn wire_pod(n: usize, cpu_milli: usize) -> serde_json::Value {
    let env: Vec<_> =
        (0..10).map(|e| json!({"name": format!("VARIABLE_{e}"), "value": "some value"})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("pod-{n}"), "namespace": "default", "uid": format!("uid-{n}"), "labels": {"app": "web"},
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "managedFields": [{"manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:image": {}, "f:name": {}, "f:resources": {"f:requests": {"f:cpu": {}, "f:memory": {}}}}}}}}]
        },
        "spec": {
            "schedulerName": "default-scheduler",
            "containers": [{"name": "c", "image": "example.org/app:1", "env": env,
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5},
                "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
                "resources": {"requests": {"cpu": format!("{cpu_milli}m"), "memory": "200Mi"}}}],
            "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"}
    })
}

fn pod(n: usize, cpu_milli: usize) -> Result<PodInfo, serde_json::Error> {
    let pod: Pod = serde_json::from_value(wire_pod(n, cpu_milli))?;
    let mut info = PodInfo::read(&pod);
    info.uid = Arc::from(format!("uid-{n}"));
    Ok(info)
}
