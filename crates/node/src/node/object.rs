//! The Node object as this machine wants it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
        NodeRuntimeHandler, NodeSpec, NodeStatus, NodeSystemInfo, Taint,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
};
use meta::{QuantityForm, Timestamp};
use runtime::{
    Image,
    stats::{Readiness, Version},
};

use super::Measured;
use crate::pressure::{Threshold, Thresholds};

/// Images in the status (upstream `nodeStatusMaxImages`).
const IMAGES_MAX: usize = 50;
/// Names of one image in the status (upstream `MaxNamesPerImageInNodeStatus`).
const IMAGE_NAMES_MAX: usize = 5;

/// What the node is told about itself.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Node name.
    pub name: String,
    /// Addresses, the primary first.
    pub addresses: Vec<String>,
    /// Further labels.
    pub labels: BTreeMap<String, String>,
    /// Taints at registration.
    pub taints: Vec<Taint>,
    /// Most pods.
    pub max_pods: u32,
    /// Port of the kubelet API; 0 when it is not served.
    pub kubelet_port: u16,
    /// `spec.podCIDR` to register with, when nobody else gives one out.
    pub pod_cidr: Option<String>,
    /// What must be left of the machine's resources.
    pub thresholds: Thresholds,
}

/// What was found out.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The machine.
    pub measured: Measured,
    /// The runtime.
    pub version: Option<Version>,
    /// Whether it can run pods.
    pub runtime: Readiness,
    /// Whether pods get addresses.
    pub network: Readiness,
    /// Its images.
    pub images: Vec<Image>,
    /// What pods of RuntimeClasses can be run by, the default as the empty name.
    pub handlers: Vec<String>,
}

/// The object to create when there is none.
pub fn node(identity: &Identity, findings: &Findings, now: Timestamp) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(identity.name.clone()),
            labels: Some(labels(identity, &findings.measured)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!identity.taints.is_empty()).then(|| identity.taints.clone()),
            pod_cidr: identity.pod_cidr.clone(),
            pod_cidrs: identity.pod_cidr.clone().map(|cidr| vec![cidr]),
            ..NodeSpec::default()
        }),
        status: Some(status(identity, findings, None, now)),
    }
}

/// The labels that the node keeps on itself.
pub fn labels(identity: &Identity, measured: &Measured) -> BTreeMap<String, String> {
    let own = [
        ("kubernetes.io/hostname", identity.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", measured.architecture.as_str()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", measured.architecture.as_str()),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    own.chain(identity.labels.clone()).collect()
}

/// Its status; `old` is what the API server has, for the times of the conditions.
pub fn status(
    identity: &Identity,
    findings: &Findings,
    old: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeStatus {
    let capacity = capacity(identity, &findings.measured);
    let allocatable = allocatable(&capacity, &findings.measured, &identity.thresholds);
    let offered = old.map(extended).unwrap_or_default();
    let with_offered = |amounts| {
        let mut amounts = quantities(amounts);
        amounts.extend(offered.iter().map(|(name, amount)| (name.clone(), Quantity(amount.clone()))));
        amounts
    };
    let port = i32::from(identity.kubelet_port);
    NodeStatus {
        addresses: Some(addresses(identity)),
        capacity: Some(with_offered(&capacity)),
        allocatable: Some(with_offered(&allocatable)),
        conditions: Some(conditions(findings, &identity.thresholds, old, now)),
        daemon_endpoints: (port > 0)
            .then_some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port }) }),
        images: Some(images(&findings.images)),
        node_info: Some(info(findings)),
        runtime_handlers: (!findings.handlers.is_empty()).then(|| handlers(&findings.handlers)),
        ..NodeStatus::default()
    }
}

/// What others offer on this node, such as `example.com/dongle`: written into its capacity by them, and taken from
/// there into what pods may have (upstream `nodestatus.MachineInfo`).
pub(crate) fn extended(status: &NodeStatus) -> BTreeMap<String, String> {
    let capacity = status.capacity.iter().flatten();
    let extended = capacity.filter(|(name, _)| name.contains('/') && !name.contains("kubernetes.io/"));
    extended.map(|(name, amount)| (name.clone(), amount.0.clone())).collect()
}

/// Without features: recursive read-only mounts and user namespaces are refused whatever the runtime can do.
fn handlers(names: &[String]) -> Vec<NodeRuntimeHandler> {
    names.iter().map(|name| NodeRuntimeHandler { name: Some(name.clone()), features: None }).collect()
}

fn addresses(identity: &Identity) -> Vec<NodeAddress> {
    let ips = identity
        .addresses
        .iter()
        .map(|ip| NodeAddress { address: ip.clone(), type_: "InternalIP".to_owned() });
    let host = NodeAddress { address: identity.name.clone(), type_: "Hostname".to_owned() };
    ips.chain([host]).collect()
}

