//! The metrics of a spec, measured: reads pods and their use, and asks [`super::replicas`] for each.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        autoscaling::v2::{
            ContainerResourceMetricStatus, HorizontalPodAutoscalerSpec, MetricSpec, MetricStatus,
            MetricTarget, MetricValueStatus, ResourceMetricStatus,
        },
        core::v1::Pod,
    },
    apimachinery::pkg::api::resource::Quantity as Text,
};
use kube::ResourceExt;
use meta::{LabelSelector, Quantity, QuantityForm, Timestamp};
use reconcile::{Context, Kind};
use serde_json::Value;

use super::replicas::{Proposal, Sample, Target, Tolerance, Wanted, propose};
/// Upstream `horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;

/// What all metrics came to.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// The largest number asked for, and what asks for it.
    pub(super) best: Option<(i32, String)>,
    pub(super) statuses: Vec<MetricStatus>,
    pub(super) invalid: Option<Invalid>,
    pub(super) total: usize,
}

/// Metrics that could not be told.
#[derive(Debug)]
pub(super) struct Invalid {
    pub(super) count: usize,
    /// Of the first.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Why a metric is invalid: reason and message.
type Refused = (&'static str, String);

/// Measures every metric of the spec. One that cannot be told is counted as invalid.
pub(super) async fn measure(
    cx: &Context,
    spec: &HorizontalPodAutoscalerSpec,
    namespace: &str,
    selector: &str,
    current: i32,
) -> Measured {
    let metrics = spec.metrics.clone().unwrap_or_default();
    let mut measured = Measured { total: metrics.len(), ..Measured::default() };
    let parsed = (!selector.is_empty()).then(|| LabelSelector::parse(selector).ok()).flatten();
    let Some(parsed) = parsed else {
        let message = format!("the HPA target's scale has no selector that can be read: {selector:?}");
        measured.refuse(("InvalidSelector", message));
        return measured;
    };
    let mut pods = cx.stores.ready::<Pod>().await.in_namespace(namespace);
    pods.retain(|pod| parsed.matches(pod.labels()));
    let samples = match samples(cx, namespace, selector).await {
        Ok(samples) => samples,
        Err(why) => {
            measured.refuse(("FailedGetResourceMetric", format!("unable to get pod metrics: {why}")));
            return measured;
        }
    };
    let now = cx.clock.now();
    let tolerance = tolerance(spec);
    for metric in &metrics {
        match one(metric, current, &pods, &samples, tolerance, now) {
            Ok((proposal, status, name)) => {
                if measured.best.as_ref().is_none_or(|(best, _)| proposal.replicas > *best) {
                    measured.best = Some((proposal.replicas, name));
                }
                measured.statuses.push(status);
            }
            Err(refused) => measured.refuse(refused),
        }
    }
    measured
}

impl Measured {
    fn refuse(&mut self, (reason, message): Refused) {
        match &mut self.invalid {
            Some(invalid) => invalid.count += 1,
            None => self.invalid = Some(Invalid { count: 1, reason, message }),
        }
    }
}

fn tolerance(spec: &HorizontalPodAutoscalerSpec) -> Tolerance {
    let behavior = spec.behavior.as_ref();
    let up = behavior.and_then(|behavior| behavior.scale_up.as_ref()?.tolerance.as_ref());
    let down = behavior.and_then(|behavior| behavior.scale_down.as_ref()?.tolerance.as_ref());
    #[allow(clippy::cast_precision_loss, reason = "thousandths of a ratio")]
    let read = |text: Option<&Text>| {
        let given = text.and_then(|text| text.0.parse::<Quantity>().ok());
        given.map_or(TOLERANCE, |given| given.milli_value() as f64 / 1000.0)
    };
    Tolerance { up: read(up), down: read(down) }
}

/// The use of the pods that the selector selects, by name.
async fn samples(cx: &Context, namespace: &str, selector: &str) -> Result<BTreeMap<String, Sample>, String> {
    let kind = Kind::new("metrics.k8s.io", "v1beta1", "PodMetrics", "pods");
    let params = kube::api::ListParams::default().labels(selector);
    let request = kube::core::Request::new(kind.url(namespace)).list(&params);
    let request = request.map_err(|error| error.to_string())?;
    let list: Value = cx.client.request(request).await.map_err(|error| match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    })?;
    let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(items.iter().filter_map(sample).collect())
}

fn sample(metrics: &Value) -> Option<(String, Sample)> {
    let name = metrics.pointer("/metadata/name")?.as_str()?.to_owned();
    let at: Timestamp = metrics.get("timestamp")?.as_str()?.parse().ok()?;
    let window = metrics.get("window").and_then(Value::as_str).unwrap_or("0s");
    let window: f64 = window.trim_end_matches('s').parse().unwrap_or(0.0);
    let used = |usage: &Value| {
        let fields = usage.as_object()?.iter();
        let milli = |text: &Value| Some(text.as_str()?.parse::<Quantity>().ok()?.milli_value());
        Some(fields.filter_map(|(resource, text)| Some((resource.clone(), milli(text)?))).collect())
    };
    let containers = metrics.get("containers")?.as_array()?.iter();
    let containers = containers
        .filter_map(|c| Some((c.get("name")?.as_str()?.to_owned(), used(c.get("usage")?)?)))
        .collect();
    #[allow(clippy::cast_possible_truncation, reason = "seconds between two samples")]
    let window_s = window.ceil() as i64;
    Some((name, Sample { at, window_s, containers }))
}

fn one(
    metric: &MetricSpec,
    current: i32,
    pods: &[Arc<Pod>],
    samples: &BTreeMap<String, Sample>,
    tolerance: Tolerance,
    now: Timestamp,
) -> Result<(Proposal, MetricStatus, String), Refused> {
    let (resource, container, goal) = match (
        metric.type_.as_str(),
        &metric.resource,
        &metric.container_resource,
    ) {
        ("Resource", Some(source), _) => (&source.name, None, &source.target),
        ("ContainerResource", _, Some(source)) => {
            (&source.name, Some(source.container.as_str()), &source.target)
        }
        (kind, _, _) => {
            let reason = match kind {
                "Pods" => "FailedGetPodsMetric",
                "Object" => "FailedGetObjectMetric",
                "External" => "FailedGetExternalMetric",
                _ => "InvalidMetricSourceType",
            };
            let text = format!(
                "metrics of type {kind} are not supported: no custom metrics API is served; use Resource or ContainerResource"
            );
            return Err((reason, text));
        }
    };
    let reason =
        if container.is_some() { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" };
    let target = target(goal).ok_or_else(|| {
        (reason, format!("the target of {resource} is neither a utilization nor an average value"))
    })?;
    let wanted = Wanted { resource, container, target };
    let proposal = propose(&wanted, current, pods, samples, tolerance, now)
        .map_err(|why| (reason, format!("failed to get {resource} utilization: {why}")))?;
    let name = match (container, target) {
        (None, Target::Utilization(_)) => format!("{resource} resource utilization (percentage of request)"),
        (None, Target::AverageValue(_)) => format!("{resource} resource"),
        (Some(container), Target::Utilization(_)) => {
            format!("{resource} container resource utilization (percentage of request) of {container}")
        }
        (Some(container), Target::AverageValue(_)) => format!("{resource} container resource of {container}"),
    };
    let status = status(metric, resource, container, &proposal);
    Ok((proposal, status, name))
}

fn target(goal: &MetricTarget) -> Option<Target> {
    let average = goal.average_value.as_ref().and_then(|text| text.0.parse::<Quantity>().ok());
    let utilization = goal.average_utilization.map(|percent| Target::Utilization(i64::from(percent)));
    average.map(|average| Target::AverageValue(average.milli_value())).or(utilization)
}

fn status(metric: &MetricSpec, resource: &str, container: Option<&str>, found: &Proposal) -> MetricStatus {
    let form = if resource == "cpu" { QuantityForm::DecimalSi } else { QuantityForm::BinarySi };
    let current = MetricValueStatus {
        average_utilization: found.utilization.and_then(|percent| i32::try_from(percent).ok()),
        average_value: Some(Text(Quantity::from_milli(found.average).canonical(form))),
        value: None,
    };
    let name = resource.to_owned();
    let (resource, container_resource) = match container {
        None => (Some(ResourceMetricStatus { current, name }), None),
        Some(container) => {
            (None, Some(ContainerResourceMetricStatus { container: container.to_owned(), current, name }))
        }
    };
    MetricStatus { type_: metric.type_.clone(), resource, container_resource, ..MetricStatus::default() }
}
