//! NodeResourcesBalancedAllocation: prefers nodes whose cpu and memory would be used to the same
//! share. Pods that request neither are not scored (kubernetes/kubernetes#129138).

use crate::{
    plugins::{Cycle, Normalize, Reach, SCORE_MAX, Score},
    snapshot::Slot,
};

pub(crate) const SCORE: Score = Score {
    name: "NodeResourcesBalancedAllocation",
    weight: 1,
    reach: Reach::Usage,
    normalize: Normalize::No,
    score,
};

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "shares in 0..=1")]
fn score(cycle: &Cycle<'_>, slot: Slot) -> i64 {
    let wanted = &cycle.shape.requests;
    let Some(node) = cycle.snapshot.node(slot) else { return 0 };
    if wanted.cpu_milli == 0 && wanted.memory == 0 {
        return 0;
    }
    let used = cycle.snapshot.used(slot);
    let share = |max: i64, requested: i64| (requested as f64 / max as f64).min(1.0);
    let (cpu, memory) = (node.allocatable.cpu_milli, node.allocatable.memory);
    // The standard deviation of two shares is half their distance; of one share it is 0.
    let deviation = if cpu > 0 && memory > 0 {
        let cpu = share(cpu, used.cpu_milli.saturating_add(wanted.cpu_milli));
        let memory = share(memory, used.memory.saturating_add(wanted.memory));
        (cpu - memory).abs() / 2.0
    } else {
        0.0
    };
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}
