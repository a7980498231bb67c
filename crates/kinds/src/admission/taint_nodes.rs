//! A new node takes no pods until its controller has seen it ready
//! (`plugin/pkg/admission/nodetaint`).

use meta::{Object, Status};
use resource::{Context, Operation};
use serde_json::json;

use super::Plugin;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    const NAME: &'static str = "TaintNodesByCondition";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        resource == "nodes" && operation == Operation::Create && subresource.is_empty()
    }

    fn mutate(&self, _: &Context<'_>, node: &mut Object, _: Option<&Object>) -> Result<(), Status> {
        let mut taints = node.list(&["spec", "taints"]).to_vec();
        let marked = taints.iter().any(|taint| {
            taint.get("key") == Some(&json!(NOT_READY)) && taint.get("effect") == Some(&json!("NoSchedule"))
        });
        if !marked {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            node.set(&["spec", "taints"], taints);
        }
        Ok(())
    }
}
