//! `status` of a Pod from what is known of it: [`derive`].
//!
//! Guarantees: a pure function; conditions of other owners are left out of it (a strategic merge
//! patch keeps them); `lastTransitionTime` moves only when the status of a condition does; what the
//! runtime has forgotten but the API server was told is kept. Follows `pkg/kubelet/kubelet_pods.go`
//! (`generateAPIPodStatus`, `getPhase`) and `pkg/kubelet/status/generate.go`.

mod conditions;
mod containers;
mod patch;
mod phase;

#[cfg(test)]
mod tests;

use k8s_openapi::{
    api::core::v1::{HostIP, Pod, PodIP, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use meta::Timestamp;

pub use patch::patch;

use crate::{
    plan::{self, Observed, Stop},
    pod,
    qos::Qos,
};

/// What of the node goes into a pod's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Addresses of the node, the primary first.
    pub host_ips: Vec<String>,
    /// Scheme of container ids: `containerd`.
    pub runtime: String,
}

/// The status that `want` has at `now`.
pub fn derive(want: &Pod, have: &Observed, node: &NodeFacts, now: Timestamp) -> PodStatus {
    let old = want.status.clone().unwrap_or_default();
    let init = containers::statuses(want, have, node, containers::Group::Init);
    let main = containers::statuses(want, have, node, containers::Group::Main);
    let stop = plan::why_not_run(want, have, now);
    let (phase, reason, message) = outcome(want, have, stop, &init, &main, now);
    let mut status = PodStatus {
        observed_generation: want.metadata.generation,
        phase: Some(phase.to_owned()),
        reason,
        message,
        start_time: old.start_time.clone().or(Some(Time(now))),
        qos_class: Some(old.qos_class.clone().unwrap_or_else(|| Qos::of(want).as_str().to_owned())),
        host_ip: node.host_ips.first().cloned(),
        host_ips: (!node.host_ips.is_empty())
            .then(|| node.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        ..PodStatus::default()
    };
    let ips = pod_ips(want, have, node, &old);
    status.pod_ip = ips.first().cloned();
    status.pod_ips = (!ips.is_empty()).then(|| ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect());
    status.conditions = Some(conditions::conditions(want, have, phase, &init, &main, now));
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.container_statuses = Some(main);
    let ephemeral = containers::statuses(want, have, node, containers::Group::Ephemeral);
    status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
    status
}

fn outcome(
    want: &Pod,
    have: &Observed,
    stop: Option<Stop>,
    init: &[k8s_openapi::api::core::v1::ContainerStatus],
    main: &[k8s_openapi::api::core::v1::ContainerStatus],
    now: Timestamp,
) -> (&'static str, Option<String>, Option<String>) {
    let old = want.status.as_ref();
    if let Some(rejection) = &have.rejected {
        return ("Failed", Some(rejection.reason.clone()), Some(rejection.message.clone()));
    }
    // A terminal phase is never left, and its reason stays.
    let kept = || (old.and_then(|old| old.reason.clone()), old.and_then(|old| old.message.clone()));
    let terminal = match pod::phase(want) {
        "Succeeded" => Some("Succeeded"),
        "Failed" => Some("Failed"),
        _ => None,
    };
    if let Some(phase) = terminal {
        let (reason, message) = kept();
        return (phase, reason, message);
    }
    if pod::deadline(want).is_some_and(|deadline| deadline <= now) && stop != Some(Stop::Finished) {
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        return ("Failed", Some("DeadlineExceeded".to_owned()), Some(message));
    }
    let ended = match stop {
        // While containers are still going down, a deleted pod keeps the phase it had.
        Some(Stop::Deleted) => main.iter().chain(init).all(phase::is_down) && !have.pod_busy,
        Some(Stop::Finished) => main.iter().chain(init).all(phase::is_down),
        Some(Stop::Rejected | Stop::Deadline) | None => false,
    };
    (phase::phase(want, ended, init, main), None, None)
}

/// The sandbox's addresses; the node's with the host's network; what was told before once the
/// sandbox is gone, so that a finished pod keeps its address in the record.
fn pod_ips(want: &Pod, have: &Observed, node: &NodeFacts, old: &PodStatus) -> Vec<String> {
    let Some(sandbox) = have.sandbox() else {
        let old = old.pod_ips.iter().flatten();
        return old.map(|ip| ip.ip.clone()).collect();
    };
    if pod::is_host_network(want) || sandbox.host_network {
        return node.host_ips.clone();
    }
    if sandbox.ips.is_empty() && (pod::is_terminal(pod::phase(want)) || pod::is_deleting(want)) {
        let old = old.pod_ips.iter().flatten();
        return old.map(|ip| ip.ip.clone()).collect();
    }
    sandbox.ips.iter().map(ToString::to_string).collect()
}
