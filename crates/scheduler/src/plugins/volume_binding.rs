//! VolumeBinding: the pod's volumes must be reachable from the node, or be made there.

use crate::{
    plugins::{Cycle, Filter, Reach, Refused, Wake},
    snapshot::Slot,
};

pub(crate) const FILTER: Filter = Filter {
    name: "VolumeBinding",
    reach: Reach::Cluster,
    wake: Wake::NODE_ADDED.and(Wake::NODE_LABELS).and(Wake::VOLUMES),
    check,
};

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    if cycle.shape.claims.is_empty() {
        return Ok(());
    }
    let Some(node) = cycle.snapshot.node(slot) else { return Err(Refused::for_good("node(s) are gone")) };
    cycle
        .snapshot
        .volumes
        .fit(&cycle.claims, &node.name, &node.labels)
        .map(|_| ())
        .map_err(|reasons| Refused { reasons, curable: false })
}
