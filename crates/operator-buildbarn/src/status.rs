//! What is true of a component, in its status.

use std::sync::Arc;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;
use meta::Timestamp;
use reconcile::{Condition, set_condition};

use crate::{
    children::{self, CONFIG_HASH},
    component::{Component, Design, Workload},
    drain::Member,
    observe::World,
    types::Status,
    verdict::Verdict,
};

const READY: &str = "Ready";
/// Reason of a component whose children the API server does not take.
const REFUSED: &str = "Refused";
/// Conditions that come and go with what they are about.
const PASSING: [&str; 3] = ["QueueReachable", "RestartPending", "Resharding"];

/// What is seen of the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether there is a workload.
    pub(crate) found: bool,
    pub(crate) replicas: i32,
    pub(crate) ready: i32,
    /// Every pod is of what is wanted now.
    pub(crate) rolled_out: bool,
    pub(crate) draining: i32,
    /// A Deployment has not come further for as long as it may take.
    pub(crate) stalled: bool,
}

/// Whether a pod counts as ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|condition| condition.type_ == READY && condition.status == "True")
}

/// Whether a pod has ended for ever.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    ["Succeeded", "Failed"].contains(&phase)
}

/// What is seen of a Deployment, a StatefulSet, or (without a design) of whatever there is.
pub(crate) fn seen<K: Component>(world: &World<K>, design: Option<&Design>) -> Seen {
    if let Some(set) = &world.stateful_set {
        let status = set.status.clone().unwrap_or_default();
        let current = status.observed_generation == set.metadata.generation
            && (status.update_revision == status.current_revision
                || status.updated_replicas == Some(status.replicas));
        return Seen {
            found: true,
            replicas: status.replicas,
            ready: status.ready_replicas.unwrap_or(0),
            rolled_out: current,
            draining: 0,
            stalled: false,
        };
    }
    let sum = |of: fn(&Deployment) -> i32| world.deployments.iter().map(|deployment| of(deployment)).sum();
    Seen {
        found: !world.deployments.is_empty(),
        replicas: sum(|d| d.status.as_ref().and_then(|status| status.replicas).unwrap_or(0)),
        ready: sum(|d| d.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)),
        rolled_out: design.is_some_and(|design| world.deployments.iter().any(|d| rolled_out(d, design))),
        draining: 0,
        stalled: stalled(world),
    }
}

fn stalled<K: Component>(world: &World<K>) -> bool {
    let conditions = world
        .deployments
        .iter()
        .flat_map(|deployment| deployment.status.iter())
        .flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Progressing" && c.status == "False")
}

/// What was said of this object, if its children were refused.
pub(crate) fn said_refused(before: &Status) -> Option<String> {
    let ready = before.conditions.iter().find(|c| c.type_ == READY && c.reason == REFUSED)?;
    Some(ready.message.clone())
}

fn rolled_out(deployment: &Arc<Deployment>, design: &Design) -> bool {
    let spec = deployment.spec.clone().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    let hash = spec.template.metadata.and_then(|meta| meta.annotations?.get(CONFIG_HASH).cloned());
    let wanted = design.files.as_ref().map(|files| files.hash.clone());
    let updated = status.updated_replicas.unwrap_or(0);
    (wanted.is_none() || hash == wanted)
        && status.observed_generation == deployment.metadata.generation
        && updated == spec.replicas.unwrap_or(1)
        && status.replicas.unwrap_or(0) == updated
}

pub(crate) fn seen_pool<K: Component>(
    world: &World<K>,
    design: &Design,
    current: &str,
    members: &[Member],
    draining: i32,
) -> Seen {
    let count =
        |of: &dyn Fn(&&Member) -> bool| i32::try_from(members.iter().filter(of).count()).unwrap_or(i32::MAX);
    let here = count(&|pod| !pod.deleting);
    Seen {
        found: !world.deployments.is_empty(),
        replicas: here,
        ready: count(&|pod| pod.ready && !pod.deleting),
        // Pods that end still read and write by the map that they were started with.
        rolled_out: world.asked().len() <= 1
            && world.asked().contains_key(current)
            && members.iter().all(|pod| pod.template == current)
            && here == design.replicas,
        draining,
        stalled: stalled(world),
    }
}

