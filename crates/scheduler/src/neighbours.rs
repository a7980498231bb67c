//! What the pods that are already placed mean for a pod that says something about others, or that
//! others say something about.
//!
//! Guarantees: counters by topology domain, so that a node is answered by a few look-ups in arrays;
//! [`Neighbours::add`] and [`Neighbours::remove`] of one pod cost that pod's terms and give what counting
//! afresh gives. Holds until a node or a namespace changes. Costs one pass over the nodes for each topology
//! key, and one over the placed pods, when made.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    plugins::{node_affinity, taint_toleration},
    pod::PodInfo,
    profile::Profile,
    relations::{Labels, PodTerm, Relations, Spread},
    snapshot::{Slot, Snapshot, Tenant},
};

/// A node without the label.
const NONE: u32 = u32::MAX;

/// The values of one topology key, as numbers by node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    key: String,
    of: Vec<u32>,
    domains: usize,
}

/// Something counted by domain of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counts {
    column: usize,
    by_domain: Vec<i64>,
}

/// Pods of one spread constraint.
#[derive(Clone, Debug, PartialEq)]
struct Evenness {
    counts: Counts,
    /// Nodes whose pods count.
    counted: Vec<bool>,
    /// How many domains have such a node.
    domains: usize,
    /// How many of these have so many pods: the first key is the emptiest.
    levels: BTreeMap<i64, usize>,
    itself: i64,
    spread: Spread,
    /// Fewer domains make each pod in one weigh more (upstream `topologyNormalizingWeight`).
    weight: f64,
}

/// Placed pods as they matter for pods of one kind: same namespace, labels and relations.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    namespace: String,
    labels: Arc<Labels>,
    relations: Option<Arc<Relations>>,
    hard_weight: i64,
    ignore_preferred: bool,
    columns: Vec<Column>,
    /// For each required affinity term: pods that match all of them.
    wanted: Vec<Counts>,
    wanted_anywhere: i64,
    /// The pod matches its own affinity terms, so it may be the first of its group.
    may_be_first: bool,
    /// For each anti-affinity term: pods that match it.
    shunned: Vec<Counts>,
    /// Pods whose own anti-affinity shuns this one, by their topology key.
    shunning: Vec<Counts>,
    /// Sums of preferences by topology key.
    drawn: Vec<Counts>,
    even: Vec<Evenness>,
}

/// Why a node does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uneven {
    /// It lacks a topology label.
    Unlabelled,
    /// One more pod here would be too many.
    Skewed,
}

impl Column {
    fn of(key: &str, snapshot: &Snapshot) -> Self {
        let mut ids: HashMap<&str, u32> = HashMap::new();
        let mut of = vec![NONE; snapshot.slots_end()];
        for slot in snapshot.slots() {
            if let Some(value) = snapshot.node(slot).and_then(|n| n.labels.get(key))
                && let Some(cell) = of.get_mut(slot)
            {
                let next = u32::try_from(ids.len()).unwrap_or(NONE - 1);
                *cell = *ids.entry(value).or_insert(next);
            }
        }
        Self { key: key.to_owned(), of, domains: ids.len() }
    }

    fn domain(&self, slot: Slot) -> Option<usize> {
        self.of.get(slot).filter(|d| **d != NONE).and_then(|d| usize::try_from(*d).ok())
    }
}

impl Counts {
    fn at(&self, columns: &[Column], slot: Slot) -> Option<i64> {
        let domain = columns.get(self.column)?.domain(slot)?;
        self.by_domain.get(domain).copied()
    }

    /// Returns whether the node has the label.
    fn change(&mut self, columns: &[Column], slot: Slot, by: i64) -> bool {
        let domain = columns.get(self.column).and_then(|c| c.domain(slot));
        match domain.and_then(|d| self.by_domain.get_mut(d)) {
            Some(cell) => {
                *cell += by;
                true
            }
            None => false,
        }
    }
}

impl Neighbours {
    /// Looks at the placed pods; `None` when no pod can matter: this one has no relations and no placed
    /// one has terms.
    pub fn of(pod: &PodInfo, snapshot: &Snapshot, profile: &Profile) -> Option<Self> {
        let relations = snapshot.relations_of(pod, profile);
        if relations.is_none() && !snapshot.has_terms() {
            return None;
        }
        let mut out = Self {
            namespace: pod.key.namespace.clone(),
            labels: Arc::clone(&pod.labels),
            relations: relations.clone(),
            hard_weight: profile.args.hard_pod_affinity_weight,
            ignore_preferred: profile.args.ignore_preferred_terms_of_existing_pods,
            columns: Vec::new(),
            wanted: Vec::new(),
            wanted_anywhere: 0,
            may_be_first: false,
            shunned: Vec::new(),
            shunning: Vec::new(),
            drawn: Vec::new(),
            even: Vec::new(),
        };
        if let Some(relations) = &relations {
            out.prepare(pod, relations, snapshot);
        }
        let own = relations.as_ref().is_some_and(|r| r.concerns_others() || !r.spread.is_empty());
        if own {
            for tenant in snapshot.tenants() {
                out.change(tenant, snapshot, 1);
            }
        } else {
            for tenant in snapshot.tenants_with_terms() {
                out.change(tenant, snapshot, 1);
            }
        }
        Some(out)
    }