/// Amount of each resource: CPUs in thousandths, everything else in its own unit.
fn capacity(identity: &Identity, measured: &Measured) -> BTreeMap<String, u64> {
    let mut map = measured.huge_pages.clone();
    map.insert("cpu".to_owned(), measured.cpus * 1000);
    map.insert("memory".to_owned(), measured.memory_bytes);
    map.insert("ephemeral-storage".to_owned(), measured.disk_bytes);
    map.insert("pods".to_owned(), u64::from(identity.max_pods));
    map
}

/// Capacity less what is kept for the machine itself: the eviction thresholds and huge pages.
fn allocatable(
    capacity: &BTreeMap<String, u64>,
    measured: &Measured,
    thresholds: &Thresholds,
) -> BTreeMap<String, u64> {
    let mut map = capacity.clone();
    let huge: u64 = measured.huge_pages.values().sum();
    if let Some(memory) = map.get_mut("memory") {
        *memory = memory.saturating_sub(thresholds.memory.of(*memory) + huge);
    }
    if let Some(disk) = map.get_mut("ephemeral-storage") {
        *disk = disk.saturating_sub(thresholds.disk.of(*disk));
    }
    map
}

/// Allocatable as quantities, for the downward API and for admission.
pub fn allocatable_quantities(identity: &Identity, measured: &Measured) -> BTreeMap<String, String> {
    let map = allocatable(&capacity(identity, measured), measured, &identity.thresholds);
    quantities(&map).into_iter().map(|(name, Quantity(text))| (name, text)).collect()
}

fn quantities(map: &BTreeMap<String, u64>) -> BTreeMap<String, Quantity> {
    // As the API server will show them: another form would look like news at each heartbeat.
    let whole = |amount: u64| meta::Quantity::from_value(i64::try_from(amount).unwrap_or(i64::MAX));
    let text = |name: &str, amount: u64| match name {
        "cpu" => meta::Quantity::from_milli(i64::try_from(amount).unwrap_or(i64::MAX))
            .canonical(QuantityForm::DecimalSi),
        "memory" => whole(amount / 1024 * 1024).canonical(QuantityForm::BinarySi),
        _ if name.starts_with("hugepages-") => whole(amount).canonical(QuantityForm::BinarySi),
        _ => whole(amount).canonical(QuantityForm::DecimalSi),
    };
    map.iter().map(|(name, amount)| (name.clone(), Quantity(text(name, *amount)))).collect()
}

fn conditions(
    findings: &Findings,
    thresholds: &Thresholds,
    old: Option<&NodeStatus>,
    now: Timestamp,
) -> Vec<NodeCondition> {
    let measured = &findings.measured;
    let Thresholds { memory, disk, inodes, pids } = thresholds;
    let few_bytes = disk.is_passed(measured.disk_available_bytes, measured.disk_bytes);
    let few_inodes = inodes.is_passed(measured.inodes_free, measured.inodes);
    let few_pids = pids.is_passed(measured.pids_max.saturating_sub(measured.pids), measured.pids_max);
    let short = |what: &str, signal: &str, threshold: &Threshold| {
        format!(
            "kubelet has {what}: {signal}<{threshold}; free some, or lower the threshold with --eviction-hard"
        )
    };
    let disk_pressure = match few_bytes {
        true => short("disk pressure", "nodefs.available", disk),
        false => short("disk pressure", "nodefs.inodesFree", inodes),
    };
    let pressure = |kind: &str, on: bool, yes: (&str, &str), no: (&str, &str)| {
        let (reason, message) = if on { yes } else { no };
        condition(kind, on, reason, message, old, now)
    };
    let ready = match (&findings.runtime, &findings.network) {
        (Readiness::Ready, Readiness::Ready) => {
            condition("Ready", true, "KubeletReady", "kubelet is posting ready status", old, now)
        }
        (Readiness::NotReady { reason, message }, _) => {
            let message = format!("container runtime not ready: {reason}: {message}");
            condition("Ready", false, "KubeletNotReady", &message, old, now)
        }
        (Readiness::Ready, Readiness::NotReady { reason, message }) => {
            let message = format!("container runtime network not ready: {reason}: {message}");
            condition("Ready", false, "KubeletNotReady", &message, old, now)
        }
    };
    vec![
        pressure(
            "MemoryPressure",
            memory.is_passed(measured.memory_available_bytes, measured.memory_bytes),
            (
                "KubeletHasInsufficientMemory",
                &short("insufficient memory available", "memory.available", memory),
            ),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            few_bytes || few_inodes,
            ("KubeletHasDiskPressure", &disk_pressure),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            few_pids,
            ("KubeletHasInsufficientPID", &short("insufficient PID available", "pid.available", pids)),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready,
    ]
}

fn condition(
    kind: &str,
    on: bool,
    reason: &str,
    message: &str,
    old: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeCondition {
    let status = if on { "True" } else { "False" };
    let had = old.and_then(|old| old.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind));
    let since = had.filter(|had| had.status == status).and_then(|had| had.last_transition_time.clone());
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    }
}

