//! Quality of service of a pod, and what follows from it: who is killed first when memory runs out.
//!
//! Guarantees upstream's classes (`pkg/apis/core/v1/helper/qos`) and scores (`pkg/kubelet/qos`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};
use meta::Quantity;

use crate::pod;

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' names")]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    /// The class of a pod, from the cpu and memory of its init and main containers.
    pub fn of(pod: &Pod) -> Self {
        let mut any = false;
        let mut guaranteed = true;
        for member in pod::members(pod) {
            let resources = member.container.resources.as_ref();
            let requests = resources.and_then(|r| r.requests.as_ref());
            let limits = resources.and_then(|r| r.limits.as_ref());
            for name in ["cpu", "memory"] {
                let limit = amount(limits, name);
                let request = amount(requests, name).or(limit);
                any |= request.is_some() || limit.is_some();
                guaranteed &= limit.is_some() && request == limit;
            }
        }
        match (any, guaranteed) {
            (false, _) => Self::BestEffort,
            (true, true) => Self::Guaranteed,
            (true, false) => Self::Burstable,
        }
    }

    /// As in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// Cgroup of the pod under the node's root, as upstream's cgroupfs driver lays it out.
    pub fn cgroup(self, uid: &str) -> String {
        match self {
            Self::Guaranteed => format!("/kubepods/pod{uid}"),
            Self::Burstable => format!("/kubepods/burstable/pod{uid}"),
            Self::BestEffort => format!("/kubepods/besteffort/pod{uid}"),
        }
    }
}

/// A positive amount.
fn amount(map: Option<&BTreeMap<String, WireQuantity>>, name: &str) -> Option<Quantity> {
    let WireQuantity(text) = map?.get(name)?;
    text.parse().ok().filter(|quantity: &Quantity| quantity.milli_value() > 0)
}

/// `oom_score_adj` of a container on a machine with `memory` bytes (`pkg/kubelet/qos/policy.go`).
pub fn oom_score_adj(pod: &Pod, container: &Container, memory: u64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    let critical = pod.spec.as_ref().and_then(|spec| spec.priority_class_name.as_deref());
    if critical == Some("system-node-critical") {
        return GUARANTEED;
    }
    match Qos::of(pod) {
        Qos::Guaranteed => GUARANTEED,
        Qos::BestEffort => BEST_EFFORT,
        Qos::Burstable => {
            let requests =
                container.resources.as_ref().and_then(|r: &ResourceRequirements| r.requests.as_ref());
            let request = amount(requests, "memory").map_or(0, Quantity::value);
            let capacity = i64::try_from(memory).unwrap_or(i64::MAX).max(1);
            let share = i128::from(request) * 1000 / i128::from(capacity);
            // Above a guaranteed pod's, below a best-effort one's.
            (1000 - i64::try_from(share).unwrap_or(1000)).clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes_and_scores() {
        let gib = 1 << 30;
        for (containers, class, score) in [
            (json!([{ "name": "a" }]), Qos::BestEffort, 1000),
            (json!([{ "name": "a", "resources": { "requests": { "cpu": "0" } } }]), Qos::BestEffort, 1000),
            (
                json!([{ "name": "a", "resources": { "limits": { "cpu": "1", "memory": "1Gi" } } }]),
                Qos::Guaranteed,
                -997,
            ),
            (
                json!([{ "name": "a", "resources": { "limits": { "cpu": "1000m", "memory": "1Gi" },
                "requests": { "cpu": "1", "memory": "1024Mi" } } }]),
                Qos::Guaranteed,
                -997,
            ),
            (
                json!([{ "name": "a", "resources": { "limits": { "cpu": "1", "memory": "1Gi" } } }, { "name": "b" }]),
                Qos::Burstable,
                999,
            ),
            (json!([{ "name": "a", "resources": { "requests": { "memory": "2Gi" } } }]), Qos::Burstable, 500),
            (json!([{ "name": "a", "resources": { "requests": { "memory": "9Gi" } } }]), Qos::Burstable, 3),
        ] {
            let pod: Pod =
                serde_json::from_value(json!({ "metadata": {}, "spec": { "containers": containers } }))
                    .unwrap();
            assert_eq!(Qos::of(&pod), class, "{containers}");
            let first = &pod.spec.as_ref().unwrap().containers[0];
            assert_eq!(oom_score_adj(&pod, first, 4 * gib), score, "{containers}");
        }
    }
}
