//! How many replicas one resource metric asks for (upstream `replica_calculator.go`). Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use meta::{Quantity, Timestamp};

use crate::{pods, spec::HasSpec};

/// A pod's CPU is not taken for its work while it starts (`horizontal-pod-autoscaler-cpu-initialization-period`).
const STARTING_S: i64 = 300;
/// A pod that was never ready turns unready only after this (`...-initial-readiness-delay`).
const READINESS_DELAY_S: i64 = 30;

/// What a pod's containers use, from one sample.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// When it was taken.
    pub(super) at: Timestamp,
    /// Over how long.
    pub(super) window_s: i64,
    /// Container, resource, thousandths of its unit.
    pub(super) containers: BTreeMap<String, BTreeMap<String, i64>>,
}

/// What a metric is to come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    /// Percent of the pods' requests.
    Utilization(i64),
    /// Thousandths of the unit, per pod.
    AverageValue(i64),
}

/// One resource of pods, or of one container in each.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted<'a> {
    pub(super) resource: &'a str,
    pub(super) container: Option<&'a str>,
    pub(super) target: Target,
}

/// How far from the target still counts as on it, upwards and downwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerance {
    pub(super) up: f64,
    pub(super) down: f64,
}

impl Tolerance {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What a metric comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// Percent of the requests, where the target is one.
    pub(super) utilization: Option<i64>,
    /// Thousandths, per pod.
    pub(super) average: i64,
}

/// The replicas that bring the metric to its target; the error says why that cannot be told.
pub(super) fn propose(
    wanted: &Wanted<'_>,
    current: i32,
    all: &[Arc<Pod>],
    samples: &BTreeMap<String, Sample>,
    tolerance: Tolerance,
    now: Timestamp,
) -> Result<Proposal, String> {
    if all.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    let (mut ready, mut unready, mut missing) = (0_i32, Vec::new(), Vec::new());
    for pod in all.iter().filter(|pod| !pods::is_deleting(pod) && pods::phase(pod) != "Failed") {
        let name = pod.name_any();
        let sample = samples.get(&name).and_then(|sample| Some((sample, value(sample, wanted)?)));
        match sample {
            _ if pods::phase(pod) == "Pending" => unready.push(name),
            None => missing.push(name),
            Some((sample, _)) if wanted.resource == "cpu" && is_starting(pod, sample, now) => {
                unready.push(name);
            }
            Some((_, value)) => {
                ready += 1;
                used.insert(name, value);
            }
        }
    }
    if used.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let goals = goals(wanted, all)?;
    let first = Ratio::of(&used, &goals);
    let proposal = |replicas: i32| Proposal {
        replicas,
        utilization: matches!(wanted.target, Target::Utilization(_)).then_some(first.percent),
        average: first.average,
    };
    let wakes_unready = !unready.is_empty() && first.ratio > 1.0;
    if !wakes_unready && missing.is_empty() {
        let on_target = tolerance.covers(first.ratio);
        return Ok(proposal(if on_target { current } else { ceil(first.ratio, ready) }));
    }
    // What is not known is assumed so that it slows the change down.
    for name in &missing {
        let goal = goals.get(name).copied().unwrap_or_default();
        let assumed = match wanted.target {
            _ if first.ratio > 1.0 => 0,
            Target::Utilization(percent) => goal.base * percent.max(100) / 100,
            Target::AverageValue(value) => value,
        };
        used.insert(name.clone(), assumed);
    }
    if wakes_unready {
        used.extend(unready.into_iter().map(|name| (name, 0)));
    }
    let second = Ratio::of(&used, &goals).ratio;
    let turned = (first.ratio < 1.0 && second > 1.0) || (first.ratio > 1.0 && second < 1.0);
    if tolerance.covers(second) || turned {
        return Ok(proposal(current));
    }
    let replicas = ceil(second, i32::try_from(used.len()).unwrap_or(i32::MAX));
    let wrong_way = (second < 1.0 && replicas > current) || (second > 1.0 && replicas < current);
    Ok(proposal(if wrong_way { current } else { replicas }))
}

