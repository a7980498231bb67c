//! The status of all five kinds; what a kind does not have stays out.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Deserialize, Serialize};

/// `status`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `Ready`, `NotReady`, or `NotFound` while there is no workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Pods.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// `Ready`, and what the kind has besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// `metadata.generation` that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The ConfigMap in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<String>,
    /// The map of shards that every pod uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_map: Option<String>,
    /// Queues of the scheduler, or those that the pool serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<QueueStatus>,
    /// Pods that end when their actions have.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub draining: i32,
    /// What the queue asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// Since when a restart of the scheduler waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_pending_since: Option<String>,
    /// The map of shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// Sizes that the stores were made with, by name of the store.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub geometry: BTreeMap<String, Geometry>,
    /// How the stores do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<StoreStatus>,
    /// Where clients connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Lines for a `.bazelrc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bazelrc: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// One queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// Instance names that it serves.
    pub instance_name_prefix: String,
    /// Its platform, as `name=value` separated by commas.
    pub platform: String,
    /// Its size class.
    pub size_class: u32,
    /// Threads of workers, each of which runs one action at a time.
    pub workers: u32,
    /// Of these, running one.
    pub executing: u32,
    /// Actions that wait.
    pub queued: u32,
}

/// What the queue asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Pods that are wanted now.
    pub replicas: i32,
    /// Since when more are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_since: Option<String>,
    /// Since when fewer are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewer_since: Option<String>,
    /// The most that were asked for since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewer_peak: Option<i32>,
}

/// The map of shards and where a change of it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    /// What readers and writers do now.
    pub stage: ReshardingStage,
    /// The map, and during a change the one that comes.
    pub shards: Vec<Shard>,
    /// During a change, the map that goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Shard>,
    /// When the stage began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// What readers and writers of a storage do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum ReshardingStage {
    /// One map.
    #[default]
    Stable,
    /// They wait for the pods of the map that comes.
    Growing,
    /// They write by the map that goes and read by both.
    Preparing,
    /// They write by the map that comes and read by both.
    Fallback,
}

/// One shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Shard {
    /// Its identity.
    pub key: String,
    /// Its weight.
    pub weight: u32,
    /// Ordinals of its pods: one, or two that mirror each other.
    pub pods: Vec<i32>,
}

/// Sizes that a store was made with. Another geometry loses what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Geometry {
    /// Bytes of the key-location map.
    pub key_location_map_bytes: i64,
    /// Bytes of all blocks.
    pub blocks_bytes: i64,
    /// Blocks that are about to go.
    pub old_blocks: i32,
    /// Blocks in use.
    pub current_blocks: i32,
    /// Blocks that are written.
    pub new_blocks: i32,
    /// Blocks in reserve.
    pub spare_blocks: i32,
}

/// How one store of one pod does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// The pod.
    pub pod: String,
    /// `cas`, `ac`, `iscc` or `fsac`.
    pub store: String,
    /// Age of the oldest data; absent until something was evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_hours: Option<i64>,
    /// Puts that found no slot in the key-location map: it is too small when this grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_too_full: Option<i64>,
    /// Blocks that hold data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_in_use: Option<i64>,
    /// Their share of all blocks. Full is as it should be: the oldest block makes room for the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill_percent: Option<i64>,
}
