//! The plugins: one per file, one line each in [`FILTERS`] or [`SCORES`]. A plugin is a pure function
//! of a [`Cycle`] and a node; it says what its answer depends on, so that answers are reused.

use std::{borrow::Cow, fmt, ops::BitOr};

use crate::{
    neighbours::Neighbours,
    pod::{HostPort, PodInfo, Shape},
    profile::{Args, Profile},
    snapshot::{Slot, Snapshot, Used},
    trial::Trial,
    volumes::ClaimPlan,
};

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
pub(crate) mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod node_volume_limits;
mod pod_topology_spread;
pub(crate) mod taint_toleration;
mod volume_binding;
mod volume_restrictions;
mod volume_zone;

/// Filters in upstream's order; the first that refuses a node speaks for it.
pub(crate) const FILTERS: &[Filter] = &[
    node_unschedulable::FILTER,
    node_name::FILTER,
    taint_toleration::FILTER,
    node_affinity::FILTER,
    node_ports::FILTER,
    node_resources_fit::FILTER,
    volume_restrictions::FILTER,
    node_volume_limits::FILTER,
    volume_binding::FILTER,
    volume_zone::FILTER,
    pod_topology_spread::FILTER,
    inter_pod_affinity::FILTER,
];

/// Scores with upstream's default weights.
pub(crate) const SCORES: &[Score] = &[
    taint_toleration::SCORE,
    node_affinity::SCORE,
    pod_topology_spread::SCORE,
    inter_pod_affinity::SCORE,
    node_resources_fit::SCORE,
    balanced_allocation::SCORE,
    image_locality::SCORE,
];

/// Resources that `NodeResourcesBalancedAllocation` can compare.
pub(crate) const BALANCED_MAX: usize = balanced_allocation::RESOURCES_MAX;

/// The best a score can be.
pub(crate) const SCORE_MAX: i64 = 100;

/// Why a node was refused, in upstream's words.
pub type Reason = Cow<'static, str>;

/// All that one filter holds against one node; not empty.
pub type Reasons = Vec<Reason>;

/// What one filter holds against one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reasons: Reasons,
    /// Whether it could be otherwise with fewer pods (upstream `Unschedulable` rather than
    /// `UnschedulableAndUnresolvable`).
    pub curable: bool,
}

impl Refused {
    /// Fewer pods could help.
    pub(crate) fn for_now(reason: impl Into<Reason>) -> Self {
        Self { reasons: vec![reason.into()], curable: true }
    }

    /// Pods have nothing to do with it.
    pub(crate) fn for_good(reason: impl Into<Reason>) -> Self {
        Self { reasons: vec![reason.into()], curable: false }
    }
}

/// What a plugin sees: one pod and the cluster as it stands.
#[derive(Debug)]
pub struct Cycle<'a> {
    /// What the pod asks for.
    pub shape: &'a Shape,
    /// The node it insists on.
    pub node_name: Option<&'a str>,
    /// The cluster.
    pub snapshot: &'a Snapshot,
    /// What plugins were told.
    pub args: &'a Args,
    /// The pod's claims.
    pub claims: ClaimPlan,
    /// Placed pods, when they matter to this one.
    pub neighbours: Option<&'a Neighbours>,
    /// One node as it would be, instead of as it is.
    pub(crate) trial: Option<&'a Trial>,
}

impl<'a> Cycle<'a> {
    /// Does what is the same for every node, or says why no node can do. `neighbours` are those of
    /// [`Neighbours::of`] for the same pod and snapshot.
    pub fn start(
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
        profile: &'a Profile,
        neighbours: Option<&'a Neighbours>,
    ) -> Result<Self, Refusal> {
        let shape = &*pod.shape;
        if !shape.unsupported.is_empty() {
            let fields = shape.unsupported.join(" and ");
            let reason = format!("pod uses {fields}, which this scheduler does not support yet");
            return Err(Refusal { reason: reason.into(), wake: Wake::NOTHING });
        }
        let claims = snapshot
            .volumes
            .plan(shape)
            .map_err(|reason| Refusal { reason, wake: volume_binding::FILTER.wake })?;
        let node_name = pod.node_name.as_deref();
        Ok(Self { shape, node_name, snapshot, args: &profile.args, claims, neighbours, trial: None })
    }

