//! One step of a CronJob, decided.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::batch::v1::{CronJob, CronJobStatus, Job},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::ResourceExt;
use meta::Timestamp;
use reconcile::{Note, owner_reference, reference_to};

use super::{
    World,
    due::due,
    schedule::{self, Schedule},
};
use crate::job;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What to do now.
pub(super) struct Step {
    pub(super) status: CronJobStatus,
    pub(super) create: Option<Job>,
    pub(super) delete: Vec<Arc<Job>>,
    /// Events about Jobs that ended or went.
    pub(super) seen: Vec<Note>,
    /// Why nothing is started, or what is odd about it.
    pub(super) notice: Option<Notice>,
    pub(super) next: Option<Duration>,
}

/// Something to tell once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    warning: bool,
    reason: &'static str,
    message: String,
    /// The time it is about, so that the next time is told of anew.
    about: Option<Timestamp>,
}

impl Notice {
    fn warning(reason: &'static str, message: String) -> Self {
        Self { warning: true, reason, message, about: None }
    }

    pub(super) fn note(&self, cron: &CronJob) -> Note {
        let Self { warning, reason, message, about: _ } = self;
        let note = if *warning { Note::warning } else { Note::normal };
        note(cron, reason, "Schedule", message.as_str())
    }
}

/// Brings the status up to date, clears old Jobs away, and starts what is due.
pub(super) fn decide(world: &World, now: Timestamp) -> Step {
    let (status, seen) = observed(world);
    let mut step = Step { status, create: None, delete: expired(world), seen, notice: None, next: None };
    let cron = &*world.cron;
    let suspended = cron.spec.suspend == Some(true);
    if cron.metadata.deletion_timestamp.is_none() {
        let zone = cron.spec.time_zone.as_deref();
        if let Err(why) = schedule::zone(zone) {
            let message = format!("invalid timeZone: {:?}: {why}", zone.unwrap_or_default());
            step.notice = Some(Notice::warning("UnknownTimeZone", message));
        } else if !suspended {
            start(&mut step, world, now);
        }
    }
    step
}

fn start(step: &mut Step, world: &World, now: Timestamp) {
    let cron = &*world.cron;
    let text = &cron.spec.schedule;
    let schedule = match Schedule::parse(text, cron.spec.time_zone.as_deref()) {
        Ok(schedule) => schedule,
        Err(why) => {
            let message = format!("unparseable schedule: {text:?} : {why}");
            step.notice = Some(Notice::warning("UnparseableSchedule", message));
            return;
        }
    };
    let due = match due(cron, &step.status, &schedule, now) {
        Ok(due) => due,
        Err(why) => {
            let message = format!("invalid schedule: {text} : {why}");
            step.notice = Some(Notice::warning("InvalidSchedule", message));
            return;
        }
    };
    step.next = due.next;
    let Some(at) = due.at else { return };
    if due.many {
        let message =
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        step.notice =
            Some(Notice { about: Some(at), ..Notice::warning("TooManyMissedTimes", message.to_owned()) });
    }
    let name = job_name(cron, at);
    if world.taken.contains(&name) {
        return;
    }
    let running: Vec<&Arc<Job>> = world.jobs.iter().filter(|job| is_active(&step.status, job)).collect();
    match cron.spec.concurrency_policy.as_deref() {
        Some("Forbid") if !running.is_empty() => {
            let message =
                "Not starting job because prior execution is running and concurrency policy is Forbid";
            step.notice = Some(Notice {
                warning: false,
                reason: "JobAlreadyActive",
                message: message.to_owned(),
                about: Some(at),
            });
        }
        // The new one is made when the old ones are seen to go.
        Some("Replace") if running.iter().any(|job| !is_deleting(job)) => {
            step.delete.extend(running.into_iter().filter(|job| !is_deleting(job)).cloned());
        }
        _ => step.create = Some(new_job(cron, name, at)),
    }
}

