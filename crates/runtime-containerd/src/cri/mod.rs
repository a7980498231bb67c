//! The messages of CRI v1 and of containerd's event service that this crate uses, with upstream's field
//! numbers (`k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`, `containerd/api/services/events/v1`).
//!
//! Written by hand: the crates that carry them (k8s-cri, containerd-client) compile all of CRI, Windows
//! included, with a protoc that users would have to install, and most of it would never be called.
//! Fields that are not listed are skipped by protobuf's rules when read and absent when written.

mod config;
mod event;
mod image;
mod pod;
mod service;

pub(crate) use config::*;
pub(crate) use event::*;
pub(crate) use image::*;
pub(crate) use pod::*;
pub(crate) use service::*;

/// `Int64Value`: a number that may be absent.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Int64Value {
    #[prost(int64, tag = "1")]
    pub(crate) value: i64,
}

/// `UInt64Value`: a number that may be absent.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct UInt64Value {
    #[prost(uint64, tag = "1")]
    pub(crate) value: u64,
}

/// An answer with nothing in it that is used.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Empty {}
