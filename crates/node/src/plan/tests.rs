//! Plans for the cases that go wrong in practice, one line each: state in words, plan in words.

use std::time::Duration;

use runtime::{ContainerState, ObservedContainer, ObservedPod, ObservedSandbox, action::SPEC_HASH};
use serde_json::{Value, json};

use super::*;
use crate::{backoff::Backoff, resize::Resize};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A pod with the containers `names`; `i:` makes an init container, `s:` a sidecar.
fn pod(names: &str, change: Value) -> Pod {
    let list = |prefix: &str| -> Vec<Value> {
        names
            .split_whitespace()
            .filter_map(|name| match (prefix, name.split_once(':')) {
                ("", None) => Some(json!({ "name": name, "image": "app:1" })),
                ("i", Some(("i", name))) => Some(json!({ "name": name, "image": "app:1" })),
                ("i", Some(("s", name))) => {
                    Some(json!({ "name": name, "image": "app:1", "restartPolicy": "Always" }))
                }
                _ => None,
            })
            .collect()
    };
    let mut value = json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
        "spec": { "containers": list(""), "initContainers": list("i") }
    });
    merge(&mut value, &change);
    serde_json::from_value(value).unwrap()
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

/// Words: `sandbox`, `dead-sandbox`, `NAME.ATTEMPT=running|created|exit:CODE@SECOND`, `NAME!started`,
/// `NAME!starting`, `NAME!stopping:GRACE`, `NAME!crash:STEP@SECOND`, `NAME!unhealthy`,
/// `NAME!failed:STEP@SECOND`, `NAME!unpulled:STEP@SECOND`, `NAME!told:SECOND`, `NAME!changed`, `NAME!has:CPU`, `NAME!unresized:STEP@SECOND`, `NAME!resizing`,
/// `NAME!renewed:ID`, `taken`, `deferred`, `no-volumes`, `broken-volumes`, `gone`, `reported`, `asked`, `busy`,
/// `finished`, `stopping@SECOND`.
fn have(words: &str) -> Observed {
    let mut have = Observed { volumes: Volumes::Ready, ..Observed::default() };
    let mut observed = ObservedPod {
        uid: "u".into(),
        namespace: "ns".into(),
        name: "p".into(),
        sandboxes: Vec::new(),
        containers: Vec::new(),
    };
    for word in words.split_whitespace() {
        if let Some((name, fact)) = word.split_once('!') {
            add_fact(&mut have, &mut observed, name, fact);
        } else if let Some((id, state)) = word.split_once('=') {
            observed.containers.push(container(id, state, observed.sandboxes.len()));
        } else {
            match word {
                "sandbox" | "dead-sandbox" => {
                    let number = observed.sandboxes.len();
                    observed.sandboxes.insert(0, sandbox(number, word == "sandbox"));
                }
                "no-volumes" => have.volumes = Volumes::Absent,
                "broken-volumes" => have.volumes = Volumes::Failed(failure(4, 0)),
                "gone" => have.gone = true,
                "reported" => have.end_reported = true,
                "asked" => have.delete_asked = Some(at(0)),
                "busy" => have.pod_busy = true,
                "finished" => have.finished = true,
                "taken" => have.resize = Resize::Taken,
                "deferred" => have.resize = Resize::Deferred("no room".into()),
                "broken-sandbox" => have.sandbox_failure = Some(failure(4, 0)),
                other => {
                    let second =
                        other.strip_prefix("stopping@").unwrap_or_else(|| panic!("what is {other}?"));
                    have.stopping_since = Some(at(second.parse().unwrap()));
                }
            }
        }
    }
    observed.containers.sort_by(|a, b| a.name.cmp(&b.name).then(b.attempt.cmp(&a.attempt)));
    have.pod = (!observed.sandboxes.is_empty()).then_some(observed);
    have
}