/// The largest images, by their names.
fn images(images: &[Image]) -> Vec<ContainerImage> {
    let mut sorted: Vec<&Image> = images.iter().collect();
    sorted.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
    let listed = sorted.into_iter().take(IMAGES_MAX).map(|image| {
        let names = image.repo_digests.iter().chain(&image.repo_tags).take(IMAGE_NAMES_MAX).cloned();
        ContainerImage { names: Some(names.collect()), size_bytes: i64::try_from(image.size_bytes).ok() }
    });
    listed.collect()
}

fn info(findings: &Findings) -> NodeSystemInfo {
    let measured = &findings.measured;
    let runtime = findings.version.as_ref().map(|version| format!("{}://{}", version.name, version.version));
    NodeSystemInfo {
        architecture: measured.architecture.clone(),
        boot_id: measured.boot_id.clone(),
        container_runtime_version: runtime.unwrap_or_else(|| "unknown".to_owned()),
        kernel_version: measured.kernel.clone(),
        kubelet_version: concat!("v1.36.0+keelson.", env!("CARGO_PKG_VERSION")).to_owned(),
        machine_id: measured.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: measured.os_image.clone(),
        system_uuid: measured.system_uuid.clone(),
        ..NodeSystemInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(change: impl FnOnce(&mut Findings)) -> Findings {
        let measured = Measured {
            cpus: 2,
            memory_bytes: 8 << 30,
            memory_available_bytes: 4 << 30,
            disk_bytes: 1000,
            disk_available_bytes: 500,
            inodes: 1000,
            inodes_free: 500,
            pids_max: 1000,
            pids: 10,
            ..Measured::default()
        };
        let mut findings = Findings {
            measured,
            version: None,
            runtime: Readiness::Ready,
            network: Readiness::Ready,
            images: Vec::new(),
            handlers: vec![String::new(), "crun".into()],
        };
        change(&mut findings);
        findings
    }

    #[test]
    fn conditions_are_measured() {
        let not_ready = || Readiness::NotReady { reason: "R".into(), message: "m".into() };
        for (findings, expected) in [
            (findings(|_| {}), "False False False True"),
            (findings(|f| f.measured.memory_available_bytes = 99 << 20), "True False False True"),
            (findings(|f| f.measured.disk_available_bytes = 49), "False True False True"),
            (findings(|f| f.measured.inodes_free = 49), "False True False True"),
            (findings(|f| f.measured.pids = 951), "False False True True"),
            (findings(|f| f.runtime = not_ready()), "False False False False"),
            (findings(|f| f.network = not_ready()), "False False False False"),
        ] {
            let status = status(&Identity::default(), &findings, None, Timestamp::UNIX_EPOCH);
            let got: Vec<String> = status.conditions.unwrap().into_iter().map(|c| c.status).collect();
            assert_eq!(got.join(" "), expected);
        }
    }

    #[test]
    fn allocatable_is_what_pods_may_have() {
        let identity = Identity { max_pods: 110, ..Identity::default() };
        let got = allocatable_quantities(
            &identity,
            &findings(|f| {
                f.measured.huge_pages.insert("hugepages-2Mi".into(), 1 << 30);
            })
            .measured,
        );
        let expected = [
            ("cpu", "2"),
            ("ephemeral-storage", "950"),
            ("hugepages-2Mi", "1Gi"),
            ("memory", "7068Mi"),
            ("pods", "110"),
        ];
        assert_eq!(got, expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
    }

    #[test]
    fn transition_times_stay_while_the_status_stays() {
        let later = Timestamp::from_second(60).unwrap();
        let first = status(&Identity::default(), &findings(|_| {}), None, Timestamp::UNIX_EPOCH);
        let second = status(&Identity::default(), &findings(|f| f.measured.pids = 999), Some(&first), later);
        let conditions = second.conditions.unwrap();
        let since = |kind: &str| {
            conditions.iter().find(|c| c.type_ == kind).unwrap().last_transition_time.clone().unwrap().0
        };
        assert_eq!((since("Ready"), since("PIDPressure")), (Timestamp::UNIX_EPOCH, later));
    }
}
