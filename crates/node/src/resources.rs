//! `resources` of a container as cgroup settings.
//!
//! Guarantees upstream's arithmetic (`pkg/kubelet/cm/helpers_linux.go`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};
use meta::Quantity;
use runtime::action::Resources;

use crate::qos;

const SHARES_PER_CPU: i64 = 1024;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const PERIOD_US: i64 = 100_000;
const QUOTA_MIN_US: i64 = 1000;

/// Limits of `container` on a machine with `memory` bytes.
pub fn limits(pod: &Pod, container: &Container, memory: u64) -> Resources {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref());
    let requests = resources.and_then(|r| r.requests.as_ref());
    let cpu_limit = amount(limits, "cpu").map(Quantity::milli_value);
    // A limit alone is the request as well.
    let cpu_request = amount(requests, "cpu").map(Quantity::milli_value).or(cpu_limit).unwrap_or(0);
    Resources {
        cpu_shares: shares(cpu_request),
        cpu_quota_us: cpu_limit.map_or(0, quota),
        cpu_period_us: PERIOD_US,
        memory_limit_bytes: amount(limits, "memory").map_or(0, Quantity::value),
        oom_score_adj: qos::oom_score_adj(pod, container, memory),
    }
}

fn amount(map: Option<&BTreeMap<String, WireQuantity>>, name: &str) -> Option<Quantity> {
    let WireQuantity(text) = map?.get(name)?;
    text.parse().ok()
}

fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(SHARES_PER_CPU) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

fn quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli.saturating_mul(PERIOD_US) / 1000).max(QUOTA_MIN_US) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cgroup_settings() {
        for (resources, expected) in [
            (json!({}), (2, 0, 0)),
            (json!({ "requests": { "cpu": "100m" } }), (102, 0, 0)),
            (json!({ "limits": { "cpu": "500m", "memory": "64Mi" } }), (512, 50_000, 67_108_864)),
            (json!({ "requests": { "cpu": "1m" }, "limits": { "cpu": "1m" } }), (2, 1000, 0)),
            (json!({ "requests": { "cpu": "1000" } }), (262_144, 0, 0)),
        ] {
            let pod: Pod = serde_json::from_value(
                json!({ "metadata": {}, "spec": { "containers": [{ "name": "c", "resources": resources }] } }),
            )
            .unwrap();
            let got = limits(&pod, &pod.spec.as_ref().unwrap().containers[0], 1 << 32);
            assert_eq!((got.cpu_shares, got.cpu_quota_us, got.memory_limit_bytes), expected, "{resources}");
        }
    }
}