    /// The same with a node as it would be.
    pub(crate) fn trying<'b>(&'b self, trial: &'b Trial, neighbours: Option<&'b Neighbours>) -> Cycle<'b> {
        let Self { shape, node_name, snapshot, args, claims, neighbours: _, trial: _ } = self;
        let (shape, node_name, snapshot, args) = (*shape, *node_name, *snapshot, *args);
        Cycle { shape, node_name, snapshot, args, claims: claims.clone(), neighbours, trial: Some(trial) }
    }

    fn tried(&self, slot: Slot) -> Option<&'a Trial> {
        self.trial.filter(|trial| trial.slot == slot)
    }

    /// What the node's pods use.
    pub(crate) fn used(&self, slot: Slot) -> Used {
        self.tried(slot).map_or_else(|| self.snapshot.used(slot), |trial| trial.used)
    }

    /// What the node's pods use of an extended resource.
    pub(crate) fn used_extended(&self, slot: Slot, resource: &str) -> i64 {
        match self.tried(slot) {
            Some(trial) => trial.extended.get(resource).copied().unwrap_or_default(),
            None => self.snapshot.used_extended(slot, resource),
        }
    }

    /// Host ports in use on the node.
    pub(crate) fn ports(&self, slot: Slot) -> &'a [HostPort] {
        self.tried(slot).map_or_else(|| self.snapshot.ports(slot), |trial| &trial.ports)
    }

    /// What the node's pods are.
    pub(crate) fn shapes_at(&self, slot: Slot) -> impl Iterator<Item = &'a Shape> {
        let trial = self.tried(slot).map(|trial| trial.shapes.iter().map(|s| &**s));
        let real = trial.is_none().then(|| self.snapshot.tenants_at(slot).iter().map(|t| &*t.shape));
        trial.into_iter().flatten().chain(real.into_iter().flatten())
    }
}

/// Why no node can do, whatever the nodes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In upstream's words.
    pub reason: Reason,
    /// What could change that.
    pub wake: Wake,
}

/// What a plugin's answer for a node depends on besides the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only descriptions of nodes: holds until one changes.
    Nodes,
    /// Also what the node's pods use: holds until a pod comes or goes there.
    Usage,
    /// Also other objects: claims, volumes, pods elsewhere. Never reused.
    Cluster,
}

/// How raw scores become 0..=100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalize {
    /// They are already.
    No,
    /// In proportion to the largest among feasible nodes.
    Proportional,
    /// The same, upside down: the largest gives 0.
    Inverted,
    /// In proportion to where it lies between the smallest and the largest among feasible nodes.
    Range,
    /// The less the better: the smallest gives 100, a negative one 0 (upstream's spread score).
    Crowd,
}

/// Refuses nodes.
#[derive(Clone, Copy)]
pub struct Filter {
    /// Upstream's plugin name.
    pub name: &'static str,
    /// What the answer depends on.
    pub reach: Reach,
    /// Events that could change a refusal.
    pub wake: Wake,
    /// The answer for one node.
    pub check: fn(&Cycle<'_>, Slot) -> Result<(), Refused>,
}

/// Prefers nodes.
#[derive(Clone, Copy)]
pub struct Score {
    /// Upstream's plugin name.
    pub name: &'static str,
    /// Upstream's default weight.
    pub weight: i64,
    /// What the answer depends on.
    pub reach: Reach,
    /// What becomes of raw scores.
    pub normalize: Normalize,
    /// The raw score of one feasible node.
    pub score: fn(&Cycle<'_>, Slot) -> i64,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*{}", self.name, self.weight)
    }
}

/// A set of cluster events: those that happened, or those that could help a pod that fits nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake(u16);

impl Wake {
    /// No event.
    pub const NOTHING: Self = Self(0);
    /// A node appeared.
    pub const NODE_ADDED: Self = Self(1);
    /// A node's labels changed.
    pub const NODE_LABELS: Self = Self(2);
    /// A node's taints or `unschedulable` changed.
    pub const NODE_TAINTS: Self = Self(4);
    /// A node's allocatable resources changed.
    pub const NODE_ALLOCATABLE: Self = Self(8);
    /// A pod gave back what it held.
    pub const POD_GONE: Self = Self(16);
    /// A claim, volume or class changed.
    pub const VOLUMES: Self = Self(32);
    /// A pod was placed, or changed its labels.
    pub const POD_PLACED: Self = Self(64);

    /// Whether both sets have an event in common.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Its bits, lowest first.
    pub(crate) fn bits(self) -> impl Iterator<Item = usize> {
        (0..Self::BITS).filter(move |bit| self.0 & (1 << bit) != 0)
    }

    /// How many events there are.
    pub(crate) const BITS: usize = 7;

    /// Joins two sets in a constant.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Wake {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

#[cfg(test)]
mod tests;
