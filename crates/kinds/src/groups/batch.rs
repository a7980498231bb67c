//! `batch/v1`.

use resource::Resource;

use crate::{
    columns::{CRON_JOB, JOB},
    entry::Group,
    strategy::{CronJob, Job},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .namespaced("CronJob", "cronjobs")
            .short("cj")
            .in_all()
            .columns(CRON_JOB)
            .strategy(CronJob)
            .status()
            .done(),
        group
            .namespaced("Job", "jobs")
            .in_all()
            .columns(JOB)
            .strategy(Job)
            .status()
            .selectable(&[("status.successful", "0")])
            .done(),
    ]
}
