//! NodeResourcesFit: what the pod requests must be free on the node. By default the emptier node scores
//! better (`LeastAllocated` on cpu and memory, equal weights); a profile may want full ones, or a curve.

use crate::{
    plugins::{Cycle, Filter, Normalize, Reach, Reason, Refused, SCORE_MAX, Score, Wake},
    profile::{Args, Strategy},
    resources::Measure,
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

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    let Some(node) = cycle.snapshot.node(slot) else { return Err(Refused::for_good("node(s) are gone")) };
    let (used, wanted, max) = (cycle.used(slot), &cycle.shape.requests, &node.allocatable);
    let mut refused = Refused { reasons: Vec::new(), curable: true };
    if used.pods >= node.pods_max {
        refused.reasons.push("Too many pods".into());
    }
    let mut need = |wanted: i64, used: i64, max: i64, reason: fn(&str) -> Reason, name: &str| {
        if wanted > 0 && wanted > max.saturating_sub(used) {
            refused.reasons.push(reason(name));
            // Even an empty node would be too small.
            refused.curable &= wanted <= max;
        }
    };
    need(wanted.cpu_milli, used.cpu_milli, max.cpu_milli, |_| "Insufficient cpu".into(), "");
    need(wanted.memory, used.memory, max.memory, |_| "Insufficient memory".into(), "");
    let storage = |_: &str| "Insufficient ephemeral-storage".into();
    need(wanted.ephemeral_storage, used.ephemeral_storage, max.ephemeral_storage, storage, "");
    for (name, amount) in wanted.extended.iter().filter(|(name, _)| !overlooked(cycle.args, name)) {
        let max = max.extended.get(name).copied().unwrap_or_default();
        let reason = |name: &str| format!("Insufficient {name}").into();
        need(*amount, cycle.used_extended(slot, name), max, reason, name);
    }
    if refused.reasons.is_empty() { Ok(()) } else { Err(refused) }
}

fn overlooked(args: &Args, name: &str) -> bool {
    let group = name.split_once('/').map(|(group, _)| group);
    args.ignored_resources.iter().any(|n| n == name)
        || group.is_some_and(|g| args.ignored_resource_groups.iter().any(|ignored| ignored == g))
}

fn score(cycle: &Cycle<'_>, slot: Slot) -> i64 {
    let Some(node) = cycle.snapshot.node(slot) else { return 0 };
    let (used, wanted) = (cycle.used(slot), &cycle.shape.requests_nonzero);
    let scoring = &cycle.args.fit;
    let (mut sum, mut weights) = (0, 0);
    for (measure, weight) in &scoring.resources {
        let taken = match measure {
            Measure::Cpu => used.cpu_milli_nonzero,
            Measure::Memory => used.memory_nonzero,
            Measure::EphemeralStorage => used.ephemeral_storage,
            // A resource that the pod does not ask for says nothing about where it goes.
            Measure::Extended(_) if wanted.get(measure) == 0 => continue,
            Measure::Extended(name) => cycle.used_extended(slot, name),
        };
        let max = node.allocatable.get(measure);
        if max <= 0 {
            continue;
        }
        let score = rate(&scoring.strategy, max, taken.saturating_add(wanted.get(measure)));
        // Upstream leaves resources that a curve gives nothing out of the mean.
        if score > 0 || !matches!(scoring.strategy, Strategy::RequestedToCapacityRatio(_)) {
            sum += score * weight;
            weights += weight;
        }
    }
    match scoring.strategy {
        _ if weights == 0 => 0,
        Strategy::RequestedToCapacityRatio(_) => (2 * sum + weights) / (2 * weights),
        Strategy::LeastAllocated | Strategy::MostAllocated => sum / weights,
    }
}

fn rate(strategy: &Strategy, max: i64, requested: i64) -> i64 {
    let share = |part: i64| {
        let scaled = i128::from(part.clamp(0, max)) * i128::from(SCORE_MAX);
        i64::try_from(scaled / i128::from(max)).unwrap_or_default()
    };
    match strategy {
        Strategy::LeastAllocated => share(max.saturating_sub(requested)),
        Strategy::MostAllocated => share(requested),
        Strategy::RequestedToCapacityRatio(points) => along(points, share(requested)),
    }
}

/// The height of a curve of straight lines.
fn along(points: &[(i64, i64)], x: i64) -> i64 {
    let mut before: Option<(i64, i64)> = None;
    for &(at, score) in points {
        if x <= at {
            return match before {
                Some((from, low)) if at > from => low + (score - low) * (x - from) / (at - from),
                Some(_) | None => score,
            };
        }
        before = Some((at, score));
    }
    before.map_or(0, |(_, score)| score)
}
