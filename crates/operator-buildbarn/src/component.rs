//! What the five kinds have in common as components: one reconciler serves them all.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use meta::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    config::Files,
    observe::World,
    queue::QueueName,
    types::{Common, Status},
    verdict::Verdict,
};

/// One of the five kinds.
pub(crate) trait Component:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The label `app` of its pods.
    const APP: &'static str;
    /// Name of its controller.
    const CONTROLLER: &'static str;
    /// The finalizer that the original put on it and that guards nothing.
    const FINALIZER: &'static str;

    fn common(&self) -> &Common;
    fn status(&self) -> Option<&Status>;

    /// Which scheduler is asked, if any, and which of its queues are looked into; none is all.
    fn queue(&self, _: &crate::farm::Farm) -> Option<(String, Option<Vec<QueueName>>)> {
        None
    }

    /// From the world to what there shall be. Pure.
    fn design(world: &World<Self>, now: Timestamp) -> Result<Design, Verdict>;
}

/// What there shall be of a component.
pub(crate) struct Design {
    /// Generated files; none where the user brings a ConfigMap.
    pub(crate) files: Option<Files>,
    pub(crate) workload: Workload,
    /// Services, Ingress, PodDisruptionBudget, NetworkPolicy.
    pub(crate) others: Vec<Value>,
    /// Pods that are wanted.
    pub(crate) replicas: i32,
    /// Name of the map of shards that the files use.
    pub(crate) map: Option<String>,
    /// What the status says besides what is seen of the pods.
    pub(crate) status: Status,
    /// What is at fault although the rest is carried out.
    pub(crate) fault: Option<Verdict>,
    /// Further conditions: type, status, reason, message.
    pub(crate) conditions: Vec<(&'static str, bool, &'static str, String)>,
    /// Plan again after so many seconds.
    pub(crate) recheck_seconds: Option<u64>,
}

/// What runs the pods.
pub(crate) enum Workload {
    /// One Deployment; `None` leaves the present one as it is.
    Deployment(Option<Value>),
    /// The pods of a pool, from this template.
    Pool { template: Value, limit_seconds: i64 },
    /// A StatefulSet, and the sizes its volumes should have, by name of the claim template.
    StatefulSet { set: Value, volumes: Vec<(String, i64)> },
}
