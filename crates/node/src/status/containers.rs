//! `containerStatuses`, `initContainerStatuses` and `ephemeralContainerStatuses`.

use k8s_openapi::{
    api::core::v1::{
        ContainerState as WireState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, Pod, ResourceRequirements,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use runtime::{ContainerState, ObservedContainer, action::Role};

use super::NodeFacts;
use crate::{
    backoff,
    plan::{Busy, Facts, Observed, is_finished},
    pod::{self, Member},
    resize::{self, Resize},
};

/// Which list of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Init,
    Main,
    Ephemeral,
}

pub(super) fn statuses(want: &Pod, have: &Observed, node: &NodeFacts, group: Group) -> Vec<ContainerStatus> {
    let of = |member: Member<'_>| status(want, have, node, group, member);
    match group {
        Group::Init => pod::init(want).map(of).collect(),
        Group::Main => pod::main(want).map(of).collect(),
        Group::Ephemeral => pod::ephemeral(want).map(|own| of(own.member())).collect(),
    }
}

fn status(
    want: &Pod,
    have: &Observed,
    node: &NodeFacts,
    group: Group,
    member: Member<'_>,
) -> ContainerStatus {
    let name = &member.container.name;
    let old = reported(want, group, name);
    let none = Facts::default();
    let facts = have.facts.get(name).map_or(&none, AsRef::as_ref);
    let image = member.container.image.clone().unwrap_or_default();
    let Some(container) = have.container(name) else {
        return without_container(want, have, member, facts, old, image);
    };
    let wire_id = |id: &str| format!("{}://{id}", node.runtime);
    let terminated = terminated(container, facts, &wire_id(&container.id));
    let running = match &container.state {
        ContainerState::Running { started_at } => Some(*started_at),
        ContainerState::Created | ContainerState::Exited { .. } | ContainerState::Unknown => None,
    };
    let waiting = waiting(want, have, member, container, facts);
    let before = previous(have, old, container, facts, node);
    let (state, last_state) = match (running, terminated, waiting) {
        (Some(at), _, _) => (
            WireState {
                running: Some(ContainerStateRunning { started_at: Some(Time(at)) }),
                ..WireState::default()
            },
            before,
        ),
        (None, Some(ended), Some(waiting)) => (
            WireState { waiting: Some(waiting), ..WireState::default() },
            Some(WireState { terminated: Some(ended), ..WireState::default() }),
        ),
        (None, Some(ended), None) => (WireState { terminated: Some(ended), ..WireState::default() }, before),
        (None, None, waiting) => {
            let waiting = waiting.unwrap_or_else(|| creating(want, have));
            (WireState { waiting: Some(waiting), ..WireState::default() }, before)
        }
    };
    let is_running = running.is_some();
    let completed = container.exit_code() == Some(0);
    ContainerStatus {
        name: name.clone(),
        container_id: Some(wire_id(&container.id)),
        image: if container.image.is_empty() { image } else { container.image.clone() },
        image_id: container.image_id.clone(),
        restart_count: i32::try_from(container.attempt).unwrap_or(i32::MAX),
        ready: if member.role == Role::Init { completed } else { is_running && facts.ready },
        started: Some(is_running && facts.started),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        allocated_resources: is_running
            .then(|| allocated(have, member).and_then(|resources| resources.requests.clone()))
            .flatten(),
        resources: is_running.then(|| resize::actual(have, member.container).cloned()).flatten(),
        ..ContainerStatus::default()
    }
}

/// What the node has set aside for a container: what its spec asks for, once the node has taken that.
fn allocated<'a>(have: &'a Observed, member: Member<'a>) -> Option<&'a ResourceRequirements> {
    match have.resize {
        Resize::None | Resize::Taken => member.container.resources.as_ref(),
        Resize::Deferred(_) | Resize::Infeasible(_) => resize::actual(have, member.container),
    }
}

/// The runtime has nothing: not begun, or cleaned up after it was reported.
fn without_container(
    want: &Pod,
    have: &Observed,
    member: Member<'_>,
    facts: &Facts,
    old: Option<&ContainerStatus>,
    image: String,
) -> ContainerStatus {
    let ended = old.and_then(|old| old.state.as_ref()).and_then(|state| state.terminated.clone());
    let ran = old.and_then(|old| old.state.as_ref()).is_some_and(|state| state.running.is_some());
    let over = pod::is_deleting(want) || have.finished || pod::is_terminal(pod::phase(want)) || have.gone;
    if let (Some(old), Some(_), true) =
        (old, &ended, over || matches!(member.role, Role::Init | Role::Ephemeral))
    {
        return old.clone();
    }
    let unknown = || ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        container_id: old.and_then(|old| old.container_id.clone()),
        ..ContainerStateTerminated::default()
    };
    let mut status = ContainerStatus {
        name: member.container.name.clone(),
        image,
        started: Some(false),
        restart_count: old.map_or(0, |old| old.restart_count),
        last_state: Some(old.and_then(|old| old.last_state.clone()).unwrap_or_default()),
        ..ContainerStatus::default()
    };
    if ran && over {
        status.container_id = old.and_then(|old| old.container_id.clone());
        status.image_id = old.map(|old| old.image_id.clone()).unwrap_or_default();
        status.state = Some(WireState { terminated: Some(unknown()), ..WireState::default() });
        return status;
    }
    if ran {
        status.last_state = Some(WireState { terminated: Some(unknown()), ..WireState::default() });
    }
    let waiting = failing(member, facts).unwrap_or_else(|| creating(want, have));
    status.state = Some(WireState { waiting: Some(waiting), ..WireState::default() });
    status
}

