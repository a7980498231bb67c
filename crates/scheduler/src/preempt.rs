//! Making room: which pods of lower priority go, so that one of higher priority fits (upstream
//! `plugins/defaultpreemption` and `framework/preemption`).
//!
//! Guarantees: a pure function; no pod of equal or higher priority is ever chosen; with the victims gone
//! the pod fits, beside those that are nominated for the node; among the nodes tried, one where no budget
//! is broken wins over any where one is. On a node as few pods go as can: the most important are spared
//! first, those whose budget would break before others.

use std::{cmp::Reverse, sync::Arc};

use meta::{ObjectKey, Timestamp};

use crate::{
    decide::{Unfit, first_refusal, mix, refusal_beside_nominees},
    neighbours::Neighbours,
    plugins::{Cycle, Reasons, Wake},
    pod::PodInfo,
    profile::{PreemptionArgs, Profile},
    snapshot::{Slot, Snapshot, Tenant},
    trial::Trial,
};

/// Who goes where for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The node.
    pub node: Arc<str>,
    /// Pods to be deleted, the most important first; not empty.
    pub victims: Vec<Victim>,
    /// Pods of lower priority that were nominated for the node and are not any more, with their UIDs.
    pub displaced: Vec<(ObjectKey, Arc<str>)>,
}

/// A pod that has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: Arc<str>,
    /// Its deletion has begun already.
    pub deleting: bool,
}

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// Why no room is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The profile does not do that, or there are no nodes.
    Off,
    /// The pod may not, or has to wait for room that is being made: a sentence.
    NotNow(String),
    /// It would not help: a sentence.
    Hopeless(String),
}

/// Chooses a node and its victims for a pod that fits nowhere, or says why not.
pub fn preempt(pod: &PodInfo, snapshot: &Snapshot, profile: &Profile, why: &Unfit) -> Result<Room, NoRoom> {
    let Some(args) = profile.preemption.filter(|_| why.nodes > 0) else { return Err(NoRoom::Off) };
    ineligible(pod, snapshot, why)?;
    let mut failure = Unfit::of(why.nodes, Wake::NOTHING);
    let mut note = |reason: crate::Reason, nodes: usize| {
        if nodes > 0 {
            *failure.reasons.entry(reason).or_default() += nodes;
        }
    };
    note(NOT_HELPFUL.into(), why.nodes.saturating_sub(why.curable.len()));
    if snapshot.lowest_priority().is_none_or(|lowest| lowest >= pod.priority) {
        note(NO_VICTIMS.into(), why.curable.len());
        return Err(NoRoom::Hopeless(failure.to_string()));
    }
    let mut attempt = Attempt { pod, snapshot, profile, neighbours: Neighbours::of(pod, snapshot, profile) };
    let mut found: Vec<Candidate> = Vec::new();
    for slot in order(pod, profile, &why.curable).filter_map(|node| snapshot.slot(node)) {
        match attempt.victims(slot) {
            Ok(candidate) => found.push(candidate),
            Err(reasons) => reasons.into_iter().for_each(|reason| note(reason, 1)),
        }
        if found.len() >= enough(args, why.curable.len()) && found.iter().any(|c| c.broken == 0) {
            break;
        }
    }
    let best = found.into_iter().min_by_key(Candidate::cost);
    best.and_then(|candidate| candidate.room(pod, snapshot))
        .ok_or_else(|| NoRoom::Hopeless(failure.to_string()))
}

/// Whether the pod may not make room now (upstream `PodEligibleToPreemptOthers`).
fn ineligible(pod: &PodInfo, snapshot: &Snapshot, why: &Unfit) -> Result<(), NoRoom> {
    if !pod.preempts {
        return Err(NoRoom::NotNow("not eligible due to preemptionPolicy=Never.".into()));
    }
    let nominated = snapshot.nominees().node_of(&pod.uid).or(pod.nominated.as_ref());
    if let Some(node) = nominated
        && let Some(slot) = snapshot.slot(node)
        && why.curable.contains(node)
        && snapshot.tenants_at(slot).iter().any(|t| t.priority < pod.priority && t.preempted)
    {
        return Err(NoRoom::NotNow("not eligible due to a terminating pod on the nominated node.".into()));
    }
    Ok(())
}

/// How many candidates are enough to choose from.
fn enough(args: PreemptionArgs, nodes: usize) -> usize {
    (nodes * args.candidates_percent / 100).max(args.candidates_min)
}

/// The nodes to try, from a place that chance gives, so that not all look at the same ones.
fn order<'a>(
    pod: &PodInfo,
    profile: &Profile,
    nodes: &'a [Arc<str>],
) -> impl Iterator<Item = &'a Arc<str>> + 'a {
    let hash = pod.uid.bytes().fold(profile.seed, |hash, byte| mix(hash ^ u64::from(byte)));
    let from = usize::try_from(hash).unwrap_or_default().checked_rem(nodes.len()).unwrap_or_default();
    nodes.iter().cycle().skip(from).take(nodes.len())
}

