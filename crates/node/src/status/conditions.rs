//! The conditions that the node owns.

use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use meta::Timestamp;
use runtime::{SandboxState, action::Role};

use crate::{plan::Observed, pod, resize::Resize};

struct Verdict {
    ok: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn yes() -> Self {
        Self { ok: true, reason: None, message: None }
    }

    fn no(reason: &'static str, message: Option<String>) -> Self {
        Self { ok: false, reason: Some(reason), message }
    }
}

pub(super) fn conditions(
    want: &Pod,
    have: &Observed,
    phase: &str,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    now: Timestamp,
) -> Vec<PodCondition> {
    let live = !pod::is_terminal(phase);
    let sandbox = have.sandbox().is_some_and(|sandbox| {
        sandbox.state == SandboxState::Ready && (sandbox.host_network || !sandbox.ips.is_empty())
    });
    let to_start = Verdict { ok: sandbox && live, reason: None, message: None };
    let containers = containers_ready(want, phase, init, main);
    let ready = ready(want, phase, &containers);
    [
        ("PodReadyToStartContainers", to_start),
        ("Initialized", initialized(want, phase, init, main)),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", Verdict::yes()),
    ]
    .into_iter()
    .chain(resizing(want, have))
    .map(|(kind, verdict)| condition(want, kind, verdict, now))
    .collect()
}

/// Conditions that are there only while they hold.
pub(super) const PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// How far a resize has come; nothing where none is asked for.
fn resizing(want: &Pod, have: &Observed) -> Option<(&'static str, Verdict)> {
    let [pending, progress] = PASSING;
    let yes = |reason, message: Option<&String>| Verdict { ok: true, reason, message: message.cloned() };
    match &have.resize {
        Resize::None => None,
        Resize::Deferred(why) => Some((pending, yes(Some("Deferred"), Some(why)))),
        Resize::Infeasible(why) => Some((pending, yes(Some("Infeasible"), Some(why)))),
        Resize::Taken => {
            let failures = pod::members(want).filter_map(|member| have.facts.get(&member.container.name));
            let failed = failures.filter_map(|facts| facts.resize_failure.as_ref()).next();
            Some((progress, yes(failed.map(|_| "Error"), failed.map(|failure| &failure.message))))
        }
    }
}

fn condition(want: &Pod, kind: &str, verdict: Verdict, now: Timestamp) -> PodCondition {
    let Verdict { ok, reason, message } = verdict;
    let status = if ok { "True" } else { "False" };
    let old = find(want, kind);
    let moved = old.is_none_or(|old| old.status != status);
    let since = old.filter(|_| !moved).and_then(|old| old.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: since.or(Some(Time(now))),
        last_probe_time: None,
        observed_generation: want.metadata.generation,
    }
}

fn find<'a>(want: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    want.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn initialized(want: &Pod, phase: &str, init: &[ContainerStatus], main: &[ContainerStatus]) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { ok: true, reason: Some("PodCompleted"), message: None };
    }
    let begun = main.iter().any(|status| status.container_id.is_some());
    let waiting: Vec<&str> = pod::init(want)
        .filter(|member| {
            let status = init.iter().find(|status| status.name == member.container.name);
            let complete = match member.role {
                Role::Sidecar => status.is_some_and(|status| status.started == Some(true)),
                Role::Init | Role::Main | Role::Ephemeral => status.is_some_and(|status| status.ready),
            };
            !complete && !begun
        })
        .map(|member| member.container.name.as_str())
        .collect();
    if waiting.is_empty() {
        return Verdict::yes();
    }
    let message = format!("containers with incomplete status: [{}]", waiting.join(" "));
    Verdict::no("ContainersNotInitialized", Some(message))
}

fn containers_ready(want: &Pod, phase: &str, init: &[ContainerStatus], main: &[ContainerStatus]) -> Verdict {
    match phase {
        "Succeeded" => return Verdict::no("PodCompleted", None),
        "Failed" => return Verdict::no("PodFailed", None),
        _ => {}
    }
    let sidecars = pod::init(want).filter(|member| member.role == Role::Sidecar);
    let unready: Vec<&str> = sidecars
        .chain(pod::main(want))
        .map(|member| member.container.name.as_str())
        .filter(|name| !init.iter().chain(main).any(|status| status.name == *name && status.ready))
        .collect();
    if unready.is_empty() {
        return Verdict::yes();
    }
    Verdict::no(
        "ContainersNotReady",
        Some(format!("containers with unready status: [{}]", unready.join(" "))),
    )
}

/// Ready: the containers are, and every readiness gate's condition is True (KEP-580).
fn ready(want: &Pod, phase: &str, containers: &Verdict) -> Verdict {
    if !containers.ok {
        return Verdict { ok: false, reason: containers.reason, message: containers.message.clone() };
    }
    if pod::is_terminal(phase) {
        return Verdict::no("PodCompleted", None);
    }
    let gates = want.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let unmet: Vec<String> = gates
        .filter_map(|gate| match find(want, &gate.condition_type) {
            None => Some(format!(
                "corresponding condition of pod readiness gate {:?} does not exist.",
                gate.condition_type
            )),
            Some(own) if own.status != "True" => Some(format!(
                "the status of pod readiness gate {:?} is not \"True\", but {}",
                gate.condition_type, own.status
            )),
            Some(_) => None,
        })
        .collect();
    if unmet.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ReadinessGatesNotReady", Some(unmet.join(", ")))
    }
}
