//! Job: pods until enough of them have succeeded.
//!
//! Follows upstream's `pkg/controller/job`: a pod is counted exactly once by its finalizer ([`track`]),
//! failures are waited out ([`backoff`]), the end is announced by SuccessCriteriaMet or FailureTarget
//! and comes when all pods have ended ([`finish`]). Each plan makes one step; what takes upstream several
//! writes in one sync takes several plans here. Jobs that `spec.managedBy` gives to somebody else are
//! left alone. Knows nothing of why a pod ended but what its status says, and nothing of Workloads and
//! PodGroups (alpha in 1.36).

mod backoff;
mod finish;
mod indexes;
mod manage;
mod orphans;
mod policy;
mod tally;
#[cfg(test)]
mod tests;
mod track;

use std::sync::Arc;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{
    Change, Context, Note, Plan, Reconciler, Result, Stores, Watches, Write, controller_of, key_of,
};

pub(crate) use self::finish::{finished_at, is_finished};
pub use self::orphans::OrphanedJobPods;
use crate::{
    claims::{Claims, claim, matches, selector},
    pods,
    spec::HasSpec,
};
use backoff::{Failures, Memory};
use finish::{SUSPENDED, Verdict};
use tally::{FINALIZER, Tally, count, is_failed, is_succeeded, is_tracked};

/// The controller.
#[derive(Default)]
pub struct Jobs {
    failures: Memory,
}

/// What one plan looks at.
pub struct World {
    job: Arc<Job>,
    pods: Claims<Pod>,
    failures: Failures,
}

/// Whether `spec.managedBy` leaves the Job to us.
fn is_ours(job: &Job) -> bool {
    job.spec().managed_by.as_deref().is_none_or(|manager| manager == "kubernetes.io/job-controller")
}

impl Reconciler for Jobs {
    type World = World;
    const NAME: &'static str = "job";

    fn watches(&self) -> Watches {
        Watches::of::<Job>().owns::<Pod>().also::<Pod>(jobs_of_orphan)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let store = cx.stores.ready::<Pod>().await;
        let Some(job) = cx.stores.ready::<Job>().await.get(key).filter(|job| is_ours(job)) else {
            return Ok(None);
        };
        let uid = job.uid().unwrap_or_default();
        if is_finished(&job) {
            self.failures.forget(&uid);
            return Ok(None);
        }
        let selector = selector(&job.spec().selector.clone().unwrap_or_default())?;
        let pods = claim(cx, &*job, &selector, &store, |_| true).await?;
        // A pod that lost its finalizer while it ran was taken away by us, and did not fail.
        let spec = job.spec();
        let failed = |pod: &Pod| {
            let counted = pods::phase(pod) == "Failed" && !pods::is_deleting(pod);
            if is_tracked(pod) { is_failed(spec, pod) } else { counted }
        };
        let mine = pods.mine.iter().map(|pod| &**pod);
        let failures = self.failures.learn(&uid, mine, is_succeeded, failed);
        Ok(Some(World { job, pods, failures }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let job = &*world.job;
        if !world.pods.is_settled() {
            world.pods.plan_with(&mut plan, job, Some(FINALIZER));
            return plan;
        }
        let tally = Tally::of(world);
        let mut status = job.status.clone().unwrap_or_default();
        let suspended = job.spec().suspend == Some(true);
        if status.start_time.is_none() && !suspended {
            status.start_time = Some(Time(pods::whole_second(now)));
        }
        let mut verdict = finish::judge(&tally, &status, now);
        if verdict.is_some() {
            tally.active.iter().for_each(|pod| manage::delete(&mut plan, &tally, pod));
        } else if let Some(left) = finish::deadline(job, &status, now) {
            plan.recheck(left);
        }
        if verdict.is_none() {
            let deleting = job.metadata.deletion_timestamp.is_some();
            let active = if deleting {
                count(&tally.active)
            } else {
                manage::step(&mut plan, &tally, world.failures, now)
            };
            let enough = job.spec().completions.map_or(tally.succeeded > 0, |n| tally.succeeded >= n);
            if enough && active == 0 {
                verdict = Some(Verdict::completions_reached());
            } else if !deleting {
                suspend_or_resume(&mut plan, job, &mut status, now);
            }
        }
        status.active = nonzero(count(&tally.active));
        status.ready = Some(tally.ready);
        status.terminating = Some(tally.terminating);
        let accounted = track::step(&mut plan, &tally, verdict.as_ref(), &mut status);
        if let Some(verdict) = verdict {
            conclude(&mut plan, &tally, &verdict, accounted, &mut status, now);
        }
        // A pod that cannot be made (a quota, a namespace that goes) keeps none that has ended from going.
        plan.apply.sort_by_key(|child| child.write == Write::Create);
        plan.set_status(job, &status);
        plan
    }
}

/// Writes the verdict down and, when nothing is left to wait for, ends the Job.
fn conclude(
    plan: &mut Plan,
    tally: &Tally<'_>,
    verdict: &Verdict,
    accounted: bool,
    status: &mut JobStatus,
    now: Timestamp,
) {
    let Verdict { success, reason, message } = verdict;
    finish::set_condition(status, verdict.interim(), true, reason, message, now);
    if !accounted || tally.terminating > 0 || !tally.active.is_empty() {
        return;
    }
    finish::set_condition(status, verdict.last(), true, reason, message, now);
    let job = tally.job;
    if !success {
        plan.events.push(Note::warning(job, reason, "Fail", message.as_str()));
        return;
    }
    status.completion_time = Some(Time(pods::whole_second(now)));
    if job.spec().completions.is_some_and(|wanted| status.succeeded.unwrap_or(0) > wanted) {
        let message = "Too many succeeded pods running after completion count reached";
        plan.events.push(Note::warning(job, "TooManySucceededPods", "Complete", message));
    }
    plan.events.push(Note::normal(job, "Completed", "Complete", "Job completed"));
}

/// The Suspended condition, and the start time that goes with it.
fn suspend_or_resume(plan: &mut Plan, job: &Job, status: &mut JobStatus, now: Timestamp) {
    if job.spec().suspend == Some(true) {
        if finish::set_condition(status, SUSPENDED, true, "JobSuspended", "Job suspended", now) {
            // The template of a suspended Job may change (KEP-5440), which takes no start time.
            status.start_time = None;
            plan.events.push(Note::normal(job, "Suspended", "Suspend", "Job suspended"));
        }
    } else if finish::set_condition(status, SUSPENDED, false, "JobResumed", "Job resumed", now) {
        // The deadline is about uninterrupted activity.
        status.start_time = Some(Time(pods::whole_second(now)));
        plan.events.push(Note::normal(job, "Resumed", "Resume", "Job resumed"));
    }
}

/// Upstream's `omitempty`.
fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

fn jobs_of_orphan(change: &Change<Pod>, stores: &Stores) -> Vec<ObjectKey> {
    let Some(pod) = change.new.as_ref().filter(|pod| controller_of(&***pod).is_none()) else {
        return Vec::new();
    };
    let jobs = stores.of::<Job>().in_namespace(&pod.namespace().unwrap_or_default());
    let fits = |job: &&Arc<Job>| {
        let wanted = job.spec().selector.as_ref().and_then(|wanted| selector(wanted).ok());
        wanted.is_some_and(|wanted| matches(&wanted, &**pod))
    };
    jobs.iter().filter(fits).map(|job| key_of(&**job)).collect()
}
