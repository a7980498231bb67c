//! Calls to webhooks: admission, conversion and reviews of tokens and of access share one client.
//!
//! Guarantees: a call ends within its time-out whatever the other side does; what is read of an answer is
//! bounded; TLS always, against the bundle of the configuration or the system's roots. Connections are kept
//! for the next call. Knows Services and EndpointSlices, which it must look at to find an address.

mod client;
mod kubeconfig;
mod reviewer;
mod target;

pub use client::Webhooks;
pub use reviewer::{Authorization, Endpoint, Reviewer};
pub(crate) use target::Target;
