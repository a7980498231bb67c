//! What is true of a Database, in its status.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Resource, ResourceExt};
use meta::Timestamp;
use reconcile::{Condition, set_condition};

use crate::{
    children::Names,
    observe::World,
    types::{DatabaseStatus, Phase},
    validate::Valid,
};

/// What a plan came to.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) phase: Phase,
    /// Reason of the `Ready` condition.
    pub(crate) reason: &'static str,
    /// Its message: what is, and what to change.
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn failed(reason: &'static str, message: impl Into<String>) -> Self {
        Self { phase: Phase::Failed, reason, message: message.into() }
    }

    pub(crate) fn starting(reason: &'static str, message: impl Into<String>) -> Self {
        Self { phase: Phase::Creating, reason, message: message.into() }
    }

    pub(crate) fn deleting(message: String) -> Self {
        Self { phase: Phase::Deleting, reason: "Deleting", message }
    }

    /// What the members say.
    pub(crate) fn of_members(world: &World, valid: &Valid) -> Self {
        let Some(set) = &world.stateful_set else {
            return Self::starting("Creating", "created the StatefulSet");
        };
        let status = set.status.clone().unwrap_or_default();
        let ready = ready_members(world);
        if valid.replicas == 0 {
            let left = world.pods.len();
            let message = match left {
                0 => "stopped, since spec.replicas is 0; data is kept".to_owned(),
                left => format!("stopping {left} member(s)"),
            };
            return Self { phase: Phase::Pending, reason: "Stopped", message };
        }
        if let Some(issues) = issues(&world.pods) {
            return Self::failed("PodIssues", format!("Pod issues detected: {issues}"));
        }
        let current = status.observed_generation == set.metadata.generation
            && status.update_revision == status.current_revision;
        if current && ready >= valid.replicas {
            return Self {
                phase: Phase::Ready,
                reason: "DatabaseReady",
                message: "the database answers".to_owned(),
            };
        }
        let was_ready = world.database.status.as_ref().is_some_and(|status| {
            matches!(status.phase, Some(Phase::Ready | Phase::Upgrading))
                || status.conditions.iter().any(|condition| condition.type_ == WAS_READY)
        });
        if was_ready && !current {
            return Self {
                phase: Phase::Upgrading,
                reason: "RollingUpdate",
                message: "a change is being rolled out".to_owned(),
            };
        }
        if was_ready {
            return Self::failed("NotReady", format!("{ready} of {} member(s) answer", valid.replicas));
        }
        Self::starting("Creating", format!("{ready} of {} member(s) answer", valid.replicas))
    }

    /// Whether an event should tell of it: the phase or its reason is another.
    pub(crate) fn is_news(&self, before: &DatabaseStatus, after: &DatabaseStatus) -> bool {
        let reason = |status: &DatabaseStatus| {
            status
                .conditions
                .iter()
                .find(|condition| condition.type_ == READY)
                .map(|condition| condition.reason.clone())
        };
        before.phase != after.phase || reason(before) != reason(after)
    }
}

const READY: &str = "Ready";
/// Once true, always true: the database has answered at least once.
const WAS_READY: &str = "Bootstrapped";

/// The status that a verdict leads to.
pub(crate) fn status(world: &World, verdict: &Verdict, now: Timestamp) -> DatabaseStatus {
    let database = &world.database;
    let before = database.status.clone().unwrap_or_default();
    let generation = database.meta().generation;
    let mut conditions = before.conditions.clone();
    let ready = verdict.phase == Phase::Ready;
    let condition = Condition {
        kind: READY,
        status: if ready { "True" } else { "False" },
        reason: verdict.reason,
        message: verdict.message.clone(),
    };
    set_condition(&mut conditions, condition, generation, now);
    if ready && !conditions.iter().any(|condition| condition.type_ == WAS_READY) {
        let message = "the database has answered at least once".to_owned();
        let condition = Condition { kind: WAS_READY, status: "True", reason: "DatabaseReady", message };
        set_condition(&mut conditions, condition, generation, now);
    }
    let valid = world.valid.as_ref().ok();
    DatabaseStatus {
        phase: Some(verdict.phase),
        conditions,
        ready_replicas: ready_members(world),
        replicas: i32::try_from(world.pods.len()).unwrap_or(i32::MAX),
        selector: Some(selector(&database.name_any())),
        service_name: valid.map(|valid| Names::service(&valid.name)).or(before.service_name),
        connection_string: valid
            .map(|valid| valid.engine.connection_string(&Names::host(valid)))
            .or(before.connection_string),
        credentials_secret: valid
            .map(|valid| valid.password.key().name.clone())
            .or(before.credentials_secret),
        observed_generation: generation,
        message: Some(verdict.message.clone()),
    }
}

fn selector(name: &str) -> String {
    format!("app={name},app.kubernetes.io/instance={name},app.kubernetes.io/managed-by=database-operator")
}

fn ready_members(world: &World) -> i32 {
    let ready = |pod: &&std::sync::Arc<Pod>| {
        pod.metadata.deletion_timestamp.is_none()
            && pod
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten())
                .any(|condition| condition.type_ == READY && condition.status == "True")
    };
    i32::try_from(world.pods.iter().filter(ready).count()).unwrap_or(i32::MAX)
}

/// Reasons of waiting containers that are part of any start.
const NORMAL: &[&str] = &["ContainerCreating", "PodInitializing"];

/// What keeps members from running.
fn issues(pods: &[std::sync::Arc<Pod>]) -> Option<String> {
    let mut issues: Vec<String> = Vec::new();
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let Some(status) = &pod.status else { continue };
        let name = pod.name_any();
        for condition in status.conditions.iter().flatten() {
            if condition.type_ == "PodScheduled" && condition.status == "False" {
                let reason = condition.reason.clone().unwrap_or_default();
                let message = condition.message.clone().unwrap_or_default();
                issues.push(format!("Pod {name}: PodScheduled - {reason}: {message}"));
            }
        }
        let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        issues.extend(containers.filter_map(|container| trouble(&name, container)));
    }
    (!issues.is_empty()).then(|| issues.join("; "))
}

fn trouble(pod: &str, container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !NORMAL.contains(reason))?;
    let mut message = waiting.message.clone().unwrap_or_default();
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    if let Some(last) = last {
        let said = last.message.as_deref().map(str::trim).filter(|said| !said.is_empty());
        message.push_str(&format!(
            " (last exit code {}{})",
            last.exit_code,
            said.map(|said| format!(": {said}")).unwrap_or_default()
        ));
    }
    Some(format!("Pod {pod}: Container {} is waiting - {reason}: {message}", container.name))
}
