use std::slice::from_ref;

use serde_json::{Value, json};

use super::*;
use crate::{
    decide::{Decision, decide, explain},
    node::NodeInfo,
    pod::test_pod,
    profile::Profile,
};

fn node(name: &str, more: Value) -> NodeInfo {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "10Gi", "pods": "110"}}
    });
    merge(&mut node, more);
    NodeInfo::read(&serde_json::from_value(node).unwrap())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (k, v) in from {
                merge(into.entry(k).or_insert(Value::Null), v);
            }
        }
        (into, from) => *into = from,
    }
}

fn spec(more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c"}]});
    merge(&mut spec, more);
    spec
}

fn requests(amounts: Value) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": amounts}}]})
}

fn ports(port: Value) -> Value {
    json!({"containers": [{"name": "c", "ports": [port]}]})
}

/// Runs one filter for a pod against one node that has the given pods: `""` means it fits.
fn check(filter: &str, pod: Value, on: Value, others: &[Value], expected: &str) {
    let mut snapshot = Snapshot::new();
    snapshot.set_node(node("n1", on.clone()));
    for (at, other) in others.iter().enumerate() {
        let other = test_pod(&format!("other-{at}"), spec(other.clone()));
        snapshot.set_pod(&other.uid, "n1", &other.shape);
    }
    let pod = test_pod("p", spec(pod));
    let cycle = Cycle::start(&pod, &snapshot).unwrap();
    let filter = FILTERS.iter().find(|f| f.name == filter).unwrap();
    let slot = snapshot.slot("n1").unwrap();
    let got = (filter.check)(&cycle, slot).err().unwrap_or_default().join(", ");
    assert_eq!(got, expected, "{pod:?} on {on}");
}

#[test]
fn node_resources_fit() {
    let f = "NodeResourcesFit";
    check(f, requests(json!({"cpu": "4", "memory": "8Gi"})), json!({}), &[], "");
    check(f, requests(json!({"cpu": "4001m"})), json!({}), &[], "Insufficient cpu");
    check(
        f,
        requests(json!({"cpu": "5", "memory": "9Gi"})),
        json!({}),
        &[],
        "Insufficient cpu, Insufficient memory",
    );
    check(
        f,
        requests(json!({"ephemeral-storage": "11Gi"})),
        json!({}),
        &[],
        "Insufficient ephemeral-storage",
    );
    check(f, requests(json!({"cpu": "2"})), json!({}), &[requests(json!({"cpu": "2"}))], "");
    check(
        f,
        requests(json!({"cpu": "2"})),
        json!({}),
        &[requests(json!({"cpu": "2001m"}))],
        "Insufficient cpu",
    );
    // Nothing asked, nothing refused, even on a node that is over-committed.
    check(f, json!({}), json!({}), &[requests(json!({"cpu": "9"}))], "");
    check(f, json!({}), json!({"status": {"allocatable": {"pods": "1"}}}), &[json!({})], "Too many pods");
    let gpu = json!({"status": {"allocatable": {"example.com/gpu": "2"}}});
    check(f, requests(json!({"example.com/gpu": "2"})), gpu.clone(), &[], "");
    check(f, requests(json!({"example.com/gpu": "2"})), json!({}), &[], "Insufficient example.com/gpu");
    let one = requests(json!({"example.com/gpu": "1"}));
    check(f, requests(json!({"example.com/gpu": "2"})), gpu, &[one], "Insufficient example.com/gpu");
}

