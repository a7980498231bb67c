//! Claims, volumes and storage classes, and what they say about where a pod can go
//! (upstream `plugins/volumebinding`).
//!
//! A bound claim ties the pod to the nodes its volume is reachable from. An unbound claim of a
//! `WaitForFirstConsumer` class is matched with an existing volume or, if the class has a
//! provisioner, provisioned where the pod goes. What was decided for a pod whose binding is under
//! way is remembered here until the API server shows it or the decision is taken back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass as WireClass,
};
use kube::core::{Selector, SelectorExt};
use meta::{ObjectKey, Quantity};

use crate::{
    plugins::Reason,
    pod::Shape,
    selector::{NodeSelector, Operator, Requirement, Term},
};

/// The annotation that asks for provisioning on a node.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

const CONFLICT: &str = "node(s) had volume node affinity conflict";
const NOTHING_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const UNBOUND_IMMEDIATE: &str = "pod has unbound immediate PersistentVolumeClaims";

/// The projection of a PersistentVolumeClaim.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: String,
    /// `spec.volumeName`, when set.
    pub volume: Option<String>,
    /// Both sides of the binding are written.
    pub bound: bool,
    /// Its volume is gone.
    pub lost: bool,
    /// Deletion has begun.
    pub deleting: bool,
    /// Storage class; `None` is no class.
    pub class: Option<String>,
    /// Where it is being provisioned.
    pub selected_node: Option<String>,
    wants: Wants,
}

/// What a claim asks of a volume.
#[derive(Clone, Debug, Default)]
struct Wants {
    bytes: i64,
    access_modes: Vec<String>,
    block: bool,
    labels: Option<Selector>,
}

impl Claim {
    /// Only one pod may use it at a time.
    pub(crate) fn is_sole(&self) -> bool {
        self.wants.access_modes.iter().any(|mode| mode == "ReadWriteOncePod")
    }

    /// Projects a wire claim.
    pub fn read(claim: &PersistentVolumeClaim) -> Self {
        let metadata = &claim.metadata;
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|a| a.get(key)).cloned();
        let spec = claim.spec.as_ref();
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let volume = spec.and_then(|s| s.volume_name.clone()).filter(|v| !v.is_empty());
        let bytes = spec
            .and_then(|s| s.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.parse::<Quantity>().ok())
            .unwrap_or_default();
        Self {
            key: ObjectKey {
                namespace: metadata.namespace.clone().unwrap_or_default(),
                name: metadata.name.clone().unwrap_or_default(),
            },
            uid: metadata.uid.clone().unwrap_or_default(),
            bound: volume.is_some() && (annotation(BIND_COMPLETED).is_some() || phase == "Bound"),
            volume,
            lost: phase == "Lost",
            deleting: metadata.deletion_timestamp.is_some(),
            class: spec.and_then(|s| s.storage_class_name.clone()).filter(|c| !c.is_empty()),
            selected_node: annotation(SELECTED_NODE),
            wants: Wants {
                bytes: bytes.value(),
                access_modes: spec.and_then(|s| s.access_modes.clone()).unwrap_or_default(),
                block: spec.and_then(|s| s.volume_mode.as_deref()) == Some("Block"),
                labels: spec.and_then(|s| s.selector.clone()).and_then(|s| Selector::try_from(s).ok()),
            },
        }
    }
}

/// The projection of a PersistentVolume.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    /// Name.
    pub name: String,
    /// Nodes it is reachable from; `None` is all.
    pub node_affinity: Option<NodeSelector>,
    /// `spec.claimRef`, with its UID when set.
    pub claim: Option<(ObjectKey, Option<String>)>,
    class: String,
    bytes: i64,
    access_modes: Vec<String>,
    block: bool,
    labels: BTreeMap<String, String>,
    available: bool,
    csi: Option<Handle>,
}

