//! What a pod says about other pods: affinity, anti-affinity and topology spread, read once from the
//! wire.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{PodAffinityTerm, PodSpec, TopologySpreadConstraint, WeightedPodAffinityTerm},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use kube::core::{Selector, SelectorExt};

/// Labels of a pod, node or namespace.
pub type Labels = BTreeMap<String, String>;

/// Which pods, seen over which topology.
#[derive(Clone, Debug, PartialEq)]
pub struct PodTerm {
    /// Label of nodes whose value names the domain.
    pub topology_key: String,
    selector: Option<Selector>,
    namespaces: BTreeSet<String>,
    namespace_selector: Option<Selector>,
}

impl PodTerm {
    /// Whether a pod is one of those meant. `namespaces` knows the labels of namespaces.
    pub fn matches<'a>(
        &self,
        namespace: &str,
        labels: &Labels,
        namespaces: impl FnOnce(&str) -> Option<&'a Labels>,
    ) -> bool {
        self.selector.as_ref().is_some_and(|s| s.matches(labels))
            && (self.namespaces.contains(namespace)
                || self.namespace_selector.as_ref().is_some_and(|s| {
                    s.selects_all() || namespaces(namespace).is_some_and(|labels| s.matches(labels))
                }))
    }

    fn read(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let own = |keys: &Option<Vec<String>>, operator: &str| -> Vec<LabelSelectorRequirement> {
            let keys = keys.as_deref().unwrap_or_default().iter();
            keys.filter_map(|key| requirement(key, operator, labels)).collect()
        };
        let mut more = own(&term.match_label_keys, "In");
        more.extend(own(&term.mismatch_label_keys, "NotIn"));
        let mut namespaces: BTreeSet<String> =
            term.namespaces.as_deref().unwrap_or_default().iter().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        Self {
            topology_key: term.topology_key.clone(),
            selector: selector(term.label_selector.as_ref(), more),
            namespaces,
            namespace_selector: selector(term.namespace_selector.as_ref(), Vec::new()),
        }
    }
}

/// A bound on how unevenly pods stand over domains.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// Label of nodes whose value names the domain.
    pub topology_key: String,
    /// The most pods a domain may have more than the emptiest.
    pub max_skew: i64,
    /// With fewer domains than this the emptiest counts as 0.
    pub min_domains: usize,
    /// A node that would break the bound is refused, rather than scored low.
    pub required: bool,
    /// Only nodes that the pod's node affinity admits are counted.
    pub honor_affinity: bool,
    /// Only nodes whose taints the pod tolerates are counted.
    pub honor_taints: bool,
    /// Not the pod's own: nodes without the label are no worse for it.
    pub by_default: bool,
    selector: Option<Selector>,
}

impl Spread {
    /// Whether a pod of the same namespace counts.
    pub fn counts(&self, labels: &Labels) -> bool {
        self.selector.as_ref().is_some_and(|s| s.matches(labels))
    }

    /// One of upstream's system constraints.
    pub fn system(topology_key: &str, max_skew: i64) -> Self {
        Self {
            topology_key: topology_key.to_owned(),
            max_skew,
            min_domains: 1,
            required: false,
            honor_affinity: true,
            honor_taints: false,
            by_default: true,
            selector: None,
        }
    }

    /// The same for the pods of a selector.
    pub fn of_pods(&self, selector: &Selector) -> Self {
        Self { selector: Some(selector.clone()), ..self.clone() }
    }

    /// Reads one for a pod of these labels.
    pub fn read(from: &TopologySpreadConstraint, labels: &Labels) -> Self {
        let keys = from.match_label_keys.as_deref().unwrap_or_default();
        let own = keys.iter().filter_map(|key| requirement(key, "In", labels)).collect();
        Self {
            topology_key: from.topology_key.clone(),
            max_skew: from.max_skew.into(),
            min_domains: from.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            required: from.when_unsatisfiable == "DoNotSchedule",
            honor_affinity: from.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: from.node_taints_policy.as_deref() == Some("Honor"),
            by_default: false,
            selector: selector(from.label_selector.as_ref(), own),
        }
    }
}

/// Everything a pod says about others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Relations {
    /// Required affinity.
    pub affinity: Vec<PodTerm>,
    /// Required anti-affinity.
    pub anti_affinity: Vec<PodTerm>,
    /// Preferred terms; anti-affinity has negative weight.
    pub preferred: Vec<(i64, PodTerm)>,
    /// Spread constraints.
    pub spread: Vec<Spread>,
}

impl Relations {
    /// Reads a spec; `None` when it says nothing about other pods.
    pub fn read(namespace: &str, labels: &Labels, spec: &PodSpec) -> Option<Self> {
        let mut out = Self::default();
        let term = |term: &PodAffinityTerm| PodTerm::read(term, namespace, labels);
        let weighted = |sign: i64, terms: &Option<Vec<WeightedPodAffinityTerm>>| -> Vec<(i64, PodTerm)> {
            let terms = terms.as_deref().unwrap_or_default().iter();
            terms.map(|t| (sign * i64::from(t.weight), term(&t.pod_affinity_term))).collect()
        };
        if let Some(affinity) = spec.affinity.as_ref().and_then(|a| a.pod_affinity.as_ref()) {
            let required = affinity.required_during_scheduling_ignored_during_execution.as_deref();
            out.affinity = required.unwrap_or_default().iter().map(term).collect();
            out.preferred.extend(weighted(1, &affinity.preferred_during_scheduling_ignored_during_execution));
        }
        if let Some(anti) = spec.affinity.as_ref().and_then(|a| a.pod_anti_affinity.as_ref()) {
            let required = anti.required_during_scheduling_ignored_during_execution.as_deref();
            out.anti_affinity = required.unwrap_or_default().iter().map(term).collect();
            out.preferred.extend(weighted(-1, &anti.preferred_during_scheduling_ignored_during_execution));
        }
        let spread = spec.topology_spread_constraints.as_deref().unwrap_or_default();
        out.spread = spread.iter().map(|s| Spread::read(s, labels)).collect();
        (out != Self::default()).then_some(out)
    }

    /// Whether a pod that is placed later has to look at this one's terms.
    pub fn concerns_others(&self) -> bool {
        !self.affinity.is_empty() || !self.anti_affinity.is_empty() || !self.preferred.is_empty()
    }
}

/// A selector from the wire, narrowed; `None` selects nothing, as an absent one does.
fn selector(from: Option<&LabelSelector>, narrow: Vec<LabelSelectorRequirement>) -> Option<Selector> {
    let mut from = from?.clone();
    from.match_expressions.get_or_insert_default().extend(narrow);
    Selector::try_from(from).ok()
}

fn requirement(key: &str, operator: &str, labels: &Labels) -> Option<LabelSelectorRequirement> {
    let value = labels.get(key)?;
    Some(LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(vec![value.clone()]),
    })
}
