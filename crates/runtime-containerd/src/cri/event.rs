//! containerd's own events: 1.6 has no CRI event stream yet (`GetContainerEvents` came with 1.7).

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `SubscribeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    pub(crate) filters: Vec<String>,
}

/// `PublishRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PublishRequest {
    #[prost(string, tag = "1")]
    pub(crate) topic: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) event: Option<Any>,
}

/// `containerd.types.Envelope`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Envelope {
    #[prost(string, tag = "3")]
    pub(crate) topic: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) event: Option<Any>,
}

/// `TaskExit`. `id` is the container's for its main process, another one for an exec.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TaskExit {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(string, tag = "2")]
    pub(crate) id: String,
}

/// The first field of `TaskStart`, `TaskOOM` and `ContainerDelete`: the container's id.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Subject {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}
