//! Which pods go first when there are too many (upstream `ActivePodsWithRanks` in `controller_utils.go`).
//!
//! One difference: upstream's comparison is not a total order (equal ages lead on to restarts, ages
//! within a factor of two lead straight to the UID). Here both lead on to restarts, and the UID decides
//! last.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use meta::Timestamp;

use crate::pods;

/// Where one pod stands; the least goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    assigned: bool,
    phase: u8,
    ready: bool,
    deletion_cost: i32,
    colocated: Reverse<usize>,
    ready_age: AgeClass,
    restarts: Reverse<(i32, i32)>,
    age: AgeClass,
    uid: String,
}

/// A time span on upstream's logarithmic scale: pods whose spans are within a factor of two count as
/// equally old and are in the end told apart by UID, which spreads deletions over nodes and zones.
type AgeClass = u32;

/// The pods in the order in which they are to be deleted.
pub(crate) fn for_deletion(
    pods: &[Arc<Pod>],
    related_by_node: &HashMap<String, usize>,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut ranked: Vec<(Standing, &Arc<Pod>)> =
        pods.iter().map(|pod| (standing(pod, related_by_node, now), pod)).collect();
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    ranked.into_iter().map(|(_, pod)| Arc::clone(pod)).collect()
}

fn standing(pod: &Pod, related_by_node: &HashMap<String, usize>, now: Timestamp) -> Standing {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    let cost = pod.annotations().get("controller.kubernetes.io/pod-deletion-cost");
    let since = |at: Option<Timestamp>| at.map_or(0, |at| log2_seconds(now.as_second() - at.as_second()));
    Standing {
        assigned: !node.is_empty(),
        phase: match pods::phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        },
        ready: pods::is_ready(pod),
        deletion_cost: cost.and_then(|text| text.parse().ok()).unwrap_or(0),
        colocated: Reverse(related_by_node.get(node).copied().unwrap_or(0)),
        ready_age: since(pods::ready_since(pod)),
        restarts: Reverse(restarts(pod)),
        age: since(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
        uid: pod.uid().unwrap_or_default(),
    }
}

/// One more than the binary logarithm; 0 for nothing.
fn log2_seconds(seconds: i64) -> u32 {
    u64::try_from(seconds).ok().filter(|span| *span > 0).map_or(0, |span| span.ilog2() + 1)
}

/// The most restarts of a regular container, then of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let most = |statuses: &Option<Vec<k8s_openapi::api::core::v1::ContainerStatus>>,
                of: &dyn Fn(&str) -> bool| {
        let counts =
            statuses.iter().flatten().filter(|status| of(&status.name)).map(|status| status.restart_count);
        counts.max().unwrap_or(0)
    };
    (
        most(&status.container_statuses, &|_| true),
        most(&status.init_container_statuses, &|name| pods::is_sidecar(pod, name)),
    )
}
