//! Pods stay five minutes on a node that is not ready or not reachable
//! (`plugin/pkg/admission/defaulttolerationseconds`).

use meta::{Object, Status};
use resource::{Context, Operation};
use serde_json::json;

use super::Plugin;

const SECONDS: i64 = 300;

pub(super) struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    const NAME: &'static str = "DefaultTolerationSeconds";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        resource == "pods"
            && matches!(operation, Operation::Create | Operation::Update)
            && subresource.is_empty()
    }

    fn mutate(&self, _: &Context<'_>, pod: &mut Object, _: Option<&Object>) -> Result<(), Status> {
        let mut tolerations = pod.list(&["spec", "tolerations"]).to_vec();
        let before = tolerations.len();
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let tolerated = tolerations.iter().any(|toleration| {
                let text = |field: &str| toleration.get(field).and_then(|v| v.as_str()).unwrap_or_default();
                (text("key") == key || text("key").is_empty())
                    && (text("effect") == "NoExecute" || text("effect").is_empty())
            });
            if !tolerated {
                tolerations.push(json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
                }));
            }
        }
        if tolerations.len() > before {
            pod.set(&["spec", "tolerations"], tolerations);
        }
        Ok(())
    }
}
