//! `batch/v1`.

use resource::Resource;

use crate::{columns::AGE, entry::Group};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group.namespaced("CronJob", "cronjobs").short("cj").in_all().columns(&[AGE]).status().done(),
        group
            .namespaced("Job", "jobs")
            .in_all()
            .columns(&[AGE])
            .status()
            .selectable(&[("status.successful", "0")])
            .done(),
    ]
}
