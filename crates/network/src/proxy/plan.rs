//! What nftables must hold for one service: a pure function of the service, its endpoints and where
//! this node is. Shaped after kube-proxy's nftables mode (KEP-3866): a verdict map leads from address,
//! protocol and port to the service's chain, which picks an endpoint's chain, which rewrites the
//! destination.
//!
//! Only IPv4 is planned; IPv6 addresses are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::{IpAddr, Ipv4Addr},
};

use crate::services::{Endpoint, Policy, Protocol, Service, ServicePort, Target};

/// What the plan must know of this node and cluster.
#[derive(Clone, Debug)]
pub struct Place {
    /// Name of this node, for `Local` policies.
    pub node: String,
    /// Addresses of pods, such as `10.244.0.0/16`.
    pub cluster_cidr: String,
    /// Masquerade service traffic between pods, too: needed where bridged packets do not pass
    /// through IP filters.
    pub masquerade_all: bool,
}

/// The maps and sets whose elements belong to services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Every ClusterIP.
    ClusterIps,
    /// Address, protocol and port of services with endpoints.
    ServiceIps,
    /// Protocol and node port of services with endpoints.
    NodePorts,
    /// Address, protocol and port of services without endpoints.
    NoEndpointServices,
    /// Protocol and node port of services without endpoints.
    NoEndpointNodePorts,
    /// Address, protocol and port guarded by source ranges.
    Firewall,
}

impl Table {
    /// Its name in nftables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterIps => "cluster-ips",
            Self::ServiceIps => "service-ips",
            Self::NodePorts => "service-nodeports",
            Self::NoEndpointServices => "no-endpoint-services",
            Self::NoEndpointNodePorts => "no-endpoint-nodeports",
            Self::Firewall => "firewall-ips",
        }
    }
}

/// The mark of packets that are masqueraded; kube-proxy's bit.
pub(crate) const MARK: &str = "0x4000";

/// What one service needs in nftables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Chains with their rules.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Affinity sets with their timeouts in seconds.
    pub affinity: BTreeMap<String, u32>,
    /// Elements: table and key, with the verdict (empty in a set).
    pub elements: BTreeMap<(Table, String), String>,
    /// For UDP: where clients send to, with the endpoints they may be sent to.
    pub udp: BTreeMap<Front, BTreeSet<Ipv4Addr>>,
}

/// Where clients of a UDP service send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Front {
    /// A virtual address and port.
    Address(Ipv4Addr, u16),
    /// A port of every node.
    NodePort(u16),
}

/// Plans one service. Headless and external-name services need nothing.
pub fn plan<'a>(
    service: &Service,
    endpoints: impl Iterator<Item = &'a Endpoint> + Clone,
    place: &Place,
) -> Fragment {
    let mut fragment = Fragment::default();
    let Target::Addresses(addresses) = &service.target else { return fragment };
    let cluster_ips: Vec<Ipv4Addr> = addresses.iter().filter_map(v4).collect();
    for ip in &cluster_ips {
        fragment.elements.insert((Table::ClusterIps, ip.to_string()), String::new());
    }
    for port in &service.ports {
        let all = usable(endpoints.clone(), port, |_| true);
        let local = usable(endpoints.clone(), port, |e| e.node.as_deref() == Some(&place.node));
        Port { service, port, place, all, local }.plan(&cluster_ips, &mut fragment);
    }
    fragment
}

/// Ready endpoints; when there is none, those that still serve while they terminate (KEP-1669).
fn usable<'a>(
    endpoints: impl Iterator<Item = &'a Endpoint> + Clone,
    port: &ServicePort,
    here: impl Fn(&Endpoint) -> bool,
) -> BTreeSet<(Ipv4Addr, u16)> {
    let with = |wanted: fn(&Endpoint) -> bool| -> BTreeSet<(Ipv4Addr, u16)> {
        let chosen = endpoints.clone().filter(|e| wanted(e) && here(e));
        chosen
            .flat_map(|e| {
                let ports = e
                    .ports
                    .iter()
                    .filter(|(name, protocol, _)| *name == port.name && *protocol == port.protocol);
                ports.filter_map(|(_, _, number)| Some((v4(&e.ip)?, *number)))
            })
            .collect()
    };
    let ready = with(|e| e.ready);
    if ready.is_empty() { with(|e| e.serving && e.terminating) } else { ready }
}