#[test]
fn node_affinity() {
    let f = "NodeAffinity";
    let no = "node(s) didn't match Pod's node affinity/selector";
    let ssd = json!({"metadata": {"labels": {"disk": "ssd"}}});
    let required = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    check(f, json!({"nodeSelector": {"disk": "ssd"}}), ssd.clone(), &[], "");
    check(f, json!({"nodeSelector": {"disk": "hdd"}}), ssd.clone(), &[], no);
    let hdd = json!([{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["hdd"]}]}]);
    check(f, required(hdd), ssd.clone(), &[], no);
    let by_name = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]);
    check(f, required(by_name.clone()), json!({}), &[], "");
    // Both the selector and the affinity must match.
    let mut both = required(by_name);
    merge(&mut both, json!({"nodeSelector": {"disk": "hdd"}}));
    check(f, both, ssd, &[], no);
    check(f, required(json!([])), json!({}), &[], no);
}

#[test]
fn taints_and_cordons() {
    let tainted = |effect: &str| json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}});
    let no = "node(s) had untolerated taint {k: v}";
    let tolerant = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
    for effect in ["NoSchedule", "NoExecute"] {
        check("TaintToleration", json!({}), tainted(effect), &[], no);
        check("TaintToleration", tolerant.clone(), tainted(effect), &[], "");
    }
    check("TaintToleration", json!({}), tainted("PreferNoSchedule"), &[], "");
    let valueless = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    check("TaintToleration", json!({}), valueless, &[], "node(s) had untolerated taint {k: }");
    let cordoned = json!({"spec": {"unschedulable": true}});
    check("NodeUnschedulable", json!({}), cordoned.clone(), &[], "node(s) were unschedulable");
    let everywhere = json!({"tolerations": [{"operator": "Exists"}]});
    check("NodeUnschedulable", everywhere, cordoned, &[], "");
}

#[test]
fn node_ports_and_names() {
    let f = "NodePorts";
    let no = "node(s) didn't have free ports for the requested pod ports";
    let web = ports(json!({"containerPort": 80, "hostPort": 80}));
    let local = ports(json!({"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"}));
    let elsewhere = ports(json!({"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.2"}));
    let udp = ports(json!({"containerPort": 80, "hostPort": 80, "protocol": "UDP"}));
    check(f, web.clone(), json!({}), &[], "");
    check(f, web.clone(), json!({}), from_ref(&web), no);
    check(f, web.clone(), json!({}), from_ref(&local), no);
    check(f, local.clone(), json!({}), from_ref(&web), no);
    check(f, local, json!({}), &[elsewhere], "");
    check(f, udp, json!({}), &[web], "");
    check("NodeName", json!({"nodeName": "n1"}), json!({}), &[], "");
    check(
        "NodeName",
        json!({"nodeName": "n2"}),
        json!({}),
        &[],
        "node(s) didn't match the requested node name",
    );
}

/// Raw, normalized and weighted score of each of some nodes.
fn check_scores(plugin: &str, pod: Value, nodes: Vec<NodeInfo>, others: &[(&str, Value)], expected: &[i64]) {
    let mut snapshot = Snapshot::new();
    for node in nodes {
        snapshot.set_node(node);
    }
    for (at, (on, other)) in others.iter().enumerate() {
        let other = test_pod(&format!("other-{at}"), spec(other.clone()));
        snapshot.set_pod(&other.uid, on, &other.shape);
    }
    let pod = test_pod("p", spec(pod));
    let verdicts = explain(&pod, &snapshot, &Profile::new(0)).unwrap();
    let weight = SCORES.iter().find(|s| s.name == plugin).unwrap().weight;
    let score = |v: &crate::Verdict| v.scores.iter().find(|(name, _)| *name == plugin).unwrap().1 / weight;
    assert_eq!(verdicts.iter().map(score).collect::<Vec<_>>(), expected, "{plugin}");
}