/// What one pod is measured against.
#[derive(Clone, Copy, Debug, Default)]
struct Goal {
    /// Its request, or the average wanted; thousandths.
    base: i64,
    /// What of that is wanted, in percent.
    percent: i64,
}

struct Ratio {
    /// Used to wanted.
    ratio: f64,
    percent: i64,
    average: i64,
}

impl Ratio {
    #[allow(clippy::cast_precision_loss, reason = "thousandths of resources are far below 2^52")]
    fn of(used: &BTreeMap<String, i64>, goals: &BTreeMap<String, Goal>) -> Self {
        let total: i64 = used.values().sum();
        let goals = used.keys().filter_map(|name| goals.get(name));
        let (base, percent) = goals.fold((0, 100), |(base, _), goal| (base + goal.base, goal.percent));
        let of_base = if base > 0 { total.saturating_mul(100) / base } else { 0 };
        let count = i64::try_from(used.len()).unwrap_or(1).max(1);
        Self {
            ratio: if base > 0 { total as f64 * 100.0 / (base as f64 * percent as f64) } else { 0.0 },
            percent: of_base,
            average: total / count,
        }
    }
}

fn goals(wanted: &Wanted<'_>, all: &[Arc<Pod>]) -> Result<BTreeMap<String, Goal>, String> {
    let goal = |pod: &Arc<Pod>| {
        let goal = match wanted.target {
            Target::AverageValue(value) => Goal { base: value, percent: 100 },
            Target::Utilization(percent) => Goal { base: requested(pod, wanted)?, percent },
        };
        Ok((pod.name_any(), goal))
    };
    all.iter().map(goal).collect()
}

/// The request of the pod, or of the container; every one that counts has to have one.
fn requested(pod: &Pod, wanted: &Wanted<'_>) -> Result<i64, String> {
    let Wanted { resource, container, target: _ } = wanted;
    let spec = pod.spec();
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let counted =
        spec.containers.iter().chain(sidecars).filter(|c| container.is_none_or(|name| c.name == name));
    let mut sum = 0_i64;
    for container in counted {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let request = requests.and_then(|requests| requests.get(*resource));
        let request = request.and_then(|text| text.0.parse::<Quantity>().ok());
        let request = request.ok_or_else(|| {
            format!(
                "missing request for {resource} in container {} of Pod {}",
                container.name,
                pod.name_any()
            )
        })?;
        sum = sum.saturating_add(request.milli_value());
    }
    Ok(sum)
}

/// The use that counts; `None` when a container lacks it.
fn value(sample: &Sample, wanted: &Wanted<'_>) -> Option<i64> {
    let of = |container: &BTreeMap<String, i64>| container.get(wanted.resource).copied();
    match wanted.container {
        Some(name) => sample.containers.get(name).and_then(of),
        None => sample.containers.values().map(of).sum(),
    }
}

/// Whether the CPU of the pod says more about its start than about its work.
fn is_starting(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let status = pod.status.as_ref();
    let ready = status.and_then(|s| s.conditions.iter().flatten().find(|c| c.type_ == "Ready"));
    let started = status.and_then(|status| status.start_time.as_ref());
    let (Some(ready), Some(started)) = (ready, started) else { return true };
    let is_false = ready.status == "False";
    let (started, turned) = (started.0.as_second(), ready.last_transition_time.as_ref());
    let turned = turned.map_or(0, |time| time.0.as_second());
    if started + STARTING_S > now.as_second() {
        is_false || sample.at.as_second() < turned + sample.window_s
    } else {
        is_false && started + READINESS_DELAY_S > turned
    }
}

#[allow(clippy::cast_possible_truncation, reason = "clamped to what replicas can be")]
fn ceil(ratio: f64, count: i32) -> i32 {
    (ratio * f64::from(count)).ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}
