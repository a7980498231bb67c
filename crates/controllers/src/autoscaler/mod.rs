//! HorizontalPodAutoscaler: as many replicas as the use of resources asks for (upstream
//! `pkg/controller/podautoscaler`).
//!
//! Measures by the resource metrics API; how many replicas a metric asks for is [`replicas`], what is done
//! about it [`limits`]. Metrics of types Pods, Object and External need an API that is not there: they are
//! invalid metrics, and the condition says so.

mod limits;
mod metrics;
mod replicas;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        autoscaling::{
            v1::Scale,
            v2::{
                HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
                HorizontalPodAutoscalerStatus, MetricStatus,
            },
        },
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use meta::{ObjectKey, Timestamp};
use parking_lot::Mutex;
use reconcile::{Child, Context, Kind, Note, Plan, Reconciler, Result, Watches};
use serde_json::json;

use crate::{pods, scale};
use limits::{Bounds, Limited, Past, Said, limit};

/// Between two looks at a target (`horizontal-pod-autoscaler-sync-period`).
const EVERY: Duration = Duration::from_secs(15);

/// The controller.
#[derive(Default)]
pub struct HorizontalAutoscalers {
    past: Mutex<HashMap<ObjectKey, Past>>,
}

/// What one plan looks at.
pub struct World {
    scaler: Arc<HorizontalPodAutoscaler>,
    target: Option<(Kind, Scale)>,
    verdict: Verdict,
}