#[test]
fn scores() {
    let plain = |name: &str| node(name, json!({}));
    // 4 cpu, 8 GiB: 1 cpu and 2 GiB leave three quarters; silent pods count as 100m and 200 MiB.
    let quarter = requests(json!({"cpu": "1", "memory": "2Gi"}));
    check_scores("NodeResourcesFit", quarter.clone(), vec![plain("a")], &[], &[75]);
    check_scores(
        "NodeResourcesFit",
        quarter.clone(),
        vec![plain("a"), plain("b")],
        &[("b", quarter.clone())],
        &[75, 50],
    );
    check_scores("NodeResourcesFit", json!({}), vec![plain("a")], &[], &[97]);
    check_scores("NodeResourcesBalancedAllocation", quarter, vec![plain("a")], &[], &[100]);
    check_scores(
        "NodeResourcesBalancedAllocation",
        requests(json!({"cpu": "4"})),
        vec![plain("a")],
        &[],
        &[50],
    );
    check_scores("NodeResourcesBalancedAllocation", json!({}), vec![plain("a")], &[], &[0]);

    let prefers = |keys: &[&str]| {
        let taints: Vec<Value> =
            keys.iter().map(|k| json!({"key": k, "effect": "PreferNoSchedule"})).collect();
        json!({"spec": {"taints": taints}})
    };
    let nodes = || vec![plain("a"), node("b", prefers(&["x"])), node("c", prefers(&["x", "y"]))];
    check_scores("TaintToleration", json!({}), nodes(), &[], &[100, 50, 0]);
    let tolerant = json!({"tolerations": [{"key": "y", "operator": "Exists"}]});
    check_scores("TaintToleration", tolerant, nodes(), &[], &[100, 0, 0]);

    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 30, "preference": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}},
        {"weight": 10, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z"]}]}},
        {"weight": 50, "preference": {}}
    ]}}});
    let zone = |z: &str| json!({"metadata": {"labels": {"zone": z}}});
    let nodes = vec![plain("a"), node("b", zone("y")), node("c", zone("z"))];
    check_scores("NodeAffinity", preferred, nodes, &[], &[0, 75, 100]);

    let image = json!({"status": {"images": [{"names": ["docker.io/app:latest", "app:latest"], "sizeBytes": 1_048_576_000}]}});
    let app = json!({"containers": [{"name": "c", "image": "app"}]});
    check_scores("ImageLocality", app.clone(), vec![plain("a"), node("b", image.clone())], &[], &[0, 48]);
    check_scores("ImageLocality", app, vec![node("a", image.clone()), node("b", image)], &[], &[100, 100]);
}

#[test]
fn the_message_counts_every_reason() {
    let mut snapshot = Snapshot::new();
    let pod = test_pod("p", spec(requests(json!({"cpu": "3"}))));
    let profile = Profile::new(0);
    let why = |snapshot: &Snapshot, pod: &PodInfo| match decide(pod, snapshot, &profile) {
        Decision::Unfit(why) => why.to_string(),
        Decision::Place(placement) => panic!("placed: {placement:?}"),
    };
    assert_eq!(why(&snapshot, &pod), "no nodes available to schedule pods");
    snapshot.set_node(node(
        "a",
        json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}),
    ));
    snapshot.set_node(node("b", json!({"status": {"allocatable": {"cpu": "2"}}})));
    snapshot.set_node(node("c", json!({"status": {"allocatable": {"cpu": "1", "pods": "0"}}})));
    assert_eq!(
        why(&snapshot, &pod),
        "0/3 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint {k: v}, 2 Insufficient cpu."
    );
    let claim =
        test_pod("q", spec(json!({"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]})));
    assert_eq!(why(&snapshot, &claim), "0/3 nodes are available: persistentvolumeclaim \"c\" not found.");
    let anti = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "x"}]}}});
    assert!(
        why(&snapshot, &test_pod("r", spec(anti)))
            .contains("required podAntiAffinity, which this scheduler does not support")
    );
    // The reasons say what could help.
    let Decision::Unfit(unfit) = decide(&pod, &snapshot, &profile) else { panic!("placed") };
    assert!(unfit.wake.meets(Wake::NODE_TAINTS) && unfit.wake.meets(Wake::POD_GONE));
    assert!(!unfit.wake.meets(Wake::NODE_LABELS) && !unfit.wake.meets(Wake::VOLUMES));
}
