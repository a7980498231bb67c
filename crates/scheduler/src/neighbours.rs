//! What the pods that are already placed mean for a pod that says something about others, or that
//! others say something about: computed once for a decision, asked for each node.
//!
//! Costs one pass over the placed pods for a pod with terms of its own, and one over those with terms
//! for any other. Such decisions are not reused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    plugins::{node_affinity, taint_toleration},
    pod::PodInfo,
    relations::{Labels, PodTerm, Relations, Spread},
    snapshot::{Slot, Snapshot, Tenant},
};

/// How much a required affinity term of a placed pod draws pods it matches (upstream
/// `DefaultHardPodAffinityWeight`).
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// A domain: topology key and value.
type Domain<'a> = (&'a str, &'a str);

/// Placed pods as they matter for one pod.
#[derive(Debug, Default)]
pub struct Neighbours<'a> {
    relations: Option<&'a Relations>,
    /// Domains that have pods matching all required affinity terms.
    wanted: BTreeSet<Domain<'a>>,
    /// The pod matches its own affinity terms, so it may be the first of its group.
    may_be_first: bool,
    /// Domains that the pod's own anti-affinity shuns.
    shunned: BTreeSet<Domain<'a>>,
    /// Domains whose pods shun this one.
    shunning: BTreeSet<Domain<'a>>,
    /// Preferences by domain.
    drawn: HashMap<Domain<'a>, i64>,
    /// For each spread constraint: pods by value of its key, among nodes that count.
    counts: Vec<BTreeMap<&'a str, i64>>,
    /// For each spread constraint: whether the pod itself counts.
    itself: Vec<i64>,
}

/// Why a node does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uneven {
    /// It lacks a topology label.
    Unlabelled,
    /// One more pod here would be too many.
    Skewed,
}

