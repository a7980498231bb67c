//! How many pods run: deletes what is too much, creates what is missing (upstream `manageJob`). A plan
//! does one or the other, 500 pods at most.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt;
use meta::Timestamp;
use reconcile::{Child, Note, Plan, Precondition, owner_reference};

use super::{
    backoff::{Failures, finished_at},
    tally::{
        FAILURES, FINALIZER, IGNORED, INDEX, Tally, count, index, is_indexed, number, replaces_failed_only,
        untracked,
    },
};
use crate::{pods, rank, spec::HasSpec};

/// Upstream `MaxPodCreateDeletePerSync`.
const BURST: i32 = 500;
/// A generated name is at most 63 bytes, 5 of them random (`names.MaxGeneratedNameLength`).
const PREFIX_MAX: usize = 58;

/// Plans one step; gives how many pods will be active after it.
pub(super) fn step(plan: &mut Plan, tally: &Tally<'_>, failures: Failures, now: Timestamp) -> i32 {
    let active = count(&tally.active);
    let suspended = tally.spec.suspend == Some(true);
    let wanted = if suspended { 0 } else { wanted(tally, active) };
    let mut surplus = for_removal(tally, (active - wanted).max(0), now);
    surplus.truncate(usize::try_from(BURST).unwrap_or(0));
    if !surplus.is_empty() {
        for pod in &surplus {
            // These are not failures: nobody shall count them.
            plan.change(&**pod, &untracked(pod));
            delete(plan, tally, pod);
        }
        return active - count(surplus);
    }
    let terminating = if replaces_failed_only(tally.spec) { tally.terminating } else { 0 };
    let missing = wanted - terminating - active;
    if missing <= 0 || suspended {
        return active;
    }
    let created = create(plan, tally, missing.min(BURST), failures, now);
    active + created
}

/// Plans the deletion of one pod, with an event.
pub(super) fn delete(plan: &mut Plan, tally: &Tally<'_>, pod: &Arc<Pod>) {
    plan.delete.push(Precondition::of(&**pod));
    let message = format!("Deleted pod: {}", pod.name_any());
    plan.events.push(Note::normal(tally.job, "SuccessfulDelete", "Delete", message));
}

fn wanted(tally: &Tally<'_>, active: i32) -> i32 {
    let parallelism = tally.spec.parallelism.unwrap_or(1);
    match tally.spec.completions {
        None if tally.succeeded > 0 => active,
        None => parallelism,
        Some(completions) => (completions - tally.succeeded).min(parallelism).max(0),
    }
}

/// At least `surplus` pods to delete, the least far ones first; of an indexed Job also those without an
/// index of it and all but one of an index.
fn for_removal(tally: &Tally<'_>, surplus: i32, now: Timestamp) -> Vec<Arc<Pod>> {
    let ranked = |pods: &[Arc<Pod>]| rank::for_deletion(pods, &std::collections::HashMap::new(), now);
    let (mut removed, mut left) = (Vec::new(), tally.active.clone());
    if is_indexed(tally.spec) {
        let mut by_index: BTreeMap<Option<i32>, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in left.drain(..) {
            by_index.entry(index(&pod).filter(|_| tally.has_place(&pod))).or_default().push(pod);
        }
        for (at, pods) in by_index {
            let mut order = ranked(&pods);
            left.extend(at.and_then(|_| order.pop()));
            removed.append(&mut order);
        }
    }
    let more = usize::try_from(surplus).unwrap_or(0).saturating_sub(removed.len());
    removed.extend(ranked(&left).into_iter().take(more));
    removed
}

/// Plans up to `missing` new pods, or the time at which to look again.
fn create(plan: &mut Plan, tally: &Tally<'_>, missing: i32, failures: Failures, now: Timestamp) -> i32 {
    let per_index = tally.spec.backoff_limit_per_index.is_some();
    let wait = if per_index { Duration::ZERO } else { failures.remaining(now) };
    if !wait.is_zero() {
        plan.recheck(wait);
        return 0;
    }
    if !is_indexed(tally.spec) {
        plan.apply.extend((0..missing).map(|_| new_pod(tally, None)));
        return missing;
    }
    let pending = pending(tally, usize::try_from(missing).unwrap_or(0));
    let wait = |at: i32| {
        let Some(pod) = tally.predecessors.get(&at) else { return Duration::ZERO };
        let failures = number(pod, FAILURES) + number(pod, IGNORED) + 1;
        Failures::new(u32::try_from(failures).unwrap_or(0), finished_at(pod)).remaining(now)
    };
    let (due, waiting): (Vec<i32>, Vec<i32>) = pending.into_iter().partition(|at| wait(*at).is_zero());
    if let Some(soonest) = waiting.into_iter().map(wait).min() {
        plan.recheck(soonest);
    }
    plan.apply.extend(due.iter().map(|at| new_pod(tally, Some(*at))));
    count(due)
}

/// The lowest indexes that neither run nor ended.
fn pending(tally: &Tally<'_>, missing: usize) -> Vec<i32> {
    let waits_for_end = |pod: &&Arc<Pod>| {
        replaces_failed_only(tally.spec) && pods::is_deleting(pod) && !pods::is_terminal(pod)
    };
    let occupied = tally.active.iter().chain(tally.pods.iter().filter(waits_for_end));
    let mut taken = tally.done.union(&occupied.filter_map(|pod| index(pod)).collect());
    if let Some(given_up) = &tally.given_up {
        taken = taken.union(given_up);
    }
    taken.first_missing(missing, tally.spec.completions.unwrap_or(0))
}

fn new_pod(tally: &Tally<'_>, at: Option<i32>) -> Child {
    let job = tally.job;
    let mut pod = pods::from_template(&tally.spec.template, job.namespace(), owner_reference(job));
    if !pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        pod.finalizers_mut().push(FINALIZER.to_owned());
    }
    let name = job.name_any();
    pod.metadata.generate_name = Some(format!("{name}-"));
    if let Some(at) = at {
        let suffix = format!("-{at}-");
        let stem: String = name.chars().take(PREFIX_MAX - suffix.len()).collect();
        pod.metadata.generate_name = Some(format!("{stem}{suffix}"));
        pod.annotations_mut().insert(INDEX.to_owned(), at.to_string());
        pod.labels_mut().insert(INDEX.to_owned(), at.to_string());
        if tally.spec.backoff_limit_per_index.is_some() {
            note_failures(&mut pod, tally, at);
        }
        let spec = pod.spec_mut();
        spec.hostname = Some(format!("{name}-{at}"));
        let inits = spec.init_containers.iter_mut().flatten();
        inits.chain(&mut spec.containers).for_each(add_index_variable);
    }
    Child::create(&pod).announced_to(job)
}

/// Hands the failures of an index on to its next pod.
fn note_failures(pod: &mut Pod, tally: &Tally<'_>, at: i32) {
    let (mut failures, mut ignored) = (0, 0);
    if let Some(before) = tally.predecessors.get(&at) {
        (failures, ignored) = (number(before, FAILURES), number(before, IGNORED));
        *(if tally.counts(before) { &mut failures } else { &mut ignored }) += 1;
    }
    pod.annotations_mut().insert(FAILURES.to_owned(), failures.to_string());
    if ignored > 0 {
        pod.annotations_mut().insert(IGNORED.to_owned(), ignored.to_string());
    }
}

fn add_index_variable(container: &mut Container) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == NAME) {
        return;
    }
    variables.push(EnvVar {
        name: NAME.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    });
}
