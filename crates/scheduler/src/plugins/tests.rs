use std::slice::from_ref;

use serde_json::{Value, json};

use super::*;
use crate::{
    decide::{Decision, decide, explain},
    node::NodeInfo,
    pod::{labelled_pod, test_pod},
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
        snapshot.set_pod(&other, "n1");
    }
    let pod = test_pod("p", spec(pod));
    let profile = Profile::new(0);
    let cycle = Cycle::start(&pod, &snapshot, &profile, None).unwrap();
    let filter = FILTERS.iter().find(|f| f.name == filter).unwrap();
    let slot = snapshot.slot("n1").unwrap();
    let got = (filter.check)(&cycle, slot).err().map(|why| why.reasons.join(", ")).unwrap_or_default();
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
    let no = "node(s) had untolerated taint(s)";
    let tolerant = json!({"tolerations": [{"key": "k", "operator": "Exists"}]});
    for effect in ["NoSchedule", "NoExecute"] {
        check("TaintToleration", json!({}), tainted(effect), &[], no);
        check("TaintToleration", tolerant.clone(), tainted(effect), &[], "");
    }
    check("TaintToleration", json!({}), tainted("PreferNoSchedule"), &[], "");
    let valueless = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    check("TaintToleration", json!({}), valueless, &[], no);
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
        snapshot.set_pod(&other, on);
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
        "0/3 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint(s), 2 Insufficient cpu."
    );
    let claim =
        test_pod("q", spec(json!({"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]})));
    assert_eq!(why(&snapshot, &claim), "0/3 nodes are available: persistentvolumeclaim \"c\" not found.");
    let devices = json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "g"}]});
    assert!(
        why(&snapshot, &test_pod("r", spec(devices)))
            .contains("pod uses resourceClaims, which this scheduler does not support")
    );
    // The reasons say what could help.
    let Decision::Unfit(unfit) = decide(&pod, &snapshot, &profile) else { panic!("placed") };
    assert!(unfit.wake.meets(Wake::NODE_TAINTS) && unfit.wake.meets(Wake::POD_GONE));
    assert!(!unfit.wake.meets(Wake::NODE_LABELS) && !unfit.wake.meets(Wake::VOLUMES));
}

/// Three nodes, `a1` and `a2` in zone a and `b1` in zone b, with placed pods of the given labels and
/// specs; gives what each node is refused for, or its weighted score from one plugin.
fn neighbourhood(plugin: &str, pod: (Value, Value), others: &[(&str, Value, Value)]) -> [String; 3] {
    let mut snapshot = Snapshot::new();
    snapshot.set_namespace("default", Some([("team".to_owned(), "x".to_owned())].into()));
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        snapshot.set_node(node(name, json!({"metadata": {"labels": {"zone": zone}}})));
    }
    for (at, (on, labels, more)) in others.iter().enumerate() {
        let other = labelled_pod(&format!("other-{at}"), labels.clone(), spec(more.clone()));
        snapshot.set_pod(&other, on);
    }
    let pod = labelled_pod("p", pod.0, spec(pod.1));
    let verdicts = explain(&pod, &snapshot, &Profile::new(0)).unwrap();
    let text = |v: &crate::Verdict| match v.refused.first() {
        Some((_, reasons)) => reasons.join(", "),
        None => v.scores.iter().find(|(name, _)| *name == plugin).unwrap().1.to_string(),
    };
    [0, 1, 2].map(|at| text(&verdicts[at]))
}

fn terms(kind: &str, key: &str, app: &str) -> Value {
    let term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}});
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

fn app(name: &str) -> Value {
    json!({"app": name})
}

