//! Containers of a pod whose sandbox is ready: who is to be started, stopped or left alone.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use meta::Timestamp;
use runtime::{
    ContainerState, ObservedContainer,
    action::{Role, SPEC_HASH},
};

use super::{Action, Again, Observed};
use crate::{
    backoff::{Backoff, Gate, gate, since},
    pod::{self, Member},
    resize::{self, Resize},
};

/// How often it is said that a container waits for its back-off to end: upstream looks once a minute at a pod that
/// waits longer, and says so each time (`pod_workers.go`, `completeWork`).
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Plans the containers in the ready sandbox `sandbox`.
pub(super) fn plan(want: &Pod, have: &Observed, sandbox: &str, now: Timestamp, plan: &mut Vec<Action>) {
    let mut step = Planning { want, have, sandbox, now, plan };
    // Once a main container exists, init containers are history: only sidecars are kept up
    // (`kuberuntime_manager.go`, `computeInitContainerActions`).
    let initialized = pod::main(want).any(|member| have.current(&member.container.name).is_some());
    let mut may_go_on = true;
    for member in pod::init(want) {
        if !may_go_on {
            break;
        }
        may_go_on = match member.role {
            Role::Sidecar => step.sidecar(member) || initialized,
            Role::Init | Role::Main | Role::Ephemeral => initialized || step.init(member),
        };
    }
    if may_go_on {
        for member in pod::main(want) {
            step.keep(member);
        }
    }
    // At any time, whether or not the pod has come up: they are there to find out why (KEP-277).
    for own in pod::ephemeral(want) {
        step.keep(own.member());
    }
    step.remove_dead();
}

/// Whether nothing of the pod will ever run again: an init container failed for good, or every main
/// container has ended for good.
pub(crate) fn is_finished(want: &Pod, have: &Observed) -> bool {
    let ended = |member: Member<'_>| {
        let container = have.container(&member.container.name)?;
        let changed = is_changed(member, container) || is_renewed(have, container);
        let code = container.exit_code()?;
        (!changed && !pod::restarts(want, member, code) && !have.is_busy(&container.name)).then_some(code)
    };
    let started = pod::main(want).any(|member| have.container(&member.container.name).is_some());
    if !started {
        let failed = |member: Member<'_>| ended(member).is_some_and(|code| code != 0);
        return pod::init(want).filter(|member| member.role == Role::Init).any(failed);
    }
    pod::main(want).all(|member| ended(member).is_some())
}

/// Whether the container was made from another spec than the pod has now.
fn is_changed(member: Member<'_>, container: &ObservedContainer) -> bool {
    let hash = container.annotations.get(SPEC_HASH);
    hash.is_some_and(|hash| *hash != pod::spec_hash(member.container))
}

/// Whether the container was stopped in order to begin anew with other resources.
fn is_renewed(have: &Observed, container: &ObservedContainer) -> bool {
    let facts = have.facts.get(&container.name);
    facts.and_then(|facts| facts.renewed.as_ref()).is_some_and(|id| *id == container.id)
}

struct Planning<'a> {
    want: &'a Pod,
    have: &'a Observed,
    sandbox: &'a str,
    now: Timestamp,
    plan: &'a mut Vec<Action>,
}