/// A node with its victims.
#[derive(Debug)]
struct Candidate {
    slot: Slot,
    /// The most important first.
    victims: Vec<Arc<Tenant>>,
    /// How many of them break a budget.
    broken: usize,
}

impl Candidate {
    /// Upstream's order: fewest broken budgets, the lowest highest priority, the lowest sum of priorities,
    /// fewest victims, and the one whose most important victims started last.
    fn cost(&self) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
        let highest = self.victims.first().map_or(i32::MIN, |t| t.priority);
        // Shifted, so that more victims of negative priority cost more too.
        let sum = self.victims.iter().map(|t| i64::from(t.priority) - i64::from(i32::MIN)).sum();
        let top = self.victims.iter().filter(|t| t.priority == highest);
        let earliest = top.map(|t| t.started).min().unwrap_or_default();
        (self.broken, highest, sum, self.victims.len(), Reverse(earliest))
    }

    fn room(self, pod: &PodInfo, snapshot: &Snapshot) -> Option<Room> {
        let node = Arc::clone(snapshot.name(self.slot)?);
        let below = snapshot.nominees().at(&node).iter().filter(|other| other.priority < pod.priority);
        let displaced = below.map(|other| (other.key.clone(), Arc::clone(&other.uid))).collect();
        let victims = self.victims.iter().map(|t| Victim {
            key: t.key.clone(),
            uid: Arc::clone(&t.uid),
            deleting: t.deleting,
        });
        Some(Room { victims: victims.collect(), node, displaced })
    }
}

struct Attempt<'a> {
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    profile: &'a Profile,
    neighbours: Option<Neighbours>,
}

impl Attempt<'_> {
    /// The victims of a node, or why there are none (upstream `SelectVictimsOnNode`). The counters of
    /// neighbours are left as they were.
    fn victims(&mut self, slot: Slot) -> Result<Candidate, Reasons> {
        let mut lower: Vec<Arc<Tenant>> = self
            .snapshot
            .tenants_at(slot)
            .iter()
            .filter(|t| t.priority < self.pod.priority)
            .map(Arc::clone)
            .collect();
        if lower.is_empty() {
            return Err(vec![NO_VICTIMS.into()]);
        }
        lower.sort_by(|a, b| {
            let rank = |t: &Tenant| (Reverse(t.priority), t.started);
            rank(a).cmp(&rank(b)).then_with(|| a.uid.cmp(&b.uid))
        });
        let mut trial = Trial::of(self.snapshot, slot);
        for tenant in &lower {
            self.take(&mut trial, tenant);
        }
        if let Some(reasons) = self.refusal(&trial) {
            for tenant in &lower {
                self.spare(&mut trial, tenant);
            }
            return Err(reasons);
        }
        let breaks = self.snapshot.budgets.broken_by(lower.iter().map(|t| &**t));
        let mut goes = vec![false; lower.len()];
        for first in [true, false] {
            for ((tenant, breaks), goes) in lower.iter().zip(&breaks).zip(&mut goes) {
                if *breaks == first {
                    self.spare(&mut trial, tenant);
                    if self.refusal(&trial).is_some() {
                        self.take(&mut trial, tenant);
                        *goes = true;
                    }
                }
            }
        }
        let broken = breaks.iter().zip(&goes).filter(|(breaks, goes)| **breaks && **goes).count();
        let victims: Vec<Arc<Tenant>> =
            lower.into_iter().zip(goes).filter(|(_, goes)| *goes).map(|(tenant, _)| tenant).collect();
        for tenant in &victims {
            self.spare(&mut trial, tenant);
        }
        if victims.is_empty() {
            Err(vec![NO_VICTIMS.into()])
        } else {
            Ok(Candidate { slot, victims, broken })
        }
    }

    fn take(&mut self, trial: &mut Trial, tenant: &Tenant) {
        trial.remove(&tenant.shape);
        if let Some(neighbours) = &mut self.neighbours {
            neighbours.remove(tenant, self.snapshot);
        }
    }

    fn spare(&mut self, trial: &mut Trial, tenant: &Tenant) {
        trial.add(&tenant.shape);
        if let Some(neighbours) = &mut self.neighbours {
            neighbours.add(tenant, self.snapshot);
        }
    }

    fn refusal(&self, trial: &Trial) -> Option<Reasons> {
        let neighbours = self.neighbours.as_ref();
        let cycle = match Cycle::start(self.pod, self.snapshot, self.profile, neighbours) {
            Ok(cycle) => cycle,
            Err(refusal) => return Some(vec![refusal.reason]),
        };
        let cycle = cycle.trying(trial, neighbours);
        first_refusal(&cycle, self.profile, trial.slot)
            .or_else(|| refusal_beside_nominees(&cycle, self.pod, self.profile, trial.slot))
            .map(|(_, why)| why.reasons)
    }
}

#[cfg(test)]
mod tests;
