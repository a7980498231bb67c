//! One step towards one pod of the present version on each node (upstream `manage` and
//! `rollingUpdate`).

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use kube::ResourceExt;
use meta::Timestamp;
use reconcile::{Child, Note, Plan, Precondition};

use super::{
    World,
    placement::{GENERATION, HASH, Place, new_pod, node_of, template_generation},
};
use crate::{deployment::scaled, pods, spec::HasSpec};

/// Upstream `BurstReplicas`: bounds what one plan creates or deletes.
const BURST: usize = 250;

/// What is to become of pods and nodes.
#[derive(Default)]
struct Moves {
    create: Vec<String>,
    delete: Vec<Arc<Pod>>,
}

/// The pods by node; deleted ones that have ended count for nothing any more.
pub(super) fn by_node(world: &World) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut map: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in world.pods.mine.iter().filter(|pod| !(pods::is_terminal(pod) && pods::is_deleting(pod))) {
        if let Some(node) = node_of(pod) {
            map.entry(node.to_owned()).or_default().push(Arc::clone(pod));
        }
    }
    for pods in map.values_mut() {
        // Those on their node first, then the oldest.
        let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        pods.sort_by_key(|pod| (pod.spec().node_name.is_none(), created(pod), pod.name_any()));
    }
    map
}

/// Whether a pod is of the present version.
pub(super) fn is_updated(world: &World, pod: &Pod) -> bool {
    let label = |key: &str| pod.labels().get(key).map(String::as_str);
    let generation = template_generation(&world.set);
    label(HASH) == Some(world.history.hash.as_str())
        || (generation.is_some() && label(GENERATION) == generation)
}

/// Plans one step.
pub(super) fn step(plan: &mut Plan, world: &World, now: Timestamp) {
    let pods = by_node(world);
    let mut moves = Moves::default();
    for (node, place) in &world.places {
        let here = pods.get(node).map(Vec::as_slice);
        manage(plan, &mut moves, world, node, *place, here, now);
    }
    let gone = pods.iter().filter(|(node, _)| !world.places.contains_key(*node));
    moves.delete.extend(gone.flat_map(|(_, pods)| pods).filter(|p| p.spec().node_name.is_none()).cloned());
    let rolling =
        world.set.spec().update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete");
    if moves.create.is_empty() && moves.delete.is_empty() && rolling {
        let desired = world.places.values().filter(|place| **place == Place::Wanted).count();
        let (surge, unavailable) = limits(&world.set, desired);
        if surge == 0 {
            replace(&mut moves, world, pods, unavailable, now);
        } else {
            surging(&mut moves, world, &pods, surge, desired, now);
        }
    }
    let set = &*world.set;
    for node in moves.create.iter().take(BURST) {
        plan.apply.push(Child::create(&new_pod(set, node, &world.history.hash)).announced_to(set));
    }
    for pod in moves.delete.iter().filter(|pod| !pods::is_deleting(pod)).take(BURST) {
        plan.delete.push(Precondition::of(&**pod));
        let message = format!("Deleted pod: {}", pod.name_any());
        plan.events.push(Note::normal(set, "SuccessfulDelete", "Delete", message));
    }
}

/// Surge and unavailability in nodes; both 0 would never move.
fn limits(set: &DaemonSet, desired: usize) -> (usize, usize) {
    let rolling = set.spec().update_strategy.clone().and_then(|strategy| strategy.rolling_update);
    let rolling = rolling.unwrap_or_default();
    let desired_i32 = i32::try_from(desired).unwrap_or(i32::MAX);
    let count = |value: Option<_>| {
        value.map_or(0, |value| usize::try_from(scaled(&value, desired_i32, true)).unwrap_or(0))
    };
    match (count(rolling.max_surge), count(rolling.max_unavailable)) {
        (0, 0) => (0, 1),
        limits => limits,
    }
}

/// Creates where a pod is missing and deletes what is too much on one node.
fn manage(
    plan: &mut Plan,
    moves: &mut Moves,
    world: &World,
    node: &str,
    place: Place,
    here: Option<&[Arc<Pod>]>,
    now: Timestamp,
) {
    let Some(here) = here else {
        moves.create.extend((place == Place::Wanted).then(|| node.to_owned()));
        return;
    };
    let alive = here.iter().filter(|pod| !pods::is_deleting(pod));
    if place == Place::Unwanted {
        moves.delete.extend(alive.cloned());
        return;
    }
    let (ended, running): (Vec<_>, Vec<_>) = alive.cloned().partition(|pod| pods::is_terminal(pod));
    for pod in ended {
        let (set, name) =
            (&*world.set, format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()));
        if pods::phase(&pod) == "Succeeded" {
            let message = format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
            plan.events.push(Note::normal(set, "SucceededDaemonPod", "Delete", message));
            moves.delete.push(pod);
        } else if let Some(wait) = world.failures.wait(&pod, now) {
            plan.recheck(wait);
        } else {
            let message = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
            plan.events.push(Note::warning(set, "FailedDaemonPod", "Delete", message));
            moves.delete.push(pod);
        }
    }
    if limits(&world.set, 1).0 == 0 {
        moves.delete.extend(running.into_iter().skip(1));
    } else if running.is_empty() {
        moves.create.extend((place == Place::Wanted).then(|| node.to_owned()));
    } else {
        prune_surge(moves, world, running, now);
    }
}

