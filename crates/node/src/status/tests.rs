//! Statuses for the states that users ask about.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use meta::Timestamp;
use runtime::{ContainerState, ObservedContainer, ObservedPod, ObservedSandbox, SandboxState};
use serde_json::{Value, json};

use super::*;
use crate::{
    backoff::Backoff,
    plan::{Failure, Rejection, Volumes},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut value = json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u", "generation": 3 },
        "spec": { "containers": [{ "name": "c", "image": "app:1" }] }
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn have(states: Vec<(&str, u32, ContainerState)>) -> Observed {
    let containers = states.into_iter().map(|(name, attempt, state)| ObservedContainer {
        id: format!("{name}{attempt}"),
        sandbox_id: "sb".into(),
        name: name.into(),
        attempt,
        state,
        created_at: at(0),
        image: "app:1".into(),
        image_id: "sha256:1".into(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        log_path: String::new(),
    });
    let sandbox = ObservedSandbox {
        id: "sb".into(),
        attempt: 0,
        state: SandboxState::Ready,
        created_at: at(0),
        ips: vec!["10.0.0.5".parse().unwrap()],
        host_network: false,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    };
    Observed {
        pod: Some(ObservedPod {
            uid: "u".into(),
            namespace: "ns".into(),
            name: "p".into(),
            sandboxes: vec![sandbox],
            containers: containers.collect(),
        }),
        volumes: Volumes::Ready,
        ..Observed::default()
    }
}

fn exited(code: i32) -> ContainerState {
    ContainerState::Exited {
        started_at: Some(at(1)),
        finished_at: at(2),
        exit_code: code,
        reason: String::new(),
        message: String::new(),
    }
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: at(1) }
}

fn facts() -> NodeFacts {
    NodeFacts { host_ips: vec!["192.0.2.1".into()], runtime: "sim".into() }
}

/// `phase | first container's state | Ready reason`.
fn words(status: &PodStatus) -> String {
    let state = status.container_statuses.iter().flatten().next().and_then(|own| own.state.clone());
    let state = state.unwrap_or_default();
    let state = match (state.running, state.terminated, state.waiting) {
        (Some(_), _, _) => "running".to_owned(),
        (_, Some(ended), _) => format!("{}:{}", ended.reason.unwrap_or_default(), ended.exit_code),
        (_, _, Some(waiting)) => waiting.reason.unwrap_or_default(),
        _ => "nothing".to_owned(),
    };
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready").unwrap();
    let why = ready.reason.clone().unwrap_or_else(|| ready.status.clone());
    format!("{} | {state} | {why}", status.phase.clone().unwrap_or_default())
}

#[test]
fn phases() {
    let policy = |policy: &'static str| pod(move |value| value["spec"]["restartPolicy"] = json!(policy));
    let ready = |mut have: Observed| {
        let facts = have.facts.entry("c".into()).or_default();
        (facts.started, facts.ready) = (true, true);
        have
    };
    let deleting = || pod(|value| value["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z"));
    let crashed = |mut have: Observed| {
        let backoff = Backoff { step: Duration::from_secs(20), at: at(0) };
        have.facts.entry("c".into()).or_default().crash = Some(backoff);
        have
    };
    for (want, have, expected) in [
        (pod(|_| {}), Observed::default(), "Pending | ContainerCreating | ContainersNotReady"),
        (pod(|_| {}), have(vec![("c", 0, running())]), "Running | running | ContainersNotReady"),
        (pod(|_| {}), ready(have(vec![("c", 0, running())])), "Running | running | True"),
        (
            pod(|_| {}),
            crashed(have(vec![("c", 1, exited(1))])),
            "Running | CrashLoopBackOff | ContainersNotReady",
        ),
        (policy("OnFailure"), have(vec![("c", 0, exited(0))]), "Succeeded | Completed:0 | PodCompleted"),
        (policy("Never"), have(vec![("c", 0, exited(0))]), "Succeeded | Completed:0 | PodCompleted"),
        (policy("Never"), have(vec![("c", 0, exited(9))]), "Failed | Error:9 | PodFailed"),
        (deleting(), have(vec![("c", 0, exited(0))]), "Succeeded | Completed:0 | PodCompleted"),
        (deleting(), ready(have(vec![("c", 0, running())])), "Running | running | True"),
        (
            pod(|value| value["spec"]["initContainers"] = json!([{ "name": "i", "image": "x" }])),
            have(vec![("i", 0, running())]),
            "Pending | PodInitializing | ContainersNotReady",
        ),
        (
            pod(|value| value["spec"]["readinessGates"] = json!([{ "conditionType": "x" }])),
            ready(have(vec![("c", 0, running())])),
            "Running | running | ReadinessGatesNotReady",
        ),
        (
            pod(|value| value["status"] = json!({ "phase": "Failed", "reason": "Evicted" })),
            ready(have(vec![("c", 0, running())])),
            "Failed | running | PodFailed",
        ),
    ] {
        assert_eq!(words(&derive(&want, &have, &facts(), at(5))), expected, "{want:?}");
    }
}

/// As upstream's conformance test of init containers asks: none of them is `ContainerCreating`.
#[test]
fn init_containers_that_wait_for_their_turn_are_initializing() {
    let inits = json!([{ "name": "i", "image": "x" }, { "name": "j", "image": "x" }]);
    let want = pod(|value| value["spec"]["initContainers"] = inits);
    let status = derive(&want, &have(vec![("i", 0, running())]), &facts(), at(5));
    let second = status.init_container_statuses.unwrap().remove(1);
    let waiting = second.state.and_then(|state| state.waiting).unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));
}

