//! BuildbarnWorker: one object is one pool of workers.

use std::collections::BTreeMap;

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Common, Reference, Status};

/// `spec` of a BuildbarnWorker.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Deserialize, Serialize)]
#[kube(
    group = "buildbarn.io",
    version = "v1alpha1",
    kind = "BuildbarnWorker",
    plural = "buildbarnworkers",
    namespaced,
    status = "Status",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct BuildbarnWorkerSpec {
    /// Settings of all kinds.
    #[serde(flatten)]
    pub common: Common,
    /// Pods; 8 when absent and not autoscaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Image that actions run in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_image: Option<String>,
    /// Image that brings bb_runner into the runner's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_installer_image: Option<String>,
    /// Resources of the runner: of the actions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_resources: Option<Value>,
    /// Label of the pods and part of the configuration's file names; `ubuntu22-04` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whose queue is served; the only BuildbarnScheduler when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_ref: Option<Reference>,
    /// Where inputs and outputs are; the only BuildbarnStorage when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_ref: Option<Reference>,
    /// Instance names that are served; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_name_prefix: Option<String>,
    /// The platform of actions that are run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Size class; 0 when there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_class: Option<u32>,
    /// Actions at a time and pod; 8 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Several runners in a pod, instead of the one that the fields above describe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runners: Vec<Runner>,
    /// The cache of inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_directory: Option<NativeDirectory>,
    /// A volume source instead of an emptyDir, for builds and their inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Value>,
    /// Inputs fetched at a time; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_download_concurrency: Option<u32>,
    /// Outputs stored at a time; 11 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_upload_concurrency: Option<u32>,
    /// The cache of directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory_cache: Option<CacheSize>,
    /// Fetches what earlier runs of an action read. Needs a storage with an FSAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetching: Option<bool>,
    /// What a second of a runner costs, by name of the cost.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub costs_per_second: BTreeMap<String, Cost>,
    /// How workers end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// Pods follow the queue, instead of `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
}

/// A platform: properties that have to match exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct Platform {
    /// Sorted by name and value, without duplicates.
    #[serde(default)]
    pub properties: Vec<Property>,
}

/// One property of a platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[allow(missing_docs, reason = "the protocol's names")]
pub struct Property {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

/// One runner of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Runner {
    /// Name of its container.
    pub name: String,
    /// Image that its actions run in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Actions at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Its platform; the pool's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Its size class; the pool's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_class: Option<u32>,
    /// Resources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Value>,
    /// Security context, instead of the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Value>,
    /// Environment of its actions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// User of its actions; 65534 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<i64>,
}

/// The cache of inputs, on the same volume as the builds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NativeDirectory {
    /// Files; 10000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_files: Option<u64>,
    /// A quantity; 1Gi when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_size: Option<String>,
}

/// Size of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheSize {
    /// Entries; 1000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_count: Option<i64>,
    /// Bytes; 1024000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_size_bytes: Option<i64>,
}

/// A cost.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Cost {
    /// ISO 4217.
    pub currency: String,
    /// Amount.
    pub cost: f64,
}

/// How workers end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// How the runner outlives its worker; `Sidecar` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<DrainMode>,
    /// The longest that an action is waited for; the scheduler's maximum timeout and 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
}

/// How the runner outlives its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum DrainMode {
    /// It is a native sidecar: told to end when the worker has ended.
    #[default]
    Sidecar,
    /// It is told at the same time and finishes what it runs, for nodes without native sidecars.
    StopGracefully,
}

/// Pods follow the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// Fewest pods; 0 scales to zero.
    pub min: i32,
    /// Most pods.
    pub max: i32,
    /// Queued actions for each slot that are not worth another pod; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_queued_per_slot: Option<f64>,
    /// How long the queue has to ask for more; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_up_stabilization_seconds: Option<i64>,
    /// How long it has to ask for less; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down_stabilization_seconds: Option<i64>,
}
