//! The messages of `buildbarn.buildqueuestate` that are needed: fields that are not read are left out, as protobuf
//! allows. Numbers are those of bb-remote-execution's `buildqueuestate.proto`.

use std::collections::BTreeMap;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Empty {}

/// `build.bazel.remote.execution.v2.Platform.Property`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Property {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// `build.bazel.remote.execution.v2.Platform`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Platform {
    #[prost(message, repeated, tag = "1")]
    pub(crate) properties: Vec<Property>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PlatformQueueName {
    #[prost(string, tag = "1")]
    pub(crate) instance_name_prefix: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SizeClassQueueName {
    #[prost(message, optional, tag = "1")]
    pub(crate) platform_queue_name: Option<PlatformQueueName>,
    #[prost(uint32, tag = "2")]
    pub(crate) size_class: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ObjectCount {
    #[prost(uint32, tag = "1")]
    pub(crate) direct: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) indirect: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct InvocationState {
    #[prost(message, optional, tag = "2")]
    pub(crate) queued_operations_count: Option<ObjectCount>,
    #[prost(uint32, tag = "4")]
    pub(crate) executing_workers_count: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) idle_workers_count: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SizeClassQueueState {
    #[prost(uint32, tag = "1")]
    pub(crate) size_class: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) workers_count: u32,
    #[prost(uint32, tag = "7")]
    pub(crate) drains_count: u32,
    #[prost(message, optional, tag = "9")]
    pub(crate) root_invocation: Option<InvocationState>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PlatformQueueState {
    #[prost(message, optional, tag = "1")]
    pub(crate) name: Option<PlatformQueueName>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) size_class_queues: Vec<SizeClassQueueState>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListPlatformQueuesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) platform_queues: Vec<PlatformQueueState>,
}

/// Only whether there is one is read.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OperationState {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WorkerState {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) id: BTreeMap<String, String>,
    #[prost(message, optional, tag = "3")]
    pub(crate) current_operation: Option<OperationState>,
    #[prost(bool, tag = "4")]
    pub(crate) drained: bool,
}

/// The filter `all` of its choice.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListWorkersFilter {
    #[prost(message, optional, tag = "1")]
    pub(crate) all: Option<SizeClassQueueName>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StartAfter {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) worker_id: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListWorkersRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) filter: Option<ListWorkersFilter>,
    #[prost(uint32, tag = "3")]
    pub(crate) page_size: u32,
    #[prost(message, optional, tag = "4")]
    pub(crate) start_after: Option<StartAfter>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListWorkersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) workers: Vec<WorkerState>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TerminateWorkersRequest {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) worker_id_pattern: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListDrainsRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) size_class_queue_name: Option<SizeClassQueueName>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DrainState {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) worker_id_pattern: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListDrainsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) drains: Vec<DrainState>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AddOrRemoveDrainRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) size_class_queue_name: Option<SizeClassQueueName>,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) worker_id_pattern: BTreeMap<String, String>,
}
