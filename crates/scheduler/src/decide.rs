//! Where a pod goes, and why not elsewhere.

use std::{cmp::Reverse, collections::BTreeMap, fmt, sync::Arc};

use crate::{
    neighbours::Neighbours,
    plugins::{Cycle, Filter, Normalize, Reach, Reason, Reasons, Refusal, Refused, SCORE_MAX, Score, Wake},
    pod::PodInfo,
    profile::Profile,
    snapshot::{Slot, Snapshot, Tenant},
    trial::Trial,
    volumes::Bindings,
};

/// The answer for one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes here.
    Place(Placement),
    /// It fits nowhere.
    Unfit(Arc<Unfit>),
}

/// A node for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The node.
    pub node: Arc<str>,
    /// Its weighted score; 0 on a node that was nominated for the pod, which is not compared with others.
    pub score: i64,
    /// How many nodes would have done.
    pub feasible: usize,
    /// What to write for the pod's claims first.
    pub bindings: Bindings,
}

/// Why a pod fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Number of nodes looked at.
    pub nodes: usize,
    /// What stands against every node alike.
    pub refusal: Option<Reason>,
    /// Reasons, with the number of nodes each holds for.
    pub reasons: BTreeMap<Reason, usize>,
    /// Events that could change the answer.
    pub wake: Wake,
    /// Filters that refused a node.
    pub by: Vec<&'static str>,
    /// Nodes where fewer pods could help, in order of names.
    pub curable: Vec<Arc<str>>,
    /// What came of making room, a sentence.
    pub preemption: Option<String>,
    /// No room can be made: a nomination of the pod is void.
    pub no_room: bool,
}

/// Upstream's `FitError`: `0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.`
impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 && self.refusal.is_none() {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if let Some(refusal) = &self.refusal {
            write!(f, " {refusal}.")?;
        } else if !self.reasons.is_empty() {
            let mut counted: Vec<String> = self.reasons.iter().map(|(why, n)| format!("{n} {why}")).collect();
            counted.sort();
            write!(f, " {}.", counted.join(", "))?;
        }
        match &self.preemption {
            Some(sentence) => write!(f, " preemption: {sentence}"),
            None => Ok(()),
        }
    }
}

impl Unfit {
    /// Nothing said yet about a cluster of so many nodes.
    pub(crate) fn of(nodes: usize, wake: Wake) -> Self {
        Self {
            nodes,
            refusal: None,
            reasons: BTreeMap::new(),
            wake,
            by: Vec::new(),
            curable: Vec::new(),
            preemption: None,
            no_room: false,
        }
    }
}

/// Places `pod`. A pure function: the same nodes, pods, volumes and profile give the same answer,
/// whatever the order of the events that led there.
pub fn decide(pod: &PodInfo, snapshot: &Snapshot, profile: &Profile) -> Decision {
    let neighbours = Neighbours::of(pod, snapshot, profile);
    let cycle = match Cycle::start(pod, snapshot, profile, neighbours.as_ref()) {
        Ok(cycle) => cycle,
        Err(Refusal { reason, wake }) => {
            let refused = Unfit { refusal: Some(reason), ..Unfit::of(snapshot.nodes(), wake) };
            return Decision::Unfit(Arc::new(refused));
        }
    };
    if let Some(slot) = pod.nominated.as_deref().and_then(|node| snapshot.slot(node))
        && first_refusal(&cycle, profile, slot).is_none()
        && refusal_beside_nominees(&cycle, pod, profile, slot).is_none()
    {
        return place(&cycle, slot, 0, 1);
    }
    let evaluation = Evaluation::of_all(&cycle, profile);
    let ranks = snapshot.slots().filter_map(|slot| evaluation.rank(&cycle, profile, pod.shape_hash, slot));
    let room = |rank: &Rank| refusal_beside_nominees(&cycle, pod, profile, rank.slot).is_none();
    match ranks.filter(room).max() {
        Some(best) => place(&cycle, best.slot, best.score, evaluation.feasible),
        None => Decision::Unfit(Arc::new(unfit(&cycle, pod, profile))),
    }
}