/// The status, and what its `Ready` condition says.
pub(crate) fn status<K: Component>(
    world: &World<K>,
    design: Result<&Design, &Verdict>,
    seen: &Seen,
    now: Timestamp,
) -> (Status, Verdict) {
    let before = world.before();
    let generation = world.object.meta().generation;
    let verdict = match design {
        Err(verdict) => verdict.clone(),
        Ok(design) => match &world.refused {
            Some(why) => Verdict::not(REFUSED, why.clone()),
            None => design.fault.clone().unwrap_or_else(|| judge(world, design, seen)),
        },
    };
    let mut conditions = before.conditions.clone();
    let mut put = |kind: &str, is: bool, reason: &str, message: String| {
        let status = if is { "True" } else { "False" };
        set_condition(&mut conditions, Condition { kind, status, reason, message }, generation, now);
    };
    put(READY, verdict.ready, verdict.reason, verdict.message.clone());
    if let Ok(design) = design {
        for (kind, is, reason, message) in &design.conditions {
            put(kind, *is, reason, message.clone());
        }
        conditions.retain(|condition| {
            !PASSING.contains(&condition.type_.as_str())
                || design.conditions.iter().any(|(kind, ..)| *kind == condition.type_)
        });
    }
    let state = match (seen.found, seen.ready == seen.replicas && seen.replicas > 0) {
        (false, _) => "NotFound",
        (true, true) => "Ready",
        (true, false) => "NotReady",
    };
    // Without a design, what was said of the farm stays.
    let (base, map, config_map) = match design {
        Ok(design) => {
            let config = design.files.as_ref().map(|files| children::config_map_name(&world.name(), files));
            let map = if seen.rolled_out { design.map.clone() } else { before.storage_map.clone() };
            (design.status.clone(), map, config.or_else(|| world.common().config_map_name.clone()))
        }
        Err(_) => (before.clone(), before.storage_map.clone(), before.config_map.clone()),
    };
    let status = Status {
        state: Some(state.to_owned()),
        replicas: seen.replicas,
        ready_replicas: seen.ready,
        conditions,
        observed_generation: generation,
        selector: Some(selector::<K>(&world.object.name_any())),
        config_map,
        storage_map: map,
        draining: seen.draining,
        ..base
    };
    (status, verdict)
}

fn selector<K: Component>(name: &str) -> String {
    format!("app={},component={name}", K::APP)
}

fn judge<K: Component>(world: &World<K>, design: &Design, seen: &Seen) -> Verdict {
    let Seen { found, replicas, ready, rolled_out, draining, stalled } = seen;
    let wanted = design.replicas;
    if !found {
        return Verdict::not("Progressing", "created the workload");
    }
    if wanted == 0 && *replicas == 0 {
        let scaled = matches!(design.workload, Workload::Pool { .. }) && design.status.autoscaling.is_some();
        return if scaled {
            Verdict::ready("scaled to zero: pods come with the first action")
        } else {
            Verdict::not("Stopped", "stopped, since spec.replicas is 0")
        };
    }
    if *draining > 0 {
        let silent = design.conditions.iter().any(|(kind, is, ..)| *kind == "QueueReachable" && !is);
        let when = if silent {
            "are to end, and stay until the scheduler tells what they run (condition QueueReachable) or their drain \
             limit is over"
        } else {
            "end when their actions have"
        };
        return Verdict::not("Draining", format!("{draining} pod(s) {when}, {ready} of {wanted} are ready"));
    }
    if *rolled_out && *ready >= wanted {
        return Verdict::ready(format!("{ready} of {wanted} pod(s) are ready"));
    }
    let mut message = format!("{ready} of {wanted} pod(s) are ready");
    if *ready >= wanted {
        message.push_str(", some of them as an earlier spec asked for");
    }
    if *stalled {
        let (namespace, selector) = (world.namespace(), selector::<K>(&world.name()));
        message.push_str(&format!(
            ", and this does not change: `kubectl -n {namespace} describe pods -l {selector}` says what they wait for"
        ));
        return Verdict::not("Stalled", message);
    }
    Verdict::not("Progressing", message)
}

/// Whether an event should tell of it: readiness or its reason is another.
pub(crate) fn is_news(before: &Status, after: &Status) -> bool {
    let of = |status: &Status| {
        status.conditions.iter().find(|c| c.type_ == READY).map(|c| (c.status.clone(), c.reason.clone()))
    };
    of(before) != of(after)
}
