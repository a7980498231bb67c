use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    decide::decide,
    pod::{labelled_pod, test_pod},
};

const S: Duration = Duration::from_secs(1);

fn core() -> Core {
    Core::new(vec![Profile::new(7)])
}

fn node(name: &str, cpu: &str, labels: Value, taints: Value) -> NodeInfo {
    let node = json!({
        "metadata": {"name": name, "labels": labels}, "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}
    });
    NodeInfo::read(&serde_json::from_value(node).unwrap())
}

fn add_node(core: &mut Core, name: &str, cpu: &str) {
    core.apply(S, Change::Node(Box::new(node(name, cpu, json!({}), json!([])))));
}

fn pod(uid: &str, cpu: &str) -> PodInfo {
    test_pod(uid, json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
}

fn add(core: &mut Core, now: Duration, pod: &PodInfo) {
    core.apply(now, Change::Pod(Box::new(pod.clone())));
}

fn step(core: &mut Core, now: Duration) -> String {
    match core.next(now) {
        None => "-".into(),
        Some(Step::Bind { pod, node }) => format!("bind {} {node}", pod.uid),
        Some(Step::WriteVolumes { pod, node, bindings }) => {
            format!("volumes {} {node} {}", pod.uid, bindings.provision.len() + bindings.reserve.len())
        }
        Some(Step::Preempt { pod, room, .. }) => {
            let victims: Vec<&str> = room.victims.iter().map(|v| &*v.uid).collect();
            format!("preempt {} {} {}", pod.uid, room.node, victims.join(","))
        }
        Some(Step::Tell { pod, why, remind }) => format!("tell {} {why} {remind}", pod.uid),
    }
}

#[test]
fn decided_pods_hold_their_room_until_given_up() {
    let mut core = core();
    add_node(&mut core, "n", "1");
    add(&mut core, S, &pod("a", "1"));
    add(&mut core, S, &pod("b", "1"));
    assert_eq!(step(&mut core, S), "bind a n");
    assert_eq!(
        step(&mut core, S),
        "tell b 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. true"
    );
    assert_eq!(step(&mut core, S), "-");
    // The binding failed: both are worth a try once their backoff is over.
    core.bound(S, "a", false);
    assert_eq!((step(&mut core, S), core.next_at()), ("-".into(), Some(S * 2)));
    assert_eq!(step(&mut core, S * 2), "bind a n");
    assert_eq!(
        step(&mut core, S * 2),
        "tell b 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. false"
    );
    // Bound, seen, and gone: the room is free again.
    core.bound(S * 2, "a", true);
    let mut seen = pod("a", "1");
    seen.node_name = Some("n".into());
    add(&mut core, S * 3, &seen);
    assert_eq!(core.snapshot().pods(), 1);
    core.apply(S * 9, Change::PodGone("a".into()));
    assert_eq!(step(&mut core, S * 9), "bind b n");
}

#[test]
fn room_is_made_and_waited_for() {
    let mut core = core();
    add_node(&mut core, "n", "1");
    let mut low = pod("low", "1");
    low.node_name = Some("n".into());
    add(&mut core, S, &low);
    let mut vip = pod("vip", "1");
    vip.priority = 10;
    add(&mut core, S, &vip);
    assert_eq!(step(&mut core, S), "preempt vip n low");
    core.evicted(S, "vip", true);
    // Its own version from before says nothing; a pod of lower priority does not slip in.
    add(&mut core, S, &vip);
    assert_eq!(step(&mut core, S), "-");
    vip.nominated = Some("n".into());
    add(&mut core, S * 2, &vip);
    (low.deleting, low.preempted) = (true, true);
    add(&mut core, S * 2, &low);
    assert_eq!(step(&mut core, S * 2), "-");
    add(&mut core, S * 3, &pod("other", "1"));
    core.apply(S * 4, Change::PodGone("low".into()));
    assert_eq!(step(&mut core, S * 4), "bind vip n");
    assert!(step(&mut core, S * 4).starts_with("tell other 0/1 nodes are available: 1 Insufficient cpu."));
    assert!(core.snapshot().nominees().is_empty());
}

#[test]
fn a_failed_eviction_is_tried_again() {
    let mut core = core();
    add_node(&mut core, "n", "1");
    let mut low = pod("low", "1");
    low.node_name = Some("n".into());
    add(&mut core, S, &low);
    let mut vip = pod("vip", "1");
    vip.priority = 10;
    add(&mut core, S, &vip);
    assert_eq!(step(&mut core, S), "preempt vip n low");
    core.evicted(S, "vip", false);
    assert_eq!((step(&mut core, S), core.snapshot().nominees().is_empty()), ("-".into(), true));
    assert_eq!(step(&mut core, S * 2), "preempt vip n low");
    // The pod goes away meanwhile: so does its nomination.
    core.apply(S * 2, Change::PodGone("vip".into()));
    core.evicted(S * 2, "vip", true);
    assert!(core.snapshot().nominees().is_empty());
    assert_eq!(step(&mut core, S * 60), "-");
}

#[test]
fn only_events_that_could_help_a_pod_wake_it() {
    let mut core = core();
    add_node(&mut core, "n", "1");
    add(&mut core, S, &pod("big", "4"));
    assert!(step(&mut core, S).starts_with("tell big"));
    // A node that is too small as well, and a pod that frees too little.
    add_node(&mut core, "small", "2");
    let mut some = pod("some", "1");
    some.node_name = Some("n".into());
    add(&mut core, S * 9, &some);
    core.apply(S * 9, Change::PodGone("some".into()));
    assert_eq!((step(&mut core, S * 9), core.queue().lengths()), ("-".into(), [0, 0, 1]));
    add_node(&mut core, "large", "4");
    core.apply(S * 9, Change::Node(Box::new(node("large", "4", json!({}), json!([])))));
    assert_eq!(step(&mut core, S * 9), "bind big large");
}

#[test]
fn what_the_server_shows_wins() {
    let mut core = core();
    add_node(&mut core, "n", "1");
    add_node(&mut core, "m", "1");
    add(&mut core, S, &pod("a", "1"));
    let decided = step(&mut core, S);
    let other = if decided == "bind a n" { "m" } else { "n" };
    let mut seen = pod("a", "1");
    seen.node_name = Some(other.into());
    add(&mut core, S, &seen);
    // A late failure of our own write changes nothing any more.
    core.bound(S, "a", false);
    assert_eq!(core.snapshot().node_of("a").map(|n| &**n), Some(other));
    assert_eq!(step(&mut core, S * 60), "-");
    // A pod that has ended holds nothing.
    seen.terminal = true;
    add(&mut core, S, &seen);
    assert_eq!(core.snapshot().pods(), 0);
}

#[test]
fn other_schedulers_pods_and_dying_pods_are_left_alone() {
    let mut core = core();
    add_node(&mut core, "n", "1");
    let mut other = pod("a", "1");
    other.scheduler_name = "custom".into();
    add(&mut core, S, &other);
    let mut dying = pod("b", "1");
    add(&mut core, S, &dying);
    dying.deleting = true;
    add(&mut core, S, &dying);
    assert_eq!(step(&mut core, S), "-");
}

#[test]
fn claims_are_bound_before_the_pod() {
    let claim = |more: Value| {
        let mut claim = json!({"metadata": {"namespace": "default", "name": "c", "uid": "c"},
            "spec": {"storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}}});
        for (section, fields) in more.as_object().unwrap() {
            for (key, value) in fields.as_object().unwrap() {
                claim[section][key] = value.clone();
            }
        }
        Change::Claim(Box::new(Claim::read(&serde_json::from_value(claim).unwrap())))
    };
    let selected = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n"}}});
    let mut core = core();
    add_node(&mut core, "n", "1");
    let class = json!({"metadata": {"name": "local"}, "provisioner": "p", "volumeBindingMode": "WaitForFirstConsumer"});
    let class = StorageClass::read(&serde_json::from_value(class).unwrap());
    let user = test_pod(
        "a",
        json!({"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
    );
    add(&mut core, S, &user);
    assert_eq!(
        step(&mut core, S),
        "tell a 0/1 nodes are available: persistentvolumeclaim \"c\" not found. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. true"
    );
    core.apply(S * 5, claim(json!({})));
    assert!(step(&mut core, S * 5).contains("unbound immediate"));
    core.apply(S * 9, Change::Class(Box::new(class)));
    assert_eq!(step(&mut core, S * 9), "volumes a n 1");
    core.volumes_written(S * 9, "a", true);
    core.apply(S * 9, claim(selected.clone()));
    assert_eq!((step(&mut core, S * 9), core.next_at()), ("-".into(), Some(S * 9 + (S * 600))));
    // Declined by the provisioner: placed anew after the backoff.
    core.apply(S * 10, claim(json!({})));
    assert_eq!(step(&mut core, S * 30), "volumes a n 1");
    core.volumes_written(S * 30, "a", true);
    core.apply(S * 30, claim(selected));
    // Never provisioned: given up after ten minutes.
    assert_eq!(step(&mut core, S * 31), "-");
    let late = S * 30 + (S * 600);
    assert_eq!(step(&mut core, late), "-");
    assert_eq!(step(&mut core, late + S * 10), "volumes a n 1");
    core.volumes_written(late + S * 10, "a", true);
    let volume = json!({"metadata": {"name": "v"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}}}});
    core.apply(
        late + S * 10,
        Change::Volume(Box::new(Volume::read(&serde_json::from_value(volume).unwrap()))),
    );
    core.apply(late + S * 10, claim(json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound"}})));
    assert_eq!(step(&mut core, late + S * 10), "bind a n");
    assert_eq!(step(&mut core, late + S * 10), "-");
}

/// One thing that happens, on few names so that they meet often.
#[derive(Clone, Debug)]
enum Op {
    Node { n: u8, cpu: u8, label: bool, taint: u8 },
    NodeGone(u8),
    Pod { p: u8, n: u8, shape: u8 },
    PodGone(u8),
    Decide { shape: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..6_u8, 0..4_u8, any::<bool>(), 0..3_u8).prop_map(|(n, cpu, label, taint)| Op::Node {
            n,
            cpu,
            label,
            taint
        }),
        (0..6_u8).prop_map(Op::NodeGone),
        (0..20_u8, 0..6_u8, 0..9_u8).prop_map(|(p, n, shape)| Op::Pod { p, n, shape }),
        (0..20_u8).prop_map(Op::PodGone),
        (0..9_u8).prop_map(|shape| Op::Decide { shape }),
    ]
}

fn shaped(uid: &str, shape: u8) -> PodInfo {
    let container = |requests: Value, ports: Value| json!([{"name": "c", "image": "i", "ports": ports, "resources": {"requests": requests}}]);
    let prefer = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 3, "preference": {"matchExpressions": [{"key": "l", "operator": "Exists"}]}}]}});
    let web = |field: &str, terms: Value| {
        labelled_pod(uid, json!({"app": "web"}), json!({"containers": [], field: terms}))
    };
    let selector = json!({"matchLabels": {"app": "web"}});
    let apart = json!({"topologyKey": "host", "labelSelector": selector});
    match shape {
        5 => {
            return web(
                "affinity",
                json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}),
            );
        }
        6 => {
            let skew = |when: &str| json!({"topologyKey": "l", "maxSkew": 1, "whenUnsatisfiable": when, "labelSelector": selector});
            return web("topologySpreadConstraints", json!([skew("DoNotSchedule"), skew("ScheduleAnyway")]));
        }
        7 => {
            let preferred = json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "podAffinityTerm": apart}]});
            return web("affinity", json!({"podAffinity": preferred}));
        }
        8 => return labelled_pod(uid, json!({"app": "web"}), json!({"containers": []})),
        _ => {}
    }
    test_pod(
        uid,
        match shape {
            0 => json!({"containers": container(json!({}), json!([]))}),
            1 => json!({"containers": container(json!({"cpu": "700m", "memory": "1Gi"}), json!([]))}),
            2 => json!({"containers": container(json!({"x/y": "1"}), json!([]))}),
            3 => json!({"containers": container(json!({}), json!([{"containerPort": 1, "hostPort": 1}]))}),
            _ => json!({"containers": container(json!({"cpu": "1500m"}), json!([])), "affinity": prefer}),
        },
    )
}