impl Volume {
    /// Projects a wire volume.
    pub fn read(volume: &PersistentVolume) -> Self {
        let metadata = &volume.metadata;
        let spec = volume.spec.as_ref();
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let bytes = spec.and_then(|s| s.capacity.as_ref()?.get("storage")?.0.parse::<Quantity>().ok());
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            node_affinity: spec
                .and_then(|s| s.node_affinity.as_ref()?.required.as_ref())
                .map(NodeSelector::from),
            claim: spec.and_then(|s| s.claim_ref.as_ref()).map(|r| {
                let key = ObjectKey {
                    namespace: r.namespace.clone().unwrap_or_default(),
                    name: r.name.clone().unwrap_or_default(),
                };
                (key, r.uid.clone().filter(|uid| !uid.is_empty()))
            }),
            class: spec.and_then(|s| s.storage_class_name.clone()).unwrap_or_default(),
            bytes: bytes.unwrap_or_default().value(),
            access_modes: spec.and_then(|s| s.access_modes.clone()).unwrap_or_default(),
            block: spec.and_then(|s| s.volume_mode.as_deref()) == Some("Block"),
            csi: spec.and_then(|s| s.csi.as_ref()).map(|csi| (csi.driver.clone(), csi.volume_handle.clone())),
            labels: metadata.labels.clone().unwrap_or_default(),
            available: metadata.deletion_timestamp.is_none() && matches!(phase, "Available" | "Pending" | ""),
        }
    }

    fn reachable(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        self.node_affinity.as_ref().is_none_or(|a| a.matches(node, labels))
    }

    fn suits(&self, claim: &Claim) -> bool {
        let wants = &claim.wants;
        let free = match &self.claim {
            None => true,
            Some((key, uid)) => *key == claim.key && uid.as_ref().is_none_or(|u| *u == claim.uid),
        };
        free && self.available
            && self.class == claim.class.as_deref().unwrap_or_default()
            && self.bytes >= wants.bytes
            && self.block == wants.block
            && wants.access_modes.iter().all(|m| self.access_modes.contains(m))
            && wants.labels.as_ref().is_none_or(|s| s.matches(&self.labels))
    }
}

/// The projection of a StorageClass.
#[derive(Clone, Debug)]
pub struct StorageClass {
    /// Name.
    pub name: String,
    /// `volumeBindingMode: WaitForFirstConsumer`.
    pub waits: bool,
    /// Who provisions, if anyone.
    pub provisioner: Option<String>,
    /// Where volumes can be made; `None` is everywhere.
    pub topologies: Option<NodeSelector>,
}

impl StorageClass {
    /// Projects a wire class.
    pub fn read(class: &WireClass) -> Self {
        let terms: Vec<Term> = class
            .allowed_topologies
            .as_deref()
            .unwrap_or_default()
            .iter()
            .map(|term| Term {
                expressions: term
                    .match_label_expressions
                    .as_deref()
                    .unwrap_or_default()
                    .iter()
                    .map(|e| Requirement {
                        key: e.key.clone(),
                        operator: Operator::In,
                        values: e.values.clone(),
                    })
                    .collect(),
                fields: Vec::new(),
            })
            .collect();
        Self {
            name: class.metadata.name.clone().unwrap_or_default(),
            waits: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisioner: Some(class.provisioner.clone()).filter(|p| !p.is_empty() && p != NO_PROVISIONER),
            topologies: (!terms.is_empty()).then_some(NodeSelector(terms)),
        }
    }
}

/// What a pod's claims need, the same for every node.
#[derive(Clone, Debug, Default)]
pub struct ClaimPlan {
    bound: Vec<Option<Arc<Volume>>>,
    delayed: Vec<Arc<Claim>>,
}

/// Labels of volumes that say where they are; the value may be several zones joined by `__`.
const ZONES: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

impl ClaimPlan {
    /// Whether the bound volumes' zones are a node's.
    pub(crate) fn in_zone(&self, labels: &BTreeMap<String, String>) -> bool {
        let same = |volume: &Volume, key: &str| {
            let stable = key.replace("failure-domain.beta.kubernetes.io", "topology.kubernetes.io");
            volume.labels.get(key).is_none_or(|zones| {
                let here = labels.get(key).or_else(|| labels.get(&stable));
                here.is_some_and(|here| zones.split("__").any(|zone| zone == here))
            })
        };
        self.bound
            .iter()
            .flatten()
            .all(|volume| volume.labels.is_empty() || ZONES.iter().all(|key| same(volume, key)))
    }
}

/// What to write before a pod with unbound claims can be bound to its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Volumes to reserve for claims: volume, claim and the claim's UID.
    pub reserve: Vec<(String, ObjectKey, String)>,
    /// Claims to annotate with the node.
    pub provision: Vec<ObjectKey>,
}

impl Bindings {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.reserve.is_empty() && self.provision.is_empty()
    }
}

/// How far the claims of a pod placed on a node are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All are bound to volumes the node reaches.
    Bound,
    /// At least one is on its way.
    Waiting,
    /// It will not come to pass here; the pod must be placed anew.
    Failed(String),
}

/// Index of claims, volumes and classes, and of decisions under way.
#[derive(Debug, Default)]
pub struct Volumes {
    claims: HashMap<ObjectKey, Arc<Claim>>,
    volumes: BTreeMap<String, Arc<Volume>>,
    classes: HashMap<String, StorageClass>,
    reserved: HashMap<String, ObjectKey>,
    selected: HashMap<ObjectKey, Arc<str>>,
    declined: HashSet<ObjectKey>,
    users: HashMap<ObjectKey, usize>,
    limits: HashMap<String, BTreeMap<String, i64>>,
}

