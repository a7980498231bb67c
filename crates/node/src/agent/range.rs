//! The range of pod addresses of a node that does not bring its own.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::PostParams};
use runtime::stats::Readiness;

use super::heartbeat;
use crate::{
    node::object::{self, Findings},
    options::Options,
};

/// Between two looks at the Node: who gives ranges needs less.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Waits for `spec.podCIDR` of the Node, which is registered, not ready, where it is not there. `waits` is called once,
/// when it has to wait. Ends with an error only where asking again is no use. Dropping it leaves the Node registered.
pub async fn pod_cidr(
    client: &Client,
    options: &Options,
    waits: impl FnOnce(),
) -> Result<String, kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut waits = Some(waits);
    loop {
        match look(&nodes, options).await {
            Ok(Some(range)) => return Ok(range),
            Ok(None) => {
                if let Some(waits) = waits.take() {
                    waits();
                }
            }
            Err(kube::Error::Api(status)) if status.code < 500 && ![409, 429].contains(&status.code) => {
                return Err(kube::Error::Api(status));
            }
            Err(error) => tracing::debug!(error = reconcile::text(&error), "cannot look at the Node yet"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(nodes: &Api<Node>, options: &Options) -> Result<Option<String>, kube::Error> {
    let node = match nodes.get_opt(&options.name).await? {
        Some(node) => node,
        None => {
            // What cannot be measured now is when the agent starts.
            let measured = options.host.measure().await.unwrap_or_default();
            let findings = Findings {
                measured,
                version: None,
                runtime: Readiness::Ready,
                network: Readiness::NotReady {
                    reason: "NetworkPluginNotReady".to_owned(),
                    message: "the node has no spec.podCIDR yet".to_owned(),
                },
                images: Vec::new(),
                handlers: Vec::new(),
            };
            let new = object::node(&heartbeat::identity(options, None), &findings, options.clock.now());
            nodes.create(&PostParams::default(), &new).await?
        }
    };
    Ok(node.spec.and_then(|spec| spec.pod_cidr).filter(|range| !range.is_empty()))
}