fn reported<'a>(want: &'a Pod, group: Group, name: &str) -> Option<&'a ContainerStatus> {
    let status = want.status.as_ref()?;
    let list = match group {
        Group::Init => status.init_container_statuses.as_ref(),
        Group::Main => status.container_statuses.as_ref(),
        Group::Ephemeral => status.ephemeral_container_statuses.as_ref(),
    };
    list?.iter().find(|own| own.name == name)
}

/// Why what was never begun waits; with init containers each of them and every other one says the same.
fn creating(want: &Pod, have: &Observed) -> ContainerStateWaiting {
    let reason = if pod::init(want).next().is_some() { "PodInitializing" } else { "ContainerCreating" };
    let message = match (&have.sandbox_failure, &have.volumes) {
        (Some(failure), _) | (None, crate::plan::Volumes::Failed(failure)) => Some(failure.message.clone()),
        _ => None,
    };
    ContainerStateWaiting { reason: Some(reason.to_owned()), message }
}

/// Why a container that could not be started waits. A failed pull shows its own reason first and
/// `ImagePullBackOff` while the wait grows.
fn failing(member: Member<'_>, facts: &Facts) -> Option<ContainerStateWaiting> {
    let failure = facts.failure.as_ref()?;
    if failure.is_pull() && failure.backoff.step > backoff::INITIAL {
        let image = member.container.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image {image:?}: {}: {}", failure.reason, failure.message);
        return Some(ContainerStateWaiting {
            reason: Some("ImagePullBackOff".to_owned()),
            message: Some(message),
        });
    }
    Some(ContainerStateWaiting {
        reason: Some(failure.reason.clone()),
        message: Some(failure.message.clone()),
    })
}

/// Why an ended container waits to run again; `None` when it stays as it is.
fn waiting(
    want: &Pod,
    have: &Observed,
    member: Member<'_>,
    container: &ObservedContainer,
    facts: &Facts,
) -> Option<ContainerStateWaiting> {
    if let Some(waiting) = failing(member, facts) {
        return Some(waiting);
    }
    let code = container.exit_code()?;
    let over = have.gone || have.finished || pod::is_deleting(want) || pod::is_terminal(pod::phase(want));
    if over || have.rejected.is_some() || !pod::restarts(want, member, code) || is_finished(want, have) {
        return None;
    }
    if facts.busy == Some(Busy::Starting) {
        return None;
    }
    let step = facts.crash?.step;
    let message = format!(
        "back-off {} restarting failed container={} pod={}",
        backoff::words(step),
        container.name,
        pod::long_name(want)
    );
    Some(ContainerStateWaiting { reason: Some("CrashLoopBackOff".to_owned()), message: Some(message) })
}

fn terminated(container: &ObservedContainer, facts: &Facts, id: &str) -> Option<ContainerStateTerminated> {
    let ContainerState::Exited { started_at, finished_at, exit_code, reason, message } = &container.state
    else {
        return None;
    };
    let file = facts.termination_message.as_ref().filter(|(of, _)| *of == container.id).map(|(_, text)| text);
    let message = file.filter(|text| !text.is_empty()).unwrap_or(message);
    let reason = match (reason.as_str(), exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (given, _) => given,
    };
    Some(ContainerStateTerminated {
        container_id: Some(id.to_owned()),
        exit_code: *exit_code,
        reason: Some(reason.to_owned()),
        message: (!message.is_empty()).then(|| message.clone()),
        signal: None,
        started_at: started_at.map(Time),
        finished_at: Some(Time(*finished_at)),
    })
}

/// How the attempt before ended: from the runtime while it has it, else from what was reported.
fn previous(
    have: &Observed,
    old: Option<&ContainerStatus>,
    container: &ObservedContainer,
    facts: &Facts,
    node: &NodeFacts,
) -> Option<WireState> {
    let before =
        have.containers().find(|other| other.name == container.name && other.attempt < container.attempt);
    let ended = before.and_then(|before| {
        let mut ended = terminated(before, facts, &format!("{}://{}", node.runtime, before.id))?;
        // The message file was read while that attempt was the newest; the report has it.
        let told = old.and_then(|old| {
            let states = [old.state.as_ref(), old.last_state.as_ref()];
            states
                .into_iter()
                .flatten()
                .filter_map(|state| state.terminated.clone())
                .find(|t| t.container_id == ended.container_id)
        });
        if let Some(told) = told {
            ended.message = told.message;
        }
        Some(ended)
    });
    if let Some(ended) = ended {
        return Some(WireState { terminated: Some(ended), ..WireState::default() });
    }
    let old = old?;
    let id = format!("{}://{}", node.runtime, container.id);
    if old.container_id.as_deref() == Some(id.as_str()) {
        return old.last_state.clone();
    }
    let state = old.state.as_ref().and_then(|state| state.terminated.clone());
    state
        .map(|ended| WireState { terminated: Some(ended), ..WireState::default() })
        .or_else(|| old.last_state.clone())
}
