//! The pods of a Job, counted: what runs, what ended and was or was not entered in the status yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::{
    batch::v1::{Job, JobSpec},
    core::v1::Pod,
};
use kube::ResourceExt;

use super::{World, backoff, indexes::Indexes, policy};
use crate::{pods, spec::HasSpec};

/// Held by every pod of a Job until the Job's status has counted it (KEP-2307).
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label with the completion index of a pod.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotations that carry the failures of an index from pod to pod.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub(super) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// The counts one plan decides by.
pub(super) struct Tally<'a> {
    pub(super) job: &'a Job,
    pub(super) spec: &'a JobSpec,
    /// All pods of the Job, in the order of their indexes.
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) active: Vec<Arc<Pod>>,
    pub(super) ready: i32,
    pub(super) terminating: i32,
    /// UIDs in `status.uncountedTerminatedPods`.
    pub(super) uncounted_succeeded: BTreeSet<String>,
    pub(super) uncounted_failed: BTreeSet<String>,
    /// With those that are not in the status yet.
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    /// Of an indexed Job: the succeeded indexes as the status has them, and as they are.
    pub(super) recorded: Indexes,
    pub(super) done: Indexes,
    /// With a limit per index: the indexes that are given up.
    pub(super) given_up: Option<Indexes>,
    /// With a limit per index: the failed pod that the next pod of the index has to learn its failures
    /// from; it keeps its finalizer until then.
    pub(super) predecessors: BTreeMap<i32, Arc<Pod>>,
}

impl<'a> Tally<'a> {
    /// Counts.
    pub(super) fn of(world: &'a World) -> Self {
        let job = &*world.job;
        let spec = job.spec();
        let status = job.status.clone().unwrap_or_default();
        let mut all = world.pods.mine.clone();
        all.sort_by_key(|pod| (index(pod), pod.name_any()));
        let active: Vec<_> = all.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
        let set = |list: Option<Vec<String>>| list.unwrap_or_default().into_iter().collect::<BTreeSet<_>>();
        let completions = spec.completions.unwrap_or(0);
        let mut tally = Self {
            job,
            spec,
            ready: count(active.iter().filter(|pod| pods::is_ready(pod))),
            terminating: count(all.iter().filter(|pod| pods::is_deleting(pod) && !pods::is_terminal(pod))),
            pods: all,
            active,
            uncounted_succeeded: set(uncounted.succeeded),
            uncounted_failed: set(uncounted.failed),
            succeeded: 0,
            failed: 0,
            recorded: Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions),
            done: Indexes::default(),
            given_up: None,
            predecessors: BTreeMap::new(),
        };
        tally.failed = status.failed.unwrap_or(0)
            + count(&tally.uncounted_failed)
            + count(tally.uncounted().filter(|pod| {
                !tally.uncounted_failed.contains(&uid(pod)) && tally.is_failed(pod) && tally.counts(pod)
            }));
        if is_indexed(spec) {
            tally.count_indexes(&status.failed_indexes.unwrap_or_default());
        } else {
            let new =
                |pod: &&Arc<Pod>| tally.is_success(pod) && !tally.uncounted_succeeded.contains(&uid(pod));
            tally.succeeded = status.succeeded.unwrap_or(0)
                + count(&tally.uncounted_succeeded)
                + count(tally.uncounted().filter(new));
        }
        tally
    }

    fn count_indexes(&mut self, given_up: &str) {
        let new = self.uncounted().filter(|pod| self.is_success(pod)).filter_map(|pod| index(pod)).collect();
        self.done = self.recorded.union(&new);
        self.succeeded = self.done.len();
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        let exhausted = |pod: &&Arc<Pod>| {
            self.is_failed(pod)
                && match policy::judge(self.spec, pod) {
                    policy::Failure::FailsIndex => true,
                    policy::Failure::Ignored => false,
                    policy::Failure::Counted | policy::Failure::FailsJob(_) => number(pod, FAILURES) >= limit,
                }
        };
        let new = self.uncounted().filter(exhausted).filter_map(|pod| index(pod)).collect();
        let given_up = Indexes::parse(given_up, self.spec.completions.unwrap_or(0)).union(&new);
        let running: BTreeSet<i32> = self.active.iter().filter_map(|pod| index(pod)).collect();
        let mut predecessors: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        let order = |pod: &Pod| (number(pod, FAILURES) + number(pod, IGNORED), backoff::finished_at(pod));
        for pod in self.uncounted().filter(|pod| self.is_failed(pod)) {
            let Some(at) = index(pod) else { continue };
            if self.done.contains(at) || given_up.contains(at) || running.contains(&at) {
                continue;
            }
            if predecessors.get(&at).is_none_or(|before| order(before) <= order(pod)) {
                predecessors.insert(at, Arc::clone(pod));
            }
        }
        self.predecessors = predecessors;
        self.given_up = Some(given_up);
    }

    /// Pods that the status may not have counted: with the finalizer, and of an indexed Job with one of
    /// its indexes.
    fn uncounted(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|pod| is_tracked(pod) && self.has_place(pod))
    }

    /// Whether the pod succeeded and was not counted as failed before. A pod on its way out fails; when it
    /// says after that that it succeeded, it has been replaced already.
    fn is_success(&self, pod: &Pod) -> bool {
        is_succeeded(pod) && !self.uncounted_failed.contains(&uid(pod))
    }

    /// Of an indexed Job: whether the pod has one of the Job's indexes. Else always.
    pub(super) fn has_place(&self, pod: &Pod) -> bool {
        !is_indexed(self.spec) || index(pod).is_some_and(|at| at < self.spec.completions.unwrap_or(0))
    }

    /// Whether the pod counts as failed: a pod that is being deleted is not waited for, unless the
    /// replacement policy says so.
    pub(super) fn is_failed(&self, pod: &Pod) -> bool {
        is_failed(self.spec, pod)
    }

    /// Whether the failure of the pod counts towards the limits.
    pub(super) fn counts(&self, pod: &Pod) -> bool {
        policy::judge(self.spec, pod) != policy::Failure::Ignored
    }
}

/// Whether `spec.completionMode` is Indexed.
pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether pods are replaced only when they have ended.
pub(super) fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
}

/// See [`Tally::is_failed`].
pub(super) fn is_failed(spec: &JobSpec, pod: &Pod) -> bool {
    let lost = pods::is_deleting(pod) && !is_succeeded(pod) && !replaces_failed_only(spec);
    pods::phase(pod) == "Failed" || lost
}

/// Whether the pod ended well.
pub(super) fn is_succeeded(pod: &Pod) -> bool {
    pods::phase(pod) == "Succeeded"
}

/// Whether the pod holds the tracking finalizer.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// The pod without the tracking finalizer.
pub(super) fn untracked(pod: &Pod) -> Pod {
    let mut free = pod.clone();
    free.finalizers_mut().retain(|finalizer| finalizer != FINALIZER);
    free
}

/// The completion index of a pod.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// The number in an annotation; 0 when there is none.
pub(super) fn number(pod: &Pod, annotation: &str) -> i32 {
    pod.annotations().get(annotation).and_then(|text| text.parse().ok()).unwrap_or(0).max(0)
}

/// `metadata.uid`, or empty.
pub(super) fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

/// Lengths as the API has them.
pub(super) fn count<I: IntoIterator>(items: I) -> i32 {
    i32::try_from(items.into_iter().count()).unwrap_or(i32::MAX)
}
