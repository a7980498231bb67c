use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Pod, Taint, Toleration},
};
use meta::{ObjectKey, Timestamp};
use reconcile::{Kind, testkit::Bench};
use serde_json::{Value, json};

use super::{eviction::eviction_time, *};

const FIXTURE: &str = r#"
apiVersion: v1
kind: Node
metadata: { name: n1 }
spec: { taints: [ { key: node.kubernetes.io/not-ready, effect: NoSchedule }, { key: mine, effect: NoSchedule } ] }
status: { conditions: [ { type: Ready, status: "True", lastHeartbeatTime: "2026-01-01T00:00:00Z" } ] }
---
apiVersion: v1
kind: Node
metadata: { name: n2 }
status: { conditions: [ { type: Ready, status: "True" } ] }
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: { name: n1, namespace: kube-node-lease }
spec: { renewTime: "2026-01-01T00:00:00.000000Z" }
---
apiVersion: v1
kind: Pod
metadata: { name: p, namespace: ns, uid: uid-p }
spec:
  nodeName: n1
  containers: []
  tolerations: [ { key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 300 } ]
status: { phase: Running, conditions: [ { type: Ready, status: "True" } ] }
"#;

fn key() -> ObjectKey {
    ObjectKey::new("", "n1")
}

fn taints(bench: &Bench<NodeLifecycle>) -> Vec<String> {
    let node = bench.api.get(&Kind::of::<Node>(), &key()).unwrap();
    let text =
        |taint: &Value| format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap());
    node["spec"]["taints"].as_array().unwrap().iter().map(text).collect()
}

#[tokio::test]
async fn a_silent_node_is_unknown_tainted_and_its_pods_leave_in_time() {
    let bench = Bench::new(NodeLifecycle::default());
    bench.put_yaml(FIXTURE);
    bench.settle(&key()).await;
    assert_eq!(taints(&bench), ["mine:NoSchedule"], "ready: only the user's taint");

    // A renewed lease is life enough.
    bench.advance(35);
    let renew = json!({ "spec": { "renewTime": "2026-01-01T00:00:35.000000Z" } });
    bench.api.patch(&Kind::of::<Lease>(), &ObjectKey::new("kube-node-lease", "n1"), "", &renew);
    bench.settle(&key()).await;
    bench.advance(35);
    let plan = bench.plan(&key()).await.unwrap();
    assert_eq!((plan.is_empty(), plan.recheck_after), (true, Some(std::time::Duration::from_secs(6))));

    bench.advance(6);
    insta::assert_yaml_snapshot!("silent", bench.plan(&key()).await.unwrap(), { ".**.uid" => "[uid]" });
    bench.settle(&key()).await;
    assert_eq!(
        taints(&bench),
        [
            "mine:NoSchedule",
            "node.kubernetes.io/unreachable:NoSchedule",
            "node.kubernetes.io/unreachable:NoExecute"
        ]
    );
    let pod = ObjectKey::new("ns", "p");
    let ready = bench.api.get(&Kind::of::<Pod>(), &pod).unwrap()["status"]["conditions"][0]["status"].clone();
    assert_eq!(ready, "False", "no endpoints for pods nobody can vouch for");

    let eviction = bench.beside(TaintEviction::default());
    let plan = eviction.plan(&pod).await.unwrap();
    assert_eq!((plan.is_empty(), plan.recheck_after), (true, Some(std::time::Duration::from_secs(300))));
    bench.advance(300);
    eviction.step(&pod).await.unwrap().1.result.unwrap();
    let left = bench.api.get(&Kind::of::<Pod>(), &pod).unwrap();
    assert!(left["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(left["status"]["conditions"][1]["reason"], "DeletionByTaintManager");
}

#[tokio::test]
async fn nothing_is_evicted_while_no_node_is_ready() {
    let bench = Bench::new(NodeLifecycle::default());
    bench.put_yaml(FIXTURE);
    bench.settle(&key()).await;
    for name in ["n1", "n2"] {
        let down = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
        bench.api.patch(&Kind::of::<Node>(), &ObjectKey::new("", name), "status", &down);
    }
    bench.settle(&key()).await;
    assert_eq!(taints(&bench), ["mine:NoSchedule", "node.kubernetes.io/not-ready:NoSchedule"]);
}

#[test]
fn tolerations_give_time_or_none() {
    let at = |s| Timestamp::from_second(s).unwrap();
    let taint: Taint = serde_json::from_value(
        json!({ "key": "k", "value": "v", "effect": "NoExecute", "timeAdded": "1970-01-01T00:01:40Z" }),
    )
    .unwrap();
    let check = |tolerations: Value, expected: Option<i64>| {
        let tolerations: Vec<Toleration> = serde_json::from_value(tolerations.clone()).unwrap();
        assert_eq!(
            eviction_time(std::slice::from_ref(&taint), &tolerations, at(120), at(150)),
            expected.map(at),
            "{tolerations:?}"
        );
    };
    let untimed = Taint { time_added: None, ..taint.clone() };
    let some: Vec<Toleration> =
        serde_json::from_value(json!([{ "operator": "Exists", "tolerationSeconds": 60 }])).unwrap();
    assert_eq!(
        eviction_time(&[untimed], &some, at(120), at(150)),
        Some(at(180)),
        "a user's taint has no time"
    );
    check(json!([]), Some(150));
    check(json!([{ "operator": "Exists" }]), None);
    check(json!([{ "key": "k", "operator": "Exists", "tolerationSeconds": 60 }]), Some(160));
    check(json!([{ "key": "k", "value": "v" }]), None);
    check(json!([{ "key": "k", "value": "other" }]), Some(150));
    check(json!([{ "key": "k", "operator": "Exists", "effect": "NoSchedule" }]), Some(150));
    check(json!([{ "operator": "Exists", "tolerationSeconds": 0 }]), Some(100));
}
