//! Which taints a node's conditions call for. Pure.

use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use meta::Timestamp;

use super::condition;
use crate::pods::whole_second;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, its status, and the taint that keeps new pods away then.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// The taints of the node as its conditions and `spec.unschedulable` want them; taints that nobody here
/// is responsible for stay. `evict` allows the NoExecute taints that drive pods away.
pub(super) fn wanted(node: &Node, evict: bool, now: Timestamp) -> Vec<Taint> {
    let present = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let holds =
        |kind: &str, status: &str| condition(node, kind).is_some_and(|condition| condition.status == status);
    let mut call: Vec<(&str, &str)> = BY_CONDITION
        .iter()
        .filter(|(kind, status, _)| holds(kind, status))
        .map(|(_, _, key)| (*key, "NoSchedule"))
        .collect();
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        call.push((UNSCHEDULABLE, "NoSchedule"));
    }
    if evict && holds("Ready", "False") {
        call.push((NOT_READY, "NoExecute"));
    } else if evict && holds("Ready", "Unknown") {
        call.push((UNREACHABLE, "NoExecute"));
    }
    let ours = |taint: &Taint| {
        let known = BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
        known && (taint.effect == "NoSchedule" || is_eviction(taint))
    };
    let called =
        |taint: &Taint| call.iter().any(|(key, effect)| *key == taint.key && *effect == taint.effect);
    let mut taints: Vec<Taint> = present.into_iter().filter(|taint| !ours(taint) || called(taint)).collect();
    for (key, effect) in call {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(Time(whole_second(now))),
            });
        }
    }
    taints
}

fn is_eviction(taint: &Taint) -> bool {
    taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}
