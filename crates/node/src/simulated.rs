//! A simulated machine: all that an agent needs to run one node without containers.
//!
//! Guarantees: cheap enough for thousands in a process (no thread, no file, no port; Leases of all
//! nodes are renewed in a few moments of each period, so that the server commits them together). What
//! its pods do is said by their annotations (`runtime::simulated`).

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use k8s_openapi::api::core::v1::Taint;
use meta::{Clock, Random};
use runtime::simulated::{Settings, Simulated};

use crate::{
    host::Memory,
    node::Measured,
    options::{MAX_PODS, Options},
};

const GIB: u64 = 1 << 30;

/// The pod addresses of all simulated nodes: 10.128.0.0/9, of which each node has a /24. Real nodes and
/// Services have theirs below it.
const FIRST_RANGE: u32 = u32::from_be_bytes([10, 128, 0, 0]);
/// Most simulated nodes of a cluster: /24 ranges in a /9.
pub const NODES_MAX: u32 = 1 << 15;

/// A node to simulate.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Node name.
    pub name: String,
    /// Number of the node in its cluster, below [`NODES_MAX`]: gives its addresses.
    pub index: u32,
    /// CPUs.
    pub cpus: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Most pods.
    pub max_pods: u32,
    /// Labels to register with.
    pub labels: BTreeMap<String, String>,
    /// Taints to register with.
    pub taints: Vec<Taint>,
}

impl Machine {
    /// 16 CPUs and 64 GiB: large enough that pods fit, small enough that many do not.
    pub fn new(name: impl Into<String>, index: u32) -> Self {
        Self {
            name: name.into(),
            index,
            cpus: 16,
            memory_bytes: 64 * GIB,
            max_pods: MAX_PODS,
            labels: BTreeMap::new(),
            taints: Vec::new(),
        }
    }

    /// The node's own address: the first of its range.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.range() + 1)
    }

    /// Its pods' addresses.
    pub fn pod_cidr(&self) -> String {
        format!("{}/24", Ipv4Addr::from(self.range()))
    }

    fn range(&self) -> u32 {
        FIRST_RANGE + (self.index.min(NODES_MAX - 1) << 8)
    }

    /// What runs its pods. Kept over restarts of the agent, it is found again as containers would be.
    pub fn runtime(&self, clock: Arc<dyn Clock>) -> runtime::Result<Simulated> {
        Simulated::new(clock, Settings { pod_cidr: Some(self.pod_cidr()), ..Settings::default() })
    }

    /// The options of its agent.
    pub fn agent(&self, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Options {
        let host = Arc::new(Memory::new(self.measured()));
        Options {
            addresses: vec![self.address().to_string()],
            pod_cidr: Some(self.pod_cidr()),
            max_pods: self.max_pods,
            labels: self.labels.clone(),
            taints: self.taints.clone(),
            renew_together: true,
            clean_local_volumes: true,
            ..Options::new(&self.name, host, clock, random)
        }
    }

    fn measured(&self) -> Measured {
        Measured {
            cpus: self.cpus,
            memory_bytes: self.memory_bytes,
            memory_available_bytes: self.memory_bytes,
            disk_bytes: 500 * GIB,
            disk_available_bytes: 500 * GIB,
            inodes: 1 << 24,
            inodes_free: 1 << 24,
            pids_max: 1 << 22,
            pids: 1,
            architecture: if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }.to_owned(),
            kernel: "simulated".to_owned(),
            os_image: "simulated".to_owned(),
            ..Measured::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(index: u32, address: &str, cidr: &str) {
        let machine = Machine::new("n", index);
        assert_eq!((machine.address().to_string().as_str(), machine.pod_cidr().as_str()), (address, cidr));
    }

    #[test]
    fn every_node_has_a_range_of_its_own() {
        check(0, "10.128.0.1", "10.128.0.0/24");
        check(999, "10.131.231.1", "10.131.231.0/24");
        check(NODES_MAX - 1, "10.255.255.1", "10.255.255.0/24");
    }
}
