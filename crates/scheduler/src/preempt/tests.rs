use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    budgets::Budget,
    decide::{Decision, decide},
    node::NodeInfo,
    pod::labelled_pod,
};

fn node(name: &str, cpu: u32) -> NodeInfo {
    let node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "8Gi", "pods": "110"}}
    });
    NodeInfo::read(&serde_json::from_value(node).unwrap())
}

fn pod(uid: &str, priority: i32, cpu: u32, more: Value) -> PodInfo {
    let mut spec = json!({"priority": priority,
        "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    labelled_pod(uid, json!({"app": uid.split('-').next().unwrap()}), spec)
}

fn started(mut pod: PodInfo, second: i64) -> PodInfo {
    pod.started = Timestamp::from_second(second).unwrap();
    pod
}

fn budget(app: &str, allowed: i32) -> Budget {
    Budget::read(
        &serde_json::from_value(json!({
            "metadata": {"name": app, "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": app}}},
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
        }))
        .unwrap(),
    )
}

fn cluster(nodes: &[(&str, u32)], pods: &[(&str, PodInfo)], budgets: &[Budget]) -> Snapshot {
    let mut snapshot = Snapshot::new();
    for (name, cpu) in nodes {
        snapshot.set_node(node(name, *cpu));
    }
    for (on, pod) in pods {
        snapshot.set_pod(pod, on);
    }
    for budget in budgets {
        snapshot.budgets.set(budget.clone());
    }
    snapshot
}

/// What is done for a pod: `node: victims`, or the whole message.
fn outcome(snapshot: &Snapshot, pod: &PodInfo) -> String {
    let profile = Profile::new(1);
    let why = match decide(pod, snapshot, &profile) {
        Decision::Place(placement) => return format!("fits {}", placement.node),
        Decision::Unfit(why) => why,
    };
    match preempt(pod, snapshot, &profile, &why) {
        Ok(room) => {
            let victims: Vec<&str> = room.victims.iter().map(|v| &*v.uid).collect();
            format!("{}: {}", room.node, victims.join(" "))
        }
        Err(NoRoom::Off) => "off".into(),
        Err(NoRoom::NotNow(sentence) | NoRoom::Hopeless(sentence)) => {
            Unfit { preemption: Some(sentence), ..Unfit::clone(&why) }.to_string()
        }
    }
}

fn check(snapshot: &Snapshot, preemptor: &PodInfo, expected: &str) {
    assert_eq!(outcome(snapshot, preemptor), expected);
}

#[test]
fn as_few_and_as_unimportant_as_can_be() {
    let no = || json!({});
    let vip = pod("vip", 100, 2, no());
    // One victim of two cpus rather than two of one; then the lower priority.
    let pods = [("a", pod("a1", 10, 1, no())), ("a", pod("a2", 10, 1, no())), ("b", pod("b1", 10, 2, no()))];
    check(&cluster(&[("a", 2), ("b", 2)], &pods, &[]), &vip, "b: b1");
    let pods = [("a", pod("a1", 10, 2, no())), ("b", pod("b1", 20, 2, no()))];
    check(&cluster(&[("a", 2), ("b", 2)], &pods, &[]), &vip, "a: a1");
    // On a node the more important are spared, and what fits beside the pod stays.
    let pods = [("a", pod("low", 1, 1, no())), ("a", pod("mid", 5, 1, no())), ("a", pod("mid2", 5, 1, no()))];
    check(&cluster(&[("a", 3)], &pods, &[]), &vip, "a: mid2 low");
    // Among equals the one that started last goes, and the node whose victim started last is taken.
    let pods = [("a", started(pod("old", 5, 2, no()), 10)), ("a", started(pod("new", 5, 2, no()), 20))];
    check(&cluster(&[("a", 4)], &pods, &[]), &vip, "a: new");
    let pods = [("a", started(pod("old", 5, 2, no()), 10)), ("b", started(pod("new", 5, 2, no()), 20))];
    check(&cluster(&[("a", 2), ("b", 2)], &pods, &[]), &vip, "b: new");
    check(&cluster(&[("a", 2)], &[], &[]), &vip, "fits a");
}

