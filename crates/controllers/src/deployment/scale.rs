//! Changing the size of a Deployment while it has one or several ReplicaSets (upstream `sync.go`,
//! `scale`): a rollout in progress keeps its proportions.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;
use reconcile::Plan;

use super::{
    limits::{max_surge, replicas},
    revision::{annotate_size, desired_then, max_then},
    scaling_note,
    sets::{Sets, age, available, replicas as set_replicas},
};
use crate::spec::HasSpec;

/// Whether the Deployment was resized since its active ReplicaSets were last scaled, and scaling them is what
/// is to be done. A recreation in the middle has no proportions to keep: it goes on (upstream's waits there for
/// ever for somebody to resize it back).
pub(super) fn is_scaling(deployment: &Deployment, sets: &Sets) -> bool {
    if is_recreate(deployment) && active_or_latest(sets).is_none() && !is_saturated(deployment, sets) {
        return false;
    }
    let active = sets.all().filter(|set| set_replicas(set) > 0);
    active.into_iter().filter_map(|set| desired_then(set)).any(|then| then != replicas(deployment))
}

/// Whether all old pods go before new ones come.
pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    deployment.spec().strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// Plans `size` for `set` and notes for which Deployment size that was. `true` when the size changes.
pub(super) fn set_size(plan: &mut Plan, deployment: &Deployment, set: &Arc<ReplicaSet>, size: i32) -> bool {
    let mut wanted = (**set).clone();
    wanted.spec_mut().replicas = Some(size);
    annotate_size(deployment, &mut wanted.metadata);
    plan.change(&**set, &wanted);
    let before = set_replicas(set);
    if before != size {
        plan.events.push(scaling_note(deployment, &set.name_any(), before, size));
    }
    before != size
}

/// Brings the ReplicaSets to the Deployment's size without a rollout.
pub(super) fn proportionally(plan: &mut Plan, deployment: &Deployment, sets: &Sets) {
    let wanted = replicas(deployment);
    if let Some(only) = active_or_latest(sets) {
        if set_replicas(only) != wanted {
            set_size(plan, deployment, only, wanted);
        }
        return;
    }
    if is_saturated(deployment, sets) {
        for set in sets.active_old() {
            set_size(plan, deployment, set, 0);
        }
        return;
    }
    if !is_recreate(deployment) {
        for (set, size) in proportions(deployment, sets) {
            set_size(plan, deployment, set, size);
        }
    }
}

/// The only ReplicaSet with pods; the newest if none has; `None` if several have.
fn active_or_latest(sets: &Sets) -> Option<&Arc<ReplicaSet>> {
    let mut active = sets.all().filter(|set| set_replicas(set) > 0);
    match (active.next(), active.next()) {
        (None, _) => sets.new.as_ref().or_else(|| sets.old.last()),
        (only, None) => only,
        (Some(_), Some(_)) => None,
    }
}

/// Whether the new ReplicaSet has all the pods the Deployment wants, and they are available.
fn is_saturated(deployment: &Deployment, sets: &Sets) -> bool {
    let wanted = replicas(deployment);
    sets.new.as_ref().is_some_and(|new| {
        desired_then(new) == Some(wanted) && set_replicas(new) == wanted && available(new) == wanted
    })
}

/// The size of each active ReplicaSet: its share of what is to be added or removed, the rest to the
/// largest.
fn proportions<'a>(deployment: &Deployment, sets: &'a Sets) -> Vec<(&'a Arc<ReplicaSet>, i32)> {
    let mut active: Vec<_> = sets.all().filter(|set| set_replicas(set) > 0).collect();
    let wanted = replicas(deployment);
    let allowed = if wanted > 0 { wanted + max_surge(deployment) } else { 0 };
    let to_add = allowed - active.iter().map(|set| set_replicas(set)).sum::<i32>();
    if to_add > 0 {
        active.sort_by_key(|set| (Reverse(set_replicas(set)), Reverse(age(set))));
    } else {
        active.sort_by_key(|set| (Reverse(set_replicas(set)), age(set)));
    }
    let mut added = 0;
    let mut sizes: BTreeMap<String, i32> = BTreeMap::new();
    for set in &active {
        let share = share(deployment, set, to_add, added);
        added += share;
        sizes.insert(set.name_any(), set_replicas(set) + share);
    }
    let leftover = to_add - added;
    let size_of = |at: usize, set: &ReplicaSet| {
        let size = sizes.get(&set.name_any()).copied().unwrap_or(0);
        if at == 0 { (size + leftover).max(0) } else { size }
    };
    active.iter().enumerate().map(|(at, set)| (*set, size_of(at, set))).collect()
}

fn share(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(deployment, set);
    let allowed = to_add - added;
    if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
}

/// By how much a ReplicaSet grows if all grow in proportion (negative: shrinks).
fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let (wanted, size) = (replicas(deployment), set_replicas(set));
    if wanted == 0 {
        return -size;
    }
    let observed = deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    let before = max_then(set).filter(|max| *max != 0).unwrap_or(observed);
    if before == 0 {
        return 0;
    }
    let grown = i64::from(size) * i64::from(wanted + max_surge(deployment));
    let rounded = (2 * grown + i64::from(before)).div_euclid(2 * i64::from(before));
    i32::try_from(rounded).unwrap_or(i32::MAX) - size
}
