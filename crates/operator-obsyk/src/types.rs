//! The ObsykAgent kind as users write it, and its status. What a spec comes to is decided once, in
//! `validate`; nothing here can fail on a value that a user may have written, so that one bad agent does
//! not keep the others from being read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// Group of the kind.
pub const GROUP: &str = "obsyk.io";

/// `spec` of an ObsykAgent.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Deserialize, Serialize)]
#[kube(
    group = "obsyk.io",
    version = "v1",
    kind = "ObsykAgent",
    plural = "obsykagents",
    shortname = "oa",
    namespaced,
    status = "ObsykAgentStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct ObsykAgentSpec {
    /// The platform's address, such as `https://api.obsyk.ai`; paths are appended to it as it is written.
    #[serde(rename = "platformURL")]
    pub platform_url: String,
    /// The name people know the cluster by.
    pub cluster_name: String,
    /// The Secret with `client_id` and `private_key`, in the namespace of the agent.
    pub credentials_secret_ref: SecretReference,
    /// Time between two heartbeats, as Go writes durations; `5m` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_interval: Option<String>,
    /// How fast changes may be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// How it is sent; an addition to the original's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
}

/// How the inventory is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Transport {
    /// `auto`: batches to a platform that says it understands them; `original`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// Names a Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct SecretReference {
    /// Its name.
    pub name: String,
}

/// A token bucket over the changes that are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Changes per second in the long run; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<i32>,
    /// Changes at once; 20 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_size: Option<i32>,
}

/// `status` of an ObsykAgent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObsykAgentStatus {
    /// UID of the namespace `kube-system`: what the platform knows the cluster by.
    #[serde(rename = "clusterUID", default, skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// `Available`, `Syncing`, `Degraded`, `CredentialsValid`, `CachesSynced`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// When the platform last acknowledged something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,
    /// When the platform last acknowledged a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_snapshot_time: Option<Time>,
    /// `metadata.generation` that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many objects there are of each kind that has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_counts: Option<ResourceCounts>,
    /// What the stream has done and has left to do; an addition to the original's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamStatus>,
}

/// Objects by kind, under the kind's counter name; kinds without objects are left out.
pub type ResourceCounts = std::collections::BTreeMap<String, i32>;

/// The stream in numbers, since the agent was last started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamStatus {
    /// Objects whose change the platform does not have yet.
    pub queue_objects: u64,
    /// Bytes that wait for them.
    pub queue_bytes: u64,
    /// How long the oldest change has waited that the platform does not have; written every half minute, and when
    /// something happens.
    pub lag_seconds: u64,
    /// Most bytes that ever waited.
    pub queue_bytes_max: u64,
    /// States and deletes that watches and lists showed.
    pub observed: u64,
    /// Of these, those that changed nothing the platform gets.
    pub noop: u64,
    /// Changes that were queued: each was sent, merged, withdrawn, shed or quarantined, or still waits.
    pub queued: u64,
    /// Changes the platform acknowledged.
    pub sent: u64,
    /// Changes that a newer one of the same object replaced before they were sent.
    pub merged: u64,
    /// Requests that failed, and that were sent again or in another form.
    pub retries: u64,
    /// Changes taken back, since the platform has the state they would have brought or never had the object.
    pub withdrawn: u64,
    /// Of these, objects that came and went before anybody could be told.
    pub annihilated: u64,
    /// Changes dropped for want of room, or because a snapshot brings them.
    pub shed: u64,
    /// Sessions of the batch mode that were opened.
    pub sessions: u64,
    /// The session that is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Last record that the platform acknowledged in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acked_seq: Option<u64>,
    /// Batches that were acknowledged.
    pub batches: u64,
    /// Bytes of batches as sent, again when sent again.
    pub sent_bytes: u64,
    /// Kinds in which the platform was found to differ, and that were compared and repaired.
    pub drift_repaired: u64,
    /// Lists read again for what was dropped.
    pub relists: u64,
    /// Changes that the platform refused for what they say; each comes again with the next snapshot.
    pub quarantined: u64,
    /// Snapshots the platform acknowledged.
    pub snapshots: u64,
    /// Why the last snapshot was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_snapshot_reason: Option<String>,
}
