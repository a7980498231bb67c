//! The part of the table that does not depend on services: maps, hooks, masquerade.
//!
//! TCP is refused by a reset, not by upstream's ICMP message: between pods of one node the message
//! arrives while `connect` still holds the socket, and the client learns of it only a second later.

use crate::proxy::plan::{MARK, Table};

/// Family and name of our table. Nothing of ours is outside it, and nothing else is inside.
pub(crate) const TABLE: &str = "ip keelson";

/// Where we are, as far as the base needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Base<'a> {
    /// Addresses of pods.
    pub(crate) cluster_cidr: &'a str,
    /// Serve node ports on 127.0.0.1, too.
    pub(crate) localhost_node_ports: bool,
    /// Serve node ports only on addresses in these ranges; empty is all of the node's.
    pub(crate) node_port_addresses: &'a [String],
}

/// Makes the table anew: it is emptied and filled in the same transaction, so there is no moment
/// without it.
pub(crate) fn base(at: &Base<'_>) -> String {
    let Base { cluster_cidr, localhost_node_ports, node_port_addresses } = at;
    let [cluster_ips, service_ips, node_ports, no_services, no_node_ports, firewall] = [
        Table::ClusterIps,
        Table::ServiceIps,
        Table::NodePorts,
        Table::NoEndpointServices,
        Table::NoEndpointNodePorts,
        Table::Firewall,
    ]
    .map(Table::name);
    let node_addresses = if node_port_addresses.is_empty() {
        "fib daddr type local".to_owned()
    } else {
        format!("fib daddr type local ip daddr {{ {} }}", node_port_addresses.join(", "))
    };
    let loopback = if *localhost_node_ports { "" } else { "ip daddr != 127.0.0.0/8 " };
    let martians = if *localhost_node_ports {
        "    iifname != \"lo\" ip daddr 127.0.0.0/8 drop\n    iifname != \"lo\" ip saddr 127.0.0.0/8 drop\n"
    } else {
        ""
    };
    format!(
        r#"add table {TABLE}
delete table {TABLE}
table {TABLE} {{
  comment "keelson service proxy; rewritten by keelson, do not edit"

  set {cluster_ips} {{ type ipv4_addr; }}
  map {service_ips} {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map {node_ports} {{ type inet_proto . inet_service : verdict; }}
  map {no_services} {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map {no_node_ports} {{ type inet_proto . inet_service : verdict; }}
  map {firewall} {{ type ipv4_addr . inet_proto . inet_service : verdict; }}

  chain mark-for-masquerade {{
    meta mark set meta mark or {MARK}
  }}
  chain reject-chain {{
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @{service_ips}
    {node_addresses} {loopback}meta l4proto . th dport vmap @{node_ports}
  }}
  chain unserved {{
    ip daddr . meta l4proto . th dport vmap @{no_services}
    {node_addresses} {loopback}meta l4proto . th dport vmap @{no_node_ports}
  }}
  chain unknown-ports {{
    ip daddr @{cluster_ips} goto reject-chain
  }}

  chain nat-prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump services
  }}
  chain nat-output {{
    type nat hook output priority -100; policy accept;
    jump services
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark and {MARK} != 0 meta mark set meta mark xor {MARK} masquerade fully-random
    ip saddr {cluster_cidr} ip daddr != {{ {cluster_cidr}, 224.0.0.0/4 }} masquerade fully-random
  }}
  chain filter-prerouting {{
    type filter hook prerouting priority -110; policy accept;
{martians}    ct state new ip daddr . meta l4proto . th dport vmap @{firewall}
  }}
  chain filter-input {{
    type filter hook input priority -110; policy accept;
    ct state new jump unserved
  }}
  chain filter-forward {{
    type filter hook forward priority -110; policy accept;
    ct state new jump unserved
    ct state new jump unknown-ports
  }}
  chain filter-output {{
    type filter hook output priority -110; policy accept;
    ct state new jump unserved
    ct state new ip daddr . meta l4proto . th dport vmap @{firewall}
  }}
  chain filter-output-post-dnat {{
    type filter hook output priority -90; policy accept;
    ct state new jump unknown-ports
  }}
}}
"#
    )
}

/// Takes the table away, if it is there.
pub(crate) fn unbase() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}
