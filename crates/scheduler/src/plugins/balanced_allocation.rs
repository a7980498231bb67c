//! NodeResourcesBalancedAllocation: prefers nodes whose cpu and memory (or what the profile names) would be
//! used to the same share. Pods that request none of it are not scored (kubernetes/kubernetes#129138).

use crate::{
    plugins::{Cycle, Normalize, Reach, SCORE_MAX, Score},
    resources::Measure,
    snapshot::Slot,
};

pub(crate) const SCORE: Score = Score {
    name: "NodeResourcesBalancedAllocation",
    weight: 1,
    reach: Reach::Usage,
    normalize: Normalize::No,
    score,
};

/// More resources than this are not compared; upstream's default is two.
pub(crate) const RESOURCES_MAX: usize = 8;

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "shares in 0..=1")]
fn score(cycle: &Cycle<'_>, slot: Slot) -> i64 {
    let wanted = &cycle.shape.requests;
    let Some(node) = cycle.snapshot.node(slot) else { return 0 };
    if cycle.args.balanced.iter().all(|m| wanted.get(m) == 0) {
        return 0;
    }
    let used = cycle.used(slot);
    let (mut shares, mut count) = ([0.0_f64; RESOURCES_MAX], 0_usize);
    for measure in &cycle.args.balanced {
        let taken = match measure {
            Measure::Cpu => used.cpu_milli,
            Measure::Memory => used.memory,
            Measure::EphemeralStorage => used.ephemeral_storage,
            Measure::Extended(_) if wanted.get(measure) == 0 => continue,
            Measure::Extended(name) => cycle.used_extended(slot, name),
        };
        let max = node.allocatable.get(measure);
        if max > 0
            && let Some(share) = shares.get_mut(count)
        {
            *share = (taken.saturating_add(wanted.get(measure)) as f64 / max as f64).min(1.0);
            count += 1;
        }
    }
    let shares = shares.get(..count).unwrap_or_default();
    // Of two shares this is half their distance; of one it is 0.
    let mean = shares.iter().sum::<f64>() / (count.max(1) as f64);
    let variance = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (count.max(1) as f64);
    let deviation = if let [a, b] = shares { (a - b).abs() / 2.0 } else { variance.sqrt() };
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}
