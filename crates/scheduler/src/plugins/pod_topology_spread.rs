//! PodTopologySpread: pods of a kind evenly over domains. Upstream's default constraints for pods
//! without any (hostname and zone) are not applied: `LeastAllocated` spreads those.

use crate::{
    neighbours::Uneven,
    plugins::{Cycle, Filter, Normalize, Reach, Reasons, Score, Wake},
    snapshot::Slot,
};

pub(crate) const FILTER: Filter = Filter {
    name: "PodTopologySpread",
    reach: Reach::Cluster,
    wake: Wake::NODE_ADDED
        .and(Wake::NODE_LABELS)
        .and(Wake::NODE_TAINTS)
        .and(Wake::POD_PLACED)
        .and(Wake::POD_GONE),
    check,
};

pub(crate) const SCORE: Score =
    Score { name: "PodTopologySpread", weight: 2, reach: Reach::Cluster, normalize: Normalize::Crowd, score };

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Reasons> {
    let (Some(neighbours), Some(node)) = (&cycle.neighbours, cycle.snapshot.node(slot)) else {
        return Ok(());
    };
    let reason = match neighbours.even_at(&node.labels) {
        Ok(()) => return Ok(()),
        Err(Uneven::Skewed) => "node(s) didn't match pod topology spread constraints",
        Err(Uneven::Unlabelled) => {
            "node(s) didn't match pod topology spread constraints (missing required label)"
        }
    };
    Err(vec![reason.into()])
}

/// Negative where a label is missing: such a node is the last to be taken.
fn score(cycle: &Cycle<'_>, slot: Slot) -> i64 {
    match (&cycle.neighbours, cycle.snapshot.node(slot)) {
        (Some(neighbours), Some(node)) => neighbours.crowd_at(&node.labels).unwrap_or(-1),
        (None, _) | (_, None) => 0,
    }
}
