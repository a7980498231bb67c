//! Status and conditions of a Deployment (upstream `progress.go`, `calculateStatus`).

use std::time::Duration;

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use meta::Timestamp;
use reconcile::{Error, Note, Plan};

use super::{
    limits::{max_unavailable, replicas},
    sets::{Sets, actual, available, replicas as set_replicas},
};
use crate::pods::whole_second;
use crate::spec::HasSpec;

/// The status to write and when to look at the progress deadline.
pub(super) struct Outcome {
    pub(super) wanted: DeploymentStatus,
    pub(super) recheck_after: Option<Duration>,
}

/// The conditions as one plan changes them.
pub(super) struct Conditions {
    list: Vec<DeploymentCondition>,
    collisions: Option<i32>,
    deadline_seconds: Option<i32>,
    paused: bool,
    now: Timestamp,
}

const PROGRESSING: &str = "Progressing";
const DONE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
/// What upstream takes for "no deadline".
const NO_DEADLINE: i32 = i32::MAX;

impl Conditions {
    pub(super) fn of(deployment: &Deployment, now: Timestamp) -> Self {
        let status = deployment.status.clone().unwrap_or_default();
        Self {
            list: status.conditions.unwrap_or_default(),
            collisions: status.collision_count,
            deadline_seconds: deployment
                .spec()
                .progress_deadline_seconds
                .filter(|seconds| *seconds != NO_DEADLINE),
            paused: deployment.spec().paused == Some(true),
            now: whole_second(now),
        }
    }

    fn progressing(&self) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == PROGRESSING)
    }

    fn reason(&self) -> Option<&str> {
        self.progressing()?.reason.as_deref()
    }

    /// Upstream `checkPausedConditions`: pausing stops the deadline, resuming starts it anew.
    pub(super) fn pause_or_resume(&mut self) {
        if self.deadline_seconds.is_none() || self.reason() == Some(TIMED_OUT) {
            return;
        }
        let was_paused = self.reason() == Some("DeploymentPaused");
        if self.paused && !was_paused {
            self.set(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused");
        } else if !self.paused && was_paused {
            self.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed");
        }
    }

    /// The new ReplicaSet is there and nothing was said of progress so far.
    pub(super) fn found(&mut self, set: &str) {
        if self.deadline_seconds.is_some() && self.progressing().is_none() {
            self.set(PROGRESSING, "True", "FoundNewReplicaSet", &format!("Found new replica set \"{set}\""));
        }
    }

    /// The new ReplicaSet is planned.
    pub(super) fn created(&mut self, set: &str) {
        if self.deadline_seconds.is_some() {
            self.set(
                PROGRESSING,
                "True",
                "NewReplicaSetCreated",
                &format!("Created new replica set \"{set}\""),
            );
        }
    }

    /// The name for the new ReplicaSet is taken: try another hash.
    pub(super) fn collided(&mut self) {
        self.collisions = Some(self.collisions.unwrap_or(0).saturating_add(1));
    }

    /// Sets a condition unless it has this status and reason already.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let present = self.list.iter().find(|condition| condition.type_ == kind);
        if present.is_none_or(|c| c.status != status || c.reason.as_deref() != Some(reason)) {
            self.renew(kind, status, reason, message);
        }
    }

    /// Sets a condition and its update time; its transition time only when the status changes.
    fn renew(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let now = Some(Time(self.now));
        let at = self.list.iter().position(|condition| condition.type_ == kind);
        let before = at.and_then(|at| self.list.get_mut(at));
        let since =
            before.as_ref().filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        let fresh = DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: since.or_else(|| now.clone()),
            last_update_time: now,
        };
        match before {
            Some(slot) => *slot = fresh,
            None => self.list.push(fresh),
        }
    }

    fn drop(&mut self, kind: &str) {
        self.list.retain(|condition| condition.type_ != kind);
    }

    /// When the deadline ends, counted from the last progress.
    fn deadline(&self) -> Option<i64> {
        let updated = self.progressing()?.last_update_time.as_ref()?.0.as_second();
        Some(updated + i64::from(self.deadline_seconds?))
    }
}

/// Whether the status that stands in `deployment` says the rollout is done (upstream
/// `DeploymentComplete`).
pub(super) fn is_complete(deployment: &Deployment) -> bool {
    deployment.status.as_ref().is_some_and(|status| reached(deployment, status))
}