#[test]
fn inter_pod_affinity() {
    const HOST: &str = "kubernetes.io/hostname";
    let f = "InterPodAffinity";
    let (fits, far) = ("0", "node(s) didn't match pod affinity rules");
    let near = "node(s) didn't match pod anti-affinity rules";
    let unwanted = "node(s) didn't satisfy existing pods anti-affinity rules";
    let db = ("a1", app("db"), json!({}));
    // Towards a pod: its host, or its zone.
    assert_eq!(
        neighbourhood(f, (app("web"), terms("podAffinity", HOST, "db")), from_ref(&db)),
        [fits, far, far]
    );
    assert_eq!(
        neighbourhood(f, (app("web"), terms("podAffinity", "zone", "db")), from_ref(&db)),
        [fits, fits, far]
    );
    assert_eq!(
        neighbourhood(f, (app("web"), terms("podAffinity", "rack", "db")), from_ref(&db)),
        [far, far, far]
    );
    // Nobody there yet: only the first of the group itself may go anywhere.
    assert_eq!(neighbourhood(f, (app("web"), terms("podAffinity", "zone", "web")), &[]), [fits, fits, fits]);
    assert_eq!(neighbourhood(f, (app("web"), terms("podAffinity", "zone", "db")), &[]), [far, far, far]);
    // Away from a pod, and away from a pod that says so itself.
    assert_eq!(
        neighbourhood(f, (app("web"), terms("podAntiAffinity", "zone", "db")), from_ref(&db)),
        [near, near, fits]
    );
    let loner = ("b1", app("db"), terms("podAntiAffinity", HOST, "web"));
    assert_eq!(neighbourhood(f, (app("web"), json!({})), from_ref(&loner)), [fits, fits, unwanted]);
    assert_eq!(neighbourhood(f, (app("other"), json!({})), from_ref(&loner)), [fits, fits, fits]);
    // Other namespaces count only when named or selected.
    let mut elsewhere = terms("podAntiAffinity", "zone", "db");
    let term =
        &mut elsewhere["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    term["namespaces"] = json!(["other"]);
    assert_eq!(neighbourhood(f, (app("web"), elsewhere.clone()), from_ref(&db)), [fits, fits, fits]);
    let term =
        &mut elsewhere["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    term["namespaceSelector"] = json!({"matchLabels": {"team": "x"}});
    assert_eq!(neighbourhood(f, (app("web"), elsewhere), from_ref(&db)), [near, near, fits]);
    // Preferences, one's own and others', between the extremes.
    let prefer = |kind: &str, weight: i64| {
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "db"}}});
        json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term}]}}})
    };
    assert_eq!(neighbourhood(f, (app("web"), prefer("podAffinity", 5)), from_ref(&db)), ["200", "200", "0"]);
    assert_eq!(
        neighbourhood(f, (app("web"), prefer("podAntiAffinity", 5)), from_ref(&db)),
        ["0", "0", "200"]
    );
    let host = ("a2", app("web"), terms("podAffinity", HOST, "db"));
    assert_eq!(neighbourhood(f, (app("db"), json!({})), from_ref(&host)), ["0", "200", "0"]);
}