/// While surging a node may have one pod of each version, until the new one can take over.
fn prune_surge(moves: &mut Moves, world: &World, running: Vec<Arc<Pod>>, now: Timestamp) {
    let (mut new, mut old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| is_updated(world, pod));
    moves.delete.extend(new.drain(1.min(new.len())..));
    moves.delete.extend(old.drain(1.min(old.len())..));
    if let (Some(new), Some(old)) = (new.pop(), old.pop())
        && (!pods::is_ready(&old) || is_available(world, &new, now))
    {
        moves.delete.push(old);
    }
}

fn is_available(world: &World, pod: &Pod, now: Timestamp) -> bool {
    pods::is_available(pod, world.set.spec().min_ready_seconds.unwrap_or(0), now)
}

type MaybePod = Option<Arc<Pod>>;

/// The new and the old pod of one node; `None` when there are two of either.
fn versions(world: &World, here: &[Arc<Pod>]) -> Option<(MaybePod, MaybePod)> {
    let alive = here.iter().filter(|pod| !pods::is_deleting(pod)).cloned();
    let (mut new, mut old): (Vec<_>, Vec<_>) = alive.partition(|pod| is_updated(world, pod));
    if new.len() > 1 || old.len() > 1 { None } else { Some((new.pop(), old.pop())) }
}

/// Without surge: deletes old pods, those that serve nobody at once, the others while few enough are
/// unavailable. The next plan creates in their place.
fn replace(
    moves: &mut Moves,
    world: &World,
    mut pods: BTreeMap<String, Vec<Arc<Pod>>>,
    max_unavailable: usize,
    now: Timestamp,
) {
    for (node, place) in &world.places {
        if *place == Place::Wanted {
            pods.entry(node.clone()).or_default();
        }
    }
    let (mut unavailable, mut candidates) = (0, Vec::new());
    for here in pods.values() {
        match versions(world, here) {
            Some((Some(new), None)) => unavailable += usize::from(!is_available(world, &new, now)),
            Some((None, Some(old))) if is_available(world, &old, now) => candidates.push(old),
            Some((None, Some(old))) => {
                moves.delete.push(old);
                unavailable += 1;
            }
            Some((None, None) | (Some(_), Some(_))) | None => unavailable += 1,
        }
    }
    moves.delete.extend(candidates.into_iter().take(max_unavailable.saturating_sub(unavailable)));
}

/// With surge: creates new pods beside old ones, deletes old ones when the new ones are available.
fn surging(
    moves: &mut Moves,
    world: &World,
    pods: &BTreeMap<String, Vec<Arc<Pod>>>,
    max_surge: usize,
    desired: usize,
    now: Timestamp,
) {
    let (mut surge, mut available) = (0, 0);
    let (mut candidates, mut leaving) = (Vec::new(), Vec::new());
    for (node, here) in pods {
        let Some((new, old)) = versions(world, here) else {
            surge += 1;
            continue;
        };
        let serves = old.as_ref().or(new.as_ref()).is_some_and(|pod| is_available(world, pod, now));
        available += usize::from(serves);
        let wanted = world.places.get(node) == Some(&Place::Wanted);
        match (new, old) {
            (_, None) => {}
            (None, Some(_)) if wanted && !serves => moves.create.push(node.clone()),
            (None, Some(_)) if wanted => candidates.push(node.clone()),
            (None, Some(old)) if serves => leaving.push(old),
            (None, Some(old)) => moves.delete.push(old),
            (Some(new), Some(old)) if is_available(world, &new, now) => moves.delete.push(old),
            (Some(_), Some(_)) => surge += 1,
        }
    }
    // Where the set no longer belongs, the old pod serves until enough others do.
    moves.delete.extend(leaving.into_iter().take(available.saturating_sub(desired)));
    moves.create.extend(candidates.into_iter().take(max_surge.saturating_sub(surge)));
}
