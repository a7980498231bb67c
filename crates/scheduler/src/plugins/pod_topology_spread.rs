//! PodTopologySpread: pods of a kind evenly over domains. Pods without constraints that belong to a
//! Service or a workload get the profile's default ones.

use crate::{
    neighbours::Uneven,
    plugins::{Cycle, Filter, Normalize, Reach, Refused, Score, Wake},
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

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    let Some(neighbours) = cycle.neighbours else { return Ok(()) };
    match neighbours.even_at(slot) {
        Ok(()) => Ok(()),
        Err(Uneven::Skewed) => Err(Refused::for_now("node(s) didn't match pod topology spread constraints")),
        Err(Uneven::Unlabelled) => Err(Refused::for_good(
            "node(s) didn't match pod topology spread constraints (missing required label)",
        )),
    }
}

/// Negative where a label is missing: such a node is the last to be taken.
fn score(cycle: &Cycle<'_>, slot: Slot) -> i64 {
    cycle.neighbours.map_or(0, |neighbours| neighbours.crowd_at(slot).unwrap_or(-1))
}
