//! The end of a pod: containers, sandbox, volumes, object, leftovers, in this order.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use meta::Timestamp;
use runtime::{ObservedContainer, SandboxState, action::Role};

use super::{Action, Busy, Observed, Volumes};
use crate::{backoff::since, pod};

/// Every container gets at least this long (upstream `minimumGracePeriodInSeconds`), unless the
/// deletion asks for none.
pub(crate) const GRACE_MIN: Duration = Duration::from_secs(2);

/// How long a deletion that the API server took, of an object that stays, is not repeated (upstream's
/// `syncPeriod` of its status manager).
const DELETE_AGAIN: Duration = Duration::from_secs(10);

pub(super) fn plan(want: &Pod, have: &Observed, now: Timestamp) -> Vec<Action> {
    let mut plan = Vec::new();
    for (name, facts) in &have.facts {
        if facts.busy == Some(Busy::Starting) {
            plan.push(Action::AbortStart { name: name.clone() });
        }
    }
    stop_containers(want, have, now, &mut plan);
    let busy = have.pod_busy || have.facts.values().any(|facts| facts.busy.is_some());
    if busy || have.containers().any(ObservedContainer::is_running) {
        return plan;
    }
    let sandboxes = have.pod.iter().flat_map(|pod| pod.sandboxes.iter());
    let ready = sandboxes.clone().filter(|sandbox| sandbox.state == SandboxState::Ready);
    plan.extend(ready.map(|sandbox| Action::StopSandbox { id: sandbox.id.clone() }));
    if !plan.is_empty() {
        return plan;
    }
    if have.volumes != Volumes::Absent {
        plan.push(Action::TearDownVolumes);
    } else if have.gone {
        plan.extend(sandboxes.map(|sandbox| Action::RemoveSandbox { id: sandbox.id.clone() }));
        if plan.is_empty() {
            plan.push(Action::Forget);
        }
    } else if pod::is_deleting(want) && have.end_reported {
        // The watch tells when it is gone; until then whoever has a finalizer on it is waited for.
        let waited = have.delete_asked.map_or(DELETE_AGAIN, |asked| since(now, asked));
        match DELETE_AGAIN.checked_sub(waited).filter(|left| !left.is_zero()) {
            Some(after) => plan.push(Action::Recheck { after }),
            None => plan.push(Action::Delete),
        }
    }
    plan
}

/// Main and init containers at once; then the sidecars, one by one, the last one first (KEP-753).
/// All of them share the grace; a sidecar whose turn comes late gets the minimum.
fn stop_containers(want: &Pod, have: &Observed, now: Timestamp, plan: &mut Vec<Action>) {
    let whole = pod::grace(want);
    let spent = have.stopping_since.map_or(Duration::ZERO, |begun| since(now, begun));
    let grace = if whole.is_zero() { whole } else { whole.saturating_sub(spent).max(GRACE_MIN.min(whole)) };
    let sidecars: Vec<&str> = pod::init(want)
        .filter(|member| member.role == Role::Sidecar)
        .map(|member| member.container.name.as_str())
        .collect();
    let is_sidecar = |container: &&ObservedContainer| sidecars.contains(&container.name.as_str());
    let running: Vec<&ObservedContainer> =
        have.containers().filter(|container| container.is_running()).collect();
    let mut first: Vec<&ObservedContainer> = running.iter().copied().filter(|c| !is_sidecar(c)).collect();
    if first.is_empty() {
        let last = sidecars.iter().rev().find_map(|name| running.iter().copied().find(|c| c.name == *name));
        first.extend(last);
    }
    for container in first {
        let shorter = match have.facts.get(&container.name).and_then(|facts| facts.busy) {
            None => true,
            Some(Busy::Stopping { grace: given }) => whole < given,
            Some(Busy::Starting) => false,
            Some(Busy::Resizing) => true,
        };
        if shorter {
            plan.push(Action::StopContainer {
                id: container.id.clone(),
                name: container.name.clone(),
                grace,
                why: format!("Stopping container {}", container.name),
                renew: false,
            });
        }
    }
}
