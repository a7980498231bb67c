//! One step towards the wanted pods (upstream `updateStatefulSet`).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use meta::Timestamp;
use reconcile::{Child, Note, Plan, Precondition};

use super::{World, identity, storage};
use crate::{pods, spec::HasSpec};

/// Plans the next step: replace what has ended, create what is missing, in order unless Parallel;
/// then take away what is beyond the replicas; then update from the top.
pub(super) fn step(plan: &mut Plan, world: &World, now: Timestamp) {
    let set = &*world.set;
    let in_order = set.spec().pod_management_policy.as_deref() != Some("Parallel");
    let mut creates = Vec::new();
    let mut blocked = false;
    for ordinal in identity::wanted(set) {
        let pod = pod_at(world, ordinal);
        let waits = match pod {
            None => create(plan, &mut creates, world, ordinal),
            Some(pod) => keep(plan, world, pod, ordinal, now),
        };
        if waits && in_order {
            blocked = true;
            break;
        }
    }
    plan.apply.extend(creates);
    if !blocked && !condemn(plan, world, in_order, now) {
        update(plan, world, now);
    }
}

fn pod_at(world: &World, ordinal: i32) -> Option<&Arc<Pod>> {
    world.pods.mine.iter().find(|pod| identity::ordinal(&world.set, pod) == Some(ordinal))
}

fn is_unavailable(world: &World, pod: &Pod, now: Timestamp) -> bool {
    pods::is_deleting(pod) || !pods::is_available(pod, world.set.spec().min_ready_seconds.unwrap_or(0), now)
}

/// Plans a missing pod and its missing claims; the pod comes after all claims of this plan. Always a
/// reason to wait.
fn create(plan: &mut Plan, creates: &mut Vec<Child>, world: &World, ordinal: i32) -> bool {
    if storage::is_stale(world, ordinal) {
        return true;
    }
    let set = &*world.set;
    let strategy = set.spec().update_strategy.clone().unwrap_or_default();
    let rolling = strategy.type_.as_deref() != Some("OnDelete");
    let status = set.status.clone().unwrap_or_default();
    let below = match &strategy.rolling_update {
        Some(rolling) => rolling.partition.unwrap_or(0),
        None if rolling => status.current_replicas.unwrap_or(0),
        None => 0,
    };
    let old = ordinal < identity::start(set).saturating_add(below);
    let revision = if old { &world.revisions.current } else { &world.revisions.update };
    let pod = identity::new_pod(set, &revision.template, &revision.name, ordinal);
    plan.apply.extend(storage::missing(world, ordinal));
    creates.push(Child::create(&pod));
    let message = format!("create Pod {} in StatefulSet {} successful", pod.name_any(), set.name_any());
    plan.events.push(Note::normal(set, "SuccessfulCreate", "Create", message));
    true
}

/// Plans what an existing pod needs; `true` when its successors have to wait for it.
fn keep(plan: &mut Plan, world: &World, pod: &Arc<Pod>, ordinal: i32, now: Timestamp) -> bool {
    if pods::is_terminal(pod) {
        if !pods::is_deleting(pod) {
            let verb =
                if pods::phase(pod) == "Failed" { "RecreatingFailedPod" } else { "RecreatingTerminatedPod" };
            let severity = format!(
                "StatefulSet {} is recreating terminated Pod {}",
                world.set.name_any(),
                pod.name_any()
            );
            plan.events.push(Note::warning(&*world.set, verb, "Recreate", severity));
            delete(plan, world, pod);
        }
        return true;
    }
    if pods::phase(pod) == "Pending" {
        plan.apply.extend(storage::missing(world, ordinal));
    }
    if is_unavailable(world, pod, now) {
        return true;
    }
    plan.change(&**pod, &identity::with_identity(pod, ordinal));
    plan.apply.extend(storage::owner_changes(world, pod, ordinal));
    false
}

fn delete(plan: &mut Plan, world: &World, pod: &Arc<Pod>) {
    let set = &*world.set;
    plan.delete.push(Precondition::of(&**pod));
    let message = format!("delete Pod {} in StatefulSet {} successful", pod.name_any(), set.name_any());
    plan.events.push(Note::normal(set, "SuccessfulDelete", "Delete", message));
}

/// Takes away pods beyond the wanted ordinals, the highest first; `true` when that is not finished and
/// updates have to wait (in order), or when it was begun.
fn condemn(plan: &mut Plan, world: &World, in_order: bool, now: Timestamp) -> bool {
    let set = &*world.set;
    let wanted = identity::wanted(set);
    let ordinal_of = |pod: &Arc<Pod>| identity::ordinal(set, pod).unwrap_or(-1);
    let mut condemned: Vec<&Arc<Pod>> =
        world.pods.mine.iter().filter(|pod| !wanted.contains(&ordinal_of(pod))).collect();
    condemned.sort_by_key(|pod| std::cmp::Reverse(ordinal_of(pod)));
    for pod in &condemned {
        plan.apply.extend(storage::owner_changes(world, pod, ordinal_of(pod)));
    }
    // In order we get here only when every wanted pod is available, so the first unavailable pod is
    // the lowest condemned one.
    let first_unavailable = condemned.iter().rev().find(|pod| is_unavailable(world, pod, now)).copied();
    for pod in &condemned {
        if pods::is_deleting(pod) {
            if in_order {
                return true;
            }
            continue;
        }
        let is_first = first_unavailable.is_some_and(|first| Arc::ptr_eq(first, pod));
        if in_order && is_unavailable(world, pod, now) && !is_first {
            return true;
        }
        delete(plan, world, pod);
        if in_order {
            return true;
        }
    }
    false
}

/// Deletes the highest pod above the partition that has not the newest revision, when all above it
/// are available.
fn update(plan: &mut Plan, world: &World, now: Timestamp) {
    let set = &*world.set;
    let strategy = set.spec().update_strategy.clone().unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return;
    }
    let partition = strategy.rolling_update.and_then(|rolling| rolling.partition).unwrap_or(0);
    // Upstream compares the partition with the position in the list of replicas, not with the ordinal.
    let lowest = identity::start(set).saturating_add(partition);
    for ordinal in identity::wanted(set).rev().take_while(|ordinal| *ordinal >= lowest) {
        let Some(pod) = pod_at(world, ordinal) else { return };
        if identity::revision(pod) != world.revisions.update.name && !pods::is_deleting(pod) {
            return delete(plan, world, pod);
        }
        if is_unavailable(world, pod, now) {
            return;
        }
    }
}