fn add_fact(have: &mut Observed, observed: &mut ObservedPod, name: &str, fact: &str) {
    let facts = have.facts.entry(name.to_owned()).or_default();
    let (fact, value) = fact.split_once(':').unwrap_or((fact, ""));
    let pair = || {
        let (step, second) = value.split_once('@').unwrap();
        (step.parse::<u64>().unwrap(), second.parse::<i64>().unwrap())
    };
    match fact {
        "started" => facts.started = true,
        "starting" => facts.busy = Some(Busy::Starting),
        "stopping" => {
            facts.busy = Some(Busy::Stopping { grace: Duration::from_secs(value.parse().unwrap()) })
        }
        "crash" => {
            let (step, second) = pair();
            facts.crash = Some(Backoff { step: Duration::from_secs(step), at: at(second) });
        }
        "failed" => {
            let (step, second) = pair();
            facts.failure = Some(failure(step, second));
        }
        "unpulled" => {
            let (step, second) = pair();
            facts.failure = Some(Failure { reason: "ErrImagePull".into(), ..failure(step, second) });
        }
        "told" => facts.told = Some(at(value.parse().unwrap())),
        // Of cpu, what the container has.
        "has" => facts.resources = Some(serde_json::from_value(json!({"requests": {"cpu": value}})).unwrap()),
        "unresized" => {
            let (step, second) = pair();
            facts.resize_failure = Some(failure(step, second));
        }
        "resizing" => facts.busy = Some(Busy::Resizing),
        "renewed" => facts.renewed = Some(value.to_owned()),
        "unhealthy" => {
            let id = observed.containers.iter().find(|c| c.name == name).unwrap().id.clone();
            facts.unhealthy = Some(Unhealthy { id, why: "sick".into(), grace: Some(Duration::from_secs(3)) });
        }
        "changed" => {
            let own = observed.containers.iter_mut().find(|c| c.name == name).unwrap();
            own.annotations.insert(SPEC_HASH.into(), "other".into());
        }
        other => panic!("what is {other}?"),
    }
}

fn failure(step: u64, second: i64) -> Failure {
    let backoff = Backoff { step: Duration::from_secs(step), at: at(second) };
    Failure { reason: "R".into(), message: "m".into(), at: at(second), backoff }
}

fn sandbox(number: usize, ready: bool) -> ObservedSandbox {
    ObservedSandbox {
        id: format!("sb{number}"),
        attempt: u32::try_from(number).unwrap(),
        state: if ready { SandboxState::Ready } else { SandboxState::NotReady },
        created_at: at(0),
        ips: Vec::new(),
        host_network: false,
        labels: Default::default(),
        annotations: Default::default(),
    }
}

fn container(id: &str, state: &str, sandboxes: usize) -> ObservedContainer {
    let (name, attempt) = id.split_once('.').unwrap();
    let image = runtime::action::SPEC_HASH;
    let spec = k8s_openapi::api::core::v1::Container {
        name: name.into(),
        image: Some("app:1".into()),
        ..Default::default()
    };
    ObservedContainer {
        id: id.into(),
        sandbox_id: format!("sb{}", sandboxes - 1),
        name: name.into(),
        attempt: attempt.parse().unwrap(),
        state: match state {
            "running" => ContainerState::Running { started_at: at(0) },
            "created" => ContainerState::Created,
            exit => {
                let (code, second) = exit.strip_prefix("exit:").unwrap().split_once('@').unwrap();
                ContainerState::Exited {
                    started_at: Some(at(0)),
                    finished_at: at(second.parse().unwrap()),
                    exit_code: code.parse().unwrap(),
                    reason: String::new(),
                    message: String::new(),
                }
            }
        },
        created_at: at(0),
        image: "app:1".into(),
        image_id: String::new(),
        labels: Default::default(),
        annotations: [(image.to_owned(), pod::spec_hash(&spec))].into(),
        log_path: String::new(),
    }
}

