//! VolumeZone: a bound volume that is labelled with a zone or region is reached from nodes of that zone or
//! region only. Volumes that say so by node affinity are `VolumeBinding`'s.

use crate::{
    plugins::{Cycle, Filter, Reach, Refused, Wake},
    snapshot::Slot,
};

pub(crate) const FILTER: Filter = Filter {
    name: "VolumeZone",
    reach: Reach::Cluster,
    wake: Wake::NODE_ADDED.and(Wake::NODE_LABELS).and(Wake::VOLUMES),
    check,
};

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    let Some(node) = cycle.snapshot.node(slot) else { return Err(Refused::for_good("node(s) are gone")) };
    if cycle.claims.in_zone(&node.labels) {
        Ok(())
    } else {
        Err(Refused::for_good("node(s) had no available volume zone"))
    }
}
