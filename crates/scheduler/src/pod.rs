//! What the scheduler keeps of a pod: who it is, and its [`Shape`], which is all that filters and
//! scores look at. Pods of equal shape go where the first of them would go, so the shape is also the
//! equivalence class.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use meta::{ObjectKey, Timestamp};

use crate::{
    relations::{Labels, Relations},
    resources::Resources,
    selector::{NodeSelector, Term},
    taint::Toleration,
    workloads::Workload,
};

/// A port on the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Address it is bound to; `0.0.0.0` means all.
    pub ip: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        const ALL: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ALL || other.ip == ALL)
    }
}

/// Everything about a pod that filters and scores look at.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Namespace when claims are used, else empty: claims are names in a namespace.
    pub claims_namespace: String,
    /// PersistentVolumeClaims of the pod, by name.
    pub claims: Vec<String>,
    /// What it asks for.
    pub requests: Resources,
    /// The same, as scoring sees it.
    pub requests_nonzero: Resources,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// `requiredDuringSchedulingIgnoredDuringExecution` of its node affinity.
    pub node_affinity: Option<NodeSelector>,
    /// The preferred terms, with weights.
    pub preferred_nodes: Vec<(i64, Term)>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Host ports.
    pub host_ports: Vec<HostPort>,
    /// Images, init containers included, with a tag each.
    pub images: Vec<String>,
    /// Fields that would constrain placement and that this scheduler does not implement.
    pub unsupported: Vec<&'static str>,
}

/// `status.conditions[PodScheduled]`, to patch only what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScheduledCondition {
    /// `True`, `False` or empty.
    pub status: String,
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
}

/// The projection of a Pod.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: Arc<str>,
    /// Creation; older pods go first among equals.
    pub created: Timestamp,
    /// `spec.priority`.
    pub priority: i32,
    /// `spec.schedulerName`.
    pub scheduler_name: Arc<str>,
    /// `spec.nodeName`, when assigned.
    pub node_name: Option<Arc<str>>,
    /// Succeeded or Failed: it holds nothing of its node any more.
    pub terminal: bool,
    /// Deletion has begun: it is not placed any more.
    pub deleting: bool,
    /// Names of its scheduling gates; it waits while there is one.
    pub gates: Vec<String>,
    /// Labels.
    pub labels: Arc<Labels>,
    /// What it says about other pods, if anything.
    pub relations: Option<Arc<Relations>>,
    /// What filters and scores look at, other pods aside.
    pub shape: Arc<Shape>,
    /// Hash of the shape; the same in every run.
    pub shape_hash: u64,
    /// The condition as last seen.
    pub condition: ScheduledCondition,
    /// `spec.preemptionPolicy` is not `Never`.
    pub preempts: bool,
    /// `status.nominatedNodeName`: the node whose room is being freed for it.
    pub nominated: Option<Arc<str>>,
    /// `status.startTime`; a pod that has not started counts from its creation.
    pub started: Timestamp,
    /// It is being deleted to make room for a pod of higher priority.
    pub preempted: bool,
    /// The workload that controls it, if its kind counts for spreading.
    pub owner: Option<(Workload, String)>,
}

impl PodInfo {
    /// Projects a wire pod.
    pub fn read(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let status = pod.status.as_ref();
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let name = metadata.name.clone().unwrap_or_default();
        let labels = metadata.labels.clone().unwrap_or_default();
        let assigned = spec.node_name.as_deref().filter(|n| !n.is_empty());
        let shape = Shape::read(&namespace, &name, spec, status.filter(|_| assigned.is_some()));
        let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
        Self {
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            created: metadata.creation_timestamp.as_ref().map(|t| t.0).unwrap_or_default(),
            priority: spec.priority.unwrap_or_default(),
            scheduler_name: spec.scheduler_name.as_deref().unwrap_or("default-scheduler").into(),
            node_name: assigned.map(Into::into),
            terminal: matches!(phase, "Succeeded" | "Failed"),
            deleting: metadata.deletion_timestamp.is_some(),
            gates: spec
                .scheduling_gates
                .as_deref()
                .unwrap_or_default()
                .iter()
                .map(|gate| gate.name.clone())
                .collect(),
            relations: Relations::read(&namespace, &labels, spec).map(Arc::new),
            labels: Arc::new(labels),
            key: ObjectKey { namespace, name },
            shape_hash: shape.stable_hash(),
            shape: Arc::new(shape),
            condition: scheduled_condition(pod),
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            nominated: status
                .and_then(|s| s.nominated_node_name.as_deref())
                .filter(|n| !n.is_empty() && assigned.is_none())
                .map(Into::into),
            started: status
                .and_then(|s| s.start_time.as_ref())
                .or(metadata.creation_timestamp.as_ref())
                .map(|t| t.0)
                .unwrap_or_default(),
            owner: metadata
                .owner_references
                .as_deref()
                .unwrap_or_default()
                .iter()
                .find(|o| o.controller == Some(true))
                .and_then(|o| Some((Workload::of(&o.api_version, &o.kind)?, o.name.clone()))),
            preempted: metadata.deletion_timestamp.is_some() && is_preempted(status),
        }
    }
}