#[test]
fn match_label_keys_narrow_to_the_pods_own_values() {
    let f = "InterPodAffinity";
    let near = "node(s) didn't match pod anti-affinity rules";
    let mut apart = terms("podAntiAffinity", "zone", "web");
    apart["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["matchLabelKeys"] =
        json!(["hash", "absent"]);
    let others = [
        ("a1", json!({"app": "web", "hash": "old"}), json!({})),
        ("b1", json!({"app": "web", "hash": "new"}), json!({})),
    ];
    assert_eq!(neighbourhood(f, (json!({"app": "web", "hash": "new"}), apart), &others), ["0", "0", near]);
}

#[test]
fn pod_topology_spread() {
    let f = "PodTopologySpread";
    let skewed = "node(s) didn't match pod topology spread constraints";
    let constraint = |more: Value| {
        let mut one = json!({"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}}});
        merge(&mut one, more);
        json!({"topologySpreadConstraints": [one]})
    };
    let web = |on| (on, app("web"), json!({}));
    let check = |spec: Value, others: &[(&str, Value, Value)], expected: [&str; 3]| {
        assert_eq!(neighbourhood(f, (app("web"), spec.clone()), others), expected, "{spec}");
    };
    check(constraint(json!({})), &[], ["200", "200", "200"]);
    check(constraint(json!({})), &[web("a1")], [skewed, skewed, "200"]);
    check(constraint(json!({})), &[web("a1"), web("b1")], ["200", "200", "200"]);
    check(constraint(json!({"maxSkew": 2})), &[web("a1")], ["200", "200", "200"]);
    // Too few domains: as if there were an empty one.
    check(constraint(json!({"minDomains": 3})), &[web("a1"), web("b1")], [skewed, skewed, skewed]);
    let missing = "node(s) didn't match pod topology spread constraints (missing required label)";
    check(constraint(json!({"topologyKey": "rack"})), &[], [missing, missing, missing]);
    // Where the pod cannot go anyway is no empty domain, unless the constraint says so.
    let mut there = constraint(json!({}));
    there["nodeSelector"] = json!({"zone": "a"});
    let elsewhere = "node(s) didn't match Pod's node affinity/selector";
    check(there.clone(), &[web("a1")], ["200", "200", elsewhere]);
    there["topologySpreadConstraints"][0]["nodeAffinityPolicy"] = "Ignore".into();
    check(there, &[web("a1")], [skewed, skewed, elsewhere]);
    // Preferred: the emptiest first.
    check(constraint(json!({"whenUnsatisfiable": "ScheduleAnyway"})), &[web("a1")], ["0", "0", "200"]);
}

fn change(snapshot: &mut Snapshot, kind: &str, object: Value) {
    use crate::volumes::{Claim, StorageClass, Volume};
    match kind {
        "claim" => snapshot.volumes.set_claim(Claim::read(&serde_json::from_value(object).unwrap())),
        "volume" => snapshot.volumes.set_volume(Volume::read(&serde_json::from_value(object).unwrap())),
        _ => snapshot.volumes.set_class(StorageClass::read(&serde_json::from_value(object).unwrap())),
    }
}

/// A claim that is bound to a volume of the same name.
fn bound(snapshot: &mut Snapshot, name: &str, mode: &str, labels: Value, csi: Option<&str>) {
    let claim = json!({"metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"volumeName": name, "accessModes": [mode]}, "status": {"phase": "Bound"}});
    change(snapshot, "claim", claim);
    let csi = csi.map(|driver| json!({"driver": driver, "volumeHandle": name}));
    change(snapshot, "volume", json!({"metadata": {"name": name, "labels": labels}, "spec": {"csi": csi}}));
}

fn user(uid: &str, claims: &[&str]) -> PodInfo {
    let volumes: Vec<Value> =
        claims.iter().map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}})).collect();
    test_pod(uid, spec(json!({"volumes": volumes})))
}

/// What each node is refused for, in order of names; `""` means it fits.
fn refusals(pod: &PodInfo, snapshot: &Snapshot, profile: &Profile) -> Vec<String> {
    let text = |v: &crate::Verdict| v.refused.first().map(|(_, why)| why.join(", ")).unwrap_or_default();
    explain(pod, snapshot, profile).unwrap().iter().map(text).collect()
}

#[test]
fn volumes_of_a_zone_stay_in_it() {
    let no = "node(s) had no available volume zone";
    let mut snapshot = Snapshot::new();
    for (name, zone) in [("a", "z1"), ("b", "z2"), ("c", "z3")] {
        snapshot.set_node(node(name, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}})));
    }
    snapshot.set_node(node("d", json!({})));
    let zones = json!({"topology.kubernetes.io/zone": "z1__z2"});
    bound(&mut snapshot, "v", "ReadWriteOnce", zones, None);
    assert_eq!(refusals(&user("p", &["v"]), &snapshot, &Profile::new(0)), ["", "", no, no]);
    let old = json!({"failure-domain.beta.kubernetes.io/zone": "z3"});
    bound(&mut snapshot, "w", "ReadWriteOnce", old, None);
    assert_eq!(refusals(&user("p", &["w"]), &snapshot, &Profile::new(0)), [no, no, "", no]);
}

#[test]
fn a_claim_for_one_pod_is_one_pods() {
    let no = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    let mut snapshot = Snapshot::new();
    snapshot.set_node(node("a", json!({})));
    snapshot.set_node(node("b", json!({})));
    bound(&mut snapshot, "v", "ReadWriteOncePod", json!({}), None);
    assert_eq!(refusals(&user("p", &["v"]), &snapshot, &Profile::new(0)), ["", ""]);
    snapshot.set_pod(&user("other", &["v"]), "a");
    assert_eq!(refusals(&user("p", &["v"]), &snapshot, &Profile::new(0)), [no, no]);
    bound(&mut snapshot, "v", "ReadWriteOnce", json!({}), None);
    assert_eq!(refusals(&user("p", &["v"]), &snapshot, &Profile::new(0)), ["", ""]);
}

#[test]
fn nodes_take_as_many_volumes_as_their_drivers_say() {
    let no = "node(s) exceed max volume count";
    let mut snapshot = Snapshot::new();
    snapshot.set_node(node("a", json!({})));
    snapshot.set_node(node("b", json!({})));
    snapshot.volumes.set_limits("a", Some([("csi.example.com".to_owned(), 2)].into()));
    for name in ["u", "v", "w"] {
        bound(&mut snapshot, name, "ReadWriteMany", json!({}), Some("csi.example.com"));
    }
    bound(&mut snapshot, "x", "ReadWriteMany", json!({}), Some("other.example.com"));
    snapshot.set_pod(&user("other", &["u", "v"]), "a");
    // A volume that is there already takes no more room; another driver has its own.
    let profile = Profile::new(0);
    assert_eq!(refusals(&user("p", &["w"]), &snapshot, &profile), [no, ""]);
    assert_eq!(refusals(&user("p", &["u"]), &snapshot, &profile), ["", ""]);
    assert_eq!(refusals(&user("p", &["x"]), &snapshot, &profile), ["", ""]);
    snapshot.volumes.set_limits("a", None);
    assert_eq!(refusals(&user("p", &["w"]), &snapshot, &profile), ["", ""]);
}

