//! NodeVolumeLimits: a node takes no more volumes of a CSI driver than its CSINode says.

use std::collections::BTreeMap;

use crate::{
    plugins::{Cycle, Filter, Reach, Refused, Wake},
    snapshot::Slot,
};

pub(crate) const FILTER: Filter = Filter {
    name: "NodeVolumeLimits",
    reach: Reach::Cluster,
    wake: Wake::NODE_ADDED.and(Wake::POD_GONE).and(Wake::VOLUMES),
    check,
};

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    let volumes = &cycle.snapshot.volumes;
    let Some(limits) = cycle.snapshot.name(slot).and_then(|name| volumes.limits(name)) else { return Ok(()) };
    let mut new = volumes.handles(cycle.shape);
    if new.is_empty() {
        return Ok(());
    }
    let mut attached = std::collections::BTreeSet::new();
    for shape in cycle.shapes_at(slot) {
        attached.extend(volumes.handles(shape));
    }
    new.retain(|handle| !attached.contains(handle));
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for (driver, _) in &attached {
        *counts.entry(driver).or_default() += 1;
    }
    let mut more: BTreeMap<&str, i64> = BTreeMap::new();
    for (driver, _) in &new {
        *more.entry(driver).or_default() += 1;
    }
    let full = more.iter().any(|(driver, more)| {
        let held = counts.get(driver).copied().unwrap_or_default();
        limits.get(*driver).is_some_and(|max| held + more > *max)
    });
    if full { Err(Refused::for_now("node(s) exceed max volume count")) } else { Ok(()) }
}