impl Planning<'_> {
    /// Runs an init container to its end. True when the next may begin.
    fn init(&mut self, member: Member<'_>) -> bool {
        let done =
            self.have.current(&member.container.name).and_then(ObservedContainer::exit_code) == Some(0);
        if !done {
            self.keep(member);
        }
        done && !self.have.is_busy(&member.container.name)
    }

    /// Keeps a sidecar up. True when the next init container may begin: it has started.
    fn sidecar(&mut self, member: Member<'_>) -> bool {
        self.keep(member);
        let name = &member.container.name;
        let running = self.have.current(name).is_some_and(ObservedContainer::is_running);
        running && self.have.facts.get(name).is_some_and(|facts| facts.started)
    }

    fn keep(&mut self, member: Member<'_>) {
        let name = &member.container.name;
        if self.have.is_busy(name) {
            return;
        }
        match self.have.current(name) {
            None => self.first(member),
            Some(container) => match &container.state {
                ContainerState::Running { .. } => self.running(member, container),
                ContainerState::Exited { finished_at, exit_code, .. } => {
                    self.exited(member, container, *finished_at, *exit_code);
                }
                ContainerState::Created | ContainerState::Unknown => {
                    let replaces = Some(container.id.clone());
                    self.start(member, container.attempt, replaces, None);
                }
            },
        }
    }

    /// No container in this sandbox yet. A former sandbox may have had one.
    fn first(&mut self, member: Member<'_>) {
        let former = self.have.container(&member.container.name);
        // They run once; the status remembers what the runtime has forgotten.
        if member.role == Role::Ephemeral && (former.is_some() || has_run(self.want, member)) {
            return;
        }
        if let Some(code) = former.and_then(ObservedContainer::exit_code)
            && member.role == Role::Main
            && !pod::restarts(self.want, member, code)
        {
            return;
        }
        let attempt = former.map_or_else(|| reported_attempt(self.want, member), |former| former.attempt + 1);
        self.start(member, attempt, None, None);
    }

    fn running(&mut self, member: Member<'_>, container: &ObservedContainer) {
        let facts = self.have.facts.get(&container.name);
        let unhealthy =
            facts.and_then(|facts| facts.unhealthy.as_ref()).filter(|verdict| verdict.id == container.id);
        let (why, grace) = if is_changed(member, container) {
            (format!("Container {} definition changed", container.name), None)
        } else if let Some(verdict) = unhealthy {
            (verdict.why.clone(), verdict.grace)
        } else {
            self.resize(member, container);
            return;
        };
        self.plan.push(Action::StopContainer {
            id: container.id.clone(),
            name: container.name.clone(),
            grace: grace.unwrap_or_else(|| pod::grace(self.want)),
            why,
            renew: false,
        });
    }

    /// Gives a running container what its spec asks for, once the node has taken the resize.
    fn resize(&mut self, member: Member<'_>, container: &ObservedContainer) {
        let wanted = resize::wanted(member, self.have);
        if wanted.is_empty() || self.have.resize != Resize::Taken {
            return;
        }
        let (id, name) = (container.id.clone(), container.name.clone());
        if resize::restarts(member.container, &wanted) {
            let why = format!("Container {name} resize requires restart");
            let grace = pod::grace(self.want);
            self.plan.push(Action::StopContainer { id, name, grace, why, renew: true });
            return;
        }
        let failure = self.have.facts.get(&name).and_then(|facts| facts.resize_failure.as_ref());
        match failure.and_then(|failure| failure.retry_in(self.now)) {
            Some(after) => self.plan.push(Action::Recheck { after }),
            None => self.plan.push(Action::ResizeContainer { id, name }),
        }
    }

    fn exited(&mut self, member: Member<'_>, container: &ObservedContainer, finished: Timestamp, code: i32) {
        let anew = is_changed(member, container) || is_renewed(self.have, container);
        if !anew && !pod::restarts(self.want, member, code) {
            return;
        }
        let last = self.have.facts.get(&container.name).and_then(|facts| facts.crash);
        match gate(last, finished, self.now) {
            Gate::Go(backoff) => self.start(member, container.attempt + 1, None, Some(backoff)),
            Gate::Wait { left, .. } => self.back_off(&container.name, Again::Run, finished, left),
        }
    }

    /// Waits `left` more; says so at the beginning of the wait, which was at `begun`, and from time to time.
    fn back_off(&mut self, name: &str, again: Again, begun: Timestamp, left: Duration) {
        let told = self.have.facts.get(name).and_then(|facts| facts.told).filter(|told| *told >= begun);
        let untold = told.map_or(Duration::ZERO, |told| TELL_EVERY.saturating_sub(since(self.now, told)));
        if untold.is_zero() {
            self.plan.push(Action::BackOff { name: name.to_owned(), again });
        }
        let next = if untold.is_zero() { TELL_EVERY } else { untold };
        self.plan.push(Action::Recheck { after: left.min(next) });
    }

    /// Starts it, unless the last try failed a moment ago.
    fn start(
        &mut self,
        member: Member<'_>,
        attempt: u32,
        replaces: Option<String>,
        backoff: Option<Backoff>,
    ) {
        let name = &member.container.name;
        let failure = self.have.facts.get(name).and_then(|facts| facts.failure.as_ref());
        if let Some((failure, after)) =
            failure.and_then(|failure| Some((failure, failure.retry_in(self.now)?)))
        {
            if failure.is_pull() {
                self.back_off(name, Again::Pull, failure.at, after);
            } else {
                self.plan.push(Action::Recheck { after });
            }
            return;
        }
        self.plan.push(Action::StartContainer {
            name: name.clone(),
            role: member.role,
            attempt,
            sandbox: self.sandbox.to_owned(),
            replaces,
            backoff,
        });
    }

    /// Of each container, the newest and one dead one before it are kept (upstream
    /// `MaxPerPodContainer` 1), the latter for `kubectl logs --previous`.
    fn remove_dead(&mut self) {
        let mut seen: Option<(&str, usize)> = None;
        for container in self.have.containers() {
            let count = match seen {
                Some((name, count)) if name == container.name => count + 1,
                _ => 0,
            };
            seen = Some((&container.name, count));
            let dead = container.exit_code().is_some();
            if count >= 2 && dead && !self.have.is_busy(&container.name) {
                self.plan.push(Action::RemoveContainer { id: container.id.clone() });
            }
        }
    }
}

/// Whether the API server was told that an ephemeral container had been made.
fn has_run(want: &Pod, member: Member<'_>) -> bool {
    let reported = want.status.iter().flat_map(|status| status.ephemeral_container_statuses.iter().flatten());
    let own = reported.into_iter().find(|own| own.name == member.container.name);
    own.and_then(|own| own.container_id.as_deref()).is_some_and(|id| !id.is_empty())
}

/// The restart count for a container that the runtime has no trace of: one more than the API server
/// was told of, when it was told that it had run.
fn reported_attempt(want: &Pod, member: Member<'_>) -> u32 {
    let Some(status) = &want.status else { return 0 };
    let reported =
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let Some(own) = reported.into_iter().find(|own| own.name == member.container.name) else { return 0 };
    let count = u32::try_from(own.restart_count).unwrap_or_default();
    let ran = own.container_id.as_deref().is_some_and(|id| !id.is_empty());
    count + u32::from(ran)
}