#[test]
fn budgets_are_kept_where_they_can_be() {
    let vip = pod("vip", 100, 2, json!({}));
    let pods = [("a", pod("web-1", 1, 2, json!({}))), ("b", pod("db-1", 50, 2, json!({})))];
    let nodes = [("a", 2), ("b", 2)];
    check(&cluster(&nodes, &pods, &[budget("web", 1)]), &vip, "a: web-1");
    // A broken budget costs more than any priority below the pod's.
    check(&cluster(&nodes, &pods, &[budget("web", 0)]), &vip, "b: db-1");
    check(&cluster(&nodes, &pods, &[budget("web", 0), budget("db", 0)]), &vip, "a: web-1");
    // On one node, those whose budget would break are spared first though they matter less.
    let pods = [("a", pod("web-1", 1, 2, json!({}))), ("a", pod("db-1", 50, 2, json!({})))];
    check(&cluster(&[("a", 4)], &pods, &[budget("web", 0)]), &vip, "a: db-1");
}

#[test]
fn messages() {
    let no = || json!({});
    let full = |priority| cluster(&[("a", 2), ("b", 1)], &[("a", pod("x", priority, 2, no()))], &[]);
    let start = "0/2 nodes are available: 2 Insufficient cpu. preemption: ";
    // `b` is too small even when it is empty.
    check(
        &full(100),
        &pod("vip", 100, 2, no()),
        &format!(
            "{start}0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
        ),
    );
    check(
        &full(1),
        &pod("vip", 100, 2, json!({"preemptionPolicy": "Never"})),
        &format!("{start}not eligible due to preemptionPolicy=Never."),
    );
    check(&full(1), &pod("vip", 100, 2, no()), "a: x");
    check(
        &full(1),
        &pod("vip", 100, 9, no()),
        &format!("{start}0/2 nodes are available: 2 Preemption is not helpful for scheduling."),
    );
    // Room is being made already.
    let mut waiting = pod("vip", 100, 2, no());
    waiting.nominated = Some("a".into());
    let mut snapshot = full(1);
    snapshot.nominate(&Arc::new(waiting.clone()), Some("a"));
    snapshot.set_preempted("x");
    check(
        &snapshot,
        &waiting,
        &format!("{start}not eligible due to a terminating pod on the nominated node."),
    );
    // Removing the lower pod does not help: the other stays.
    let pods = [("a", pod("x", 100, 1, no())), ("a", pod("y", 1, 1, no()))];
    check(
        &cluster(&[("a", 2)], &pods, &[]),
        &pod("vip", 100, 2, no()),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu.",
    );
    // What stands against every node alike stands against making room as well.
    let claims = json!({"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]});
    check(
        &full(1),
        &pod("vip", 100, 1, claims),
        "0/2 nodes are available: persistentvolumeclaim \"c\" not found. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
    );
}

#[test]
fn room_is_kept_for_the_nominated() {
    let no = || json!({});
    let mut snapshot = cluster(&[("a", 2)], &[], &[]);
    let nominee = Arc::new(pod("nominee", 50, 2, no()));
    snapshot.nominate(&nominee, Some("a"));
    let lower = pod("lower", 10, 1, no());
    assert!(outcome(&snapshot, &lower).starts_with("0/1 nodes are available: 1 Insufficient cpu."));
    check(&snapshot, &pod("equal", 50, 1, no()), &outcome(&snapshot, &lower));
    check(&snapshot, &pod("higher", 60, 1, no()), "fits a");
    check(&snapshot, &nominee, "fits a");
    // A nominee's anti-affinity counts like a placed pod's.
    let mut snapshot = cluster(&[("a", 9)], &[], &[]);
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "lower"}}}]}}});
    snapshot.nominate(&Arc::new(pod("loner", 50, 1, apart)), Some("a"));
    assert!(outcome(&snapshot, &lower).contains("didn't satisfy existing pods anti-affinity rules"));
    // It goes where it was nominated though another node is emptier.
    let mut snapshot = cluster(&[("a", 2), ("b", 9)], &[], &[]);
    let mut nominee = pod("nominee", 50, 2, no());
    nominee.nominated = Some("a".into());
    snapshot.nominate(&Arc::new(nominee.clone()), Some("a"));
    check(&snapshot, &nominee, "fits a");
}