fn reached(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(replicas(deployment));
    let count = |value: Option<i32>| Some(value.unwrap_or(0));
    count(status.updated_replicas) == wanted
        && count(status.replicas) == wanted
        && count(status.available_replicas) == wanted
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

/// The status after what was observed and what the plan changed in `conditions`.
pub(super) fn calculate(deployment: &Deployment, sets: &Sets, mut conditions: Conditions) -> Outcome {
    let mut wanted = counts(deployment, sets);
    let (status, reason, message) =
        if wanted.available_replicas.unwrap_or(0) >= replicas(deployment) - max_unavailable(deployment) {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
    conditions.set("Available", status, reason, message);
    if conditions.deadline_seconds.is_none() {
        conditions.drop(PROGRESSING);
    } else if !conditions.paused {
        progress(deployment, sets, &wanted, &mut conditions);
    }
    match failure(sets) {
        Some((reason, message)) => conditions.set("ReplicaFailure", "True", &reason, &message),
        None => conditions.drop("ReplicaFailure"),
    }
    let running = !conditions.paused && !matches!(conditions.reason(), Some(DONE | TIMED_OUT));
    let left = conditions.deadline().filter(|_| running).map(|end| end - conditions.now.as_second() + 1);
    wanted.collision_count = conditions.collisions;
    wanted.conditions = Some(conditions.list);
    let recheck_after = left.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(1)));
    Outcome { wanted, recheck_after }
}

fn progress(deployment: &Deployment, sets: &Sets, wanted: &DeploymentStatus, conditions: &mut Conditions) {
    if wanted.replicas == wanted.updated_replicas && conditions.reason() == Some(DONE) {
        return;
    }
    let subject = match &sets.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name_any()),
        None => format!("Deployment \"{}\"", deployment.name_any()),
    };
    if reached(deployment, wanted) {
        conditions.set(PROGRESSING, "True", DONE, &format!("{subject} has successfully progressed."));
    } else if has_progressed(&deployment.status.clone().unwrap_or_default(), wanted) {
        conditions.renew(PROGRESSING, "True", "ReplicaSetUpdated", &format!("{subject} is progressing."));
    } else if !matches!(conditions.reason(), Some(DONE | TIMED_OUT))
        && conditions.deadline().is_some_and(|end| end < conditions.now.as_second())
    {
        conditions.set(PROGRESSING, "False", TIMED_OUT, &format!("{subject} has timed out progressing."));
    }
}

fn has_progressed(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let count = |value: Option<i32>| value.unwrap_or(0);
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(now.updated_replicas) > count(before.updated_replicas)
        || old(now) < old(before)
        || count(now.ready_replicas) > count(before.ready_replicas)
        || count(now.available_replicas) > count(before.available_replicas)
}

fn counts(deployment: &Deployment, sets: &Sets) -> DeploymentStatus {
    let sum = |of: &dyn Fn(&ReplicaSet) -> i32| sets.all().map(|set| of(set)).sum::<i32>();
    let available = sum(&available);
    let ready = sum(&|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0));
    let terminating =
        sum(&|set| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0));
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(sum(&actual)),
        updated_replicas: nonzero(sets.new.as_ref().map_or(0, |new| actual(new))),
        ready_replicas: nonzero(ready),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((sum(&set_replicas) - available).max(0)),
        terminating_replicas: Some(terminating),
        collision_count: None,
        conditions: None,
    }
}

/// Upstream's counts are `omitempty`: a zero is not on the wire.
fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

/// What keeps a ReplicaSet from making pods; the new one's trouble first.
fn failure(sets: &Sets) -> Option<(String, String)> {
    let of = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        let failure = conditions.iter().find(|condition| condition.type_ == "ReplicaFailure")?;
        Some((failure.reason.clone().unwrap_or_default(), failure.message.clone().unwrap_or_default()))
    };
    sets.new.iter().chain(&sets.old).find_map(|set| of(set))
}

/// The new ReplicaSet could not be made: said in the Progressing condition and an event.
pub(super) fn report_failure(deployment: &Deployment, error: &Error, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let creating = matches!(error, Error::Write { verb: "create", .. });
    if error.is_conflict() || !creating {
        return plan;
    }
    let message = format!("Failed to create new replica set: {}", error.text());
    plan.events.push(Note::warning(deployment, "ReplicaSetCreateError", "Create", &message));
    let mut conditions = Conditions::of(deployment, now);
    if conditions.deadline_seconds.is_some() {
        conditions.set(PROGRESSING, "False", "ReplicaSetCreateError", &message);
        let mut status = deployment.status.clone().unwrap_or_default();
        status.conditions = Some(conditions.list);
        plan.set_status(deployment, &status);
    }
    plan
}
