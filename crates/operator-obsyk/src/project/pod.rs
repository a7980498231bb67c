//! Pods.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Fields, Inventory, Meta, amount, lite};
use crate::Kind;

lite! {
    Pod { metadata: Meta, spec: Spec, status: Status }
    Spec {
        node_name: String,
        service_account_name: String,
        priority_class_name: String,
        containers: Vec<Container>,
        init_containers: Vec<Container>,
        volumes: Vec<Volume>,
    }
    Status {
        phase: String,
        qos_class: String,
        #[serde(rename = "hostIP")]
        host_ip: String,
        #[serde(rename = "podIP")]
        pod_ip: String,
        conditions: Vec<Condition>,
        container_statuses: Vec<ContainerStatus>,
        init_container_statuses: Vec<ContainerStatus>,
    }
    Condition { r#type: String, status: String }
    ContainerStatus { name: String, ready: bool, restart_count: i64, state: State }
    State { running: IgnoredAny, waiting: IgnoredAny, terminated: IgnoredAny }
    Container {
        name: String,
        image: String,
        resources: Resources,
        ports: Vec<Port>,
        volume_mounts: Vec<Mount>,
        env: Vec<Named>,
        security_context: SecurityContext,
    }
    Resources { requests: BTreeMap<String, Value>, limits: BTreeMap<String, Value> }
    Port { container_port: i64, protocol: String, name: String }
    Mount { name: String, mount_path: String, read_only: bool }
    /// An environment variable: its value is not read.
    Named { name: String }
    SecurityContext { privileged: bool, run_as_user: i64, run_as_non_root: bool, capabilities: Capabilities }
    Capabilities { add: Vec<String> }
    Volume {
        name: String,
        empty_dir: IgnoredAny,
        config_map: Named,
        secret: SecretVolume,
        persistent_volume_claim: ClaimVolume,
        host_path: HostPath,
        projected: IgnoredAny,
        #[serde(rename = "downwardAPI")]
        downward_api: IgnoredAny,
        csi: Csi,
        nfs: Nfs,
        ephemeral: IgnoredAny,
    }
    SecretVolume { secret_name: String }
    ClaimVolume { claim_name: String }
    HostPath { path: String }
    Csi { driver: String }
    Nfs { server: String, path: String }
}

impl Inventory for Pod {
    const KIND: Kind = Kind::Pod;

    fn split(self) -> (Meta, Fields) {
        let spec = self.spec.unwrap_or_default();
        let status = self.status.unwrap_or_default();
        let conditions: Vec<Value> = status.conditions.into_iter().flatten().map(condition).collect();
        let volumes: Vec<Value> = spec.volumes.into_iter().flatten().map(volume).collect();
        let fields = Fields::default()
            .unless_empty("node_name", spec.node_name)
            .unless_empty("service_account", spec.service_account_name)
            .unless_empty("phase", status.phase)
            .unless_empty("qos_class", status.qos_class)
            .unless_empty("priority_class_name", spec.priority_class_name)
            .unless_empty("host_ip", status.host_ip)
            .unless_empty("pod_ip", status.pod_ip)
            .unless_empty("conditions", conditions)
            .unless_empty("containers", containers(spec.containers, status.container_statuses))
            .unless_empty("init_containers", containers(spec.init_containers, status.init_container_statuses))
            .unless_empty("volumes", volumes);
        (self.metadata.unwrap_or_default(), fields)
    }
}

fn condition(condition: Condition) -> Value {
    Fields::default()
        .always("type", condition.r#type.unwrap_or_default())
        .always("status", condition.status.unwrap_or_default())
        .into()
}

/// Containers with the status of the same name.
fn containers(specs: Option<Vec<Container>>, statuses: Option<Vec<ContainerStatus>>) -> Vec<Value> {
    let statuses = statuses.unwrap_or_default();
    let find = |name: &Option<String>| statuses.iter().find(|status| status.name == *name);
    specs
        .into_iter()
        .flatten()
        .map(|spec| {
            let status = find(&spec.name);
            container(spec, status)
        })
        .collect()
}

fn container(spec: Container, status: Option<&ContainerStatus>) -> Value {
    let names: Vec<String> = spec.env.into_iter().flatten().filter_map(|variable| variable.name).collect();
    let ports: Vec<Value> = spec.ports.into_iter().flatten().map(port).collect();
    let mounts: Vec<Value> = spec.volume_mounts.into_iter().flatten().map(mount).collect();
    let fields = Fields::default()
        .always("name", spec.name.unwrap_or_default())
        .always("image", spec.image.unwrap_or_default())
        .unless_empty("state", status.and_then(|status| status.state.as_ref()).and_then(state))
        .always("ready", status.and_then(|status| status.ready).unwrap_or(false))
        .always("restart_count", status.and_then(|status| status.restart_count).unwrap_or(0))
        .always("resources", resources(spec.resources.unwrap_or_default()))
        .unless_empty("ports", ports)
        .unless_empty("volume_mounts", mounts)
        .unless_empty("env_var_names", names);
    match spec.security_context {
        // There even when nothing of it is sent, as the original does.
        Some(context) => fields.always("security_context", security(context)).into(),
        None => fields.into(),
    }
}

fn state(state: &State) -> Option<&'static str> {
    let State { running, waiting, terminated } = state;
    match (running, waiting, terminated) {
        (Some(_), _, _) => Some("running"),
        (None, Some(_), _) => Some("waiting"),
        (None, None, Some(_)) => Some("terminated"),
        (None, None, None) => None,
    }
}

fn resources(resources: Resources) -> Fields {
    let of = |amounts: &Option<BTreeMap<String, Value>>, name: &str| {
        amount(amounts.as_ref().and_then(|amounts| amounts.get(name)))
    };
    Fields::default()
        .unless_empty("cpu_request", of(&resources.requests, "cpu"))
        .unless_empty("cpu_limit", of(&resources.limits, "cpu"))
        .unless_empty("memory_request", of(&resources.requests, "memory"))
        .unless_empty("memory_limit", of(&resources.limits, "memory"))
}

fn port(port: Port) -> Value {
    Fields::default()
        .always("container_port", port.container_port.unwrap_or(0))
        .unless_empty("protocol", port.protocol)
        .unless_empty("name", port.name)
        .into()
}

fn mount(mount: Mount) -> Value {
    Fields::default()
        .always("name", mount.name.unwrap_or_default())
        .always("mount_path", mount.mount_path.unwrap_or_default())
        .always("read_only", mount.read_only.unwrap_or(false))
        .into()
}

/// The container's own settings only; `run_as_root` is true or absent.
fn security(context: SecurityContext) -> Fields {
    let root = context.run_as_user == Some(0) || context.run_as_non_root == Some(false);
    Fields::default()
        .unless_empty("privileged", context.privileged)
        .unless_empty("run_as_root", root.then_some(true))
        .unless_empty("capabilities", context.capabilities.and_then(|capabilities| capabilities.add))
}

/// The first source in the original's order.
fn volume(volume: Volume) -> Value {
    let name = volume.name.unwrap_or_default();
    let (kind, source) = if volume.empty_dir.is_some() {
        ("emptyDir", None)
    } else if let Some(map) = volume.config_map {
        ("configMap", map.name)
    } else if let Some(secret) = volume.secret {
        ("secret", secret.secret_name)
    } else if let Some(claim) = volume.persistent_volume_claim {
        ("pvc", claim.claim_name)
    } else if let Some(host) = volume.host_path {
        ("hostPath", host.path)
    } else if volume.projected.is_some() {
        ("projected", None)
    } else if volume.downward_api.is_some() {
        ("downwardAPI", None)
    } else if let Some(csi) = volume.csi {
        ("csi", csi.driver)
    } else if let Some(Nfs { server, path }) = volume.nfs {
        ("nfs", Some(format!("{}:{}", server.unwrap_or_default(), path.unwrap_or_default())))
    } else if volume.ephemeral.is_some() {
        ("ephemeral", None)
    } else {
        ("unknown", None)
    };
    Fields::default().always("name", name).always("type", kind).unless_empty("source", source).into()
}
