//! From what the metrics ask for to what is done: stabilisation, scaling policies, the user's bounds
//! (upstream `normalizeDesiredReplicas` and `...WithBehaviors` of `horizontal.go`). Pure.

use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};
use meta::Timestamp;

/// Without behaviour, a lower recommendation counts only after so long
/// (`horizontal-pod-autoscaler-downscale-stabilization`).
const DOWN_STABLE_S: i64 = 300;
/// Recommendations and changes are kept for the longest window that behaviour may name.
const KEPT_S: i64 = 3600;

/// What happened to one target.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Past {
    /// When which number was recommended.
    pub(super) recommended: Vec<(Timestamp, i32)>,
    /// When replicas were added (positive) or taken.
    pub(super) changed: Vec<(Timestamp, i32)>,
    /// What was asked for last: from, to, when. Becomes a change once the target shows it.
    pub(super) asked: Option<(i32, i32, Timestamp)>,
}

impl Past {
    /// Takes in the target's number, and forgets what no window reaches.
    pub(super) fn observe(&mut self, current: i32, now: Timestamp) {
        if let Some((from, to, at)) = self.asked
            && to == current
        {
            self.changed.push((at, to - from));
            self.asked = None;
        }
        self.recommended.retain(|(at, _)| seconds(now, *at) <= KEPT_S);
        self.changed.retain(|(at, _)| seconds(now, *at) <= KEPT_S);
    }
}

fn seconds(now: Timestamp, then: Timestamp) -> i64 {
    now.as_second() - then.as_second()
}

/// The user's bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) min: i32,
    pub(super) max: i32,
}

/// A condition: whether it holds, its reason and message.
pub(super) type Said = (bool, &'static str, &'static str);

/// What is to be done, and what to say of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limited {
    pub(super) replicas: i32,
    /// AbleToScale.
    pub(super) able: Said,
    /// ScalingLimited.
    pub(super) limited: Said,
}

/// Brings a recommendation within everything that limits it, and remembers it.
pub(super) fn limit(
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    past: &mut Past,
    bounds: Bounds,
    current: i32,
    recommended: i32,
    now: Timestamp,
) -> Limited {
    let (up, down) = match behavior {
        Some(behavior) => (behavior.scale_up.as_ref(), behavior.scale_down.as_ref()),
        None => (None, None),
    };
    let window = |rules: Option<&HPAScalingRules>| {
        rules.and_then(|rules| rules.stabilization_window_seconds).map(i64::from)
    };
    let (up_s, down_s) = (window(up).unwrap_or(0), window(down).unwrap_or(DOWN_STABLE_S));
    let recent = |within: i64| {
        past.recommended.iter().filter(move |(at, _)| seconds(now, *at) < within).map(|(_, count)| *count)
    };
    let lowest = recent(up_s).chain([recommended]).min().unwrap_or(recommended);
    let highest = recent(down_s).chain([recommended]).max().unwrap_or(recommended);
    let mut stable = current.max(lowest);
    stable = stable.min(highest);
    past.recommended.push((now, recommended));
    let able = match stable.cmp(&recommended) {
        std::cmp::Ordering::Equal => (true, "ReadyForNewScale", "recommended size matches current size"),
        std::cmp::Ordering::Less => (
            true,
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent recommendation",
        ),
        std::cmp::Ordering::Greater => (
            true,
            "ScaleDownStabilized",
            "recent recommendations were higher than current one, applying the highest recent recommendation",
        ),
    };
    let (replicas, limited) = bounded(behavior.is_some(), (up, down), past, bounds, current, stable, now);
    Limited { replicas, able, limited }
}

fn bounded(
    has_behavior: bool,
    (up, down): (Option<&HPAScalingRules>, Option<&HPAScalingRules>),
    past: &Past,
    bounds: Bounds,
    current: i32,
    stable: i32,
    now: Timestamp,
) -> (i32, Said) {
    const WITHIN: Said = (false, "DesiredWithinRange", "the desired count is within the acceptable range");
    const FEW: Said =
        (true, "TooFewReplicas", "the desired replica count is less than the minimum replica count");
    const MANY: Said =
        (true, "TooManyReplicas", "the desired replica count is more than the maximum replica count");
    const UP: Said =
        (true, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
    const DOWN: Said = (
        true,
        "ScaleDownLimit",
        "the desired replica count is decreasing faster than the maximum scale rate",
    );
    let Bounds { min, max } = bounds;
    if stable > current || !has_behavior {
        let rate = match (has_behavior, up) {
            (true, Some(rules)) => reachable(rules, past, current, true, now),
            (true, None) | (false, _) => (current.saturating_mul(2)).max(4),
        };
        let most = max.min(rate);
        return match stable {
            _ if stable < min => (min, FEW),
            _ if stable > most => (most, if most == max { MANY } else { UP }),
            _ => (stable, WITHIN),
        };
    }
    if stable < current {
        let rate = down.map_or(0, |rules| reachable(rules, past, current, false, now));
        let least = min.max(rate);
        return match stable {
            _ if stable > max => (max, MANY),
            _ if stable < least => (least, if least == min { FEW } else { DOWN }),
            _ => (stable, WITHIN),
        };
    }
    (stable.clamp(min.min(max), max), WITHIN)
}

/// The number that the policies let the target reach now, upwards or downwards.
fn reachable(rules: &HPAScalingRules, past: &Past, current: i32, up: bool, now: Timestamp) -> i32 {
    let select = rules.select_policy.as_deref().unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let proposals = rules.policies.iter().flatten().map(|policy| proposal(policy, past, current, up, now));
    // `Max` is the largest change, which downwards is the smallest number.
    let found = if (select == "Max") == up { proposals.max() } else { proposals.min() };
    let found = found.unwrap_or(current);
    if up { found.max(current) } else { found.min(current) }
}

#[allow(clippy::cast_possible_truncation, reason = "clamped to what replicas can be")]
fn proposal(policy: &HPAScalingPolicy, past: &Past, current: i32, up: bool, now: Timestamp) -> i32 {
    let within = |at: Timestamp| seconds(now, at) < i64::from(policy.period_seconds);
    let changed: i32 = past.changed.iter().filter(|(at, _)| within(*at)).map(|(_, by)| by).sum();
    let begin = f64::from(current.saturating_sub(changed));
    let value = f64::from(policy.value);
    let proposed = match (policy.type_.as_str(), up) {
        ("Percent", true) => (begin * (1.0 + value / 100.0)).ceil(),
        ("Percent", false) => (begin * (1.0 - value / 100.0)).floor(),
        (_, true) => begin + value,
        (_, false) => begin - value,
    };
    proposed.clamp(0.0, f64::from(i32::MAX)) as i32
}
