//! InterPodAffinity: near pods that are wanted, away from pods that are not, and away from pods that
//! do not want this one.

use crate::{
    plugins::{Cycle, Filter, Normalize, Reach, Reasons, Score, Wake},
    snapshot::Slot,
};

pub(crate) const FILTER: Filter = Filter {
    name: "InterPodAffinity",
    reach: Reach::Cluster,
    wake: Wake::NODE_ADDED.and(Wake::NODE_LABELS).and(Wake::POD_PLACED).and(Wake::POD_GONE),
    check,
};

pub(crate) const SCORE: Score =
    Score { name: "InterPodAffinity", weight: 2, reach: Reach::Cluster, normalize: Normalize::Range, score };

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Reasons> {
    let (Some(neighbours), Some(node)) = (&cycle.neighbours, cycle.snapshot.node(slot)) else {
        return Ok(());
    };
    let reason = if !neighbours.wanted_at(&node.labels) {
        "node(s) didn't match pod affinity rules"
    } else if neighbours.shunned_at(&node.labels) {
        "node(s) didn't match pod anti-affinity rules"
    } else if neighbours.shunning_at(&node.labels) {
        "node(s) didn't satisfy existing pods anti-affinity rules"
    } else {
        return Ok(());
    };
    Err(vec![reason.into()])
}

fn score(cycle: &Cycle<'_>, slot: Slot) -> i64 {
    match (&cycle.neighbours, cycle.snapshot.node(slot)) {
        (Some(neighbours), Some(node)) => neighbours.drawn_at(&node.labels),
        (None, _) | (_, None) => 0,
    }
}