impl Shape {
    fn read(namespace: &str, pod: &str, spec: &PodSpec, status: Option<&PodStatus>) -> Self {
        let claims = claims(pod, spec);
        let node_affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let preferred =
            node_affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
        let all = || spec.init_containers.as_deref().unwrap_or_default().iter().chain(&spec.containers);
        Self {
            claims_namespace: if claims.is_empty() { String::new() } else { namespace.to_owned() },
            claims,
            requests: Resources::of_pod(spec, status),
            requests_nonzero: Resources::of_pod_nonzero(spec, status),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            node_affinity: node_affinity
                .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
                .map(NodeSelector::from),
            preferred_nodes: preferred
                .unwrap_or_default()
                .iter()
                .map(|p| (i64::from(p.weight), Term::from(&p.preference)))
                .collect(),
            tolerations: spec
                .tolerations
                .as_deref()
                .unwrap_or_default()
                .iter()
                .filter_map(Toleration::read)
                .collect(),
            host_ports: all().filter(|c| stays(spec, c)).flat_map(host_ports).collect(),
            images: all().filter_map(|c| c.image.as_deref()).map(with_tag).collect(),
            unsupported: unsupported(spec),
        }
    }

    fn stable_hash(&self) -> u64 {
        // `DefaultHasher::new` has fixed keys; only placements among equals depend on the value.
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// Ports of init containers that end count for nobody; those of sidecars do.
fn stays(spec: &PodSpec, container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
        || spec.containers.iter().any(|c| std::ptr::eq(c, container))
}

fn host_ports(container: &Container) -> impl Iterator<Item = HostPort> + '_ {
    container.ports.as_deref().unwrap_or_default().iter().filter_map(|p| {
        let port = p.host_port.filter(|port| *port > 0)?;
        let ip = p.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
        let protocol = p.protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP");
        Some(HostPort { protocol: protocol.to_owned(), ip: ip.to_owned(), port })
    })
}

/// Claims named by the pod, and those made for its generic ephemeral volumes (`POD-VOLUME`).
fn claims(pod: &str, spec: &PodSpec) -> Vec<String> {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let mut names: Vec<String> = volumes
        .iter()
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{pod}-{}", volume.name)),
            (None, None) => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The name as nodes report it: `:latest` when there is neither tag nor digest.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') { image.to_owned() } else { format!("{image}:latest") }
}

fn unsupported(spec: &PodSpec) -> Vec<&'static str> {
    let mut fields = Vec::new();
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        fields.push("resourceClaims");
    }
    fields
}

fn is_preempted(status: Option<&PodStatus>) -> bool {
    let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| {
        c.type_ == "DisruptionTarget"
            && c.status == "True"
            && c.reason.as_deref() == Some("PreemptionByScheduler")
    })
}

fn scheduled_condition(pod: &Pod) -> ScheduledCondition {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions
        .iter()
        .find(|c| c.type_ == "PodScheduled")
        .map(|c| ScheduledCondition {
            status: c.status.clone(),
            reason: c.reason.clone().unwrap_or_default(),
            message: c.message.clone().unwrap_or_default(),
        })
        .unwrap_or_default()
}

/// A pending pod with this spec, for tests.
#[cfg(test)]
pub(crate) fn test_pod(uid: &str, spec: serde_json::Value) -> PodInfo {
    labelled_pod(uid, serde_json::json!({}), spec)
}

/// The same, with labels.
#[cfg(test)]
pub(crate) fn labelled_pod(uid: &str, labels: serde_json::Value, spec: serde_json::Value) -> PodInfo {
    let metadata = serde_json::json!({"name": uid, "namespace": "default", "uid": uid, "labels": labels});
    let pod = serde_json::json!({"metadata": metadata, "spec": spec});
    PodInfo::read(&serde_json::from_value(pod).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: &str, ip: &str, port: i32) -> HostPort {
        HostPort { protocol: protocol.into(), ip: ip.into(), port }
    }

    #[test]
    fn port_conflicts() {
        let all = port("TCP", "0.0.0.0", 80);
        for (other, expected) in [
            (port("TCP", "0.0.0.0", 80), true),
            (port("TCP", "127.0.0.1", 80), true),
            (port("UDP", "0.0.0.0", 80), false),
            (port("TCP", "0.0.0.0", 81), false),
        ] {
            assert_eq!(all.conflicts(&other), expected, "{other:?}");
            assert_eq!(other.conflicts(&all), expected, "{other:?}");
        }
        assert!(!port("TCP", "127.0.0.1", 80).conflicts(&port("TCP", "127.0.0.2", 80)));
    }

    #[test]
    fn reads_what_matters() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {
                "priority": 7,
                "initContainers": [
                    {"name": "i", "image": "setup", "ports": [{"containerPort": 1, "hostPort": 1}]},
                    {"name": "s", "image": "r:5000/side", "restartPolicy": "Always", "ports": [{"containerPort": 2, "hostPort": 2}]}
                ],
                "containers": [{"name": "c", "image": "app:1", "ports": [{"containerPort": 3}, {"containerPort": 4, "hostPort": 4, "protocol": "UDP"}]}],
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "z"}},
                    {"name": "tmp", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                    {"name": "e", "emptyDir": {}}
                ],
                "schedulingGates": [{"name": "g"}]
            }
        }))
        .unwrap();
        let info = PodInfo::read(&pod);
        assert_eq!(
            (info.key.to_string(), info.priority, &*info.scheduler_name),
            ("ns/p".into(), 7, "default-scheduler")
        );
        assert_eq!(info.gates, ["g"]);
        assert_eq!(info.shape.host_ports, [port("TCP", "0.0.0.0", 2), port("UDP", "0.0.0.0", 4)]);
        assert_eq!(info.shape.images, ["setup:latest", "r:5000/side:latest", "app:1"]);
        assert_eq!(
            (info.shape.claims_namespace.as_str(), info.shape.claims.as_slice()),
            ("ns", ["p-tmp".to_owned(), "z".into()].as_slice())
        );
        assert_eq!(info.shape_hash, PodInfo::read(&pod).shape_hash);
    }
}
