//! Which plugins decide, with which weights and arguments.

use std::{sync::Arc, time::Duration};

use crate::{
    plugins::{FILTERS, Filter, SCORES, Score},
    relations::Spread,
    resources::Measure,
    selector::{NodeSelector, Term},
};

/// The plugins of one scheduler, and the seed that settles ties.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Pods with this `spec.schedulerName` are placed by it.
    pub name: Arc<str>,
    /// Filters, in the order in which they are asked.
    pub filters: Vec<Filter>,
    /// Scores, with their weights.
    pub scores: Vec<Score>,
    /// What plugins were told.
    pub args: Args,
    /// How room is made for pods of higher priority; `None` makes none.
    pub preemption: Option<PreemptionArgs>,
    /// Changes which of equally good nodes is taken.
    pub seed: u64,
}

/// Arguments of plugins, with upstream's defaults (`pkg/scheduler/apis/config/v1/defaults.go`).
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    /// How much a required affinity term of a placed pod draws pods it matches.
    pub hard_pod_affinity_weight: i64,
    /// Preferred terms of placed pods count for nothing.
    pub ignore_preferred_terms_of_existing_pods: bool,
    /// Node affinity that every pod of the profile has besides its own.
    pub added_affinity: Option<AddedAffinity>,
    /// Constraints of pods without any of their own that belong to a Service or a workload.
    pub default_spread: DefaultSpread,
    /// How nodes are scored by what is free.
    pub fit: FitScoring,
    /// Extended resources whose lack is overlooked, by name.
    pub ignored_resources: Vec<String>,
    /// The same by group, the part before the slash.
    pub ignored_resource_groups: Vec<String>,
    /// Resources that are to be used to the same share.
    pub balanced: Vec<Measure>,
    /// How long a pod's claims may take to be bound.
    pub bind_timeout: Duration,
}

/// `NodeAffinityArgs.addedAffinity`.
#[derive(Clone, Debug, PartialEq)]
pub struct AddedAffinity {
    /// Nodes must match.
    pub required: Option<NodeSelector>,
    /// Matching nodes are preferred, by weight.
    pub preferred: Vec<(i64, Term)>,
}

/// `PodTopologySpreadArgs`.
#[derive(Clone, Debug, PartialEq)]
pub enum DefaultSpread {
    /// Over hosts with a skew of 3 and zones with a skew of 5, preferred.
    System,
    /// These; may be none. Their selectors are filled in for each pod.
    List(Vec<Spread>),
}

/// `NodeResourcesFitArgs.scoringStrategy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitScoring {
    /// What is good.
    pub strategy: Strategy,
    /// Resources that count, with weights.
    pub resources: Vec<(Measure, i64)>,
}

/// What use of a node is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Little.
    LeastAllocated,
    /// Much.
    MostAllocated,
    /// As a curve says: points of utilisation in percent and score in 0..=100, ascending.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// `DefaultPreemptionArgs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreemptionArgs {
    /// The share of possible nodes that is tried at least, in percent.
    pub candidates_percent: usize,
    /// The number of possible nodes that is tried at least.
    pub candidates_min: usize,
}

impl Default for Args {
    fn default() -> Self {
        let both = || [Measure::Cpu, Measure::Memory];
        Self {
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
            added_affinity: None,
            default_spread: DefaultSpread::System,
            fit: FitScoring {
                strategy: Strategy::LeastAllocated,
                resources: both().map(|name| (name, 1)).to_vec(),
            },
            ignored_resources: Vec::new(),
            ignored_resource_groups: Vec::new(),
            balanced: both().to_vec(),
            bind_timeout: Duration::from_secs(600),
        }
    }
}

impl Default for PreemptionArgs {
    fn default() -> Self {
        Self { candidates_percent: 10, candidates_min: 100 }
    }
}

impl Profile {
    /// Upstream's default plugins, weights and arguments, for `default-scheduler`.
    pub fn new(seed: u64) -> Self {
        Self {
            name: "default-scheduler".into(),
            filters: FILTERS.to_vec(),
            scores: SCORES.to_vec(),
            args: Args::default(),
            preemption: Some(PreemptionArgs::default()),
            seed,
        }
    }
}
