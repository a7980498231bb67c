//! Reuse of answers between pods of equal shape (after KEP-5598, opportunistic batching).
//!
//! Guarantees: gives exactly what [`decide()`] gives for the same snapshot; the next pod like the last
//! one costs a look at the nodes that changed in between. Bounded: the class used longest ago is
//! dropped. Pods with claims, pods that name a node, and pods for which other pods matter are decided
//! afresh each time.

use std::{
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

use crate::{
    decide::{Decision, Evaluation, Rank, Unfit, decide, place, unfit},
    plugins::Cycle,
    pod::{PodInfo, Shape},
    profile::Profile,
    snapshot::{Mark, Slot, Snapshot},
};

/// Classes kept: about 60 bytes a node each, so some 20 MB with 5,000 nodes.
const CLASSES_MAX: usize = 64;

/// Answers by shape. Belongs to one snapshot and one profile.
#[derive(Debug, Default)]
pub struct Classes {
    classes: HashMap<Arc<Shape>, Class>,
    uses: u64,
}

#[derive(Debug, Default)]
struct Class {
    seen: Mark,
    evaluation: Evaluation,
    current: Vec<Option<Rank>>,
    best_first: BinaryHeap<Rank>,
    unfit: Option<Arc<Unfit>>,
    used_at: u64,
}

impl Classes {
    /// The same answer as [`decide()`], sooner.
    pub fn decide(&mut self, pod: &PodInfo, snapshot: &Snapshot, profile: &Profile) -> Decision {
        if !pod.shape.claims.is_empty() || pod.node_name.is_some() {
            return decide(pod, snapshot, profile);
        }
        let Some(cycle) = Cycle::start(pod, snapshot).ok().filter(|cycle| cycle.neighbours.is_none()) else {
            return decide(pod, snapshot, profile);
        };
        self.uses += 1;
        if !self.classes.contains_key(&pod.shape) {
            self.make_room();
            let mut class = Class::default();
            class.rebuild(&cycle, profile, pod.shape_hash);
            self.classes.insert(Arc::clone(&pod.shape), class);
        }
        let Some(class) = self.classes.get_mut(&pod.shape) else { return decide(pod, snapshot, profile) };
        class.used_at = self.uses;
        class.catch_up(&cycle, profile, pod.shape_hash);
        match class.best() {
            Some(best) => place(&cycle, best, class.evaluation.feasible),
            None => {
                let why = class.unfit.get_or_insert_with(|| Arc::new(unfit(&cycle, profile)));
                Decision::Unfit(Arc::clone(why))
            }
        }
    }

    fn make_room(&mut self) {
        while self.classes.len() >= CLASSES_MAX {
            let oldest = self.classes.iter().min_by_key(|(_, class)| class.used_at);
            let Some(shape) = oldest.map(|(shape, _)| Arc::clone(shape)) else { return };
            self.classes.remove(&shape);
        }
    }
}

impl Class {
    fn rebuild(&mut self, cycle: &Cycle<'_>, profile: &Profile, shape: u64) {
        self.evaluation = Evaluation::of_all(cycle, profile);
        self.rerank(cycle, profile, shape);
        self.seen = cycle.snapshot.mark();
        self.unfit = None;
    }

    fn rerank(&mut self, cycle: &Cycle<'_>, profile: &Profile, shape: u64) {
        let rank = |slot: Slot| self.evaluation.rank(cycle, profile, shape, slot);
        self.current = (0..cycle.snapshot.slots_end()).map(rank).collect();
        self.best_first = self.current.iter().flatten().copied().collect();
    }

    fn catch_up(&mut self, cycle: &Cycle<'_>, profile: &Profile, shape: u64) {
        let now = cycle.snapshot.mark();
        if self.seen == now {
            return;
        }
        self.unfit = None;
        let Some(changed) = cycle.snapshot.changed_since(self.seen) else {
            return self.rebuild(cycle, profile, shape);
        };
        let mut rerank = self.best_first.len() > 2 * self.current.len() + 64;
        for slot in changed {
            rerank |= self.evaluation.refresh(cycle, profile, slot);
            let rank = self.evaluation.rank(cycle, profile, shape, slot);
            if let Some(current) = self.current.get_mut(slot)
                && *current != rank
            {
                *current = rank;
                self.best_first.extend(rank);
            }
        }
        if rerank {
            self.rerank(cycle, profile, shape);
        }
        self.seen = now;
    }

    /// The best rank that is still true; the others are dropped on the way.
    fn best(&mut self) -> Option<Rank> {
        while let Some(top) = self.best_first.peek() {
            if self.current.get(top.slot) == Some(&Some(*top)) {
                return Some(*top);
            }
            self.best_first.pop();
        }
        None
    }
}