#[test]
fn anti_affinity_and_spread_are_worth_a_victim() {
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}]}}});
    let pods = [("a", pod("db-1", 1, 1, json!({})))];
    check(&cluster(&[("a", 9)], &pods, &[]), &pod("vip", 100, 1, apart), "a: db-1");
    let even = json!({"topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname", "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "vip"}}}]});
    let pods = [
        ("a", pod("vip-1", 1, 1, json!({}))),
        ("a", pod("vip-2", 1, 1, json!({}))),
        ("b", pod("full-1", 100, 9, json!({}))),
    ];
    check(&cluster(&[("a", 9), ("b", 9)], &pods, &[]), &pod("vip-3", 100, 1, even), "a: vip-1 vip-2");
}

proptest! {
    #[test]
    fn preemption_is_lawful(
        pods in prop::collection::vec((0..4_u8, 0..6_i32, 1..4_u32, 0..3_u8), 0..24),
        allowed in prop::collection::vec(0..3_i32, 3),
        priority in 0..6_i32,
        cpu in 1..6_u32,
    ) {
        let budgets: Vec<Budget> =
            allowed.iter().enumerate().map(|(app, allowed)| budget(&format!("app{app}"), *allowed)).collect();
        let placed: Vec<(String, PodInfo)> = pods
            .iter()
            .enumerate()
            .map(|(at, (on, priority, cpu, app))| {
                (format!("n{on}"), pod(&format!("app{app}-{at}"), *priority, *cpu, json!({})))
            })
            .collect();
        let mut snapshot = Snapshot::new();
        for n in 0..4 {
            snapshot.set_node(node(&format!("n{n}"), 6));
        }
        for (on, pod) in &placed {
            snapshot.set_pod(pod, on);
        }
        for budget in &budgets {
            snapshot.budgets.set(budget.clone());
        }
        let profile = Profile::new(3);
        let vip = pod("vip", priority, cpu, json!({}));
        let Decision::Unfit(why) = decide(&vip, &snapshot, &profile) else { return Ok(()) };
        let room = preempt(&vip, &snapshot, &profile, &why);
        let helps = |on: &str, gone: &dyn Fn(&PodInfo) -> bool| {
            let mut after = Snapshot::new();
            after.set_node(node(on, 6));
            for (_, pod) in placed.iter().filter(|(n, pod)| n == on && !gone(pod)) {
                after.set_pod(pod, on);
            }
            matches!(decide(&vip, &after, &profile), Decision::Place(_))
        };
        let lower = |pod: &PodInfo| pod.priority < priority;
        match room {
            Ok(room) => {
                let victim = |pod: &PodInfo| room.victims.iter().any(|v| v.uid == pod.uid);
                for (on, pod) in placed.iter().filter(|(_, pod)| victim(pod)) {
                    prop_assert!(lower(pod), "a pod of {} for one of {priority}", pod.priority);
                    prop_assert_eq!(on.as_str(), &*room.node);
                    // Each is needed.
                    prop_assert!(!helps(&room.node, &|p| victim(p) && p.uid != pod.uid));
                }
                prop_assert!(helps(&room.node, &victim));
                let breaks = |pods: Vec<&PodInfo>| {
                    let tenants: Vec<Tenant> = pods.into_iter().map(|p| Tenant::imagined(p, 0)).collect();
                    snapshot.budgets.broken_by(tenants.iter()).into_iter().filter(|b| *b).count()
                };
                if breaks(placed.iter().map(|(_, p)| p).filter(|p| victim(p)).collect()) > 0 {
                    // Then no node can do by taking all its lower pods without breaking one.
                    for n in 0..4 {
                        let on = format!("n{n}");
                        let all: Vec<&PodInfo> =
                            placed.iter().filter(|(at, p)| *at == on && lower(p)).map(|(_, p)| p).collect();
                        prop_assert!(all.is_empty() || !helps(&on, &lower) || breaks(all) > 0, "{}", on);
                    }
                }
            }
            Err(_) => {
                for n in 0..4 {
                    prop_assert!(!helps(&format!("n{n}"), &lower), "n{n} could have been freed");
                }
            }
        }
    }
}
