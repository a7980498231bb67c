//! What to do next for one pod: [`plan_pod`], a pure function of what is wanted and what is there.
//!
//! Guarantees: the same state gives the same plan; a plan for a pod that is as it should be holds at
//! most a recheck; nothing is planned for a container that a job is already busy with. Decides
//! restart policy, order of init containers and sidecars, back-off, replacement of a dead sandbox,
//! and the order in which a pod is wound down. Does not know how any action is carried out.

mod containers;
mod observed;
mod wind_down;

#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use meta::Timestamp;
use runtime::{SandboxState, action::Role};

pub(crate) use containers::is_finished;
pub use observed::{Busy, Facts, Failure, Observed, Rejection, Unhealthy, Volumes};
pub(crate) use wind_down::GRACE_MIN;

use crate::{
    backoff::{Backoff, since},
    pod,
};

/// One thing to do. Actions of one plan do not depend on each other's outcome and may run at once.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the pod's volumes.
    SetUpVolumes,
    /// Make a sandbox.
    CreateSandbox {
        /// 0 for the first, then one more each time.
        attempt: u32,
    },
    /// Stop a sandbox and give its addresses back.
    StopSandbox {
        /// Runtime id.
        id: String,
    },
    /// Remove a sandbox with its containers.
    RemoveSandbox {
        /// Runtime id.
        id: String,
    },
    /// Get the image, make the container, start it and run its postStart hook.
    StartContainer {
        /// Name in the pod.
        name: String,
        /// What it is for.
        role: Role,
        /// Restart count.
        attempt: u32,
        /// Sandbox to make it in.
        sandbox: String,
        /// A half-made container of the same attempt to remove first.
        replaces: Option<String>,
        /// The crash back-off to remember.
        backoff: Option<Backoff>,
    },
    /// Change the resources of a running container in place.
    ResizeContainer {
        /// Runtime id.
        id: String,
        /// Name in the pod.
        name: String,
    },
    /// Run the preStop hook, stop the container within its grace, then kill it.
    StopContainer {
        /// Runtime id.
        id: String,
        /// Name in the pod.
        name: String,
        /// Grace, preStop included.
        grace: Duration,
        /// For the event.
        why: String,
        /// It begins anew whatever its restart policy: it was stopped for a resize.
        renew: bool,
    },
    /// Remove a dead container that nobody asks for any more.
    RemoveContainer {
        /// Runtime id.
        id: String,
    },
    /// Say that a container waits for its back-off to end.
    BackOff {
        /// Name in the pod.
        name: String,
        /// What it waits to do again.
        again: Again,
    },
    /// Give up starting a container.
    AbortStart {
        /// Name in the pod.
        name: String,
    },
    /// Take the volumes away.
    TearDownVolumes,
    /// Delete the Pod object for good.
    Delete,
    /// Remove all that is left of the pod on this machine; nothing follows.
    Forget,
    /// Plan again after this time.
    Recheck {
        /// How long.
        after: Duration,
    },
}

/// What is done again after a back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The container ended and is to run again.
    Run,
    /// Its image could not be pulled.
    Pull,
}

/// Decides what to do now for `want`.
pub fn plan_pod(want: &Pod, have: &Observed, now: Timestamp) -> Vec<Action> {
    let mut plan = match why_not_run(want, have, now) {
        Some(_) => wind_down::plan(want, have, now),
        None => run(want, have, now),
    };
    keep_nearest_recheck(&mut plan);
    plan
}

/// Why a pod must not run any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Deleted,
    Rejected,
    Deadline,
    Finished,
}

/// `None` while the pod is meant to run.
pub(crate) fn why_not_run(want: &Pod, have: &Observed, now: Timestamp) -> Option<Stop> {
    if have.gone || pod::is_deleting(want) {
        Some(Stop::Deleted)
    } else if have.rejected.is_some() {
        Some(Stop::Rejected)
    } else if pod::is_terminal(pod::phase(want)) || have.finished {
        Some(Stop::Finished)
    } else if pod::deadline(want).is_some_and(|deadline| deadline <= now) {
        Some(Stop::Deadline)
    } else {
        containers::is_finished(want, have).then_some(Stop::Finished)
    }
}

fn run(want: &Pod, have: &Observed, now: Timestamp) -> Vec<Action> {
    let mut plan = Vec::new();
    if let Some(deadline) = pod::deadline(want) {
        plan.push(Action::Recheck { after: since(deadline, now) });
    }
    match &have.volumes {
        Volumes::Ready => {}
        Volumes::Absent if have.pod_busy => return plan,
        Volumes::Absent => {
            plan.push(Action::SetUpVolumes);
            return plan;
        }
        Volumes::Failed(failure) => {
            match failure.retry_in(now) {
                Some(after) => plan.push(Action::Recheck { after }),
                None if have.pod_busy => {}
                None => plan.push(Action::SetUpVolumes),
            }
            return plan;
        }
    }
    match have.sandbox() {
        Some(sandbox) if sandbox.state == SandboxState::Ready => {
            remove_old_sandboxes(have, &mut plan);
            containers::plan(want, have, &sandbox.id, now, &mut plan);
        }
        _ => renew_sandbox(want, have, now, &mut plan),
    }
    plan
}

/// A sandbox that died takes its containers along: stop what still runs in it, then begin anew.
fn renew_sandbox(want: &Pod, have: &Observed, now: Timestamp, plan: &mut Vec<Action>) {
    let mut draining = false;
    for container in have.containers().filter(|container| container.is_running()) {
        draining = true;
        if !have.is_busy(&container.name) {
            plan.push(Action::StopContainer {
                id: container.id.clone(),
                name: container.name.clone(),
                grace: pod::grace(want),
                why: "Pod sandbox changed, it will be killed and re-created.".to_owned(),
                renew: false,
            });
        }
    }
    if draining || have.pod_busy {
        return;
    }
    if let Some(failure) = &have.sandbox_failure
        && let Some(after) = failure.retry_in(now)
    {
        plan.push(Action::Recheck { after });
        return;
    }
    let attempt = have.sandbox().map_or(0, |sandbox| sandbox.attempt + 1);
    plan.push(Action::CreateSandbox { attempt });
}

fn remove_old_sandboxes(have: &Observed, plan: &mut Vec<Action>) {
    let sandboxes = have.pod.iter().flat_map(|pod| pod.sandboxes.iter().skip(1));
    if !have.pod_busy {
        plan.extend(sandboxes.map(|sandbox| Action::RemoveSandbox { id: sandbox.id.clone() }));
    }
}

/// One recheck is enough: the earliest. A wait is never shorter than 10 ms, so that a clock that
/// lags behind the timer does not make a busy loop.
fn keep_nearest_recheck(plan: &mut Vec<Action>) {
    let after = |action: &Action| match action {
        Action::Recheck { after } => Some(*after),
        _ => None,
    };
    let nearest = plan.iter().filter_map(after).min();
    plan.retain(|action| after(action).is_none());
    if let Some(after) = nearest {
        plan.push(Action::Recheck { after: after.max(Duration::from_millis(10)) });
    }
}