impl<'a> Neighbours<'a> {
    /// Looks at the placed pods; `None` when they do not matter.
    pub fn of(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Self> {
        let mut out = Self { relations: pod.relations.as_deref(), ..Self::default() };
        let mut matters = out.relations.is_some();
        for tenant in snapshot.tenants_with_terms() {
            matters |= out.hear(pod, tenant, snapshot);
        }
        let Some(relations) = out.relations else { return matters.then_some(out) };
        let here =
            |term: &PodTerm| term.matches(&pod.key.namespace, &pod.labels, |ns| snapshot.namespace(ns));
        out.may_be_first = relations.affinity.iter().all(here);
        if relations.concerns_others() {
            for tenant in snapshot.tenants() {
                out.look(relations, tenant, snapshot);
            }
        }
        out.count(pod, &relations.spread, snapshot);
        Some(out)
    }

    /// Whether the required affinity terms are met on a node.
    pub fn wanted_at(&self, labels: &Labels) -> bool {
        let terms = self.relations.map(|r| r.affinity.as_slice()).unwrap_or_default();
        let mut met = true;
        for term in terms {
            let Some(value) = labels.get(&term.topology_key) else { return false };
            met &= self.wanted.contains(&(term.topology_key.as_str(), value.as_str()));
        }
        met || (self.wanted.is_empty() && self.may_be_first)
    }

    /// Whether the pod's own anti-affinity speaks against a node.
    pub fn shunned_at(&self, labels: &Labels) -> bool {
        holds(&self.shunned, labels)
    }

    /// Whether a placed pod's anti-affinity speaks against a node.
    pub fn shunning_at(&self, labels: &Labels) -> bool {
        holds(&self.shunning, labels)
    }

    /// The sum of preferences for a node.
    pub fn drawn_at(&self, labels: &Labels) -> i64 {
        let in_domain =
            self.drawn.iter().filter(|((key, value), _)| labels.get(*key).is_some_and(|v| v == value));
        in_domain.map(|(_, weight)| weight).sum()
    }

    /// Whether required spread constraints hold with the pod on a node.
    pub fn even_at(&self, labels: &Labels) -> Result<(), Uneven> {
        for (at, spread) in self.spread().filter(|(_, s)| s.required) {
            let Some(value) = labels.get(&spread.topology_key) else { return Err(Uneven::Unlabelled) };
            let Some(counts) = self.counts.get(at) else { continue };
            let fewest = if counts.len() < spread.min_domains {
                0
            } else {
                counts.values().copied().min().unwrap_or(0)
            };
            let here = counts.get(value.as_str()).copied().unwrap_or(0);
            let itself = self.itself.get(at).copied().unwrap_or(0);
            if here + itself - fewest > spread.max_skew {
                return Err(Uneven::Skewed);
            }
        }
        Ok(())
    }

    /// How crowded a node is for preferred spread constraints; `None` when it lacks a label.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts are small")]
    pub fn crowd_at(&self, labels: &Labels) -> Option<i64> {
        let mut sum = 0.0;
        for (at, spread) in self.spread().filter(|(_, s)| !s.required) {
            let value = labels.get(&spread.topology_key)?;
            let Some(counts) = self.counts.get(at) else { continue };
            let here = counts.get(value.as_str()).copied().unwrap_or(0);
            // Fewer domains make each pod in one weigh more (upstream `topologyNormalizingWeight`).
            sum += here as f64 * ((counts.len() + 2) as f64).ln() + (spread.max_skew - 1) as f64;
        }
        Some(sum.round() as i64)
    }

    fn spread(&self) -> impl Iterator<Item = (usize, &'a Spread)> {
        self.relations.map(|r| r.spread.as_slice()).unwrap_or_default().iter().enumerate()
    }

    /// What one placed pod's own terms say about the pod. Returns whether they say anything.
    fn hear(&mut self, pod: &PodInfo, tenant: &'a Tenant, snapshot: &'a Snapshot) -> bool {
        let (Some(relations), Some(node)) = (&tenant.relations, snapshot.node(tenant.slot)) else {
            return false;
        };
        let meant =
            |term: &PodTerm| term.matches(&pod.key.namespace, &pod.labels, |ns| snapshot.namespace(ns));
        let mut said = false;
        for term in relations.anti_affinity.iter().filter(|t| meant(t)) {
            if let Some(domain) = domain(term, &node.labels) {
                self.shunning.insert(domain);
                said = true;
            }
        }
        let hard = relations.affinity.iter().map(|term| (HARD_AFFINITY_WEIGHT, term));
        let soft = relations.preferred.iter().map(|(weight, term)| (*weight, term));
        for (weight, term) in hard.chain(soft).filter(|(_, t)| meant(t)) {
            if let Some(domain) = domain(term, &node.labels) {
                *self.drawn.entry(domain).or_default() += weight;
                said = true;
            }
        }
        said
    }

    /// What the pod's terms say about one placed pod.
    fn look(&mut self, relations: &'a Relations, tenant: &Tenant, snapshot: &'a Snapshot) {
        let Some(node) = snapshot.node(tenant.slot) else { return };
        let meant =
            |term: &PodTerm| term.matches(&tenant.namespace, &tenant.labels, |ns| snapshot.namespace(ns));
        if !relations.affinity.is_empty() && relations.affinity.iter().all(meant) {
            self.wanted.extend(relations.affinity.iter().filter_map(|term| domain(term, &node.labels)));
        }
        let shunned = relations.anti_affinity.iter().filter(|t| meant(t));
        self.shunned.extend(shunned.filter_map(|term| domain(term, &node.labels)));
        for (weight, term) in relations.preferred.iter().filter(|(_, t)| meant(t)) {
            if let Some(domain) = domain(term, &node.labels) {
                *self.drawn.entry(domain).or_default() += weight;
            }
        }
    }

    /// Counts matching pods by domain, for each spread constraint.
    fn count(&mut self, pod: &PodInfo, spread: &'a [Spread], snapshot: &'a Snapshot) {
        self.counts = vec![BTreeMap::new(); spread.len()];
        self.itself = spread.iter().map(|s| i64::from(s.counts(&pod.labels))).collect();
        if spread.is_empty() {
            return;
        }
        let value_at = |slot: Slot, constraint: &Spread| -> Option<&'a str> {
            let node = snapshot.node(slot)?;
            let labelled = spread
                .iter()
                .filter(|s| s.required == constraint.required)
                .all(|s| node.labels.contains_key(&s.topology_key));
            let admitted = !constraint.honor_affinity || node_affinity::admits(&pod.shape, node);
            let tolerated = !constraint.honor_taints || taint_toleration::tolerates(&pod.shape, node);
            (labelled && admitted && tolerated)
                .then(|| node.labels.get(&constraint.topology_key).map(String::as_str))?
        };
        for slot in snapshot.slots() {
            for (constraint, counts) in spread.iter().zip(&mut self.counts) {
                if let Some(value) = value_at(slot, constraint) {
                    counts.entry(value).or_default();
                }
            }
        }
        for tenant in snapshot.tenants().filter(|t| *t.namespace == *pod.key.namespace && !t.deleting) {
            for (constraint, counts) in spread.iter().zip(&mut self.counts) {
                if constraint.counts(&tenant.labels)
                    && let Some(value) = value_at(tenant.slot, constraint)
                {
                    *counts.entry(value).or_default() += 1;
                }
            }
        }
    }
}

fn domain<'a>(term: &'a PodTerm, labels: &'a Labels) -> Option<Domain<'a>> {
    labels.get(&term.topology_key).map(|value| (term.topology_key.as_str(), value.as_str()))
}

fn holds(domains: &BTreeSet<Domain<'_>>, labels: &Labels) -> bool {
    domains.iter().any(|(key, value)| labels.get(*key).is_some_and(|v| v == value))
}
