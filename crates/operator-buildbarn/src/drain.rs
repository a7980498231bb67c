//! How a pool changes its pods without losing an action. Pure.
//!
//! A pod goes in four steps, each seen before the next is taken: it is marked and its queues are told to give it
//! nothing (`AddDrain`); the scheduler says that it runs nothing and gets nothing; the scheduler promises so
//! (`TerminateWorkers`), which releases it; and only then are there fewer pods to have, the released being the
//! first that the ReplicaSet controller takes. Pods of an earlier template and of nodes that are being emptied go
//! the same way. A pod that does not end within the limit is released without being asked.

use std::collections::{BTreeMap, BTreeSet};

use meta::Timestamp;

use crate::queue::{Snapshot, WorkerId, pod_pattern};

/// What is known of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// The template's hash, which tells its Deployment.
    pub(crate) template: String,
    pub(crate) node: String,
    /// Every container runs.
    pub(crate) ready: bool,
    pub(crate) deleting: bool,
    pub(crate) created: Timestamp,
    /// When it was marked to go.
    pub(crate) draining_since: Option<Timestamp>,
    pub(crate) released: bool,
}

/// What a Deployment has been asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) replicas: i32,
    /// It cannot make its pods: a quota, an admission.
    pub(crate) stuck: bool,
}

/// All that is known of a pool.
#[derive(Clone, Debug)]
pub(crate) struct State<'a> {
    pub(crate) members: &'a [Member],
    /// What each Deployment has been asked for, by the hash of its template.
    pub(crate) deployments: &'a BTreeMap<String, Asked>,
    /// The template that is wanted.
    pub(crate) current: &'a str,
    /// Pods that are wanted.
    pub(crate) desired: i32,
    /// Nodes that are being emptied.
    pub(crate) cordoned: &'a BTreeSet<String>,
    /// What the scheduler says; none when it does not answer.
    pub(crate) queue: Option<&'a Snapshot>,
    pub(crate) limit_seconds: i64,
    pub(crate) now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moves {
    /// Replicas to ask each Deployment for.
    pub(crate) replicas: BTreeMap<String, i32>,
    /// Deployments that have no pods and are not wanted.
    pub(crate) remove: Vec<String>,
    /// Pods to mark as going.
    pub(crate) mark: Vec<String>,
    /// Pods that may stay after all.
    pub(crate) unmark: Vec<String>,
    /// Pods whose drains are to be added (again: a scheduler that restarted has forgotten them).
    pub(crate) drain: Vec<String>,
    /// Pods, perhaps long gone, whose drains are to be taken away.
    pub(crate) undrain: Vec<String>,
    /// Pods of which the scheduler is asked to promise that they run nothing.
    pub(crate) release: Vec<String>,
    /// Released pods that run something after all: the scheduler restarted since it promised.
    pub(crate) revoke: Vec<String>,
    /// Pods that are not waited for any longer.
    pub(crate) give_up: Vec<String>,
    /// Released pods that are to be replaced: deleted as they are.
    pub(crate) delete: Vec<String>,
    /// Pods on their way out.
    pub(crate) draining: i32,
    /// The next step is taken when something is seen that no watch tells of.
    pub(crate) look_again: bool,
}

pub(crate) fn moves(state: &State<'_>) -> Moves {
    let mut moves = Moves::default();
    let targets = targets(state);
    let mut going: BTreeSet<&str> = BTreeSet::new();
    for (template, asked) in state.deployments {
        let target = targets.get(template).copied().unwrap_or(0);
        let alive: Vec<&Member> = of(state, template).collect();
        let Asked { replicas: asked, stuck } = *asked;
        let surplus = (asked - target).max(0);
        let present = count(alive.len());
        // Pods that never come need no farewell; those that are about to come run something before one knows.
        let absent = if stuck { (asked - present).clamp(0, surplus) } else { 0 };
        // Pods that the ReplicaSet controller was to take and has not taken yet: it takes them from the released.
        let due = (present - asked).max(0);
        let victims = victims(state, &alive, (surplus - (asked - present).max(0)).max(0) + due);
        let released = count(victims.iter().filter(|pod| may_go(state, pod)).count());
        going.extend(victims.iter().map(|pod| pod.name.as_str()));
        // Whoever the ReplicaSet controller could take before, or among, those that may go.
        let safe = alive
            .iter()
            .all(|pod| if pod.released { may_go(state, pod) } else { pod.ready || busy(state, pod) == 0 });
        let fewer = if safe { absent + (released - due).clamp(0, surplus - absent) } else { 0 };
        let next = if target > asked { target } else { asked - fewer };
        // What it has not taken yet it must not take any more when the scheduler has restarted since.
        let next = if safe { next } else { next.max(asked + due) };
        moves.replicas.insert(template.clone(), next);
        let empty = next == 0 && state.members.iter().all(|pod| pod.template != *template);
        if empty && template != state.current {
            moves.replicas.remove(template);
            moves.remove.push(template.clone());
        }
    }
    if !state.deployments.contains_key(state.current) {
        moves.replicas.insert(state.current.to_owned(), targets.get(state.current).copied().unwrap_or(0));
    }
    for pod in state.members.iter().filter(|pod| !pod.deleting) {
        let replace = state.cordoned.contains(&pod.node) && !pod.node.is_empty();
        if going.contains(pod.name.as_str()) || replace {
            see_out(state, pod, replace && !going.contains(pod.name.as_str()), &mut moves);
        } else if pod.released {
            // The scheduler gives it nothing for ever: another takes its place.
            see_out(state, pod, true, &mut moves);
        } else if pod.draining_since.is_some() {
            moves.unmark.push(pod.name.clone());
            moves.undrain.push(pod.name.clone());
        }
    }
    let forgotten = forgotten(state, &moves);
    moves.undrain.extend(forgotten);
    moves.look_again = moves.draining > 0;
    moves
}