    /// Counts a pod that was placed. Returns whether any answer may have changed.
    pub fn add(&mut self, tenant: &Tenant, snapshot: &Snapshot) -> bool {
        self.change(tenant, snapshot, 1)
    }

    /// Takes a pod out again.
    pub fn remove(&mut self, tenant: &Tenant, snapshot: &Snapshot) -> bool {
        self.change(tenant, snapshot, -1)
    }

    /// Whether the required affinity terms are met on a node.
    pub fn wanted_at(&self, slot: Slot) -> bool {
        let mut met = true;
        for counts in &self.wanted {
            let Some(here) = counts.at(&self.columns, slot) else { return false };
            met &= here > 0;
        }
        met || (self.wanted_anywhere == 0 && self.may_be_first)
    }

    /// Whether the pod's own anti-affinity speaks against a node.
    pub fn shunned_at(&self, slot: Slot) -> bool {
        self.shunned.iter().any(|counts| counts.at(&self.columns, slot).is_some_and(|n| n > 0))
    }

    /// Whether a placed pod's anti-affinity speaks against a node.
    pub fn shunning_at(&self, slot: Slot) -> bool {
        self.shunning.iter().any(|counts| counts.at(&self.columns, slot).is_some_and(|n| n > 0))
    }

    /// The sum of preferences for a node.
    pub fn drawn_at(&self, slot: Slot) -> i64 {
        self.drawn.iter().filter_map(|counts| counts.at(&self.columns, slot)).sum()
    }

    /// Whether required spread constraints hold with the pod on a node.
    pub fn even_at(&self, slot: Slot) -> Result<(), Uneven> {
        for even in self.even.iter().filter(|e| e.spread.required) {
            let Some(here) = even.counts.at(&self.columns, slot) else { return Err(Uneven::Unlabelled) };
            let fewest = if even.domains < even.spread.min_domains {
                0
            } else {
                even.levels.first_key_value().map_or(0, |(level, _)| *level)
            };
            if here + even.itself - fewest > even.spread.max_skew {
                return Err(Uneven::Skewed);
            }
        }
        Ok(())
    }

    /// How crowded a node is for preferred spread constraints; `None` when it lacks a label that the pod
    /// itself asks for.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts are small")]
    pub fn crowd_at(&self, slot: Slot) -> Option<i64> {
        let mut sum = 0.0;
        for even in self.even.iter().filter(|e| !e.spread.required) {
            match even.counts.at(&self.columns, slot) {
                Some(here) => sum += here as f64 * even.weight + (even.spread.max_skew - 1) as f64,
                None if even.spread.by_default => {}
                None => return None,
            }
        }
        Some(sum.round() as i64)
    }

    fn prepare(&mut self, pod: &PodInfo, relations: &Relations, snapshot: &Snapshot) {
        for term in &relations.affinity {
            let counts = self.counts(&term.topology_key, snapshot);
            self.wanted.push(counts);
        }
        for term in &relations.anti_affinity {
            let counts = self.counts(&term.topology_key, snapshot);
            self.shunned.push(counts);
        }
        let itself =
            |term: &PodTerm| term.matches(&pod.key.namespace, &pod.labels, |ns| snapshot.namespace(ns));
        self.may_be_first = relations.affinity.iter().all(itself);
        for spread in &relations.spread {
            let even = self.evenness(pod, spread, &relations.spread, snapshot);
            self.even.push(even);
        }
    }

    fn counts(&mut self, key: &str, snapshot: &Snapshot) -> Counts {
        let column = self.column(key, snapshot);
        let domains = self.columns.get(column).map_or(0, |c| c.domains);
        Counts { column, by_domain: vec![0; domains] }
    }

    fn column(&mut self, key: &str, snapshot: &Snapshot) -> usize {
        self.columns.iter().position(|c| c.key == key).unwrap_or_else(|| {
            self.columns.push(Column::of(key, snapshot));
            self.columns.len() - 1
        })
    }

    #[allow(clippy::cast_precision_loss, reason = "domains are few")]
    fn evenness(&mut self, pod: &PodInfo, spread: &Spread, all: &[Spread], snapshot: &Snapshot) -> Evenness {
        let counts = self.counts(&spread.topology_key, snapshot);
        let counts_node = |slot: Slot| {
            snapshot.node(slot).is_some_and(|node| {
                let alike = all.iter().filter(|s| s.required == spread.required);
                (spread.by_default || alike.into_iter().all(|s| node.labels.contains_key(&s.topology_key)))
                    && (!spread.honor_affinity || node_affinity::admits(&pod.shape, node))
                    && (!spread.honor_taints || taint_toleration::tolerates(&pod.shape, node))
            })
        };
        let counted: Vec<bool> = (0..snapshot.slots_end()).map(counts_node).collect();
        let mut present = vec![false; counts.by_domain.len()];
        if let Some(column) = self.columns.get(counts.column) {
            for slot in (0..counted.len()).filter(|slot| counted.get(*slot) == Some(&true)) {
                if let Some(cell) = column.domain(slot).and_then(|d| present.get_mut(d)) {
                    *cell = true;
                }
            }
        }
        let domains = present.into_iter().filter(|p| *p).count();
        Evenness {
            counts,
            counted,
            domains,
            levels: if domains == 0 { BTreeMap::new() } else { [(0, domains)].into() },
            itself: i64::from(spread.counts(&pod.labels)),
            spread: spread.clone(),
            weight: ((domains + 2) as f64).ln(),
        }
    }

