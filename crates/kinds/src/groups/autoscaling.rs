//! `autoscaling/v2`, and `autoscaling/v1` over the same objects.

use meta::{GroupResource, GroupVersion, Object, Status, Value};
use resource::{Convert, Resource};
use serde_json::{Map, json};

use crate::{columns::AUTOSCALER, entry::Group, strategy::Autoscaler};

/// The kinds of `v2`, the version that is stored.
pub(super) fn kinds_v2(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .namespaced("HorizontalPodAutoscaler", "horizontalpodautoscalers")
            .short("hpa")
            .in_all()
            .columns(AUTOSCALER)
            .strategy(Autoscaler)
            .status()
            .done(),
    ]
}

/// The kinds of `v1`.
pub(super) fn kinds_v1(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .namespaced("HorizontalPodAutoscaler", "horizontalpodautoscalers")
            .short("hpa")
            .in_all()
            .columns(AUTOSCALER)
            .strategy(Autoscaler)
            .status()
            .stored_as(
                GroupResource::new("autoscaling", "horizontalpodautoscalers"),
                GroupVersion::new("autoscaling", "v2"),
                CpuOnly,
            )
            .done(),
    ]
}

/// Annotations that carry what `v1` has no fields for (`pkg/apis/autoscaling/annotations.go`).
const KEPT: &[(&[&str], &str)] = &[
    (&["status", "currentMetrics"], "autoscaling.alpha.kubernetes.io/current-metrics"),
    (&["status", "conditions"], "autoscaling.alpha.kubernetes.io/conditions"),
    (&["spec", "behavior"], "autoscaling.alpha.kubernetes.io/behavior"),
];
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";

/// `v1` knows one metric, CPU utilisation; the others travel in annotations.
struct CpuOnly;

impl Convert for CpuOnly {
    fn to_stored(&self, object: &mut Object) -> Result<(), Status> {
        let mut metrics = take_annotation(object, METRICS).and_then(as_list).unwrap_or_default();
        if let Some(percent) = object.remove(&["spec", "targetCPUUtilizationPercentage"]) {
            metrics.push(json!({"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}));
        }
        if !metrics.is_empty() {
            object.set(&["spec", "metrics"], metrics);
        }
        object.remove(&["status", "currentCPUUtilizationPercentage"]);
        for (path, annotation) in KEPT {
            if let Some(value) = take_annotation(object, annotation) {
                object.set(path, value);
            }
        }
        object.0.insert("apiVersion".to_owned(), Value::from("autoscaling/v2"));
        Ok(())
    }

    fn to_served(&self, object: &mut Object) -> Result<(), Status> {
        let metrics = object.remove(&["spec", "metrics"]).and_then(as_list).unwrap_or_default();
        let mut others = Vec::new();
        for metric in metrics {
            match cpu(&metric, "target") {
                Some(percent) => object.set(&["spec", "targetCPUUtilizationPercentage"], percent),
                None => others.push(metric),
            }
        }
        let current = object.list(&["status", "currentMetrics"]).iter().find_map(|m| cpu(m, "current"));
        if let Some(percent) = current {
            object.set(&["status", "currentCPUUtilizationPercentage"], percent);
        }
        if !others.is_empty() {
            put_annotation(object, METRICS, &Value::Array(others));
        }
        for (path, annotation) in KEPT {
            if let Some(value) = object.remove(path) {
                put_annotation(object, annotation, &value);
            }
        }
        object.0.insert("apiVersion".to_owned(), Value::from("autoscaling/v1"));
        Ok(())
    }
}

/// The utilisation that a metric of the cpu resource names.
fn cpu(metric: &Value, side: &str) -> Option<Value> {
    let resource = metric.get("resource").filter(|resource| resource.get("name") == Some(&json!("cpu")))?;
    resource.get(side)?.get("averageUtilization").cloned()
}

fn as_list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

fn take_annotation(object: &mut Object, name: &str) -> Option<Value> {
    let text = object.remove(&["metadata", "annotations", name])?;
    if object.get(&["metadata", "annotations"]).and_then(Value::as_object).is_some_and(Map::is_empty) {
        object.remove(&["metadata", "annotations"]);
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn put_annotation(object: &mut Object, name: &str, value: &Value) {
    object.set(&["metadata", "annotations", name], value.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversion_keeps_what_v1_cannot_say() {
        let stored = Object::from_value(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {"stabilizationWindowSeconds": 1}}, "metrics": [
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 5}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
            ]},
            "status": {"conditions": [{"type": "AbleToScale"}]}
        }))
        .unwrap();
        let mut object = stored.clone();
        CpuOnly.to_served(&mut object).unwrap();
        assert_eq!(object.int(&["spec", "targetCPUUtilizationPercentage"]), Some(50));
        assert_eq!(object.get(&["spec", "metrics"]), None);
        assert!(object.annotation("autoscaling.alpha.kubernetes.io/behavior").is_some());
        CpuOnly.to_stored(&mut object).unwrap();
        assert_eq!(object, stored);
    }
}