/// One step of a pod that is to go. `replace`: its Deployment keeps as many.
fn see_out(state: &State<'_>, pod: &Member, replace: bool, moves: &mut Moves) {
    moves.draining += 1;
    if pod.released {
        if replace && may_go(state, pod) {
            moves.delete.push(pod.name.clone());
        }
        let over = pod.draining_since.is_some_and(|since| is_over(state, since));
        if let Some(queue) = state.queue.filter(|_| !over) {
            if !queue.drained(&pod.name) {
                moves.drain.push(pod.name.clone());
            }
            if queue.busy(&pod.name) > 0 {
                moves.revoke.push(pod.name.clone());
            }
        }
        return;
    }
    let Some(since) = pod.draining_since else {
        moves.mark.push(pod.name.clone());
        moves.drain.push(pod.name.clone());
        return;
    };
    if is_over(state, since) {
        moves.give_up.push(pod.name.clone());
        return;
    }
    let Some(queue) = state.queue else { return };
    if !queue.drained(&pod.name) {
        moves.drain.push(pod.name.clone());
    } else if queue.busy(&pod.name) == 0 {
        moves.release.push(pod.name.clone());
    }
}

fn is_over(state: &State<'_>, since: Timestamp) -> bool {
    state.now.as_second().saturating_sub(since.as_second()) > state.limit_seconds
}

/// Whether a pod may be taken away now. That it was released is not enough: a scheduler that restarted since has
/// forgotten it, and may have given it something.
fn may_go(state: &State<'_>, pod: &Member) -> bool {
    let idle = |queue: &Snapshot| queue.drained(&pod.name) && queue.busy(&pod.name) == 0;
    pod.released
        && (state.queue.is_some_and(idle) || pod.draining_since.is_some_and(|since| is_over(state, since)))
}

fn count(of: usize) -> i32 {
    i32::try_from(of).unwrap_or(i32::MAX)
}

fn of<'a>(state: &State<'a>, template: &'a str) -> impl Iterator<Item = &'a Member> {
    state.members.iter().filter(move |pod| pod.template == template && !pod.deleting)
}

fn busy(state: &State<'_>, pod: &Member) -> usize {
    state.queue.map_or(0, |queue| queue.busy(&pod.name))
}

/// Replicas that each Deployment should come to: the current one grows by a quarter beyond what is wanted while
/// others are there, and the others give way to pods of it that are ready.
fn targets(state: &State<'_>) -> BTreeMap<String, i32> {
    let desired = state.desired.max(0);
    let surge = if desired == 0 { 0 } else { (desired + 3) / 4 };
    let others: i32 =
        state.deployments.iter().filter(|(name, _)| *name != state.current).map(|(_, n)| n.replicas).sum();
    let present = of(state, state.current).count();
    let asked = state.deployments.get(state.current).map_or(count(present), |asked| asked.replicas);
    let room = (desired + surge - others).clamp(0, desired);
    let current = if others == 0 { desired } else { room.max(asked.min(desired)) };
    let ready =
        count(of(state, state.current).filter(|pod| pod.ready && pod.draining_since.is_none()).count());
    let mut keep = (desired - ready.min(current)).max(0);
    let mut targets = BTreeMap::from([(state.current.to_owned(), current)]);
    for (name, asked) in state.deployments.iter().filter(|(name, _)| *name != state.current) {
        let target = asked.replicas.min(keep);
        keep -= target;
        targets.insert(name.clone(), target);
    }
    targets
}

/// Those to go: first what has begun to go, then what cannot run anything, then the least busy, then the youngest.
fn victims<'a>(state: &State<'_>, alive: &[&'a Member], number: i32) -> Vec<&'a Member> {
    let mut ranked = alive.to_vec();
    ranked.sort_by_key(|pod| {
        (
            !pod.released,
            pod.draining_since.is_none(),
            !state.cordoned.contains(&pod.node),
            pod.ready,
            busy(state, pod),
            std::cmp::Reverse(pod.created),
            pod.name.clone(),
        )
    });
    ranked.truncate(usize::try_from(number).unwrap_or(0));
    ranked
}

/// Drained pods that are no more, or stay after all while the scheduler could not be told so: it never forgets a
/// drain by itself, and would give such a pod nothing for ever.
fn forgotten(state: &State<'_>, moves: &Moves) -> Vec<String> {
    let Some(queue) = state.queue else { return Vec::new() };
    let leaving = state.members.iter().filter(|pod| pod.draining_since.is_some() || pod.released);
    let leaving: BTreeSet<&str> =
        leaving.map(|pod| pod.name.as_str()).chain(moves.drain.iter().map(String::as_str)).collect();
    let named: BTreeSet<&String> = queue
        .drains
        .values()
        .flatten()
        .filter(|pattern| is_pod(pattern))
        .filter_map(|pattern| pattern.get("pod"))
        .collect();
    let stale =
        named.into_iter().filter(|pod| !leaving.contains(pod.as_str()) && !moves.undrain.contains(pod));
    stale.cloned().collect()
}

/// Drains by hand have other patterns and are left alone.
fn is_pod(pattern: &WorkerId) -> bool {
    pattern.get("pod").is_some_and(|pod| *pattern == pod_pattern(pod))
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
