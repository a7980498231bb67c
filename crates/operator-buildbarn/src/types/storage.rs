//! BuildbarnStorage.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Common, Status, Switch};

/// `spec` of a BuildbarnStorage.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Deserialize, Serialize)]
#[kube(
    group = "buildbarn.io",
    version = "v1alpha1",
    kind = "BuildbarnStorage",
    plural = "buildbarnstorages",
    namespaced,
    status = "Status",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct BuildbarnStorageSpec {
    /// Settings of all kinds.
    #[serde(flatten)]
    pub common: Common,
    /// Pods; 2 when absent. Each is a shard, or half of a mirrored one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Volumes by name of the store (`cas`, `ac`, `iscc`, `fsac`), instead of the sizes below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_claim_templates: Vec<Value>,
    /// Identity and weight of the shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<Shards>,
    /// Every shard is a pair of pods that hold the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirroring: Option<Switch>,
    /// Content-addressable storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cas: Option<StoreSettings>,
    /// Action cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ac: Option<StoreSettings>,
    /// Initial size class cache; off when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iscc: Option<StoreSettings>,
    /// File system access cache; off when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fsac: Option<StoreSettings>,
    /// Where data lives; `PersistentVolume` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
    /// Class of the volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// What becomes of claims when pods or the object go, as in a StatefulSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_retention_policy: Option<Value>,
    /// Largest tree that is checked for completeness; 67108864 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_total_tree_size_bytes: Option<i64>,
    /// Largest gRPC message; 2097152 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_message_size_bytes: Option<i64>,
    /// How shards come and go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resharding: Option<Resharding>,
    /// Allows changes that lose data: another geometry, or a shard taken away without a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_data_loss: Option<bool>,
}

/// Identity and weight of the shards, in the order of the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Shards {
    /// Keys; `0`, `1`, ... when absent. A key is a shard's identity and cannot be changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Weights; 1 when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<u32>,
}

/// One store of every shard. Sizes are quantities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreSettings {
    /// Whether there is one; CAS and AC always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Size of the volume; 33Gi for the CAS, 1Gi for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_size: Option<String>,
    /// Size of the blocks; what the volume has room for when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Size of the key-location map; from the expected objects when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_location_map_size: Option<String>,
    /// 16Ki for the CAS, 1Ki for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_average_object_size: Option<String>,
    /// 8 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_blocks: Option<i32>,
    /// 24 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_blocks: Option<i32>,
    /// 3 for the CAS, 1 for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_blocks: Option<i32>,
    /// 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare_blocks: Option<i32>,
    /// Objects are visible below the instance name that they were stored under; CAS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hierarchical_instance_names: Option<bool>,
}

/// Where data lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Medium {
    /// On a claim of its own.
    #[default]
    PersistentVolume,
    /// As long as the pod.
    Ephemeral,
}

/// How shards come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resharding {
    /// `ReadFallback` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<ReshardingStrategy>,
    /// How long the earlier map is still read; 604800 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<i64>,
}

/// What becomes of data whose shard is another after a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum ReshardingStrategy {
    /// It is found where it was for a while, and copied where it belongs.
    #[default]
    ReadFallback,
    /// It is not found any more. Needs `allowDataLoss`.
    Drop,
}
