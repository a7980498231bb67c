//! NodeAffinity: `nodeSelector` and required node affinity must match; matching preferred terms add
//! their weight.

use crate::{
    node::NodeInfo,
    plugins::{Cycle, Filter, Normalize, Reach, Refused, Score, Wake},
    pod::Shape,
    snapshot::Slot,
};

pub(crate) const FILTER: Filter = Filter {
    name: "NodeAffinity",
    reach: Reach::Nodes,
    wake: Wake::NODE_ADDED.and(Wake::NODE_LABELS),
    check,
};

pub(crate) const SCORE: Score =
    Score { name: "NodeAffinity", weight: 2, reach: Reach::Nodes, normalize: Normalize::Proportional, score };

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    let Some(node) = cycle.snapshot.node(slot) else { return Err(Refused::for_good("node(s) are gone")) };
    if let Some(added) = cycle.args.added_affinity.as_ref().and_then(|a| a.required.as_ref())
        && !added.matches(&node.name, &node.labels)
    {
        return Err(Refused::for_good("node(s) didn't match scheduler-enforced node affinity"));
    }
    if admits(cycle.shape, node) {
        Ok(())
    } else {
        Err(Refused::for_good("node(s) didn't match Pod's node affinity/selector"))
    }
}

/// Whether selector and required affinity admit a node.
pub(crate) fn admits(shape: &Shape, node: &NodeInfo) -> bool {
    shape.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && shape.node_affinity.as_ref().is_none_or(|a| a.matches(&node.name, &node.labels))
}

fn score(cycle: &Cycle<'_>, slot: Slot) -> i64 {
    let Some(node) = cycle.snapshot.node(slot) else { return 0 };
    let added = cycle.args.added_affinity.as_ref().map(|a| a.preferred.as_slice()).unwrap_or_default();
    let matching =
        cycle.shape.preferred_nodes.iter().chain(added).filter(|(_, t)| t.matches(&node.name, &node.labels));
    matching.map(|(weight, _)| weight).sum()
}
