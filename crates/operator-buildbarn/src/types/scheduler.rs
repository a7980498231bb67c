//! BuildbarnScheduler.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Common, Ingress, Platform, Reference, ServiceSettings, Status, Switch};

/// `spec` of a BuildbarnScheduler.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Deserialize, Serialize)]
#[kube(
    group = "buildbarn.io",
    version = "v1alpha1",
    kind = "BuildbarnScheduler",
    plural = "buildbarnschedulers",
    namespaced,
    status = "Status",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct BuildbarnSchedulerSpec {
    /// Settings of all kinds.
    #[serde(flatten)]
    pub common: Common,
    /// 0 or 1: the queue is in the memory of one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Type of the Service; `ClusterIP` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<String>,
    /// Further settings of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSettings>,
    /// Where actions are read from; the only BuildbarnStorage when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_ref: Option<Reference>,
    /// The browser that links lead to; the only BuildbarnBrowser when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser_ref: Option<Reference>,
    /// Instead of a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser_url: Option<String>,
    /// Largest gRPC message; 2097152 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_message_size_bytes: Option<i64>,
    /// How long actions may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// How long a queue without workers is kept; 900 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_queue_with_no_workers_timeout_seconds: Option<i64>,
    /// What is treated fairly, the outermost first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fairness: Option<Vec<Fairness>>,
    /// Learns which size class an action needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_class_analysis: Option<SizeClassAnalysis>,
    /// Queues that exist without workers, besides those of the pools that need one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predeclared_queues: Vec<PredeclaredQueue>,
    /// Ingress of the web interface; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// Who may do what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<SchedulerAuth>,
    /// When a change may restart the scheduler; `WhenIdle` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// The longest that `WhenIdle` waits; 600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_max_wait_seconds: Option<i64>,
    /// How the operator reaches the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_queue_state: Option<QueueState>,
    /// Only the operator's and the farm's own pods may reach the ports that are not for clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<Switch>,
}

/// How long actions may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// Without a timeout of its own; 1800 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_timeout_seconds: Option<i64>,
    /// At most; 7200 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_timeout_seconds: Option<i64>,
}

/// What is treated fairly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[allow(missing_docs, reason = "Buildbarn's names")]
pub enum Fairness {
    ToolInvocationId,
    CorrelatedInvocationsId,
    AuthenticationMetadata,
}

/// Learns which size class an action needs. Needs a storage with an ISCC.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SizeClassAnalysis {
    /// Outcomes kept of an action; 32 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_size: Option<i32>,
    /// How long a failure on a smaller class is remembered; 86400 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_cache_duration_seconds: Option<i64>,
    /// Chooses classes by PageRank; without it the largest class runs everything that has no history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_rank: Option<PageRank>,
}

/// Parameters of PageRank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PageRank {
    /// How much slower a smaller class may be; 0.2 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponent: Option<f64>,
    /// Timeout on a smaller class; 1.5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiplier: Option<f64>,
    /// Least timeout; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_timeout_seconds: Option<i64>,
    /// 0.002 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convergence: Option<f64>,
}

/// A queue that exists without workers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PredeclaredQueue {
    /// Instance names that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_name_prefix: Option<String>,
    /// The platform.
    pub platform: Platform,
    /// Its size classes, ascending; `[0]` when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub size_classes: Vec<u32>,
}

/// Who may do what, as Buildbarn's own policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SchedulerAuth {
    /// Authentication of clients (frontends).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Value>,
    /// Authentication of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Value>,
    /// Authentication of the web interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Value>,
    /// Who may execute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execute: Option<Value>,
    /// Who may be a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synchronize: Option<Value>,
    /// Who may drain workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modify_drains: Option<Value>,
    /// Who may kill operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_operations: Option<Value>,
}

/// When a change may restart the scheduler: its queue is lost then, and clients ask again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum RestartPolicy {
    /// At once.
    Immediate,
    /// When nothing is queued or runs, or the longest wait is over.
    #[default]
    WhenIdle,
}

/// How the operator reaches the queue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct QueueState {
    /// `HOST:PORT` of BuildQueueState, for an operator that cannot reach the Service: one outside of the cluster.
    pub address: String,
}
