//! What a cluster's operator chooses, and what kinds take from above.

use std::{net::IpAddr, sync::Arc};

use resource::Act;

/// A range of addresses, `10.43.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// First address, host bits zero.
    pub network: IpAddr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

/// Settings of the built-in kinds.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where Services get their addresses.
    pub service_cidr: Cidr,
    /// Ports that `NodePort` and `LoadBalancer` Services may have on every node, both ends included.
    pub node_port_range: (u16, u16),
}

impl Default for Options {
    fn default() -> Self {
        let network = IpAddr::from([10, 43, 0, 0]);
        Self { service_cidr: Cidr { network, prefix: 16 }, node_port_range: (30_000, 32_767) }
    }
}

/// Behaviour of POST-only resources that needs keys or rules which only the server has. One that is absent
/// is not served.
#[derive(Clone, Default)]
pub struct Acts {
    /// `serviceaccounts/token`.
    pub token: Option<Arc<dyn Act>>,
    /// `tokenreviews.authentication.k8s.io`.
    pub token_review: Option<Arc<dyn Act>>,
    /// `selfsubjectreviews.authentication.k8s.io`.
    pub self_subject_review: Option<Arc<dyn Act>>,
    /// `subjectaccessreviews.authorization.k8s.io`.
    pub subject_access_review: Option<Arc<dyn Act>>,
    /// `localsubjectaccessreviews.authorization.k8s.io`.
    pub local_subject_access_review: Option<Arc<dyn Act>>,
    /// `selfsubjectaccessreviews.authorization.k8s.io`.
    pub self_subject_access_review: Option<Arc<dyn Act>>,
    /// `selfsubjectrulesreviews.authorization.k8s.io`.
    pub self_subject_rules_review: Option<Arc<dyn Act>>,
}

impl std::fmt::Debug for Acts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acts")
    }
}
