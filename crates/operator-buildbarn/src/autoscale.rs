//! How many pods a pool should have, from what its queues hold. Pure.

use meta::{Timestamp, format_second};

use crate::{
    queue::Queue,
    types::{Autoscaling, AutoscalingStatus},
    validate::Pool,
    verdict::Wrong,
};

/// Checked limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) min: i32,
    pub(crate) max: i32,
    /// Queued actions for each slot that are not worth another pod.
    pub(crate) patience: f64,
    pub(crate) up_seconds: i64,
    pub(crate) down_seconds: i64,
}

pub(crate) fn limits(given: &Autoscaling, most: i32, wrong: &mut Wrong) -> Limits {
    if given.max < given.min {
        wrong
            .add("spec.autoscaling.max", format!("must not be less than min: {} < {}", given.max, given.min));
    }
    let day = 86_400;
    let up = given.scale_up_stabilization_seconds;
    let down = given.scale_down_stabilization_seconds;
    Limits {
        min: wrong.range("spec.autoscaling.min", Some(given.min), 0, 0, most),
        max: wrong.range("spec.autoscaling.max", Some(given.max), 1, 1, most),
        patience: wrong.range(
            "spec.autoscaling.targetQueuedPerSlot",
            given.target_queued_per_slot,
            0.0,
            0.0,
            1e6,
        ),
        up_seconds: wrong.range("spec.autoscaling.scaleUpStabilizationSeconds", up, 0, 0, day),
        down_seconds: wrong.range("spec.autoscaling.scaleDownStabilizationSeconds", down, 300, 0, day),
    }
}

/// Pods that would run all that is queued and runs, within the limits.
pub(crate) fn demand(pool: &Pool, limits: &Limits, queues: &[Queue]) -> i32 {
    let mut most = 0;
    for queue in queues {
        let slots: u32 = pool
            .runners
            .iter()
            .filter(|runner| queue.serves(&pool.prefix, runner))
            .map(|runner| runner.concurrency)
            .sum();
        if slots == 0 {
            continue;
        }
        let work = f64::from(queue.executing) + f64::from(queue.queued) / (1.0 + limits.patience);
        most = most.max(whole((work / f64::from(slots)).ceil()));
    }
    most.clamp(limits.min, limits.max)
}

#[allow(clippy::cast_possible_truncation, reason = "clamped to what an i32 holds")]
fn whole(number: f64) -> i32 {
    number.clamp(0.0, f64::from(i32::MAX)) as i32
}

/// Follows the demand: up when it has been more for a while, down to the most of a while.
pub(crate) fn follow(
    limits: &Limits,
    before: Option<&AutoscalingStatus>,
    demand: i32,
    now: Timestamp,
) -> AutoscalingStatus {
    let Some(before) = before else {
        return AutoscalingStatus { replicas: demand, ..AutoscalingStatus::default() };
    };
    let current = before.replicas.clamp(limits.min, limits.max);
    let elapsed = |since: Option<&String>| {
        since
            .and_then(|since| since.parse::<Timestamp>().ok())
            .map(|since| now.as_second() - since.as_second())
    };
    let stays = AutoscalingStatus { replicas: current, ..AutoscalingStatus::default() };
    if demand > current {
        let waited = elapsed(before.more_since.as_ref()).unwrap_or(0);
        if waited >= limits.up_seconds {
            return AutoscalingStatus { replicas: demand, ..AutoscalingStatus::default() };
        }
        let since = before.more_since.clone().unwrap_or_else(|| format_second(now));
        return AutoscalingStatus { more_since: Some(since), ..stays };
    }
    if demand == current {
        return stays;
    }
    let peak = before.fewer_peak.unwrap_or(demand).max(demand);
    let waited = elapsed(before.fewer_since.as_ref()).unwrap_or(0);
    if waited >= limits.down_seconds {
        return AutoscalingStatus { replicas: peak.min(current), ..AutoscalingStatus::default() };
    }
    let since = before.fewer_since.clone().unwrap_or_else(|| format_second(now));
    AutoscalingStatus { fewer_since: Some(since), fewer_peak: Some(peak), ..stays }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { min: 0, max: 10, patience: 0.0, up_seconds: 20, down_seconds: 100 };

    #[test]
    fn follows_up_soon_and_down_late() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let mut status = follow(&LIMITS, None, 2, at(0));
        let mut seen = Vec::new();
        // More is asked for, for 20 s; then fewer, with a peak of 3 in between, for 100 s.
        for (now, demand) in
            [(10, 5), (29, 5), (30, 5), (40, 1), (90, 3), (139, 0), (140, 0), (150, 0), (250, 0)]
        {
            status = follow(&LIMITS, Some(&status), demand, at(now));
            seen.push(status.replicas);
        }
        assert_eq!(seen, [2, 2, 5, 5, 5, 5, 3, 3, 0]);
    }
}