/// A volume as a CSI driver knows it: the driver's name and a handle.
pub(crate) type Handle = (String, String);

impl Volumes {
    /// Adds or changes a claim. A provisioner that takes the annotation off again declines the node.
    pub fn set_claim(&mut self, claim: Claim) {
        let had = self.claims.get(&claim.key).is_some_and(|old| old.selected_node.is_some());
        if had && claim.selected_node.is_none() && !claim.bound {
            self.declined.insert(claim.key.clone());
        } else if claim.selected_node.is_some() || claim.bound {
            self.declined.remove(&claim.key);
        }
        self.claims.insert(claim.key.clone(), Arc::new(claim));
    }

    /// Removes a claim.
    pub fn remove_claim(&mut self, key: &ObjectKey) {
        self.claims.remove(key);
        self.declined.remove(key);
    }

    /// Adds or changes a volume.
    pub fn set_volume(&mut self, volume: Volume) {
        self.volumes.insert(volume.name.clone(), Arc::new(volume));
    }

    /// Removes a volume.
    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    /// Adds or changes a class.
    pub fn set_class(&mut self, class: StorageClass) {
        self.classes.insert(class.name.clone(), class);
    }

    /// Removes a class.
    pub fn remove_class(&mut self, name: &str) {
        self.classes.remove(name);
    }

    /// Counts a placed pod as a user of its claims, or no longer.
    pub(crate) fn use_claims(&mut self, shape: &Shape, by: isize) {
        for name in &shape.claims {
            let key = ObjectKey::new(&shape.claims_namespace, name);
            let users = self.users.entry(key.clone()).or_default();
            *users = users.saturating_add_signed(by);
            if *users == 0 {
                self.users.remove(&key);
            }
        }
    }

    /// Placed pods that use a claim which only one pod may use at a time, for each such claim of the pod.
    pub(crate) fn sole_users(&self, shape: &Shape) -> usize {
        let keys = shape.claims.iter().map(|name| ObjectKey::new(&shape.claims_namespace, name));
        let sole = keys.filter(|key| self.claims.get(key).is_some_and(|c| c.is_sole()));
        sole.filter_map(|key| self.users.get(&key)).sum()
    }

    /// Of claims that only one pod may use at a time, how many two pods have in common.
    pub(crate) fn sole_shared(&self, one: &Shape, other: &Shape) -> usize {
        if other.claims.is_empty() || one.claims_namespace != other.claims_namespace {
            return 0;
        }
        let key = |name: &String| ObjectKey::new(&one.claims_namespace, name);
        let both = one.claims.iter().filter(|name| other.claims.contains(name));
        both.filter(|name| self.claims.get(&key(name)).is_some_and(|c| c.is_sole())).count()
    }

    /// Takes how many volumes of each driver a node can have; `None` when its CSINode is gone.
    pub fn set_limits(&mut self, node: &str, limits: Option<BTreeMap<String, i64>>) {
        match limits.filter(|l| !l.is_empty()) {
            Some(limits) => self.limits.insert(node.to_owned(), limits),
            None => self.limits.remove(node),
        };
    }

    /// How many volumes of each driver a node can have, where that is bounded.
    pub(crate) fn limits(&self, node: &str) -> Option<&BTreeMap<String, i64>> {
        self.limits.get(node)
    }

    /// The CSI volumes of a pod; one that is yet to be made counts under its claim's name.
    pub(crate) fn handles(&self, shape: &Shape) -> BTreeSet<Handle> {
        let keys = shape.claims.iter().map(|name| ObjectKey::new(&shape.claims_namespace, name));
        let handle = |key: ObjectKey| -> Option<Handle> {
            let claim = self.claims.get(&key)?;
            match claim.volume.as_deref() {
                Some(volume) => self.volumes.get(volume)?.csi.clone(),
                None => Some((self.class_of(claim)?.provisioner.clone()?, key.to_string())),
            }
        };
        keys.filter_map(handle).collect()
    }

    /// The claim of this name.
    pub fn claim(&self, key: &ObjectKey) -> Option<&Arc<Claim>> {
        self.claims.get(key)
    }

