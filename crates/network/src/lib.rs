//! The service network of a node: [`run_proxy`] makes services reachable, [`run_dns`] makes them
//! findable.
//!
//! Both watch Services and EndpointSlices through the API server and hold small projections. Which
//! pods exist, how they get addresses and how packets reach other nodes is not known here.

mod dns;
mod proxy;
mod services;
mod watches;

pub use crate::dns::{Answer, Dns, DnsError, DnsOptions, Upstreams, Zone, run_dns};
pub use crate::proxy::{
    CommandError, Commands, Flush, Fragment, Front, Place, Proxy, ProxyError, ProxyOptions, Ruleset, Table,
    Update, plan, remove, remove_with, run_proxy,
};
pub use crate::services::{
    Change, Endpoint, Policy, Protocol, Service, ServicePort, Services, Slice, Target,
};
