//! InterPodAffinity: near pods that are wanted, away from pods that are not, and away from pods that
//! do not want this one.

use crate::{
    plugins::{Cycle, Filter, Normalize, Reach, Refused, Score, Wake},
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

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    let Some(neighbours) = cycle.neighbours else { return Ok(()) };
    if !neighbours.wanted_at(slot) {
        Err(Refused::for_good("node(s) didn't match pod affinity rules"))
    } else if neighbours.shunned_at(slot) {
        Err(Refused::for_now("node(s) didn't match pod anti-affinity rules"))
    } else if neighbours.shunning_at(slot) {
        Err(Refused::for_now("node(s) didn't satisfy existing pods anti-affinity rules"))
    } else {
        Ok(())
    }
}

fn score(cycle: &Cycle<'_>, slot: Slot) -> i64 {
    cycle.neighbours.map_or(0, |neighbours| neighbours.drawn_at(slot))
}
