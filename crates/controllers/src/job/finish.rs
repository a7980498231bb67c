//! Whether a Job is to end, and why (upstream `syncJob`, between counting and managing).

use std::time::Duration;

use k8s_openapi::{
    api::batch::v1::{Job, JobCondition, JobStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use meta::Timestamp;

use super::{
    policy::{self, Failure},
    tally::Tally,
};
use crate::{pods, spec::HasSpec};

pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILED: &str = "Failed";
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub(super) const FAILURE_TARGET: &str = "FailureTarget";
pub(super) const SUSPENDED: &str = "Suspended";

/// How a Job is to end. It ends when all its pods have ended and are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) success: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Verdict {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { success: false, reason: reason.to_owned(), message: message.into() }
    }

    /// Enough has succeeded.
    pub(super) fn completions_reached() -> Self {
        let message = "Reached expected number of succeeded pods".to_owned();
        Self { success: true, reason: "CompletionsReached".to_owned(), message }
    }

    /// The condition that says so before the pods are gone.
    pub(super) fn interim(&self) -> &'static str {
        if self.success { SUCCESS_CRITERIA_MET } else { FAILURE_TARGET }
    }

    /// The condition that ends the Job.
    pub(super) fn last(&self) -> &'static str {
        if self.success { COMPLETE } else { FAILED }
    }
}

/// Whether the Job has ended.
pub(crate) fn is_finished(job: &Job) -> bool {
    let status = job.status.clone().unwrap_or_default();
    holds(&status, COMPLETE).is_some() || holds(&status, FAILED).is_some()
}

/// When the Job ended.
pub(crate) fn finished_at(job: &Job) -> Option<Timestamp> {
    let status = job.status.clone().unwrap_or_default();
    let last = holds(&status, COMPLETE).or_else(|| holds(&status, FAILED))?;
    last.last_transition_time.as_ref().map(|time| time.0)
}

/// The condition, if it is True.
pub(super) fn holds<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

/// A verdict that was written down; nothing changes it.
pub(super) fn pronounced(status: &JobStatus) -> Option<Verdict> {
    [(SUCCESS_CRITERIA_MET, true), (FAILURE_TARGET, false)].into_iter().find_map(|(kind, success)| {
        let condition = holds(status, kind)?;
        let (reason, message) = (condition.reason.clone(), condition.message.clone());
        Some(Verdict { success, reason: reason.unwrap_or_default(), message: message.unwrap_or_default() })
    })
}

/// The verdict on what is counted, failures first; `None` when the Job goes on. That all completions are
/// there is not looked at here: it takes the active pods to have ended.
pub(super) fn judge(tally: &Tally<'_>, status: &JobStatus, now: Timestamp) -> Option<Verdict> {
    pronounced(status)
        .or_else(|| by_pod_failure_policy(tally))
        .or_else(|| {
            (tally.failed > tally.spec.backoff_limit.unwrap_or(6) || restarted_too_often(tally)).then(|| {
                Verdict::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit")
            })
        })
        .or_else(|| {
            let over = deadline(tally.job, status, now).is_some_and(|left| left.is_zero());
            over.then(|| {
                Verdict::failure("DeadlineExceeded", "Job was active longer than specified deadline")
            })
        })
        .or_else(|| by_given_up_indexes(tally))
        .or_else(|| {
            let message = policy::success(tally.spec, &tally.done)?;
            Some(Verdict { success: true, reason: "SuccessPolicy".to_owned(), message })
        })
}

fn by_pod_failure_policy(tally: &Tally<'_>) -> Option<Verdict> {
    tally.spec.pod_failure_policy.as_ref()?;
    let failed = tally.pods.iter().filter(|pod| tally.is_failed(pod));
    failed.into_iter().find_map(|pod| match policy::judge(tally.spec, pod) {
        Failure::FailsJob(message) => Some(Verdict::failure("PodFailurePolicy", message)),
        Failure::Counted | Failure::Ignored | Failure::FailsIndex => None,
    })
}

fn by_given_up_indexes(tally: &Tally<'_>) -> Option<Verdict> {
    let given_up = tally.given_up.as_ref()?.len();
    if tally.spec.max_failed_indexes.is_some_and(|limit| given_up > limit) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Verdict::failure("MaxFailedIndexesExceeded", message));
    }
    let none_left = given_up > 0 && given_up + tally.done.len() >= tally.spec.completions.unwrap_or(0);
    none_left.then(|| Verdict::failure("FailedIndexes", "Job has failed indexes"))
}

/// With restart policy OnFailure the containers' restarts count as well.
fn restarted_too_often(tally: &Tally<'_>) -> bool {
    let policy = tally.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let alive = tally.pods.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
    let statuses = alive.filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    let restarts = statuses.fold(0_i32, |sum, status| sum.saturating_add(status.restart_count));
    let limit = tally.spec.backoff_limit.unwrap_or(6);
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// How long the Job may still be active; `None` without a deadline, or while nothing is active.
pub(super) fn deadline(job: &Job, status: &JobStatus, now: Timestamp) -> Option<Duration> {
    let spec = job.spec();
    let seconds = spec.active_deadline_seconds.filter(|_| spec.suspend != Some(true))?;
    let end = status.start_time.as_ref()?.0.as_second().saturating_add(seconds);
    Some(Duration::from_secs(u64::try_from(end.saturating_sub(now.as_second())).unwrap_or(0)))
}

/// Sets a condition; whether that changed anything. One that is not there is not set to False (upstream
/// `ensureJobConditionStatus`).
pub(super) fn set_condition(
    status: &mut JobStatus,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let since = Some(Time(pods::whole_second(now)));
    let wanted = JobCondition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: since.clone(),
        last_transition_time: since,
    };
    let list = status.conditions.get_or_insert_default();
    let before = list.iter_mut().find(|condition| condition.type_ == kind);
    match before {
        Some(before)
            if before.status == wanted.status
                && before.reason == wanted.reason
                && before.message == wanted.message => {}
        Some(before) => {
            *before = wanted;
            return true;
        }
        None if holds => {
            list.push(wanted);
            return true;
        }
        None => {}
    }
    if list.is_empty() {
        status.conditions = None;
    }
    false
}
