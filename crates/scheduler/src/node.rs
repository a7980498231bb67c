//! What the scheduler keeps of a node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use meta::Quantity;

use crate::{resources::Resources, taint::Taint};

/// The projection of a Node. Two equal values mean that nothing the scheduler looks at changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// Taints, in the node's order.
    pub taints: Vec<Taint>,
    /// `status.allocatable`, without pods.
    pub allocatable: Resources,
    /// `status.allocatable.pods`.
    pub pods_max: i64,
    /// Sizes in bytes of the images it has, by every name.
    pub images: BTreeMap<String, i64>,
}

impl NodeInfo {
    /// Projects a wire node.
    pub fn read(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref());
        let mut images = BTreeMap::new();
        for image in status.and_then(|s| s.images.as_deref()).unwrap_or_default() {
            for name in image.names.as_deref().unwrap_or_default() {
                images.insert(name.clone(), image.size_bytes.unwrap_or_default());
            }
        }
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or_default(),
            taints: spec
                .and_then(|s| s.taints.as_deref())
                .unwrap_or_default()
                .iter()
                .filter_map(Taint::read)
                .collect(),
            allocatable: allocatable.map(|a| Resources::read(a, 0)).unwrap_or_default(),
            pods_max: allocatable
                .and_then(|a| a.get("pods")?.0.parse::<Quantity>().ok())
                .unwrap_or_default()
                .value(),
            images,
        }
    }
}
