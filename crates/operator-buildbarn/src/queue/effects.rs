//! What a plan has the scheduler do.

use std::{fmt, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use reconcile::{Context, Effect, EffectFuture};
use serde_json::json;

use super::{BuildQueue, QueueError, QueueName, pod_pattern};

/// Says that a pod may go: it runs nothing and gets nothing.
pub(crate) const RELEASED: &str = "buildbarn.io/released";
/// What the ReplicaSet controller goes by when there are too many pods.
pub(crate) const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Less than that of any pod that was not released.
pub(crate) const RELEASED_COST: &str = "-1000000";

/// Adds a pod's drains to its queues, or takes them away.
pub(crate) struct Drains {
    pub(crate) queue: Arc<dyn BuildQueue>,
    pub(crate) names: Vec<QueueName>,
    pub(crate) pod: String,
    pub(crate) add: bool,
}

impl fmt::Debug for Drains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.add { "AddDrain" } else { "RemoveDrain" }, self.pod)
    }
}

impl Effect for Drains {
    fn name(&self) -> &'static str {
        if self.add { "drain" } else { "end the drain" }
    }

    fn run<'a>(&'a self, _: &'a Context) -> EffectFuture<'a> {
        Box::pin(async move {
            let pattern = pod_pattern(&self.pod);
            for name in &self.names {
                let done = if self.add {
                    self.queue.add_drain(name, &pattern).await
                } else {
                    self.queue.remove_drain(name, &pattern).await
                };
                match done {
                    // A queue that is gone drains nobody and gives nobody work.
                    Ok(()) | Err(QueueError::NotFound) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
    }
}

/// Has the scheduler promise that a pod runs nothing and never will, and notes it on the pod.
pub(crate) struct Release {
    /// None when the limit of waiting is over: nobody is asked.
    pub(crate) queue: Option<Arc<dyn BuildQueue>>,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.queue.is_some() { "TerminateWorkers" } else { "give up waiting for" };
        write!(f, "{how} {}", self.pod)
    }
}

impl Effect for Release {
    fn name(&self) -> &'static str {
        "release"
    }

    fn run<'a>(&'a self, cx: &'a Context) -> EffectFuture<'a> {
        Box::pin(async move {
            if let Some(queue) = &self.queue {
                queue.terminate(&pod_pattern(&self.pod)).await?;
            }
            let patch = json!({"metadata": {
                "uid": self.uid, "annotations": {RELEASED: "true", COST: RELEASED_COST},
            }});
            let pods = Api::<Pod>::namespaced(cx.client.clone(), &self.namespace);
            match pods.patch_metadata(&self.pod, &PatchParams::default(), &Patch::Merge(&patch)).await {
                // Gone, or another of its name: nothing is left to release.
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }
}
