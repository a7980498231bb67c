//! CronJob: a Job at each time of a schedule.
//!
//! Follows upstream's `pkg/controller/cronjob`: the last missed time is made up for within
//! `startingDeadlineSeconds`, by a Job whose name holds the minute, so that no time runs twice. A Job
//! that was made is entered in the status by the plan that first sees it (upstream does so with the
//! answer to its create). Differences: a Job made by hand from a CronJob (`kubectl create job --from`)
//! causes no UnexpectedJob event, and a note about a schedule is told once, not at every sync.

mod due;
mod schedule;
mod step;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use parking_lot::Mutex;
use reconcile::{Child, Context, Note, Plan, Precondition, Reconciler, Result, Watches};

use step::Notice;

/// The controller.
#[derive(Default)]
pub struct CronJobs {
    /// What was said last about each schedule, by the UID of its CronJob.
    told: Mutex<HashMap<String, Notice>>,
}

/// What one plan looks at.
pub struct World {
    cron: Arc<CronJob>,
    /// Jobs that the CronJob controls.
    jobs: Vec<Arc<Job>>,
    /// Names that are taken by Jobs, whoever made them.
    taken: BTreeSet<String>,
    /// What was told already.
    told: Option<Notice>,
}

impl Reconciler for CronJobs {
    type World = World;
    const NAME: &'static str = "cronjob";

    fn watches(&self) -> Watches {
        Watches::of::<CronJob>().owns::<Job>()
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let store = cx.stores.ready::<Job>().await;
        let Some(cron) = cx.stores.ready::<CronJob>().await.get(key) else { return Ok(None) };
        let uid = cron.uid().unwrap_or_default();
        let prefix = format!("{}-", key.name);
        let names = store.in_namespace(&key.namespace).iter().map(|job| job.name_any()).collect::<Vec<_>>();
        let taken = names.into_iter().filter(|name| name.starts_with(&prefix)).collect();
        let mut world = World { jobs: store.controlled_by(&uid), cron, taken, told: None };
        let mut told = self.told.lock();
        world.told = match step::decide(&world, cx.clock.now()).notice {
            Some(notice) => told.insert(uid, notice),
            None => told.remove(&uid),
        };
        Ok(Some(world))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let step = step::decide(world, now);
        let mut plan = Plan::default();
        let cron = &*world.cron;
        plan.apply.extend(step.create.iter().map(|job| Child::create(job).announced_to(cron)));
        plan.delete.extend(step.delete.iter().map(|job| Precondition::of(&**job)));
        for job in &step.delete {
            let message = format!("Deleted job {}", job.name_any());
            plan.events.push(Note::normal(cron, "SuccessfulDelete", "Delete", message));
        }
        plan.events.extend(step.seen);
        if let Some(notice) = step.notice.filter(|notice| world.told.as_ref() != Some(notice)) {
            plan.events.push(notice.note(cron));
        }
        plan.set_status(cron, &step.status);
        if let Some(wait) = step.next {
            plan.recheck(wait);
        }
        plan
    }
}
