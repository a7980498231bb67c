//! How long a Job waits after failures: 10 s, doubled with each failure after the last success, 10 min
//! at most (upstream `backoff_utils.go`).
//!
//! What has failed is remembered between plans, for a pod that was deleted says nothing any more. After
//! a restart it is told anew from the finished pods that are still there (upstream forgets it then).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use meta::Timestamp;
use parking_lot::Mutex;

use crate::pods;

/// Upstream `DefaultJobPodFailureBackOff`.
const FIRST_S: i64 = 10;
/// Upstream `MaxJobPodFailureBackOff`.
const LONGEST_S: i64 = 600;

/// Failures since the last success of one Job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    count: u32,
    last: Option<Timestamp>,
}

impl Failures {
    /// So many, the last of them at `last`.
    pub(super) fn new(count: u32, last: Timestamp) -> Self {
        Self { count, last: Some(last) }
    }

    /// How long to wait before the next pod; zero when it may be made.
    pub(super) fn remaining(self, now: Timestamp) -> Duration {
        let (Some(last), Some(doublings)) = (self.last, self.count.checked_sub(1)) else {
            return Duration::ZERO;
        };
        // Past 6 doublings the bound holds anyway.
        let wait = (FIRST_S << doublings.min(6)).min(LONGEST_S);
        let left = last.as_second().saturating_add(wait).saturating_sub(now.as_second());
        Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }

    /// Takes in pods that finished since: a success clears the failures before it.
    fn add(&mut self, succeeded: &[Timestamp], failed: &[Timestamp]) {
        if let Some(success) = succeeded.iter().max() {
            *self = Self::default();
            self.count_in(failed.iter().filter(|at| *at > success));
        } else {
            self.count_in(failed.iter());
        }
    }

    fn count_in<'a>(&mut self, failed: impl Iterator<Item = &'a Timestamp>) {
        for at in failed {
            self.count = self.count.saturating_add(1);
            self.last = self.last.max(Some(*at));
        }
    }
}

/// The failures of all Jobs that run, by UID.
#[derive(Default)]
pub(super) struct Memory {
    jobs: Mutex<HashMap<String, Entry>>,
}

#[derive(Default)]
struct Entry {
    failures: Failures,
    /// Finished pods that are in `failures` already, as far as they still exist.
    seen: HashSet<String>,
}

impl Memory {
    /// Looks at the pods of a Job and gives its failures. `succeeded` and `failed` tell finished pods.
    pub(super) fn learn<'a>(
        &self,
        job: &str,
        pods: impl Iterator<Item = &'a Pod> + Clone,
        succeeded: impl Fn(&Pod) -> bool,
        failed: impl Fn(&Pod) -> bool,
    ) -> Failures {
        let mut jobs = self.jobs.lock();
        let entry = jobs.entry(job.to_owned()).or_default();
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let before = std::mem::take(&mut entry.seen);
        let fresh = |pod: &&Pod| !before.contains(&uid(pod));
        let times = |of: &dyn Fn(&Pod) -> bool| -> Vec<Timestamp> {
            pods.clone().filter(fresh).filter(|pod| of(pod)).map(finished_at).collect()
        };
        entry.failures.add(&times(&succeeded), &times(&failed));
        entry.seen = pods.filter(|pod| succeeded(pod) || failed(pod)).map(uid).collect();
        entry.failures
    }

    /// Forgets a Job that has finished or is gone.
    pub(super) fn forget(&self, job: &str) {
        self.jobs.lock().remove(job);
    }
}

/// When a pod finished, as well as can be told (upstream `getFinishedTime`): by its containers, by its
/// Ready condition, by its deletion, by its creation.
pub(super) fn finished_at(pod: &Pod) -> Timestamp {
    let by_condition = || {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "False")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let by_deletion = || {
        let deletion = pod.metadata.deletion_timestamp.as_ref()?.0;
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        Timestamp::from_second(deletion.as_second().saturating_sub(grace)).ok()
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    by_containers(pod).or_else(by_condition).or_else(by_deletion).unwrap_or_else(created)
}

/// The latest end of a container or sidecar; `None` while one has not ended.
fn by_containers(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let of_sidecar = |container: &&ContainerStatus| pods::is_sidecar(pod, &container.name);
    let sidecars = status.init_container_statuses.iter().flatten().filter(of_sidecar);
    let mut latest = None;
    for container in status.container_statuses.iter().flatten().chain(sidecars) {
        let ended = container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0;
        latest = latest.max(Some(ended));
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn waits_double_up_to_ten_minutes() {
        for (count, wait) in [(0, 0), (1, 10), (2, 20), (3, 40), (6, 320), (7, 600), (99, 600)] {
            let failures = Failures { count, last: Some(at(1000)) };
            assert_eq!(failures.remaining(at(1000)).as_secs(), wait, "{count}");
        }
        assert_eq!(Failures::new(2, at(1000)).remaining(at(1015)).as_secs(), 5);
        assert_eq!(Failures::new(2, at(1000)).remaining(at(1020)).as_secs(), 0);
    }

    #[test]
    fn a_success_clears_what_was_before_it() {
        let mut failures = Failures::default();
        failures.add(&[], &[at(10), at(30)]);
        assert_eq!(failures, Failures::new(2, at(30)));
        failures.add(&[at(50)], &[at(40), at(60)]);
        assert_eq!(failures, Failures::new(1, at(60)));
        failures.add(&[at(70)], &[]);
        assert_eq!(failures, Failures::default());
    }
}