/// What has been found out about a target.
#[derive(Clone, Debug, Default, PartialEq)]
struct Verdict {
    current: i32,
    desired: i32,
    able: Option<(bool, &'static str, String)>,
    active: Option<(bool, &'static str, String)>,
    limited: Option<Said>,
    metrics: Option<Vec<MetricStatus>>,
    /// Why the number is another one.
    why: String,
    /// What is wrong: reason and message of an event.
    failure: Option<(&'static str, String)>,
}

impl Reconciler for HorizontalAutoscalers {
    type World = World;
    const NAME: &'static str = "horizontal-pod-autoscaler";

    fn watches(&self) -> Watches {
        Watches::of::<HorizontalPodAutoscaler>().reads::<Pod>()
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(scaler) = cx.stores.ready::<HorizontalPodAutoscaler>().await.get(key) else {
            self.past.lock().remove(key);
            return Ok(None);
        };
        let spec = scaler.spec.clone();
        let target = &spec.scale_target_ref;
        let version = target.api_version.clone().unwrap_or_default();
        let read = scale::read(&cx.client, &version, &target.kind, &key.namespace, &target.name).await;
        let gone = || format!("{} \"{}\" not found, or it has no scale", target.kind, target.name);
        let found = match read.and_then(|found| found.ok_or_else(gone)) {
            Ok(found) => found,
            Err(why) => return Ok(Some(World { scaler, target: None, verdict: no_scale(&why) })),
        };
        let now = cx.clock.now();
        let scale = &found.1;
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let mut past = self.past.lock().get(key).cloned().unwrap_or_default();
        past.observe(current, now);
        let selector = scale.status.as_ref().and_then(|status| status.selector.clone()).unwrap_or_default();
        let verdict = if current == 0 || current > spec.max_replicas || current < bounds(&spec).min {
            outside(&spec, current)
        } else {
            let measured = metrics::measure(cx, &spec, &key.namespace, &selector, current).await;
            decide(&spec, current, measured, &mut past, now)
        };
        if verdict.desired != current
            && past.asked.is_none_or(|(from, to, _)| (from, to) != (current, verdict.desired))
        {
            past.asked = Some((current, verdict.desired, now));
        }
        self.past.lock().insert(key.clone(), past);
        Ok(Some(World { scaler, target: Some(found), verdict }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let World { scaler, target, verdict } = world;
        let Verdict { current, desired, able, active, limited, metrics, why, failure } = verdict;
        let before = scaler.status.clone().unwrap_or_default();
        let mut conditions = before.conditions.clone().unwrap_or_default();
        let rescales = target.as_ref().filter(|_| desired != current);
        if let Some((reason, message)) = failure
            && !conditions.iter().any(|c| c.reason.as_deref() == Some(*reason) && c.status == "False")
        {
            plan.events.push(Note::warning(&**scaler, reason, "Scale", message.clone()));
        }
        if let Some((kind, scale)) = rescales {
            let patch = json!({ "spec": { "replicas": desired } });
            plan.apply.push(Child::patch_body(kind.clone(), scale, Some("scale"), patch));
            let text = format!("New size: {desired}; reason: {why}");
            plan.events.push(Note::normal(&**scaler, "SuccessfulRescale", "Scale", text));
            let text = format!("the HPA controller was able to update the target scale to {desired}");
            set(&mut conditions, "AbleToScale", (true, "SucceededRescale", &text), now);
        } else if let Some((holds, reason, message)) = able {
            set(&mut conditions, "AbleToScale", (*holds, reason, message), now);
        }
        if let Some((holds, reason, message)) = active {
            set(&mut conditions, "ScalingActive", (*holds, reason, message), now);
        }
        if let Some((holds, reason, message)) = limited {
            set(&mut conditions, "ScalingLimited", (*holds, reason, message), now);
        }
        let scaled = |before: Option<Time>| match rescales {
            Some(_) => Some(Time(pods::whole_second(now))),
            None => before,
        };
        let status = HorizontalPodAutoscalerStatus {
            conditions: Some(conditions),
            current_metrics: metrics.clone().or(before.current_metrics),
            current_replicas: Some(*current),
            desired_replicas: *desired,
            last_scale_time: scaled(before.last_scale_time),
            observed_generation: scaler.metadata.generation,
        };
        plan.set_status(&**scaler, &status);
        plan.recheck(EVERY);
        plan
    }
}

fn bounds(spec: &HorizontalPodAutoscalerSpec) -> Bounds {
    Bounds { min: spec.min_replicas.unwrap_or(1), max: spec.max_replicas }
}

fn no_scale(why: &str) -> Verdict {
    let message = format!("the HPA controller was unable to get the target's current scale: {why}");
    Verdict {
        able: Some((false, "FailedGetScale", message)),
        failure: Some(("FailedGetScale", why.to_owned())),
        ..Verdict::default()
    }
}

const GOT_SCALE: (bool, &str, &str) =
    (true, "SucceededGetScale", "the HPA controller was able to get the target's current scale");

fn able((holds, reason, message): Said) -> Option<(bool, &'static str, String)> {
    Some((holds, reason, message.to_owned()))
}

/// A number that the bounds alone decide.
fn outside(spec: &HorizontalPodAutoscalerSpec, current: i32) -> Verdict {
    let Bounds { min, max } = bounds(spec);
    let verdict = Verdict { current, able: able(GOT_SCALE), ..Verdict::default() };
    if current == 0 && min != 0 {
        let text = "scaling is disabled since the replica count of the target is zero";
        return Verdict { active: Some((false, "ScalingDisabled", text.to_owned())), ..verdict };
    }
    if current > max {
        let why = "Current number of replicas above Spec.MaxReplicas".to_owned();
        return Verdict { desired: max, why, ..verdict };
    }
    let why = "Current number of replicas below Spec.MinReplicas".to_owned();
    Verdict { desired: min, why, ..verdict }
}

/// What follows from the metrics.
fn decide(
    spec: &HorizontalPodAutoscalerSpec,
    current: i32,
    measured: metrics::Measured,
    past: &mut Past,
    now: Timestamp,
) -> Verdict {
    let metrics::Measured { best, statuses, invalid, total } = measured;
    let metrics = Some(statuses).filter(|statuses| !statuses.is_empty());
    let verdict = Verdict { current, desired: current, able: able(GOT_SCALE), metrics, ..Verdict::default() };
    let lower = best.as_ref().is_none_or(|(replicas, _)| *replicas < current);
    match (best, invalid) {
        // One that cannot be told might have asked for more, so nothing is taken away.
        (_, Some(metrics::Invalid { count, reason, message })) if lower => {
            let text = format!("invalid metrics ({count} invalid out of {total}), first error is: {message}");
            let told = format!("the HPA was unable to compute the replica count: {message}");
            Verdict {
                active: Some((false, reason, told)),
                failure: Some(("FailedComputeMetricsReplicas", text)),
                ..verdict
            }
        }
        (Some((recommended, name)), _) => {
            let told = format!("the HPA was able to successfully calculate a replica count from {name}");
            let bounds = bounds(spec);
            let Limited { replicas, able: stable, limited } =
                limit(spec.behavior.as_ref(), past, bounds, current, recommended, now);
            let why = match replicas {
                _ if recommended > current => format!("{name} above target"),
                _ => "All metrics below target".to_owned(),
            };
            Verdict {
                desired: replicas,
                able: able(stable),
                active: Some((true, "ValidMetricFound", told)),
                limited: Some(limited),
                why,
                ..verdict
            }
        }
        (None, _) => verdict,
    }
}

/// Sets a condition, in upstream's order of first mention.
fn set(
    conditions: &mut Vec<HorizontalPodAutoscalerCondition>,
    kind: &str,
    (holds, reason, message): (bool, &str, &str),
    now: Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    let before = conditions.iter().position(|condition| condition.type_ == kind);
    let since = before.and_then(|at| conditions.get(at)).filter(|before| before.status == status);
    let since = since.and_then(|before| before.last_transition_time.clone());
    let condition = HorizontalPodAutoscalerCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: since.or_else(|| Some(Time(pods::whole_second(now)))),
    };
    match before.and_then(|at| conditions.get_mut(at)) {
        Some(slot) => *slot = condition,
        None => conditions.push(condition),
    }
}