#[test]
fn pods_of_a_service_or_workload_are_spread_by_default() {
    let mut snapshot = Snapshot::new();
    let zone = |z: &str| json!({"metadata": {"labels": {"topology.kubernetes.io/zone": z}}});
    for (name, z) in [("a", "z1"), ("b", "z1"), ("c", "z2")] {
        snapshot.set_node(node(name, zone(z)));
    }
    snapshot.set_pod(&labelled_pod("web-0", app("web"), spec(json!({}))), "a");
    let pod = labelled_pod("web-1", app("web"), spec(json!({})));
    let score = |snapshot: &Snapshot, profile: &Profile| -> Vec<i64> {
        let of = |v: &crate::Verdict| {
            v.scores.iter().find(|(name, _)| *name == "PodTopologySpread").unwrap().1 / 2
        };
        explain(&pod, snapshot, profile).unwrap().iter().map(of).collect()
    };
    let profile = Profile::new(0);
    // It belongs to nothing: all the same.
    let alike = score(&snapshot, &profile);
    assert_eq!(alike[0], alike[2]);
    snapshot
        .workloads
        .set_service(&meta::ObjectKey::new("default", "web"), Some([("app".into(), "web".into())].into()));
    let [a, b, c] = score(&snapshot, &profile)[..] else { panic!() };
    assert!(a < b && b < c, "another host of the zone is better, another zone best: {a} {b} {c}");
    let mut off = Profile::new(0);
    off.args.default_spread = crate::DefaultSpread::List(Vec::new());
    assert_eq!(score(&snapshot, &off), alike);
}

#[test]
fn profiles_score_and_admit_as_they_are_told() {
    let quarter = requests(json!({"cpu": "1", "memory": "2Gi"}));
    let scored = |profile: &Profile, pod: &Value| -> i64 {
        let mut snapshot = Snapshot::new();
        snapshot.set_node(node("a", json!({"status": {"allocatable": {"x.y/z": "4"}}})));
        let verdicts = explain(&test_pod("p", spec(pod.clone())), &snapshot, profile).unwrap();
        verdicts[0].scores.iter().find(|(name, _)| *name == "NodeResourcesFit").unwrap().1
    };
    let mut profile = Profile::new(0);
    profile.args.fit.strategy = crate::Strategy::MostAllocated;
    assert_eq!(scored(&profile, &quarter), 25);
    profile.args.fit.strategy = crate::Strategy::RequestedToCapacityRatio(vec![(0, 0), (50, 100), (100, 0)]);
    assert_eq!(scored(&profile, &quarter), 50);
    profile.args.fit.resources = vec![(crate::Measure::Extended("x.y/z".into()), 1)];
    profile.args.fit.strategy = crate::Strategy::LeastAllocated;
    assert_eq!(scored(&profile, &requests(json!({"x.y/z": "1"}))), 75);
    assert_eq!(scored(&profile, &quarter), 0);
    // A lack that is overlooked, and affinity that every pod of the profile has.
    let mut snapshot = Snapshot::new();
    snapshot.set_node(node("a", json!({"metadata": {"labels": {"pool": "x"}}})));
    snapshot.set_node(node("b", json!({})));
    let gpu = test_pod("p", spec(requests(json!({"example.com/gpu": "1"}))));
    let lacks = "Insufficient example.com/gpu";
    assert_eq!(refusals(&gpu, &snapshot, &Profile::new(0)), [lacks, lacks]);
    let mut profile = Profile::new(0);
    profile.args.ignored_resource_groups = vec!["example.com".into()];
    assert_eq!(refusals(&gpu, &snapshot, &profile), ["", ""]);
    let pool: k8s_openapi::api::core::v1::NodeSelector =
        serde_json::from_value(json!({"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["x"]}]}]}))
        .unwrap();
    profile.args.added_affinity =
        Some(crate::AddedAffinity { required: Some((&pool).into()), preferred: Vec::new() });
    let enforced = "node(s) didn't match scheduler-enforced node affinity";
    assert_eq!(refusals(&gpu, &snapshot, &profile), ["", enforced]);
}
