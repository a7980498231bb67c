//! TaintToleration: `NoSchedule` and `NoExecute` taints must be tolerated; fewer untolerated
//! `PreferNoSchedule` taints score better.

use crate::{
    node::NodeInfo,
    plugins::{Cycle, Filter, Normalize, Reach, Refused, Score, Wake},
    pod::Shape,
    snapshot::Slot,
    taint::{Effect, Taint},
};

pub(crate) const FILTER: Filter = Filter {
    name: "TaintToleration",
    reach: Reach::Nodes,
    wake: Wake::NODE_ADDED.and(Wake::NODE_TAINTS),
    check,
};

pub(crate) const SCORE: Score =
    Score { name: "TaintToleration", weight: 3, reach: Reach::Nodes, normalize: Normalize::Inverted, score };

/// Whether nothing of a node repels the pod.
pub(crate) fn tolerates(shape: &Shape, node: &NodeInfo) -> bool {
    let repelling = node.taints.iter().filter(|t| t.repels());
    repelling.into_iter().all(|taint| shape.tolerations.iter().any(|t| t.tolerates(taint)))
}

fn taints<'a>(cycle: &'a Cycle<'_>, slot: Slot) -> &'a [Taint] {
    cycle.snapshot.node(slot).map(|n| n.taints.as_slice()).unwrap_or_default()
}

fn tolerated(cycle: &Cycle<'_>, taint: &Taint) -> bool {
    cycle.shape.tolerations.iter().any(|t| t.tolerates(taint))
}

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    match taints(cycle, slot).iter().find(|t| t.repels() && !tolerated(cycle, t)) {
        None => Ok(()),
        Some(_) => Err(Refused::for_good("node(s) had untolerated taint(s)")),
    }
}

fn score(cycle: &Cycle<'_>, slot: Slot) -> i64 {
    let preferences = taints(cycle, slot).iter().filter(|t| t.effect == Effect::PreferNoSchedule);
    i64::try_from(preferences.filter(|t| !tolerated(cycle, t)).count()).unwrap_or(i64::MAX)
}
