//! Counting each pod once (KEP-2307, upstream `trackJobStatusAndRemoveFinalizers`).
//!
//! A finished pod holds a finalizer. The plan that sees it enters its UID (or its index) in the status;
//! a later plan, which reads that from the status, takes the finalizer off; and a later one, which finds
//! the pod free or gone, turns the UID into a count. A crash between any two of these loses nothing.

use std::sync::Arc;

use k8s_openapi::api::{batch::v1::JobStatus, core::v1::Pod};
use reconcile::Plan;

use super::{
    finish::Verdict,
    indexes::Indexes,
    tally::{Tally, index, is_indexed, is_succeeded, is_tracked, uid, untracked},
};
use crate::pods;

/// Upstream `MaxUncountedPods`: keeps the status below 20 KB.
const UNCOUNTED_MAX: usize = 500;

/// Plans finalizers off and enters what ended in `status`. Gives whether every pod is accounted for.
pub(super) fn step(
    plan: &mut Plan,
    tally: &Tally<'_>,
    verdict: Option<&Verdict>,
    status: &mut JobStatus,
) -> bool {
    let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let held = |uid: &String| tally.pods.iter().any(|pod| is_tracked(pod) && super::tally::uid(pod) == *uid);
    let settle = |list: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
        let list = list.get_or_insert_default();
        let before = list.len();
        list.retain(held);
        let settled = i32::try_from(before - list.len()).unwrap_or(0);
        if settled > 0 {
            *counter = Some(counter.unwrap_or(0) + settled);
        }
    };
    settle(&mut uncounted.succeeded, &mut status.succeeded);
    settle(&mut uncounted.failed, &mut status.failed);

    let (mut new_succeeded, mut new_failed, mut new_indexes) = (Vec::new(), Vec::new(), Vec::new());
    let room = UNCOUNTED_MAX.saturating_sub(
        uncounted.succeeded.as_ref().map_or(0, Vec::len) + uncounted.failed.as_ref().map_or(0, Vec::len),
    );
    let (mut all_free, mut written) = (true, 0);
    for pod in tally.pods.iter().filter(|pod| is_tracked(pod)) {
        all_free = false;
        match account(tally, verdict, pod) {
            Account::Keep => {}
            Account::Settled if written < UNCOUNTED_MAX => {
                plan.change(&**pod, &untracked(pod));
                written += 1;
            }
            _ if new_succeeded.len() + new_failed.len() + new_indexes.len() >= room => {}
            Account::Settled => {}
            Account::Succeeded => new_succeeded.push(uid(pod)),
            Account::SucceededIndex(at) => new_indexes.push(at),
            Account::Failed => new_failed.push(uid(pod)),
        }
    }
    uncounted.succeeded.get_or_insert_default().extend(new_succeeded);
    uncounted.failed.get_or_insert_default().extend(new_failed);
    let none_left = all_free && uncounted == empty();
    uncounted.succeeded = uncounted.succeeded.filter(|list| !list.is_empty());
    uncounted.failed = uncounted.failed.filter(|list| !list.is_empty());
    status.uncounted_terminated_pods = Some(uncounted);
    if is_indexed(tally.spec) {
        record_indexes(tally, new_indexes.into_iter().collect(), status);
    }
    none_left
}

fn empty() -> k8s_openapi::api::batch::v1::UncountedTerminatedPods {
    k8s_openapi::api::batch::v1::UncountedTerminatedPods {
        succeeded: Some(Vec::new()),
        failed: Some(Vec::new()),
    }
}

fn record_indexes(tally: &Tally<'_>, new: Indexes, status: &mut JobStatus) {
    let recorded = tally.recorded.union(&new);
    status.succeeded = Some(recorded.len()).filter(|n| *n > 0 || status.succeeded.is_some());
    status.completed_indexes = Some(recorded.to_string()).filter(|text| !text.is_empty());
    status.failed_indexes = tally.given_up.as_ref().map(ToString::to_string);
}

/// What the status has to say of a pod before it may go.
enum Account {
    /// It stays.
    Keep,
    /// Nothing, or it says so already.
    Settled,
    Succeeded,
    SucceededIndex(i32),
    Failed,
}

fn account(tally: &Tally<'_>, verdict: Option<&Verdict>, pod: &Arc<Pod>) -> Account {
    let deleting = tally.job.metadata.deletion_timestamp.is_some();
    let failed = tally.is_failed(pod);
    let entered = tally.uncounted_succeeded.contains(&uid(pod)) || tally.uncounted_failed.contains(&uid(pod));
    if is_succeeded(pod) {
        return match index(pod).filter(|_| is_indexed(tally.spec)) {
            _ if entered || !tally.has_place(pod) => Account::Settled,
            Some(at) if tally.recorded.contains(at) => Account::Settled,
            Some(at) => Account::SucceededIndex(at),
            None => Account::Succeeded,
        };
    }
    // With a verdict, what has not ended is being deleted; until that is seen it stays.
    let over = deleting || (verdict.is_some() && !pods::is_active(pod));
    if !failed && !over {
        return Account::Keep;
    }
    let awaited = index(pod).and_then(|at| tally.predecessors.get(&at)).is_some_and(|p| Arc::ptr_eq(p, pod));
    if awaited && !over {
        return Account::Keep;
    }
    let counts = failed || verdict.is_some_and(|verdict| !verdict.success);
    if counts && !entered && tally.has_place(pod) && tally.counts(pod) && (failed || !deleting) {
        Account::Failed
    } else {
        Account::Settled
    }
}