fn words(plan: &[Action]) -> String {
    let one = |action: &Action| match action {
        Action::SetUpVolumes => "volumes".to_owned(),
        Action::CreateSandbox { attempt } => format!("sandbox{attempt}"),
        Action::StopSandbox { id } => format!("stop-sandbox:{id}"),
        Action::RemoveSandbox { id } => format!("remove-sandbox:{id}"),
        Action::StartContainer { name, attempt, replaces, backoff, .. } => {
            let replaces = replaces.as_ref().map(|id| format!("(replaces {id})")).unwrap_or_default();
            let backoff = backoff.map(|b| format!("+{}s", b.step.as_secs())).unwrap_or_default();
            format!("start:{name}.{attempt}{replaces}{backoff}")
        }
        Action::StopContainer { id, grace, .. } => format!("stop:{id}/{}s", grace.as_secs()),
        Action::ResizeContainer { id, .. } => format!("resize:{id}"),
        Action::RemoveContainer { id } => format!("remove:{id}"),
        Action::BackOff { name, again: Again::Run } => format!("back-off:{name}"),
        Action::BackOff { name, again: Again::Pull } => format!("back-off-pull:{name}"),
        Action::AbortStart { name } => format!("abort:{name}"),
        Action::TearDownVolumes => "no-volumes".to_owned(),
        Action::Delete => "delete".to_owned(),
        Action::Forget => "forget".to_owned(),
        Action::Recheck { after } => format!("in:{}s", after.as_secs()),
    };
    plan.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn check(want: &Pod, cases: &[(&str, i64, &str)]) {
    for (state, now, expected) in cases {
        assert_eq!(words(&plan_pod(want, &have(state), at(*now))), *expected, "{state} at {now}");
    }
}

#[test]
fn from_nothing_to_running() {
    check(
        &pod("a b", json!({})),
        &[
            ("no-volumes", 0, "volumes"),
            ("no-volumes busy", 0, ""),
            ("broken-volumes", 1, "in:3s"),
            ("broken-volumes", 4, "volumes"),
            ("", 0, "sandbox0"),
            ("busy", 0, ""),
            ("broken-sandbox", 1, "in:3s"),
            ("broken-sandbox", 4, "sandbox0"),
            ("sandbox", 0, "start:a.0 start:b.0"),
            ("sandbox a!starting", 0, "start:b.0"),
            ("sandbox a.0=running b.0=running", 0, ""),
            ("sandbox a.0=created b.0=running", 0, "start:a.0(replaces a.0)"),
            ("sandbox a!failed:5@0 b.0=running", 2, "in:3s"),
            ("sandbox a!failed:5@0 b.0=running", 5, "start:a.0"),
        ],
    );
}

#[test]
fn containers_are_resized_once_the_node_has_taken_it() {
    let resources = json!({ "requests": { "cpu": "2" } });
    let restart = json!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }]);
    let of = |container: Value| {
        pod("", json!({ "spec": { "restartPolicy": "OnFailure", "containers": [container] } }))
    };
    check(
        &of(json!({ "name": "a", "image": "app:1", "resources": resources })),
        &[
            ("sandbox a.0=running a!has:2", 0, ""),
            ("sandbox a.0=running a!has:2000m taken", 0, ""),
            ("sandbox a.0=running a!has:1 deferred", 0, ""),
            ("sandbox a.0=running a!has:1 taken", 0, "resize:a.0"),
            ("sandbox a.0=running a!has:1 a!resizing taken", 0, ""),
            ("sandbox a.0=running a!has:1 a!unresized:5@0 taken", 2, "in:3s"),
            ("sandbox a.0=running a!has:1 a!unresized:5@0 taken", 5, "resize:a.0"),
        ],
    );
    check(
        &of(json!({ "name": "a", "image": "app:1", "resources": resources, "resizePolicy": restart })),
        &[
            ("sandbox a.0=running a!has:1 taken", 0, "stop:a.0/30s"),
            // It begins anew though it ended well, and would not otherwise.
            ("sandbox a.0=exit:0@0 a!has:1 a!renewed:a.0 taken", 1, "start:a.1+10s"),
            ("sandbox a.0=exit:0@0 a!has:1", 1, "stop-sandbox:sb0"),
        ],
    );
}

#[test]
fn init_containers_and_sidecars() {
    check(
        &pod("i:one s:side i:two main", json!({})),
        &[
            ("sandbox", 0, "start:one.0"),
            ("sandbox one.0=running", 0, ""),
            ("sandbox one.0=exit:1@0", 1, "start:one.1+10s"),
            ("sandbox one.0=exit:0@0", 1, "start:side.0"),
            ("sandbox one.0=exit:0@0 side.0=running", 1, ""),
            ("sandbox one.0=exit:0@0 side.0=running side!started", 1, "start:two.0"),
            ("sandbox one.0=exit:0@0 side.0=running side!started two.0=exit:0@1", 1, "start:main.0"),
            ("sandbox one.0=exit:0@0 side.0=exit:0@1 two.0=exit:0@1 main.0=running", 1, "start:side.1+10s"),
            ("sandbox side.0=running main.0=running", 1, ""),
        ],
    );
    check(
        &pod("i:one main", json!({ "spec": { "restartPolicy": "Never" } })),
        &[
            ("sandbox one.0=exit:1@0", 1, "stop-sandbox:sb0"),
            ("dead-sandbox one.0=exit:1@0", 1, "no-volumes"),
        ],
    );
}

#[test]
fn crashes_wait_longer_each_time() {
    check(
        &pod("a", json!({})),
        &[
            ("sandbox a.0=exit:1@0", 0, "start:a.1+10s"),
            ("sandbox a.1=exit:1@1 a!crash:10@0", 2, "back-off:a in:9s"),
            ("sandbox a.1=exit:1@1 a!crash:10@0 a!told:2", 3, "in:8s"),
            ("sandbox a.1=exit:1@1 a!crash:10@0", 11, "start:a.2+20s"),
            ("sandbox a.7=exit:1@10 a!crash:300@0", 310, "start:a.8+300s"),
            ("sandbox a.8=exit:1@700 a!crash:300@0", 701, "start:a.9+10s"),
            ("sandbox a.0=exit:0@0", 0, "start:a.1+10s"),
            ("sandbox a.2=running a.1=exit:1@1 a.0=exit:1@0", 5, "remove:a.0"),
        ],
    );
}

