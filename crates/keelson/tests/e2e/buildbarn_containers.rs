//! The small farm in real containers, from what a user applies to processes that run by it.
//!
//! What runs is a stand-in and nothing of Buildbarn (`images/buildbarn-stand-in`): it opens what its generated
//! configuration names, where it names it, and ends where it cannot. So this shows images, arguments, mounts, users,
//! init containers, sidecars, probes, addresses and the end of pods; it shows nothing of caching or of builds. The queue
//! is the operator's own stand-in for a scheduler.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
};

use operator_buildbarn::{Lane, Served};
use serde_json::Value;

use crate::{
    buildbarn::{FARM, PLATFORM, THREADS, pods, ready, workers},
    cluster::{Cluster, Runtime},
};

const STAND_IN: &str = "keelson.dev/buildbarn-stand-in:1";
/// What actions would run in, and what prepares volumes.
const SHELL: &str = "busybox:1.35";

/// The small farm with two workers, whose images are stand-ins and whose queue is at an address of the test's.
fn farm_of_stand_ins(scheduler: &str) -> String {
    let mut farm = FARM.to_owned();
    for (from, to, times) in [
        ("spec:\n", format!("spec:\n  image: {STAND_IN}\n  initImage: {SHELL}\n"), 5),
        (
            "  autoscaling: {min: 1, max: 8}\n",
            format!("  replicas: 2\n  runnerImage: {SHELL}\n  runnerInstallerImage: {STAND_IN}\n"),
            1,
        ),
        ("  execution:", format!("  buildQueueState: {{address: \"{scheduler}\"}}\n  execution:"), 1),
    ] {
        assert_eq!(farm.matches(from).count(), times, "{from} in the example");
        farm = farm.replace(from, &to);
    }
    farm
}

