//! Nodes that stop answering and the pods on them, and where pods' addresses come from (upstream
//! `pkg/controller/nodelifecycle`, `pkg/controller/tainteviction`, `pkg/controller/nodeipam`).

mod eviction;
mod ipam;
mod lifecycle;
mod taints;
#[cfg(test)]
mod tests;

pub use eviction::TaintEviction;
pub(crate) use eviction::{disrupt, tolerates};
pub use ipam::{NodeCidrs, NodeIpam};
pub use lifecycle::NodeLifecycle;

use k8s_openapi::api::core::v1::{Node, NodeCondition};

/// The condition of this type.
fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether the Ready condition is True.
pub(crate) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}