/// The first filter that refuses a node, and why.
pub(crate) fn first_refusal<'p>(
    cycle: &Cycle<'_>,
    profile: &'p Profile,
    slot: Slot,
) -> Option<(&'p Filter, Refused)> {
    profile.filters.iter().find_map(|filter| (filter.check)(cycle, slot).err().map(|why| (filter, why)))
}

/// The same with the pods that are nominated for the node and that this one must leave room for (upstream
/// `RunFilterPluginsWithNominatedPods`); `None` when there are none.
pub(crate) fn refusal_beside_nominees<'p>(
    cycle: &Cycle<'_>,
    pod: &PodInfo,
    profile: &'p Profile,
    slot: Slot,
) -> Option<(&'p Filter, Refused)> {
    let snapshot = cycle.snapshot;
    let nominees = snapshot.nominees();
    if nominees.is_empty() {
        return None;
    }
    let mut before = nominees.before(pod, snapshot.name(slot)?).peekable();
    before.peek()?;
    let known = cycle.trial.filter(|trial| trial.slot == slot);
    let mut trial = known.cloned().unwrap_or_else(|| Trial::of(snapshot, slot));
    let mut neighbours = cycle.neighbours.cloned();
    for other in before {
        trial.add(&other.shape);
        if let Some(neighbours) = &mut neighbours {
            neighbours.add(&Tenant::imagined(other, slot), snapshot);
        }
    }
    first_refusal(&cycle.trying(&trial, neighbours.as_ref()), profile, slot)
}

/// What every plugin says of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The node.
    pub node: Arc<str>,
    /// Filters that refuse it, with their reasons.
    pub refused: Vec<(&'static str, Reasons)>,
    /// Scores by plugin, normalized and weighted; empty when refused.
    pub scores: Vec<(&'static str, i64)>,
}

/// What every plugin says of every node, in order of names; or what stands against all of them.
pub fn explain(pod: &PodInfo, snapshot: &Snapshot, profile: &Profile) -> Result<Vec<Verdict>, Reason> {
    let neighbours = Neighbours::of(pod, snapshot, profile);
    let cycle =
        Cycle::start(pod, snapshot, profile, neighbours.as_ref()).map_err(|refusal| refusal.reason)?;
    let evaluation = Evaluation::of_all(&cycle, profile);
    let mut verdicts: Vec<Verdict> = snapshot
        .slots()
        .filter_map(|slot| {
            let check = |f: &Filter| (f.check)(&cycle, slot).err().map(|why| (f.name, why.reasons));
            let mut refused: Vec<_> = profile.filters.iter().filter_map(check).collect();
            if refused.is_empty()
                && let Some((filter, why)) = refusal_beside_nominees(&cycle, pod, profile, slot)
            {
                refused.push((filter.name, why.reasons));
            }
            let scores =
                if refused.is_empty() { evaluation.weighted(profile, slot).collect() } else { Vec::new() };
            Some(Verdict { node: Arc::clone(snapshot.name(slot)?), refused, scores })
        })
        .collect();
    verdicts.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(verdicts)
}

/// Which of two feasible nodes is better: the higher score, then fewer pods (so that many small
/// alike pods spread even where a pod does not move the score), then chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) score: i64,
    pods: Reverse<i64>,
    tie: u64,
    pub(crate) slot: Slot,
}

/// The answers of filters and scores for every node, kept so that a change of one node costs one node.
#[derive(Debug, Default)]
pub(crate) struct Evaluation {
    described: Vec<bool>,
    /// As far as the node itself goes, other objects aside.
    roomy: Vec<bool>,
    fits: Vec<bool>,
    raw: Vec<i64>,
    largest: Vec<i64>,
    smallest: Vec<i64>,
    pub(crate) feasible: usize,
}