#[test]
fn failures_say_why() {
    let mut have = have(vec![]);
    let failure = |step: u64| Failure {
        reason: "ErrImagePull".into(),
        message: "no such image".into(),
        at: at(0),
        backoff: Backoff { step: Duration::from_secs(step), at: at(0) },
    };
    have.facts.entry("c".into()).or_default().failure = Some(failure(10));
    assert_eq!(
        words(&derive(&pod(|_| {}), &have, &facts(), at(5))),
        "Pending | ErrImagePull | ContainersNotReady"
    );
    have.facts.entry("c".into()).or_default().failure = Some(failure(20));
    assert_eq!(
        words(&derive(&pod(|_| {}), &have, &facts(), at(5))),
        "Pending | ImagePullBackOff | ContainersNotReady"
    );
    have.rejected = Some(Rejection { reason: "OutOfcpu".into(), message: "m".into() });
    let status = derive(&pod(|_| {}), &have, &facts(), at(5));
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
}

#[test]
fn a_whole_status() {
    let mut have = have(vec![("c", 2, running()), ("c", 1, exited(3))]);
    have.facts.entry("c".into()).or_default().started = true;
    let status = derive(&pod(|_| {}), &have, &facts(), at(5));
    insta::assert_yaml_snapshot!(status);
}

#[test]
fn patches_are_small_and_settle() {
    let mut want = pod(|_| {});
    let mut state = have(vec![("c", 0, running())]);
    let first = derive(&want, &state, &facts(), at(5));
    assert!(patch(&want, &first).is_some());
    want.status = Some(first);
    assert_eq!(patch(&want, &derive(&want, &state, &facts(), at(9))), None, "nothing changed");
    let known = state.facts.entry("c".into()).or_default();
    (known.started, known.ready) = (true, true);
    let change = patch(&want, &derive(&want, &state, &facts(), at(9))).unwrap();
    let changed: Vec<&String> = change["status"].as_object().unwrap().keys().collect();
    assert_eq!(changed, ["conditions", "containerStatuses"]);
    let kinds: Vec<&str> = change["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["Ready", "ContainersReady"]);
    assert_eq!(change["status"]["conditions"][0]["reason"], Value::Null, "the old reason is taken back");
    assert_eq!(change["metadata"]["uid"], "u");
}

#[test]
fn what_was_told_is_kept_when_the_runtime_forgets() {
    let mut want = pod(|value| value["spec"]["restartPolicy"] = json!("Never"));
    want.status = Some(derive(&want, &have(vec![("c", 0, exited(7))]), &facts(), at(5)));
    let status = derive(&want, &Observed::default(), &facts(), at(9));
    assert_eq!(words(&status), "Failed | Error:7 | PodFailed");
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.5"));
}