    /// Sorts a pod's claims, or says why it can go nowhere.
    pub fn plan(&self, shape: &Shape) -> Result<ClaimPlan, Reason> {
        let mut plan = ClaimPlan::default();
        for name in &shape.claims {
            let key = ObjectKey::new(&shape.claims_namespace, name);
            let Some(claim) = self.claims.get(&key) else {
                return Err(format!("persistentvolumeclaim {name:?} not found").into());
            };
            if claim.deleting {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted").into());
            }
            let volume = claim.volume.as_deref();
            if claim.lost {
                let volume = volume.unwrap_or_default();
                let why = format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                );
                return Err(why.into());
            }
            if let (true, Some(volume)) = (claim.bound, volume) {
                plan.bound.push(self.volumes.get(volume).cloned());
            } else if volume.is_none() && self.class_of(claim).is_some_and(|c| c.waits) {
                plan.delayed.push(Arc::clone(claim));
            } else {
                return Err(UNBOUND_IMMEDIATE.into());
            }
        }
        Ok(plan)
    }

    /// What a node means for the planned claims: what to write for it, or why not this node.
    pub fn fit(
        &self,
        plan: &ClaimPlan,
        node: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Bindings, Vec<Reason>> {
        let mut reasons = Vec::new();
        if plan.bound.iter().flatten().any(|v| !v.reachable(node, labels)) {
            reasons.push(CONFLICT.into());
        }
        if plan.bound.iter().any(Option::is_none) {
            reasons.push(NO_VOLUME.into());
        }
        let mut bindings = Bindings::default();
        // The most demanding first, so that a small claim does not take the only large volume.
        let mut delayed: Vec<&Arc<Claim>> = plan.delayed.iter().collect();
        delayed.sort_by(|a, b| b.wants.bytes.cmp(&a.wants.bytes).then_with(|| a.key.cmp(&b.key)));
        for claim in delayed {
            let selected = self.selected.get(&claim.key).map(|n| &**n).or(claim.selected_node.as_deref());
            if selected.is_some_and(|n| n != node) {
                reasons.push(NOTHING_TO_BIND.into());
                break;
            }
            if selected.is_none()
                && let Some(volume) = self.smallest(claim, node, labels, &bindings)
            {
                bindings.reserve.push((volume.name.clone(), claim.key.clone(), claim.uid.clone()));
            } else if self.can_provision(claim, node, labels) {
                bindings.provision.push(claim.key.clone());
            } else {
                reasons.push(NOTHING_TO_BIND.into());
                break;
            }
        }
        if reasons.is_empty() { Ok(bindings) } else { Err(reasons) }
    }

    /// Remembers a decision until [`Volumes::forget`] or until the objects show it.
    pub fn assume(&mut self, bindings: &Bindings, node: &Arc<str>) {
        for (volume, claim, _) in &bindings.reserve {
            self.reserved.insert(volume.clone(), claim.clone());
        }
        for claim in &bindings.provision {
            self.declined.remove(claim);
            self.selected.insert(claim.clone(), Arc::clone(node));
        }
    }

    /// Drops a remembered decision: it came to pass, or it was given up.
    pub fn forget(&mut self, bindings: &Bindings) {
        for (volume, _, _) in &bindings.reserve {
            self.reserved.remove(volume);
        }
        for claim in &bindings.provision {
            self.selected.remove(claim);
        }
    }

    /// How far the claims of a pod are whose decision was written (upstream `checkBindings`).
    pub fn progress(&self, shape: &Shape, node: &str, labels: &BTreeMap<String, String>) -> Progress {
        let mut waiting = false;
        for name in &shape.claims {
            let Some(claim) = self.claims.get(&ObjectKey::new(&shape.claims_namespace, name)) else {
                return Progress::Failed(format!("persistentvolumeclaim {name:?} is gone"));
            };
            match claim.volume.as_deref().and_then(|v| self.volumes.get(v)) {
                Some(volume) if claim.bound => {
                    if !volume.reachable(node, labels) {
                        return Progress::Failed(format!(
                            "volume {:?} is not reachable from {node}",
                            volume.name
                        ));
                    }
                }
                _ if self.declined.contains(&claim.key) => {
                    return Progress::Failed(format!("provisioning of {name:?} was declined on {node}"));
                }
                _ => waiting = true,
            }
        }
        if waiting { Progress::Waiting } else { Progress::Bound }
    }

    fn class_of(&self, claim: &Claim) -> Option<&StorageClass> {
        self.classes.get(claim.class.as_deref()?)
    }

    fn can_provision(&self, claim: &Claim, node: &str, labels: &BTreeMap<String, String>) -> bool {
        self.class_of(claim).is_some_and(|class| {
            class.provisioner.is_some() && class.topologies.as_ref().is_none_or(|t| t.matches(node, labels))
        })
    }

    fn smallest(
        &self,
        claim: &Claim,
        node: &str,
        labels: &BTreeMap<String, String>,
        taken: &Bindings,
    ) -> Option<&Arc<Volume>> {
        self.volumes
            .values()
            .filter(|v| v.suits(claim) && v.reachable(node, labels))
            .filter(|v| self.reserved.get(&v.name).is_none_or(|by| *by == claim.key))
            .filter(|v| taken.reserve.iter().all(|(name, _, _)| *name != v.name))
            // One reserved for this very claim first, then the smallest.
            .min_by_key(|v| (v.claim.is_none(), v.bytes))
    }
}

#[cfg(test)]
mod tests;