#[test]
fn a_wait_is_told_when_it_begins_and_once_a_minute() {
    check(
        &pod("a", json!({})),
        &[
            ("sandbox a.7=exit:1@10 a!crash:300@0 a!told:9", 10, "back-off:a in:60s"),
            ("sandbox a.7=exit:1@10 a!crash:300@0 a!told:10", 30, "in:40s"),
            ("sandbox a.7=exit:1@10 a!crash:300@0 a!told:10", 70, "back-off:a in:60s"),
            ("sandbox a.7=exit:1@10 a!crash:300@0 a!told:250", 290, "in:20s"),
            ("sandbox a!unpulled:20@0", 0, "back-off-pull:a in:20s"),
            ("sandbox a!unpulled:20@0 a!told:0", 5, "in:15s"),
            ("sandbox a!unpulled:300@0 a!told:0", 60, "back-off-pull:a in:60s"),
            ("sandbox a!unpulled:20@0", 20, "start:a.0"),
        ],
    );
}

#[test]
fn restart_policies_end_pods() {
    let policy = |policy: &str| pod("a b", json!({ "spec": { "restartPolicy": policy } }));
    check(
        &policy("Never"),
        &[
            ("sandbox a.0=exit:0@0 b.0=running", 1, ""),
            ("sandbox a.0=exit:1@0 b.0=exit:0@0", 1, "stop-sandbox:sb0"),
            ("dead-sandbox a.0=exit:1@0 b.0=exit:0@0", 1, "no-volumes"),
            ("dead-sandbox a.0=exit:1@0 b.0=exit:0@0 no-volumes", 1, ""),
        ],
    );
    check(
        &policy("OnFailure"),
        &[
            ("sandbox a.0=exit:0@0 b.0=exit:1@0", 1, "start:b.1+10s"),
            ("sandbox a.0=exit:0@0 b.1=exit:0@0", 1, "stop-sandbox:sb0"),
        ],
    );
    let sidecar = pod("s:side a", json!({ "spec": { "restartPolicy": "Never" } }));
    check(&sidecar, &[("sandbox side.0=running side!started a.0=exit:0@0", 1, "stop:side.0/30s")]);
    let terminal = pod("a", json!({ "status": { "phase": "Failed" } }));
    check(&terminal, &[("sandbox a.0=running", 1, "stop:a.0/30s"), ("no-volumes", 1, "")]);
}

#[test]
fn a_dead_sandbox_is_replaced() {
    check(
        &pod("a", json!({})),
        &[
            ("dead-sandbox a.0=running", 0, "stop:a.0/30s"),
            ("dead-sandbox a.0=running a!stopping:30", 0, ""),
            ("dead-sandbox a.0=exit:137@0", 0, "sandbox1"),
            ("dead-sandbox a.0=exit:137@0 sandbox", 0, "remove-sandbox:sb0 start:a.1"),
        ],
    );
    check(
        &pod("a b", json!({ "spec": { "restartPolicy": "OnFailure" } })),
        &[("dead-sandbox a.0=exit:0@0 b.0=exit:137@0 sandbox", 0, "remove-sandbox:sb0 start:b.1")],
    );
    check(
        &pod("a", json!({ "spec": { "restartPolicy": "Never" } })),
        &[("dead-sandbox a.0=exit:137@0", 0, "no-volumes"), ("dead-sandbox", 0, "sandbox1")],
    );
    check(
        &pod("i:one a", json!({})),
        &[("dead-sandbox one.0=exit:0@0 a.0=exit:137@0 sandbox", 0, "remove-sandbox:sb0 start:one.1")],
    );
}

#[test]
fn changed_and_unhealthy_containers_are_replaced() {
    check(
        &pod("a", json!({})),
        &[
            ("sandbox a.0=running a!changed", 0, "stop:a.0/30s"),
            ("sandbox a.0=exit:0@0 a!changed", 0, "start:a.1+10s"),
            ("sandbox a.0=running a!unhealthy", 0, "stop:a.0/3s"),
            ("sandbox a.0=running a!unhealthy a!stopping:3", 0, ""),
        ],
    );
    check(
        &pod("a", json!({ "spec": { "restartPolicy": "Never" } })),
        &[("sandbox a.0=exit:0@0 a!changed", 0, "start:a.1+10s")],
    );
}