impl Evaluation {
    /// Asks every plugin about every node.
    pub(crate) fn of_all(cycle: &Cycle<'_>, profile: &Profile) -> Self {
        let end = cycle.snapshot.slots_end();
        let width = profile.scores.len();
        let mut all = Self {
            described: vec![false; end],
            roomy: vec![false; end],
            fits: vec![false; end],
            raw: vec![0; end * width],
            largest: vec![0; width],
            smallest: vec![0; width],
            feasible: 0,
        };
        for slot in cycle.snapshot.slots() {
            let passes = |reach: fn(Reach) -> bool| {
                let mut filters = profile.filters.iter().filter(|f| reach(f.reach));
                filters.all(|f| (f.check)(cycle, slot).is_ok())
            };
            let described = passes(|r| r == Reach::Nodes);
            let roomy = described && passes(|r| r == Reach::Usage);
            let fits = roomy && passes(|r| r == Reach::Cluster);
            for (column, value) in
                [(&mut all.described, described), (&mut all.roomy, roomy), (&mut all.fits, fits)]
            {
                if let Some(cell) = column.get_mut(slot) {
                    *cell = value;
                }
            }
            if fits {
                all.feasible += 1;
            }
            // A node that is full now may fit later; its description is scored with the others.
            if described {
                all.score(cycle, &profile.scores, slot, |_| true);
            }
        }
        all.measure(cycle);
        all
    }

    /// Asks again about one node whose use changed. Returns whether the ranks of other nodes may have
    /// changed with it.
    pub(crate) fn refresh(&mut self, cycle: &Cycle<'_>, profile: &Profile, slot: Slot) -> bool {
        if !is(&self.described, slot) {
            return false;
        }
        let passes = |reach: Reach| {
            profile.filters.iter().filter(|f| f.reach == reach).all(|f| (f.check)(cycle, slot).is_ok())
        };
        let roomy = passes(Reach::Usage);
        let fits = roomy && passes(Reach::Cluster);
        if let Some(cell) = self.roomy.get_mut(slot) {
            *cell = roomy;
        }
        // A node with room that other pods speak against is feasible as soon as they do not: what it says of
        // its own use must be true by then.
        if roomy {
            self.score(cycle, &profile.scores, slot, |reach| {
                reach == Reach::Usage || (fits && reach == Reach::Cluster)
            });
        }
        let Some(before) = self.fits.get_mut(slot) else { return false };
        if *before == fits {
            return false;
        }
        *before = fits;
        self.feasible = if fits { self.feasible + 1 } else { self.feasible.saturating_sub(1) };
        let old = (self.smallest.clone(), self.largest.clone());
        let row = self.row(slot);
        let bounds = self.smallest.iter().zip(&self.largest);
        let at_edge =
            profile.scores.iter().zip(row).zip(bounds).any(|((score, raw), (smallest, largest))| {
                score.normalize != Normalize::No && (raw >= largest || raw <= smallest)
            });
        if at_edge {
            self.measure(cycle);
        }
        (&self.smallest, &self.largest) != (&old.0, &old.1)
    }

    /// Asks about every node again what depends on other objects, after they changed.
    pub(crate) fn refresh_cluster(&mut self, cycle: &Cycle<'_>, profile: &Profile) {
        self.feasible = 0;
        for slot in cycle.snapshot.slots() {
            if !is(&self.described, slot) {
                continue;
            }
            let mut filters = profile.filters.iter().filter(|f| f.reach == Reach::Cluster);
            let fits = is(&self.roomy, slot) && filters.all(|f| (f.check)(cycle, slot).is_ok());
            if let Some(cell) = self.fits.get_mut(slot) {
                *cell = fits;
            }
            if fits {
                self.feasible += 1;
                self.score(cycle, &profile.scores, slot, |reach| reach == Reach::Cluster);
            }
        }
        self.measure(cycle);
    }

    /// The rank of a node, if it is feasible.
    pub(crate) fn rank(&self, cycle: &Cycle<'_>, profile: &Profile, shape: u64, slot: Slot) -> Option<Rank> {
        is(&self.fits, slot).then(|| Rank {
            score: self.weighted(profile, slot).map(|(_, score)| score).sum(),
            pods: Reverse(cycle.snapshot.used(slot).pods),
            tie: mix(cycle.snapshot.name_hash(slot) ^ shape ^ profile.seed),
            slot,
        })
    }