fn described(n: u8, cpu: u8, label: bool, taint: u8) -> NodeInfo {
    let host = format!("n{n}");
    let labels = if label { json!({"l": (n % 2).to_string(), "host": host}) } else { json!({"host": host}) };
    let taints = match taint {
        0 => json!([]),
        1 => json!([{"key": "t", "effect": "PreferNoSchedule"}]),
        _ => json!([{"key": "t", "effect": "NoSchedule"}]),
    };
    let mut info = node(&format!("n{n}"), &cpu.to_string(), labels, taints);
    info.allocatable.extended.insert("x/y".into(), i64::from(cpu));
    if label {
        info.images.insert("i:latest".into(), 900 << 20);
    }
    info
}

/// Carries the operations out, and asks at each decision whether all ways to it agree.
fn agree(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let profile = Profile::new(1);
    let (mut snapshot, mut classes) = (Snapshot::new(), Classes::default());
    let mut nodes: BTreeMap<u8, NodeInfo> = BTreeMap::new();
    let mut pods: BTreeMap<u8, (u8, PodInfo)> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Node { n, cpu, label, taint } => {
                let info = described(n, cpu, label, taint);
                snapshot.set_node(info.clone());
                nodes.insert(n, info);
            }
            Op::NodeGone(n) => {
                snapshot.remove_node(&format!("n{n}"));
                nodes.remove(&n);
            }
            Op::Pod { p, n, shape } => {
                let pod = shaped(&format!("p{p}"), shape);
                snapshot.set_pod(&pod, &format!("n{n}"));
                pods.insert(p, (n, pod));
            }
            Op::PodGone(p) => {
                snapshot.remove_pod(&format!("p{p}"));
                pods.remove(&p);
            }
            Op::Decide { shape } => {
                let pod = shaped("new", shape);
                let fresh = decide(&pod, &snapshot, &profile);
                prop_assert_eq!(classes.decide(&pod, &snapshot, &profile), fresh.clone());
                prop_assert_eq!(decide(&pod, &snapshot, &profile), fresh.clone());
                let mut rebuilt = Snapshot::new();
                // The other way round: pods before nodes, last name first.
                for (n, pod) in pods.values().rev() {
                    rebuilt.set_pod(pod, &format!("n{n}"));
                }
                for info in nodes.values().rev() {
                    rebuilt.set_node(info.clone());
                }
                prop_assert_eq!(decide(&pod, &rebuilt, &profile), fresh);
                prop_assert_eq!((snapshot.nodes(), snapshot.pods()), (nodes.len(), pods.len()));
            }
        }
    }
    Ok(())
}

#[test]
fn a_node_that_filled_while_others_spoke_against_it_is_scored_as_it_is() {
    let node = |n| Op::Node { n, cpu: 0, label: true, taint: 0 };
    let pod = |p, n, shape| Op::Pod { p, n, shape };
    let ask = || Op::Decide { shape: 6 };
    agree(vec![node(5), node(2), pod(0, 5, 7), ask(), pod(1, 5, 0), ask(), pod(2, 2, 5), ask()]).unwrap();
}

proptest! {
    #[test]
    fn incremental_equals_rebuilt_and_cached_equals_fresh(ops in prop::collection::vec(op(), 1..120)) {
        agree(ops)?;
    }
}
