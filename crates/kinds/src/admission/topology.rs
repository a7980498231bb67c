//! A pod that gets a node is labelled with the node's zone and region
//! (`plugin/pkg/admission/podtopologylabels`).

use meta::{GroupResource, Object, Status};
use resource::{Context, Operation};

use super::Plugin;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub(super) struct PodTopologyLabels;

impl Plugin for PodTopologyLabels {
    const NAME: &'static str = "PodTopologyLabels";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        resource == "pods" && operation == Operation::Create && matches!(subresource, "" | "binding")
    }

    /// A binding's labels become the pod's.
    fn mutate(&self, cx: &Context<'_>, object: &mut Object, _: Option<&Object>) -> Result<(), Status> {
        let binding = cx.attributes.subresource == "binding";
        let node = if binding { object.str(&["target", "name"]) } else { object.str(&["spec", "nodeName"]) };
        let Some(node) = node.filter(|node| !node.is_empty()) else { return Ok(()) };
        // A node that is not there has no labels; whether a pod may name it is not decided here.
        let Some(entry) = cx.view.get(&GroupResource::new("", "nodes"), "", node) else { return Ok(()) };
        for label in LABELS {
            if let Some(value) = entry.header.labels.get(label) {
                object.set(&["metadata", "labels", label], value);
            }
        }
        Ok(())
    }
}