/// A scheduler on the loopback of the cluster's network, where the operator is.
fn scheduler_inside(cluster: &Cluster) -> (tokio::runtime::Runtime, Served) {
    let network = cluster.network().unwrap();
    let enter = move || {
        let file = std::fs::File::open(&network).unwrap();
        let only = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(file.as_fd(), only).unwrap();
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(enter)
        .build()
        .unwrap();
    let scheduler = runtime.block_on(runtime.spawn(Served::start())).unwrap().unwrap();
    (runtime, scheduler)
}

fn list(cluster: &Cluster, what: &str) -> Value {
    serde_json::from_str(&cluster.kubectl(&["get", "-n", "buildbarn", what, "-o", "json"])).unwrap()
}

/// The ids of the containers of each pod; init containers and sidecars too.
fn containers(cluster: &Cluster) -> BTreeMap<String, BTreeSet<String>> {
    let all = list(cluster, "pods");
    let mut out = BTreeMap::new();
    for pod in all["items"].as_array().unwrap() {
        let statuses = ["containerStatuses", "initContainerStatuses"]
            .iter()
            .flat_map(|of| pod["status"][of].as_array().cloned().unwrap_or_default());
        let ids = statuses
            .map(|status| {
                assert_eq!(status["restartCount"], 0, "{status}");
                status["containerID"].as_str().unwrap().to_owned()
            })
            .collect();
        out.insert(pod["metadata"]["name"].as_str().unwrap().to_owned(), ids);
    }
    out
}

/// Every address that a generated configuration connects to.
fn addresses(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            let address = map.get("address").and_then(Value::as_str);
            into.extend(address.filter(|address| !address.starts_with("unix:")).map(str::to_owned));
            map.values().for_each(|value| addresses(value, into));
        }
        Value::Array(list) => list.iter().for_each(|value| addresses(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn generated(cluster: &Cluster) -> BTreeSet<String> {
    let maps = list(cluster, "configmaps");
    let mut all = BTreeSet::new();
    for map in maps["items"].as_array().unwrap() {
        for (name, text) in map["data"].as_object().unwrap() {
            if !name.ends_with(".jsonnet") {
                continue;
            }
            let text = text.as_str().unwrap();
            let plain =
                text.replace("std.extVar(\"POD_NAME\")", "\"\"").replace("std.extVar(\"NODE_NAME\")", "\"\"");
            addresses(&serde_json::from_str(&plain).unwrap(), &mut all);
        }
    }
    all
}

#[test]
fn a_farm_of_stand_ins_runs_changes_and_drains() {
    let cluster = Cluster::up(Runtime::Containerd, &[]);
    cluster.load_image("buildbarn-stand-in");
    cluster.load_image("busybox");
    let (_runtime, scheduler) = scheduler_inside(&cluster);
    cluster.apply(&farm_of_stand_ins(&scheduler.address()));
    ready(&cluster);
    let before = containers(&cluster);
    assert_eq!(before.len(), 7, "two of storage, two workers, one of each other: {before:?}");
    every_address_answers(&cluster);
    one_component_restarts(&cluster, &before);
    pods_go_when_they_run_nothing(&cluster, &scheduler);
}

/// What any configuration connects to is there: Services, pods, ports.
fn every_address_answers(cluster: &Cluster) {
    let worker = workers(cluster).remove(0);
    let mut all = generated(cluster);
    assert!(all.len() >= 4, "{all:?}");
    all.extend(["frontend.buildbarn.svc:8980", "browser.buildbarn.svc:7984"].map(str::to_owned));
    for address in all {
        let (name, port) = address.rsplit_once(':').unwrap();
        // A pod of a StatefulSet has its Service after its name.
        let of = match name.split('.').collect::<Vec<_>>().as_slice() {
            [service, "buildbarn", "svc"] => format!("services/{service}"),
            [pod, _, "buildbarn", "svc"] => format!("pods/{pod}"),
            other => panic!("{other:?} is no name in the cluster"),
        };
        let path = format!("/api/v1/namespaces/buildbarn/{of}:{port}/proxy/-/healthy");
        let said = cluster.kubectl(&["get", "--raw", &path]);
        assert!(said.starts_with("healthy"), "{address}: {said}");
    }
    let said = cluster.kubectl(&["logs", "-n", "buildbarn", &worker, "-c", "runner"]);
    assert!(said.contains("listens on /worker/runner"), "{said}");
    // What the stores' metrics say comes through the API server: 9 blocks of 38.
    cluster.eventually("the status has what the stores' metrics say", || {
        let said = cluster.keelson(&["buildbarn", "status"]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let line = said.lines().find(|line| line.contains("storage-1") && line.contains("cas"));
        if line.is_some_and(|line| line.contains("23 % full")) { Ok(()) } else { Err(said) }
    });
}

/// Exactly one component's containers are others after a change of its configuration.
fn one_component_restarts(cluster: &Cluster, before: &BTreeMap<String, BTreeSet<String>>) {
    let patch = r#"{"spec":{"configOverlay":{"maximumMessageSizeBytes":4194304}}}"#;
    cluster.kubectl(&["patch", "-n", "buildbarn", "buildbarnfrontend/frontend", "--type=merge", "-p", patch]);
    ready(cluster);
    let after = cluster.eventually("the pods are as many as before", || {
        let after = containers(cluster);
        if after.len() == before.len() { Ok(after) } else { Err(format!("{after:?}")) }
    });
    let others = |pods: &BTreeMap<String, BTreeSet<String>>| {
        let mut pods = pods.clone();
        pods.retain(|name, _| !name.starts_with("frontend"));
        pods
    };
    assert_eq!(others(&after), others(before), "only the frontend was changed");
    assert!(after != *before, "the frontend was not restarted");
}

/// Scaled down, the idle pod goes and the busy one stays until what it runs has ended.
fn pods_go_when_they_run_nothing(cluster: &Cluster, scheduler: &Served) {
    let lane = Lane::of(PLATFORM, 0);
    let all = workers(cluster);
    all.iter().for_each(|pod| scheduler.register(&lane, pod, THREADS));
    scheduler.submit(&lane, THREADS);
    scheduler.assign();
    let (busy, idle): (Vec<String>, Vec<String>) = all.into_iter().partition(|pod| scheduler.busy(pod));
    assert_eq!((busy.len(), idle.len()), (1, 1));
    let scale = |to: &str| cluster.kubectl(&["scale", "-n", "buildbarn", "buildbarnworker/ubuntu", to]);
    scale("--replicas=1");
    assert_eq!(pods(cluster, 1), busy, "the idle pod goes");
    scheduler.vanish(&idle[0]);
    scale("--replicas=0");
    cluster.eventually("the busy pod is drained", || {
        let told = scheduler.told();
        let of_pod = |told: &&String| told.starts_with("AddDrain") && told.contains(busy[0].as_str());
        if told.iter().any(|told| of_pod(&told)) { Ok(()) } else { Err(format!("{told:?}")) }
    });
    assert_eq!(workers(cluster), busy, "it runs something");
    scheduler.finish(&busy[0]);
    pods(cluster, 0);
    let told = scheduler.told();
    for pod in busy.iter().chain(&idle) {
        let at =
            |call: &str| told.iter().position(|told| told.starts_with(call) && told.contains(pod.as_str()));
        let (drained, promised) = (at("AddDrain"), at("TerminateWorkers"));
        assert!(drained.is_some() && drained < promised, "{pod} went without a farewell: {told:?}");
    }
}