fn is_deleting(job: &Job) -> bool {
    job.metadata.deletion_timestamp.is_some()
}

fn is_active(status: &CronJobStatus, job: &Job) -> bool {
    status.active.iter().flatten().any(|reference| reference.uid == job.metadata.uid)
}

fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron.name_any(), at.as_second().div_euclid(60))
}

/// The time for which we made a Job; `None` for one that somebody else made.
fn scheduled(cron: &CronJob, job: &Job) -> Option<Timestamp> {
    let at: Timestamp = job.annotations().get(SCHEDULED)?.parse().ok()?;
    (job_name(cron, at) == job.name_any()).then_some(at)
}

/// The status after what is seen of the Jobs, and what to say of that.
fn observed(world: &World) -> (CronJobStatus, Vec<Note>) {
    let cron = &*world.cron;
    let mut status = cron.status.clone().unwrap_or_default();
    let mut notes = Vec::new();
    let mut active = status.active.take().unwrap_or_default();
    active.retain(|reference| {
        let job = world.jobs.iter().find(|job| job.metadata.uid == reference.uid);
        let name = reference.name.as_deref().unwrap_or_default();
        match job {
            Some(job) if job::is_finished(job) => {
                let end = if succeeded(job) { "Complete" } else { "Failed" };
                let message = format!("Saw completed job: {name}, condition: {end}");
                notes.push(Note::normal(cron, "SawCompletedJob", "Observe", message));
                false
            }
            Some(_) => true,
            None => {
                let message = format!("Active job went missing: {name}");
                notes.push(Note::normal(cron, "MissingJob", "Observe", message));
                false
            }
        }
    });
    let last = status.last_schedule_time.as_ref().map(|time| time.0);
    for job in &world.jobs {
        if let Some(at) = scheduled(cron, job).filter(|at| Some(*at) > last) {
            let newest = status.last_schedule_time.as_ref().map(|time| time.0).max(Some(at));
            status.last_schedule_time = newest.map(Time);
            if !job::is_finished(job) && !active.iter().any(|known| known.uid == job.metadata.uid) {
                active.push(reference_to(&**job));
            }
        }
        let ended = job.status.as_ref().and_then(|status| status.completion_time.clone());
        if succeeded(job) && ended.as_ref().map(|t| t.0) > status.last_successful_time.as_ref().map(|t| t.0) {
            status.last_successful_time = ended;
        }
    }
    status.active = Some(active).filter(|list| !list.is_empty());
    (status, notes)
}

fn succeeded(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Complete" && condition.status == "True")
}

/// Finished Jobs beyond the history limits, the first started first.
fn expired(world: &World) -> Vec<Arc<Job>> {
    let spec = &world.cron.spec;
    let finished = world.jobs.iter().filter(|job| job::is_finished(job));
    let (good, bad): (Vec<_>, Vec<_>) = finished.cloned().partition(|job| succeeded(job));
    let mut all = Vec::new();
    for (mut jobs, limit) in
        [(good, spec.successful_jobs_history_limit), (bad, spec.failed_jobs_history_limit)]
    {
        let Some(limit) = limit else { continue };
        jobs.sort_by_key(|job| {
            let start = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            (start.is_none(), start, job.name_any())
        });
        let surplus = jobs.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        all.extend(jobs.into_iter().take(surplus).filter(|job| !is_deleting(job)));
    }
    all
}

fn new_job(cron: &CronJob, name: String, at: Timestamp) -> Job {
    let template = &cron.spec.job_template;
    let of = template.metadata.clone().unwrap_or_default();
    let mut annotations = of.annotations.unwrap_or_default();
    let local = match schedule::zone(cron.spec.time_zone.as_deref()) {
        Ok(zone) if zone != jiff::tz::TimeZone::UTC => at.display_with_offset(zone.to_offset(at)).to_string(),
        Ok(_) | Err(_) => at.to_string(),
    };
    annotations.insert(SCHEDULED.to_owned(), local);
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron.namespace(),
            labels: of.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