/// One port of a service while it is planned.
struct Port<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    place: &'a Place,
    all: BTreeSet<(Ipv4Addr, u16)>,
    local: BTreeSet<(Ipv4Addr, u16)>,
}

impl Port<'_> {
    fn plan(&self, cluster_ips: &[Ipv4Addr], fragment: &mut Fragment) {
        let external = self.external();
        let has_external = self.port.node_port != 0 || !external.is_empty();
        let inside = self.service.internal_policy;
        let outside = self.service.external_policy;
        let uses = |policy| inside == policy || (has_external && outside == policy);
        // A `Local` external policy still sends this node's and its pods' own traffic everywhere.
        let cluster_used = uses(Policy::Cluster) || (has_external && outside == Policy::Local);
        if cluster_used && !self.all.is_empty() {
            self.balance(&self.name("service"), &self.all, cluster_ips, fragment);
        }
        if uses(Policy::Local) && !self.local.is_empty() {
            self.balance(&self.name("local"), &self.local, cluster_ips, fragment);
        }
        for ip in cluster_ips {
            let verdict = self.entry(inside);
            self.lead(
                Table::ServiceIps,
                Table::NoEndpointServices,
                &self.address(*ip),
                verdict,
                inside,
                fragment,
            );
            self.udp(Front::Address(*ip, self.port.port), inside, fragment);
        }
        if !has_external {
            return;
        }
        let entry = self.outside_entry(fragment);
        for (ip, guarded) in external {
            let key = self.address(ip);
            if guarded && !self.service.source_ranges.is_empty() {
                let verdict = self.firewall(&mut fragment.chains);
                fragment.elements.insert((Table::Firewall, key.clone()), verdict);
            }
            self.lead(Table::ServiceIps, Table::NoEndpointServices, &key, entry.clone(), outside, fragment);
            self.udp(Front::Address(ip, self.port.port), outside, fragment);
        }
        if self.port.node_port != 0 {
            let key = format!("{} . {}", self.port.protocol.name(), self.port.node_port);
            self.lead(Table::NodePorts, Table::NoEndpointNodePorts, &key, entry, outside, fragment);
            self.udp(Front::NodePort(self.port.node_port), outside, fragment);
        }
    }

    fn external(&self) -> Vec<(Ipv4Addr, bool)> {
        let mut external: Vec<(Ipv4Addr, bool)> =
            self.service.external.iter().filter_map(|(ip, guarded)| Some((v4(ip)?, *guarded))).collect();
        external.sort_unstable();
        external.dedup_by_key(|(ip, _)| *ip);
        external
    }

    /// Leads a key to its chain, or to the refusal when there is nobody to serve it.
    fn lead(
        &self,
        served: Table,
        unserved: Table,
        key: &str,
        verdict: Option<String>,
        policy: Policy,
        fragment: &mut Fragment,
    ) {
        match verdict {
            Some(verdict) => fragment.elements.insert((served, key.to_owned()), verdict),
            // Somebody serves it, only not here: whoever sent it here is to ask elsewhere, not to
            // believe that nobody does.
            None if policy == Policy::Local && !self.all.is_empty() => {
                fragment.elements.insert((unserved, key.to_owned()), "drop".into())
            }
            None => fragment.elements.insert((unserved, key.to_owned()), "goto reject-chain".into()),
        };
    }

    fn entry(&self, policy: Policy) -> Option<String> {
        let (kind, endpoints) = match policy {
            Policy::Cluster => ("service", &self.all),
            Policy::Local => ("local", &self.local),
        };
        (!endpoints.is_empty()).then(|| format!("goto {}", self.name(kind)))
    }

    /// The chain for traffic from outside: marks it for masquerade, or keeps it on this node.
    fn outside_entry(&self, fragment: &mut Fragment) -> Option<String> {
        let outside = self.service.external_policy;
        if self.all.is_empty() || (outside == Policy::Local && self.local.is_empty()) {
            return None;
        }
        let everywhere = self.name("service");
        let rules = match outside {
            Policy::Cluster => vec!["jump mark-for-masquerade".to_owned(), format!("goto {everywhere}")],
            Policy::Local => vec![
                format!("ip saddr {} goto {everywhere}", self.place.cluster_cidr),
                "fib saddr type local jump mark-for-masquerade".to_owned(),
                format!("fib saddr type local goto {everywhere}"),
                format!("goto {}", self.name("local")),
            ],
        };
        let name = self.name("external");
        fragment.chains.insert(name.clone(), rules);
        Some(format!("goto {name}"))
    }

    /// The chain that picks an endpoint, and the chains of the endpoints.
    fn balance(
        &self,
        name: &str,
        endpoints: &BTreeSet<(Ipv4Addr, u16)>,
        cluster_ips: &[Ipv4Addr],
        fragment: &mut Fragment,
    ) {
        let protocol = self.port.protocol.name();
        let mut rules = Vec::new();
        for ip in cluster_ips {
            let to = format!("ip daddr {ip} {protocol} dport {}", self.port.port);
            let from = &self.place.cluster_cidr;
            rules.push(if self.place.masquerade_all {
                format!("{to} jump mark-for-masquerade")
            } else {
                format!("{to} ip saddr != {from} jump mark-for-masquerade")
            });
        }
        let mut choices = String::new();
        for (at, (ip, port)) in endpoints.iter().enumerate() {
            let suffix = format!("__{ip}/{port}");
            let chain = format!("{}{suffix}", self.name("endpoint"));
            let mut rewrite = vec![format!("ip saddr {ip} jump mark-for-masquerade")];
            if let Some(seconds) = self.service.affinity_seconds {
                let set = format!("{}{suffix}", self.name("affinity"));
                rules.push(format!("ip saddr @{set} goto {chain}"));
                rewrite.push(format!("update @{set} {{ ip saddr timeout {seconds}s }}"));
                fragment.affinity.insert(set, seconds);
            }
            rewrite.push(format!("meta l4proto {protocol} dnat to {ip}:{port}"));
            let comma = if at == 0 { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(choices, "{comma}{at} : goto {chain}");
            fragment.chains.insert(chain, rewrite);
        }
        rules.push(format!("numgen random mod {} vmap {{ {choices} }}", endpoints.len()));
        fragment.chains.insert(name.to_owned(), rules);
    }

    fn firewall(&self, chains: &mut BTreeMap<String, Vec<String>>) -> String {
        let name = self.name("firewall");
        // One rule each: ranges may overlap, which a set would refuse. A range that cannot be read
        // admits nobody.
        let ranges = self.service.source_ranges.iter().map(|r| r.trim()).filter(|r| is_cidr(r));
        let mut rules: Vec<String> = ranges.map(|range| format!("ip saddr {range} return")).collect();
        rules.push("drop".to_owned());
        chains.insert(name.clone(), rules);
        format!("goto {name}")
    }

    fn udp(&self, front: Front, policy: Policy, fragment: &mut Fragment) {
        if self.port.protocol == Protocol::Udp {
            let endpoints = match policy {
                Policy::Cluster => &self.all,
                Policy::Local => &self.local,
            };
            fragment.udp.entry(front).or_default().extend(endpoints.iter().map(|(ip, _)| *ip));
        }
    }

    fn address(&self, ip: Ipv4Addr) -> String {
        format!("{ip} . {} . {}", self.port.protocol.name(), self.port.port)
    }

    /// `KIND-HASH-ns/name/protocol/port`, as kube-proxy names chains; the hash keeps cut names apart.
    fn name(&self, kind: &str) -> String {
        // nftables takes 127 characters; the endpoint suffix needs up to 23 of them.
        const READABLE_MAX: usize = 70;
        let key = &self.service.key;
        let label =
            if self.port.name.is_empty() { self.port.port.to_string() } else { self.port.name.clone() };
        let readable = format!("{}/{}/{}/{label}", key.namespace, key.name, self.port.protocol.name());
        let hash = readable.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let end = readable.len().min(READABLE_MAX);
        format!("{kind}-{hash:016x}-{}", readable.get(..end).unwrap_or_default())
    }
}

fn v4(ip: &IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    }
}

/// Whether the text is an IPv4 range; nothing else may reach an nftables script.
pub(crate) fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(ip, bits)| {
        ip.parse::<Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 32)
    })
}

#[cfg(test)]
mod tests;
