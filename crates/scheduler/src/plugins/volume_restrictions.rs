//! VolumeRestrictions: a claim of access mode `ReadWriteOncePod` is one pod's at a time, wherever it runs.

use crate::{
    plugins::{Cycle, Filter, Reach, Refused, Wake},
    snapshot::Slot,
};

pub(crate) const FILTER: Filter = Filter {
    name: "VolumeRestrictions",
    reach: Reach::Cluster,
    wake: Wake::POD_GONE.and(Wake::VOLUMES),
    check,
};

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    if cycle.shape.claims.is_empty() {
        return Ok(());
    }
    let volumes = &cycle.snapshot.volumes;
    let users = volumes.sole_users(cycle.shape);
    // On a node that is tried without some pods, what they used is free.
    let here = cycle.snapshot.tenants_at(slot).iter();
    let real: usize = here.map(|t| volumes.sole_shared(cycle.shape, &t.shape)).sum();
    let tried: usize = cycle.shapes_at(slot).map(|shape| volumes.sole_shared(cycle.shape, shape)).sum();
    if users + tried <= real {
        return Ok(());
    }
    Err(Refused::for_now(
        "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
    ))
}
