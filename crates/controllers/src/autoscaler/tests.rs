use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use serde_json::{Value, json};

use super::{
    limits::{Bounds, Past, limit},
    replicas::{Sample, Target, Tolerance, Wanted, propose},
    *,
};

const TOLERANCE: Tolerance = Tolerance { up: 0.1, down: 0.1 };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

/// Ready pods of an hour that request 1 CPU each, by name.
fn pod(name: &str, edit: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1" } } }] },
        "status": {
            "phase": "Running", "startTime": "2025-12-31T23:00:00Z",
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2025-12-31T23:00:10Z" }],
        },
    });
    json_patch::merge(&mut pod, &edit);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn used(milli: i64) -> Sample {
    let cpu = BTreeMap::from([("cpu".to_owned(), milli)]);
    Sample { at: at(0), window_s: 15, containers: BTreeMap::from([("c".to_owned(), cpu)]) }
}

/// Pods with what each uses (`None`: nothing is known), a target of 50 %, and what is proposed.
#[track_caller]
fn check_propose(pods: &[(Value, Option<i64>)], target: Target, expected: Result<i32, &str>) {
    let named: Vec<(String, Arc<Pod>, Option<i64>)> = pods
        .iter()
        .enumerate()
        .map(|(n, (edit, used))| (format!("p{n}"), pod(&format!("p{n}"), edit.clone()), *used))
        .collect();
    let samples = named.iter().filter_map(|(name, _, milli)| Some((name.clone(), used((*milli)?)))).collect();
    let all: Vec<Arc<Pod>> = named.iter().map(|(_, pod, _)| Arc::clone(pod)).collect();
    let wanted = Wanted { resource: "cpu", container: None, target };
    let current = i32::try_from(all.len()).unwrap();
    let found = propose(&wanted, current, &all, &samples, TOLERANCE, at(0));
    match expected {
        Ok(replicas) => assert_eq!(found.map(|proposal| proposal.replicas), Ok(replicas)),
        Err(why) => assert!(found.as_ref().is_err_and(|said| said.contains(why)), "{found:?}"),
    }
}

#[test]
fn replicas_bring_the_use_to_its_target() {
    let plain = |milli: i64| (json!({}), Some(milli));
    let half = Target::Utilization(50);
    check_propose(&[plain(500), plain(500)], half, Ok(2));
    check_propose(&[plain(540), plain(540)], half, Ok(2));
    check_propose(&[plain(1000), plain(1000)], half, Ok(4));
    check_propose(&[plain(100), plain(100), plain(100)], half, Ok(1));
    check_propose(&[plain(300), plain(300)], Target::AverageValue(100), Ok(6));
}

#[test]
fn what_is_not_known_slows_the_change() {
    let half = Target::Utilization(50);
    let plain = |milli: i64| (json!({}), Some(milli));
    let unknown = (json!({}), None);
    check_propose(&[plain(1000), unknown.clone()], half, Ok(2));
    check_propose(&[plain(2000), unknown.clone()], half, Ok(4));
    check_propose(&[plain(10), unknown.clone()], half, Ok(2));
    let starting = json!({ "status": { "startTime": "2025-12-31T23:59:00Z", "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": "2025-12-31T23:59:00Z" }] } });
    check_propose(&[plain(2000), (starting.clone(), Some(5000))], half, Ok(4));
    check_propose(&[(starting, Some(5000))], half, Err("did not receive metrics"));
    let failed = json!({ "status": { "phase": "Failed" } });
    check_propose(&[plain(500), (failed, None)], half, Ok(2));
    check_propose(&[], half, Err("no pods returned by selector"));
    let free = json!({ "spec": { "containers": [{ "name": "c" }] } });
    check_propose(&[(free, Some(5))], half, Err("missing request for cpu in container c of Pod p0"));
}

/// A sequence of (second, current, recommended, expected).
#[track_caller]
fn check_limit(behavior: Value, steps: &[(i64, i32, i32, i32)]) {
    let behavior: Option<HorizontalPodAutoscalerBehavior> = serde_json::from_value(behavior).unwrap();
    let mut past = Past::default();
    for (second, current, recommended, expected) in steps {
        past.observe(*current, at(*second));
        let bounds = Bounds { min: 2, max: 20 };
        let found = limit(behavior.as_ref(), &mut past, bounds, *current, *recommended, at(*second)).replicas;
        assert_eq!(found, *expected, "at {second} s");
        if found != *current {
            past.asked = Some((*current, found, at(*second)));
        }
    }
}

#[test]
fn without_behavior_growth_doubles_and_shrinking_waits_five_minutes() {
    check_limit(json!(null), &[(0, 2, 50, 4), (15, 4, 50, 8), (30, 8, 50, 16), (45, 16, 50, 20)]);
    check_limit(json!(null), &[(0, 10, 10, 10), (15, 10, 3, 10), (299, 10, 3, 10), (301, 10, 3, 3)]);
    check_limit(json!(null), &[(0, 2, 1, 2), (15, 2, 5, 4)]);
}

#[test]
fn behavior_bounds_the_rate_and_the_wait() {
    let slow = json!({
        "scaleUp": { "stabilizationWindowSeconds": 0, "policies": [{ "type": "Pods", "value": 1, "periodSeconds": 60 }] },
        "scaleDown": { "stabilizationWindowSeconds": 0, "policies": [{ "type": "Percent", "value": 50, "periodSeconds": 60 }] },
    });
    check_limit(slow.clone(), &[(0, 4, 10, 5), (15, 5, 10, 5), (60, 5, 10, 6)]);
    check_limit(slow, &[(0, 16, 2, 8), (15, 8, 2, 8), (61, 8, 2, 4), (122, 4, 2, 2)]);
    let never = json!({ "scaleDown": { "selectPolicy": "Disabled", "stabilizationWindowSeconds": 0 } });
    check_limit(never, &[(0, 8, 2, 8)]);
    let calm = json!({ "scaleUp": { "stabilizationWindowSeconds": 60, "policies": [{ "type": "Percent", "value": 900, "periodSeconds": 15 }] } });
    check_limit(calm, &[(0, 4, 4, 4), (15, 4, 12, 4), (59, 4, 12, 4), (61, 4, 12, 12)]);
    let two = |select: &str| {
        json!({ "scaleUp": { "selectPolicy": select, "stabilizationWindowSeconds": 0, "policies": [
            { "type": "Pods", "value": 2, "periodSeconds": 60 }, { "type": "Percent", "value": 100, "periodSeconds": 60 } ] } })
    };
    check_limit(two("Max"), &[(0, 6, 20, 12)]);
    check_limit(two("Min"), &[(0, 6, 20, 8)]);
}
