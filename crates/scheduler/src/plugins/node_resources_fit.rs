//! NodeResourcesFit: what the pod requests must be free on the node; the emptier node scores better
//! (`LeastAllocated` on cpu and memory, equal weights).

use crate::{
    plugins::{Cycle, Filter, Normalize, Reach, Reasons, SCORE_MAX, Score, Wake},
    snapshot::Slot,
};

pub(crate) const FILTER: Filter = Filter {
    name: "NodeResourcesFit",
    reach: Reach::Usage,
    wake: Wake::NODE_ADDED.and(Wake::NODE_ALLOCATABLE).and(Wake::POD_GONE),
    check,
};

pub(crate) const SCORE: Score =
    Score { name: "NodeResourcesFit", weight: 1, reach: Reach::Usage, normalize: Normalize::No, score };

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Reasons> {
    let Some(node) = cycle.snapshot.node(slot) else { return Err(vec!["node(s) are gone".into()]) };
    let (used, wanted, max) = (cycle.snapshot.used(slot), &cycle.shape.requests, &node.allocatable);
    let lacks = |wanted: i64, used: i64, max: i64| wanted > 0 && wanted > max.saturating_sub(used);
    let mut reasons = Reasons::new();
    if used.pods >= node.pods_max {
        reasons.push("Too many pods".into());
    }
    if lacks(wanted.cpu_milli, used.cpu_milli, max.cpu_milli) {
        reasons.push("Insufficient cpu".into());
    }
    if lacks(wanted.memory, used.memory, max.memory) {
        reasons.push("Insufficient memory".into());
    }
    if lacks(wanted.ephemeral_storage, used.ephemeral_storage, max.ephemeral_storage) {
        reasons.push("Insufficient ephemeral-storage".into());
    }
    for (name, amount) in &wanted.extended {
        let (used, max) = (cycle.snapshot.used_extended(slot, name), max.extended.get(name));
        if lacks(*amount, used, max.copied().unwrap_or_default()) {
            reasons.push(format!("Insufficient {name}").into());
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

fn score(cycle: &Cycle<'_>, slot: Slot) -> i64 {
    let Some(node) = cycle.snapshot.node(slot) else { return 0 };
    let (used, wanted) = (cycle.snapshot.used(slot), &cycle.shape.requests_nonzero);
    let mut sum = 0;
    let mut counted = 0;
    for (max, requested) in [
        (node.allocatable.cpu_milli, used.cpu_milli_nonzero.saturating_add(wanted.cpu_milli)),
        (node.allocatable.memory, used.memory_nonzero.saturating_add(wanted.memory)),
    ] {
        if max > 0 {
            counted += 1;
            sum += free_share(max, requested);
        }
    }
    if counted == 0 { 0 } else { sum / counted }
}

fn free_share(max: i64, requested: i64) -> i64 {
    let free = i128::from(max.saturating_sub(requested).max(0));
    i64::try_from(free * i128::from(SCORE_MAX) / i128::from(max)).unwrap_or_default()
}
