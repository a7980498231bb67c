//! The network of a node: [`run_proxy`] makes services reachable, [`run_dns`] makes them findable, and
//! [`Overlay`] takes packets to the pods of other nodes.
//!
//! The first two watch Services and EndpointSlices through the API server and hold small projections, the third
//! watches Nodes. Which pods exist and how they get addresses is not known here.

mod command;
mod dns;
mod overlay;
mod proxy;
mod services;
mod watches;

pub use crate::command::{CommandError, Commands};
pub use crate::dns::{Answer, Dns, DnsError, DnsOptions, Upstreams, Zone, run_dns};
pub use crate::overlay::{Overlay, OverlayError, OverlayOptions, remove_overlay};
pub use crate::proxy::{
    Flush, Fragment, Front, Place, Proxy, ProxyError, ProxyOptions, Ruleset, Table, Update, plan, remove,
    remove_with, run_proxy,
};
pub use crate::services::{
    Change, Endpoint, Policy, Protocol, Service, ServicePort, Services, Slice, Target,
};