    fn weighted<'a>(
        &'a self,
        profile: &'a Profile,
        slot: Slot,
    ) -> impl Iterator<Item = (&'static str, i64)> + 'a {
        let bounds = self.smallest.iter().zip(&self.largest);
        profile.scores.iter().zip(self.row(slot)).zip(bounds).map(|((score, &raw), (&smallest, &largest))| {
            let share = |raw: i64| if largest == 0 { 0 } else { SCORE_MAX * raw / largest };
            let normal = match score.normalize {
                Normalize::No => raw,
                Normalize::Proportional => share(raw),
                Normalize::Inverted => SCORE_MAX - share(raw),
                Normalize::Range if largest == smallest => 0,
                Normalize::Range => SCORE_MAX * (raw - smallest) / (largest - smallest),
                Normalize::Crowd if raw < 0 => 0,
                Normalize::Crowd if largest <= 0 => SCORE_MAX,
                Normalize::Crowd => share(largest + smallest.max(0) - raw),
            };
            (score.name, normal * score.weight)
        })
    }

    fn row(&self, slot: Slot) -> &[i64] {
        let width = self.largest.len();
        self.raw.get(slot * width..(slot + 1) * width).unwrap_or_default()
    }

    fn score(&mut self, cycle: &Cycle<'_>, scores: &[Score], slot: Slot, which: impl Fn(Reach) -> bool) {
        let width = scores.len();
        let Some(row) = self.raw.get_mut(slot * width..(slot + 1) * width) else { return };
        for (cell, score) in row.iter_mut().zip(scores).filter(|(_, score)| which(score.reach)) {
            *cell = (score.score)(cycle, slot);
        }
    }

    /// Finds the smallest and largest raw score of each plugin among feasible nodes.
    fn measure(&mut self, cycle: &Cycle<'_>) {
        let mut bounds = vec![None; self.largest.len()];
        for slot in cycle.snapshot.slots().filter(|&slot| is(&self.fits, slot)) {
            for (bound, raw) in bounds.iter_mut().zip(self.row(slot)) {
                let (smallest, largest) = bound.get_or_insert((*raw, *raw));
                *smallest = i64::min(*smallest, *raw);
                *largest = i64::max(*largest, *raw);
            }
        }
        (self.smallest, self.largest) = bounds.into_iter().map(Option::unwrap_or_default).unzip();
    }
}

fn is(column: &[bool], slot: Slot) -> bool {
    column.get(slot).copied().unwrap_or_default()
}

/// Turns the best node into an answer.
pub(crate) fn place(cycle: &Cycle<'_>, slot: Slot, score: i64, feasible: usize) -> Decision {
    let bindings = cycle
        .snapshot
        .node(slot)
        .and_then(|n| cycle.snapshot.volumes.fit(&cycle.claims, &n.name, &n.labels).ok())
        .unwrap_or_default();
    let node = cycle.snapshot.name(slot).map(Arc::clone).unwrap_or_default();
    Decision::Place(Placement { node, score, feasible, bindings })
}

/// Asks every filter why.
pub(crate) fn unfit(cycle: &Cycle<'_>, pod: &PodInfo, profile: &Profile) -> Unfit {
    let mut out = Unfit::of(cycle.snapshot.nodes(), Wake::NODE_ADDED);
    for slot in cycle.snapshot.slots() {
        let refusal = first_refusal(cycle, profile, slot)
            .or_else(|| refusal_beside_nominees(cycle, pod, profile, slot));
        let Some((filter, why)) = refusal else { continue };
        for reason in why.reasons {
            *out.reasons.entry(reason).or_default() += 1;
        }
        if why.curable {
            out.curable.extend(cycle.snapshot.name(slot).map(Arc::clone));
        }
        if !out.by.contains(&filter.name) {
            out.by.push(filter.name);
        }
        out.wake = out.wake | filter.wake;
    }
    out.by.sort_unstable();
    out.curable.sort_unstable();
    out
}

/// The finalizer of SplitMix64: spreads any two inputs apart.
pub(crate) fn mix(mut n: u64) -> u64 {
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
