//! `/etc/resolv.conf` and `/etc/hosts` of a pod.
//!
//! Guarantees upstream's rules (`pkg/kubelet/network/dns/dns.go`, `ensureHostsFile`): policies
//! ClusterFirst, ClusterFirstWithHostNet, Default and None, `dnsConfig` merged on top, the limits on
//! name servers and search domains. Pure: the machine's own files are passed in.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;
use runtime::action::DnsConfig;

use crate::pod;

/// More name servers than the C library reads (`MaxDNSNameservers`).
const SERVERS_MAX: usize = 3;
/// More search domains than modern C libraries read (`MaxDNSSearchPaths`).
const SEARCHES_MAX: usize = 32;

/// Where the cluster's DNS is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDns {
    /// Address of the DNS service; `None` when the cluster has none.
    pub server: Option<String>,
    /// Such as `cluster.local`.
    pub domain: String,
}

/// The configuration for `pod` on a machine whose own is `host`.
pub fn resolv_conf(want: &Pod, cluster: &ClusterDns, host: &DnsConfig) -> DnsConfig {
    let spec = want.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let in_cluster = match policy {
        "ClusterFirst" => !pod::is_host_network(want),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut config = match (policy, &cluster.server) {
        ("None", _) => DnsConfig::default(),
        (_, Some(server)) if in_cluster => {
            let domain = &cluster.domain;
            let mut searches = vec![
                format!("{}.svc.{domain}", pod::namespace(want)),
                format!("svc.{domain}"),
                domain.clone(),
            ];
            searches.extend(host.searches.iter().cloned());
            DnsConfig { servers: vec![server.clone()], searches, options: vec!["ndots:5".to_owned()] }
        }
        _ => host.clone(),
    };
    if let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            config.options.retain(|had| had.split(':').next() != Some(name));
            match option.value.as_deref() {
                Some(value) if !value.is_empty() => config.options.push(format!("{name}:{value}")),
                _ => config.options.push(name.to_owned()),
            }
        }
    }
    keep_first(&mut config.servers, SERVERS_MAX);
    keep_first(&mut config.searches, SEARCHES_MAX);
    config
}

/// Without repetition, the first `max`.
fn keep_first(list: &mut Vec<String>, max: usize) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
    list.truncate(max);
}

/// Reads a machine's `/etc/resolv.conf`. Loopback resolvers (systemd-resolved's stub) are left out:
/// they do not exist inside a pod.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let server = words.next().unwrap_or_default();
                let loopback = server.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
                if !server.is_empty() && !loopback {
                    config.servers.push(server.to_owned());
                }
            }
            Some("search") => {
                config.searches = words.filter(|word| *word != ".").map(str::to_owned).collect()
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

/// The pod's host name: `spec.hostname` or its name, cut to 63 characters; the node's own with the
/// host's network.
pub fn hostname(want: &Pod, node: &str) -> String {
    if pod::is_host_network(want) {
        return node.to_owned();
    }
    let given = want.spec.as_ref().and_then(|spec| spec.hostname.as_deref()).filter(|name| !name.is_empty());
    let name: String = given.unwrap_or_else(|| pod::name(want)).chars().take(63).collect();
    let name = name.trim_end_matches(['-', '.']).to_owned();
    let fqdn = want.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn).unwrap_or_default();
    match want.spec.as_ref().and_then(|spec| spec.subdomain.as_deref()).filter(|_| fqdn) {
        Some(subdomain) => format!("{name}.{subdomain}.{}.svc", pod::namespace(want)),
        None => name,
    }
}

/// Contents of `/etc/hosts`. `host` is the machine's own file, used with the host's network.
pub fn hosts(want: &Pod, ips: &[String], hostname: &str, domain: &str, host: &str) -> String {
    let mut out = String::new();
    if pod::is_host_network(want) {
        out.push_str("# Kubernetes-managed hosts file (host network).\n");
        out.push_str(host);
        if !host.is_empty() && !host.ends_with('\n') {
            out.push('\n');
        }
    } else {
        out.push_str("# Kubernetes-managed hosts file.\n");
        for (ip, names) in [
            ("127.0.0.1", "localhost"),
            ("::1", "localhost ip6-localhost ip6-loopback"),
            ("fe00::0", "ip6-localnet"),
            ("fe00::0", "ip6-mcastprefix"),
            ("fe00::1", "ip6-allnodes"),
            ("fe00::2", "ip6-allrouters"),
        ] {
            line(&mut out, ip, names);
        }
        let subdomain =
            want.spec.as_ref().and_then(|spec| spec.subdomain.as_deref()).filter(|s| !s.is_empty());
        for ip in ips {
            match subdomain {
                Some(sub) => {
                    let full = format!("{hostname}.{sub}.{}.svc.{domain}\t{hostname}", pod::namespace(want));
                    line(&mut out, ip, &full);
                }
                None => line(&mut out, ip, hostname),
            }
        }
    }
    let aliases = want.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
    for (index, alias) in aliases.enumerate() {
        if index == 0 {
            out.push_str("\n# Entries added by HostAliases.\n");
        }
        line(&mut out, &alias.ip, &alias.hostnames.clone().unwrap_or_default().join("\t"));
    }
    out
}

fn line(out: &mut String, ip: &str, names: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{ip}\t{names}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": spec }))
            .unwrap()
    }

    #[test]
    fn policies() {
        let cluster = ClusterDns { server: Some("10.96.0.10".into()), domain: "cluster.local".into() };
        let host =
            parse_resolv_conf("nameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch corp .\noptions edns0\n");
        for (spec, expected) in [
            (
                json!({ "containers": [] }),
                "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local corp | ndots:5",
            ),
            (json!({ "containers": [], "hostNetwork": true }), "192.0.2.1 | corp | edns0"),
            (
                json!({ "containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet" }),
                "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local corp | ndots:5",
            ),
            (json!({ "containers": [], "dnsPolicy": "Default" }), "192.0.2.1 | corp | edns0"),
            (
                json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": { "nameservers": ["1.1.1.1", "1.1.1.1"],
                "searches": ["a"], "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] } }),
                "1.1.1.1 | a | ndots:2 edns0",
            ),
            (
                json!({ "containers": [], "dnsConfig": { "options": [{ "name": "ndots", "value": "1" }] } }),
                "10.96.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local corp | ndots:1",
            ),
        ] {
            let got = resolv_conf(&pod(spec.clone()), &cluster, &host);
            let text =
                format!("{} | {} | {}", got.servers.join(" "), got.searches.join(" "), got.options.join(" "));
            assert_eq!(text, expected, "{spec}");
        }
    }

    #[test]
    fn hosts_file() {
        let spec = json!({ "containers": [], "hostname": "db-0", "subdomain": "db",
            "hostAliases": [{ "ip": "192.0.2.9", "hostnames": ["a", "b"] }] });
        let pod = pod(spec);
        insta::assert_snapshot!(hosts(&pod, &["10.0.0.4".into()], &hostname(&pod, "n"), "cluster.local", ""), @r"
        # Kubernetes-managed hosts file.
        127.0.0.1	localhost
        ::1	localhost ip6-localhost ip6-loopback
        fe00::0	ip6-localnet
        fe00::0	ip6-mcastprefix
        fe00::1	ip6-allnodes
        fe00::2	ip6-allrouters
        10.0.0.4	db-0.db.ns.svc.cluster.local	db-0

        # Entries added by HostAliases.
        192.0.2.9	a	b
        ");
    }
}
