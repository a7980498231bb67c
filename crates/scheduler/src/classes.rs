//! Reuse of answers between pods that are alike (after KEP-5598, opportunistic batching).
//!
//! Guarantees: gives exactly what [`decide()`] gives for the same snapshot; the next pod like the last
//! one costs a look at the nodes that changed in between. Where other pods matter (spread, affinity) their
//! counters are kept up from the journal, and a change in them costs one cheap look at every node. Bounded:
//! the class used longest ago is dropped. Pods with claims and pods that have or want a certain node are
//! decided afresh each time.

use std::{
    collections::{BinaryHeap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use crate::{
    decide::{Decision, Evaluation, Rank, Unfit, decide, place, refusal_beside_nominees, unfit},
    neighbours::Neighbours,
    plugins::Cycle,
    pod::{PodInfo, Shape},
    preempt::{NoRoom, Room, preempt},
    profile::Profile,
    relations::{Labels, Relations},
    snapshot::{Mark, Slot, Snapshot, Turn},
};

/// Classes kept: about 100 bytes a node each, so some 30 MB with 5,000 nodes.
const CLASSES_MAX: usize = 64;

/// Answers by class. Belongs to one snapshot and one profile.
#[derive(Debug, Default)]
pub struct Classes {
    classes: HashMap<Key, Class>,
    uses: u64,
    hopeless: Option<Hopeless>,
}

/// Pods for which no room could be made: the same answer for the next of them.
#[derive(Debug)]
struct Hopeless {
    why: Arc<Unfit>,
    priority: i32,
    preempts: bool,
    told: Arc<Unfit>,
}

/// What makes pods alike.
#[derive(Clone, Debug)]
struct Key {
    hash: u64,
    shape: Arc<Shape>,
    social: Option<Social>,
}

/// What other pods see of a pod, and what it says about them.
#[derive(Clone, Debug, PartialEq)]
struct Social {
    namespace: String,
    labels: Arc<Labels>,
    relations: Option<Arc<Relations>>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.shape == other.shape && self.social == other.social
    }
}

/// Relations hold no floats, so that every value equals itself.
impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Key {
    fn of(pod: &PodInfo, snapshot: &Snapshot, profile: &Profile) -> Self {
        let relations = snapshot.relations_of(pod, profile);
        let social = (relations.is_some() || snapshot.has_terms()).then(|| Social {
            namespace: pod.key.namespace.clone(),
            labels: Arc::clone(&pod.labels),
            relations,
        });
        let mut hasher = DefaultHasher::new();
        pod.shape_hash.hash(&mut hasher);
        if let Some(social) = &social {
            (&social.namespace, &social.labels, social.relations.is_some()).hash(&mut hasher);
        }
        Self { hash: hasher.finish(), shape: Arc::clone(&pod.shape), social }
    }
}

#[derive(Debug, Default)]
struct Class {
    seen: Mark,
    neighbours: Option<Neighbours>,
    evaluation: Evaluation,
    current: Vec<Option<Rank>>,
    best_first: BinaryHeap<Rank>,
    unfit: Option<(i32, Arc<Unfit>)>,
    used_at: u64,
}

impl Classes {
    /// The same answer as [`decide()`], sooner.
    pub fn decide(&mut self, pod: &PodInfo, snapshot: &Snapshot, profile: &Profile) -> Decision {
        let alone = !pod.shape.claims.is_empty() || pod.node_name.is_some() || pod.nominated.is_some();
        if alone || !pod.shape.unsupported.is_empty() {
            return decide(pod, snapshot, profile);
        }
        self.uses += 1;
        let key = Key::of(pod, snapshot, profile);
        if !self.classes.contains_key(&key) {
            self.make_room();
            self.classes.insert(key.clone(), Class::default());
        }
        let Some(class) = self.classes.get_mut(&key) else { return decide(pod, snapshot, profile) };
        class.used_at = self.uses;
        class.decide(pod, snapshot, profile).unwrap_or_else(|| decide(pod, snapshot, profile))
    }

    /// The same as [`preempt()`], sooner for many alike pods that no room can be made for; `Err` has the
    /// reasons with what came of it.
    pub fn preempt(
        &mut self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        profile: &Profile,
        why: &Arc<Unfit>,
    ) -> Result<Room, Arc<Unfit>> {
        let alike = |known: &&Hopeless| {
            Arc::ptr_eq(&known.why, why)
                && (known.priority, known.preempts) == (pod.priority, pod.preempts)
                && pod.nominated.is_none()
        };
        if let Some(known) = self.hopeless.as_ref().filter(alike) {
            return Err(Arc::clone(&known.told));
        }
        match preempt(pod, snapshot, profile, why) {
            Ok(room) => Ok(room),
            Err(NoRoom::Off) => Err(Arc::clone(why)),
            Err(no @ (NoRoom::NotNow(_) | NoRoom::Hopeless(_))) => {
                let no_room = matches!(no, NoRoom::Hopeless(_));
                let (NoRoom::NotNow(sentence) | NoRoom::Hopeless(sentence)) = no else {
                    return Err(Arc::clone(why));
                };
                let told = Arc::new(Unfit { preemption: Some(sentence), no_room, ..Unfit::clone(why) });
                self.hopeless = Some(Hopeless {
                    why: Arc::clone(why),
                    priority: pod.priority,
                    preempts: pod.preempts,
                    told: Arc::clone(&told),
                });
                Err(told)
            }
        }
    }

    fn make_room(&mut self) {
        while self.classes.len() >= CLASSES_MAX {
            let oldest = self.classes.iter().min_by_key(|(_, class)| class.used_at);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { return };
            self.classes.remove(&key);
        }
    }
}

impl Class {
    /// `None` when the class cannot answer, which [`decide()`] then explains.
    fn decide(&mut self, pod: &PodInfo, snapshot: &Snapshot, profile: &Profile) -> Option<Decision> {
        let social_change = self.listen(pod, snapshot, profile);
        let neighbours = self.neighbours.take();
        let cycle = Cycle::start(pod, snapshot, profile, neighbours.as_ref()).ok()?;
        self.catch_up(&cycle, profile, pod.shape_hash, social_change);
        let room = |slot: Slot| refusal_beside_nominees(&cycle, pod, profile, slot).is_none();
        let decision = match self.best(room) {
            Some(best) => place(&cycle, best.slot, best.score, self.evaluation.feasible),
            None => {
                let known = self.unfit.take().filter(|(priority, _)| *priority == pod.priority);
                let why = known.map_or_else(|| Arc::new(unfit(&cycle, pod, profile)), |(_, why)| why);
                self.unfit = Some((pod.priority, Arc::clone(&why)));
                Decision::Unfit(why)
            }
        };
        drop(cycle);
        self.neighbours = neighbours;
        Some(decision)
    }

    /// Brings the counters of other pods up to date. Returns whether an answer may have changed with them.
    fn listen(&mut self, pod: &PodInfo, snapshot: &Snapshot, profile: &Profile) -> bool {
        let Some(changed) = snapshot.changed_since(self.seen) else {
            self.neighbours = Neighbours::of(pod, snapshot, profile);
            return true;
        };
        let Some(neighbours) = &mut self.neighbours else { return false };
        let mut any = false;
        for (tenant, turn) in changed.filter_map(|touch| touch.pod.as_ref()) {
            any |= match turn {
                Turn::Came => neighbours.add(tenant, snapshot),
                Turn::Went => neighbours.remove(tenant, snapshot),
            };
        }
        any
    }

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

    fn catch_up(&mut self, cycle: &Cycle<'_>, profile: &Profile, shape: u64, social_change: bool) {
        let now = cycle.snapshot.mark();
        if self.seen == now {
            return;
        }
        self.unfit = None;
        let Some(changed) = cycle.snapshot.changed_since(self.seen) else {
            return self.rebuild(cycle, profile, shape);
        };
        let mut rerank = social_change || self.best_first.len() > 2 * self.current.len() + 64;
        for touch in changed {
            let slot = touch.slot;
            rerank |= self.evaluation.refresh(cycle, profile, slot);
            let rank = self.evaluation.rank(cycle, profile, shape, slot);
            if let Some(current) = self.current.get_mut(slot)
                && *current != rank
            {
                *current = rank;
                self.best_first.extend(rank);
            }
        }
        if social_change {
            self.evaluation.refresh_cluster(cycle, profile);
        }
        if rerank {
            self.rerank(cycle, profile, shape);
        }
        self.seen = now;
    }

    /// The best rank that is still true and has room; false ones are dropped on the way.
    fn best(&mut self, room: impl Fn(Slot) -> bool) -> Option<Rank> {
        let mut passed = Vec::new();
        let mut best = None;
        while let Some(top) = self.best_first.peek() {
            let top = *top;
            let current = self.current.get(top.slot) == Some(&Some(top));
            if current && room(top.slot) {
                best = Some(top);
                break;
            }
            self.best_first.pop();
            if current {
                passed.push(top);
            }
        }
        self.best_first.extend(passed);
        best
    }
}