    fn change(&mut self, tenant: &Tenant, snapshot: &Snapshot, by: i64) -> bool {
        let said = self.hear(tenant, snapshot, by);
        let relations = self.relations.clone();
        let Some(relations) = relations.as_deref() else { return said };
        let seen = relations.concerns_others() && self.look(relations, tenant, snapshot, by);
        let counted = self.weigh(tenant, by);
        said || seen || counted
    }

    /// What one placed pod's own terms say about the pod. Returns whether they say anything.
    fn hear(&mut self, tenant: &Tenant, snapshot: &Snapshot, by: i64) -> bool {
        let Some(relations) = tenant.relations.clone() else { return false };
        let (namespace, labels) = (self.namespace.clone(), Arc::clone(&self.labels));
        let meant = |term: &PodTerm| term.matches(&namespace, &labels, |ns| snapshot.namespace(ns));
        let mut said = false;
        for term in relations.anti_affinity.iter().filter(|t| meant(t)) {
            let at = self.place(|own| &mut own.shunning, &term.topology_key, snapshot);
            said |= self.shunning.get_mut(at).is_some_and(|c| c.change(&self.columns, tenant.slot, by));
        }
        let hard = relations.affinity.iter().map(|term| (self.hard_weight, term));
        let soft = relations.preferred.iter().map(|(weight, term)| (*weight, term));
        let soft = soft.filter(|_| !self.ignore_preferred);
        let draws: Vec<(i64, &PodTerm)> = hard.chain(soft).filter(|(w, t)| *w != 0 && meant(t)).collect();
        for (weight, term) in draws {
            said |= self.draw(term, tenant, snapshot, weight * by);
        }
        said
    }

    /// What the pod's terms say about one placed pod.
    fn look(&mut self, relations: &Relations, tenant: &Tenant, snapshot: &Snapshot, by: i64) -> bool {
        let meant =
            |term: &PodTerm| term.matches(&tenant.key.namespace, &tenant.labels, |ns| snapshot.namespace(ns));
        let mut seen = false;
        if !relations.affinity.is_empty() && relations.affinity.iter().all(meant) {
            for counts in &mut self.wanted {
                if counts.change(&self.columns, tenant.slot, by) {
                    self.wanted_anywhere += by;
                    seen = true;
                }
            }
        }
        for (counts, _) in self.shunned.iter_mut().zip(&relations.anti_affinity).filter(|(_, t)| meant(t)) {
            seen |= counts.change(&self.columns, tenant.slot, by);
        }
        for (weight, term) in relations.preferred.iter().filter(|(_, t)| meant(t)) {
            seen |= self.draw(term, tenant, snapshot, weight * by);
        }
        seen
    }

    fn draw(&mut self, term: &PodTerm, tenant: &Tenant, snapshot: &Snapshot, weight: i64) -> bool {
        let at = self.place(|own| &mut own.drawn, &term.topology_key, snapshot);
        self.drawn.get_mut(at).is_some_and(|c| c.change(&self.columns, tenant.slot, weight))
    }

    /// Where a list has the counts of a topology key; adds them when it has none.
    fn place(&mut self, list: fn(&mut Self) -> &mut Vec<Counts>, key: &str, snapshot: &Snapshot) -> usize {
        let column = self.column(key, snapshot);
        if let Some(at) = list(self).iter().position(|c| c.column == column) {
            return at;
        }
        let counts = self.counts(key, snapshot);
        list(self).push(counts);
        list(self).len() - 1
    }

    /// Counts one placed pod for the spread constraints.
    fn weigh(&mut self, tenant: &Tenant, by: i64) -> bool {
        if tenant.key.namespace != self.namespace || tenant.deleting {
            return false;
        }
        let mut seen = false;
        for even in &mut self.even {
            let counted = even.counted.get(tenant.slot).copied().unwrap_or_default();
            if !counted || !even.spread.counts(&tenant.labels) {
                continue;
            }
            let Some(before) = even.counts.at(&self.columns, tenant.slot) else { continue };
            even.counts.change(&self.columns, tenant.slot, by);
            if let Some(domains) = even.levels.get_mut(&before) {
                *domains -= 1;
                if *domains == 0 {
                    even.levels.remove(&before);
                }
            }
            *even.levels.entry(before + by).or_default() += 1;
            seen = true;
        }
        seen
    }
}
