//! Nodes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Fields, Inventory, Meta, amount, lite, sorted};
use crate::Kind;

lite! {
    Node { metadata: Meta, status: Status }
    Status { conditions: Vec<Condition>, node_info: Info, capacity: BTreeMap<String, Value> }
    Condition { r#type: String, status: String }
    Info {
        kubelet_version: String, container_runtime_version: String, os_image: String, architecture: String,
    }
}

impl Inventory for Node {
    const KIND: Kind = Kind::Node;

    fn split(self) -> (Meta, Fields) {
        let meta = self.metadata.unwrap_or_default();
        let status = self.status.unwrap_or_default();
        let ready = status.conditions.iter().flatten().any(|condition| {
            condition.r#type.as_deref() == Some("Ready") && condition.status.as_deref() == Some("True")
        });
        let roles = meta.labels.iter().flatten().filter_map(|(label, _)| role(label));
        let info = status.node_info.unwrap_or_default();
        let capacity = status.capacity.unwrap_or_default();
        let of = |name: &str| amount(capacity.get(name)).unwrap_or_else(|| "0".to_owned());
        let fields = Fields::default()
            .always("status", if ready { "Ready" } else { "NotReady" })
            .unless_empty("roles", sorted(roles))
            .unless_empty("kubelet_version", info.kubelet_version)
            .unless_empty("container_runtime", info.container_runtime_version)
            .unless_empty("os_image", info.os_image)
            .unless_empty("architecture", info.architecture)
            .unless_empty("cpu_capacity", of("cpu"))
            .unless_empty("memory_capacity", of("memory"))
            .unless_empty("pod_capacity", of("pods"));
        (meta, fields)
    }
}

/// The role that a label stands for.
fn role(label: &str) -> Option<String> {
    match label.strip_prefix("node-role.kubernetes.io/")? {
        "" => None,
        "master" => Some("control-plane".to_owned()),
        role => Some(role.to_owned()),
    }
}