#[test]
fn restart_counts_outlive_the_runtime() {
    let reported = |status: Value| pod("a", json!({ "status": { "containerStatuses": [status] } }));
    let base = json!({ "name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 4 });
    let mut ran = base.clone();
    ran["containerID"] = json!("x://1");
    check(&reported(ran), &[("sandbox", 0, "start:a.5")]);
    check(&reported(base), &[("sandbox", 0, "start:a.4")]);
}

#[test]
fn deletion_in_order() {
    let deleted = |grace: i64| json!({ "metadata": { "deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace } });
    check(
        &pod("s:one s:two a b", deleted(20)),
        &[
            ("sandbox one.0=running two.0=running a.0=running b.0=exit:0@0", 0, "stop:a.0/20s"),
            ("sandbox one.0=running two.0=running a.0=running a!stopping:20", 0, ""),
            ("sandbox one.0=running two.0=running stopping@0", 5, "stop:two.0/15s"),
            ("sandbox one.0=running stopping@0", 19, "stop:one.0/2s"),
            ("sandbox", 0, "stop-sandbox:sb0"),
            ("dead-sandbox", 0, "no-volumes"),
            ("dead-sandbox no-volumes", 0, ""),
            ("dead-sandbox no-volumes reported", 0, "delete"),
            ("dead-sandbox no-volumes reported busy", 0, ""),
            ("no-volumes reported asked", 3, "in:7s"),
            ("no-volumes reported asked", 10, "delete"),
            ("no-volumes reported asked gone", 3, "forget"),
            ("dead-sandbox no-volumes gone", 0, "remove-sandbox:sb0"),
            ("no-volumes gone", 0, "forget"),
            ("no-volumes reported", 0, "delete"),
            ("sandbox a!starting", 0, "abort:a"),
        ],
    );
    check(
        &pod("a", deleted(0)),
        &[
            ("sandbox a.0=running", 0, "stop:a.0/0s"),
            ("sandbox a.0=running a!stopping:30", 0, "stop:a.0/0s"),
            ("sandbox a.0=running a!stopping:0", 0, ""),
        ],
    );
    check(&pod("a", json!({})), &[("sandbox a.0=running gone", 0, "stop:a.0/30s")]);
}

#[test]
fn deadlines() {
    let start = serde_json::to_value(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0))).unwrap();
    let want = pod("a", json!({ "spec": { "activeDeadlineSeconds": 60 }, "status": { "startTime": start } }));
    check(&want, &[("sandbox a.0=running", 20, "in:40s"), ("sandbox a.0=running", 60, "stop:a.0/30s")]);
}

#[test]
fn a_refused_pod_gets_nothing() {
    let rejected = Rejection { reason: "OutOfcpu".into(), message: String::new() };
    let have = Observed { rejected: Some(rejected), ..Observed::default() };
    assert_eq!(words(&plan_pod(&pod("a", json!({})), &have, at(0))), "");
}

#[test]
fn ephemeral_containers_run_once_whatever_the_pod_does() {
    let debugged = json!({ "spec": { "ephemeralContainers": [{ "name": "e", "image": "app:1" }] } });
    let want = pod("i:i a", debugged.clone());
    check(
        &want,
        &[
            ("sandbox i.0=running", 0, "start:e.0"),
            ("sandbox i.0=exit:0@0 a.0=running", 0, "start:e.0"),
            ("sandbox i.0=exit:0@0 a.0=running e.0=running", 0, ""),
            ("sandbox i.0=exit:0@0 a.0=running e.0=exit:1@0", 60, ""),
            ("sandbox i.0=exit:0@0 a.0=running e!failed:10@0", 3, "in:7s"),
            (
                "dead-sandbox a.0=exit:1@0 e.0=exit:0@0 sandbox i.0=exit:0@0 a.1=running",
                60,
                "remove-sandbox:sb0",
            ),
            ("sandbox i.0=exit:0@0 a.0=running e.0=running gone", 0, "stop:a.0/30s stop:e.0/30s"),
        ],
    );
    let mut told = debugged;
    let ran = json!([{ "name": "e", "containerID": "c://1", "image": "", "imageID": "", "ready": false, "restartCount": 0 }]);
    merge(&mut told, &json!({ "status": { "ephemeralContainerStatuses": ran } }));
    check(&pod("a", told), &[("sandbox a.0=running", 0, "")]);
}
