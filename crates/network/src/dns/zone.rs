//! The cluster's names, answered from memory: `schema version 1.1.0` of the DNS specification
//! (kubernetes/dns `docs/specification.md`) and CoreDNS' wording where the specification leaves room.
//!
//! Guarantees: synchronous and pure; a name that exists with other types is `NoData`, one that does
//! not is `NoName`. Deliberately unaware of messages and sockets.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT},
};
use meta::ObjectKey;

use crate::services::{Change, Endpoint, Service, Services, Target};

/// Seconds an answer about a service may be kept: kubeadm's default for CoreDNS.
pub(super) const TTL_SERVICE: u32 = 30;
/// Seconds an answer about endpoints, or that there is nothing, may be kept: CoreDNS' default.
pub(super) const TTL_SHORT: u32 = 5;

/// What there is to say about a name and type.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// These records, and others that help.
    Records(Vec<Record>, Vec<Record>),
    /// The name is another name for this one.
    Alias(Box<Record>, Name),
    /// The name exists, without records of this type.
    NoData,
    /// The name does not exist.
    NoName,
    /// Not a name of this cluster.
    Foreign,
}

/// The names of one cluster.
#[derive(Debug)]
pub struct Zone {
    domain: Name,
    labels: Vec<String>,
    servers: Vec<IpAddr>,
    services: Services,
    owners: HashMap<IpAddr, BTreeSet<ObjectKey>>,
    addresses: HashMap<ObjectKey, BTreeSet<IpAddr>>,
    namespaces: BTreeMap<String, usize>,
    named: BTreeSet<ObjectKey>,
    serial: u32,
}

impl Zone {
    /// A zone without services. `servers` are the addresses of the server itself.
    pub fn new(domain: &Name, servers: Vec<IpAddr>) -> Self {
        let mut domain = domain.to_lowercase();
        domain.set_fqdn(true);
        Self {
            labels: labels(&domain),
            domain,
            servers,
            services: Services::default(),
            owners: HashMap::new(),
            addresses: HashMap::new(),
            namespaces: BTreeMap::new(),
            named: BTreeSet::new(),
            serial: 1,
        }
    }

    /// Takes note of a change.
    pub fn apply(&mut self, change: Change) {
        for key in self.services.apply(change) {
            self.serial = self.serial.wrapping_add(1);
            self.index(&key);
        }
    }

    /// Answers one question. Names are compared without regard to case and answered as asked.
    pub fn resolve(&self, name: &Name, kind: RecordType) -> Answer {
        let asked = labels(name);
        let Some(inner) = asked.strip_suffix(self.labels.as_slice()) else {
            return self.reverse(name, &asked, kind);
        };
        let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
        match inner.as_slice() {
            [] => self.apex(name, kind),
            ["dns-version"] if kind == RecordType::TXT => {
                records(vec![record(name, TTL_SERVICE, RData::TXT(TXT::new(vec!["1.1.0".to_owned()])))])
            }
            ["ns", "dns"] => addresses(name, kind, TTL_SERVICE, self.servers.iter().copied()),
            ["dns-version" | "dns" | "svc" | "pod"] => Answer::NoData,
            [namespace, "svc" | "pod"] => {
                if self.namespaces.contains_key(*namespace) {
                    Answer::NoData
                } else {
                    Answer::NoName
                }
            }
            [service, namespace, "svc"] => self.service(name, kind, namespace, service),
            [address, namespace, "pod"] => self.pod(name, kind, address, namespace),
            [port, protocol, service, namespace, "svc"]
                if port.starts_with('_') && protocol.starts_with('_') =>
            {
                self.port(name, kind, namespace, service, (port, protocol))
            }
            [protocol, service, namespace, "svc"] if protocol.starts_with('_') => {
                if self.services.get(&ObjectKey::new(*namespace, *service)).is_some() {
                    Answer::NoData
                } else {
                    Answer::NoName
                }
            }
            [endpoint, service, namespace, "svc"] => self.endpoint(name, kind, namespace, service, endpoint),
            _ => Answer::NoName,
        }
    }

    /// The record that says for how long an absence may be believed.
    pub fn start_of_authority(&self) -> Record {
        let server = self.under("ns.dns");
        let mailbox = self.under("hostmaster");
        let soa = SOA::new(server, mailbox, self.serial, 7200, 1800, 86400, TTL_SHORT);
        record(&self.domain, TTL_SHORT, RData::SOA(soa))
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Answer {
        match kind {
            RecordType::SOA => records(vec![self.start_of_authority()]),
            RecordType::NS => records(vec![record(name, TTL_SERVICE, RData::NS(NS(self.under("ns.dns"))))]),
            _ => Answer::NoData,
        }
    }

    fn service(&self, name: &Name, kind: RecordType, namespace: &str, service: &str) -> Answer {
        let key = ObjectKey::new(namespace, service);
        let Some(service) = self.services.get(&key) else { return Answer::NoName };
        match &service.target {
            Target::External(target) => match Name::from_ascii(target) {
                Ok(mut target) => {
                    target.set_fqdn(true);
                    let alias = record(name, TTL_SERVICE, RData::CNAME(CNAME(target.clone())));
                    Answer::Alias(Box::new(alias), target)
                }
                Err(_) => Answer::NoData,
            },
            Target::Addresses(_) | Target::Headless if kind == RecordType::SRV => {
                self.srv(name, service, |_, _| true)
            }
            Target::Addresses(ips) => addresses(name, kind, TTL_SERVICE, ips.iter().copied()),
            Target::Headless => {
                let found: BTreeSet<IpAddr> = self.published(service).map(|e| e.ip).collect();
                if found.is_empty() { Answer::NoName } else { addresses(name, kind, TTL_SHORT, found) }
            }
        }
    }

    /// One endpoint by its hostname, or by its address with dashes.
    fn endpoint(&self, name: &Name, kind: RecordType, namespace: &str, service: &str, label: &str) -> Answer {
        let key = ObjectKey::new(namespace, service);
        let Some(service) = self.services.get(&key) else { return Answer::NoName };
        let matching = self.published(service).filter(|e| endpoint_label(e) == label);
        let found: BTreeSet<IpAddr> = matching.map(|e| e.ip).collect();
        if found.is_empty() { Answer::NoName } else { addresses(name, kind, TTL_SHORT, found) }
    }

    fn port(
        &self,
        name: &Name,
        kind: RecordType,
        namespace: &str,
        service: &str,
        (port, protocol): (&str, &str),
    ) -> Answer {
        let Some(service) = self.services.get(&ObjectKey::new(namespace, service)) else {
            return Answer::NoName;
        };
        let wanted =
            |name: &str, proto: &str| port.get(1..) == Some(name) && protocol.get(1..) == Some(proto);
        if kind == RecordType::SRV {
            return self.srv(name, service, wanted);
        }
        match self.srv(name, service, wanted) {
            Answer::NoName => Answer::NoName,
            _ => Answer::NoData,
        }
    }

    fn srv(&self, name: &Name, service: &Service, wanted: impl Fn(&str, &str) -> bool) -> Answer {
        let ObjectKey { namespace, name: service_name } = &service.key;
        let host = format!("{service_name}.{namespace}.svc");
        // Target, port, address.
        let mut found: BTreeSet<(String, u16, IpAddr)> = BTreeSet::new();
        match &service.target {
            Target::External(_) => return Answer::NoData,
            Target::Addresses(ips) => {
                for port in service.ports.iter().filter(|p| wanted(&p.name, p.protocol.name())) {
                    found.extend(ips.iter().map(|ip| (host.clone(), port.port, *ip)));
                }
            }
            Target::Headless => {
                for endpoint in self.published(service) {
                    let target = format!("{}.{host}", endpoint_label(endpoint));
                    let ports = endpoint.ports.iter().filter(|(name, proto, _)| wanted(name, proto.name()));
                    found.extend(ports.map(|(_, _, port)| (target.clone(), *port, endpoint.ip)));
                }
            }
        }
        let pairs: BTreeSet<(&str, u16)> =
            found.iter().map(|(target, port, _)| (target.as_str(), *port)).collect();
        if pairs.is_empty() {
            return Answer::NoName;
        }
        let weight = u16::try_from(100 / pairs.len()).unwrap_or(1).max(1);
        let answers = pairs
            .iter()
            .map(|(target, port)| {
                record(name, TTL_SERVICE, RData::SRV(SRV::new(0, weight, *port, self.under(target))))
            })
            .collect();
        let hosts: BTreeSet<(&str, IpAddr)> =
            found.iter().map(|(target, _, ip)| (target.as_str(), *ip)).collect();
        let helpful =
            hosts.into_iter().map(|(target, ip)| address(&self.under(target), TTL_SERVICE, ip)).collect();
        Answer::Records(answers, helpful)
    }

    /// `10-244-0-5.NAMESPACE.pod`: any address, as CoreDNS' `pods insecure` answers.
    fn pod(&self, name: &Name, kind: RecordType, label: &str, namespace: &str) -> Answer {
        let ip = label
            .replace('-', ".")
            .parse::<Ipv4Addr>()
            .map(IpAddr::V4)
            .or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6));
        match ip {
            Ok(ip) if self.namespaces.contains_key(namespace) => addresses(name, kind, TTL_SHORT, [ip]),
            Ok(_) | Err(_) => Answer::NoName,
        }
    }

    /// Names of services' addresses, and of endpoints that have names. Other addresses are foreign:
    /// whoever runs the network may know them.
    fn reverse(&self, name: &Name, asked: &[String], kind: RecordType) -> Answer {
        let Some(ip) = address_of(asked) else { return Answer::Foreign };
        let Some(owners) = self.owners.get(&ip) else { return Answer::Foreign };
        let mut targets = BTreeSet::new();
        for service in owners.iter().filter_map(|key| self.services.get(key)) {
            let host = format!("{}.{}.svc", service.key.name, service.key.namespace);
            match &service.target {
                Target::Addresses(ips) if ips.contains(&ip) => {
                    targets.insert(host);
                }
                Target::Addresses(_) | Target::Headless | Target::External(_) => {
                    let here = self.published(service).filter(|e| e.ip == ip);
                    targets.extend(here.map(|e| format!("{}.{host}", endpoint_label(e))));
                }
            }
        }
        if targets.is_empty() {
            return Answer::Foreign;
        }
        if kind != RecordType::PTR {
            return Answer::NoData;
        }
        let pointer = |target: &String| record(name, TTL_SHORT, RData::PTR(PTR(self.under(target))));
        records(targets.iter().map(pointer).collect())
    }

    /// Endpoints that DNS speaks of: ready ones, or all when the service publishes those not ready.
    fn published<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Endpoint> {
        self.services.endpoints(&service.key).filter(|e| e.ready || service.publish_not_ready)
    }

    fn index(&mut self, key: &ObjectKey) {
        for ip in self.addresses.remove(key).unwrap_or_default() {
            if let Some(owners) = self.owners.get_mut(&ip) {
                owners.remove(key);
                if owners.is_empty() {
                    self.owners.remove(&ip);
                }
            }
        }
        let service = self.services.get(key);
        let was_named =
            if service.is_some() { !self.named.insert(key.clone()) } else { self.named.remove(key) };
        match (was_named, service.is_some()) {
            (false, true) => *self.namespaces.entry(key.namespace.clone()).or_default() += 1,
            (true, false) => {
                if let Some(count) = self.namespaces.get_mut(&key.namespace) {
                    *count -= 1;
                    if *count == 0 {
                        self.namespaces.remove(&key.namespace);
                    }
                }
            }
            (true, true) | (false, false) => {}
        }
        let Some(service) = service else { return };
        let mut ips: BTreeSet<IpAddr> = self.services.endpoints(key).map(|e| e.ip).collect();
        if let Target::Addresses(virtual_ips) = &service.target {
            ips.extend(virtual_ips);
        }
        for ip in &ips {
            self.owners.entry(*ip).or_default().insert(key.clone());
        }
        self.addresses.insert(key.clone(), ips);
    }

    /// A name below the zone. Object names are labels, so this does not fail; if one were not, the
    /// zone itself stands in.
    fn under(&self, relative: &str) -> Name {
        let below = Name::from_ascii(relative).and_then(|name| name.append_domain(&self.domain));
        below.unwrap_or_else(|_| self.domain.clone())
    }
}

fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

/// The endpoint's label under its service: its hostname, or its address with dashes.
fn endpoint_label(endpoint: &Endpoint) -> String {
    endpoint
        .hostname
        .as_ref()
        .map_or_else(|| endpoint.ip.to_string().replace(['.', ':'], "-"), |h| h.to_ascii_lowercase())
}

/// The address a name under `in-addr.arpa` or `ip6.arpa` is about.
fn address_of(labels: &[String]) -> Option<IpAddr> {
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match labels.as_slice() {
        [d, c, b, a, "in-addr", "arpa"] => {
            let [a, b, c, d] = [a, b, c, d].map(|octet| octet.parse::<u8>().ok());
            Some(IpAddr::V4(Ipv4Addr::new(a?, b?, c?, d?)))
        }
        [digits @ .., "ip6", "arpa"] if digits.len() == 32 => {
            let digits: String = digits.iter().rev().filter(|d| d.len() == 1).copied().collect();
            let bits = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
            Some(IpAddr::V6(Ipv6Addr::from(bits)))
        }
        _ => None,
    }
}

fn addresses(name: &Name, kind: RecordType, ttl: u32, ips: impl IntoIterator<Item = IpAddr>) -> Answer {
    let of_kind = |ip: &IpAddr| match ip {
        IpAddr::V4(_) => kind == RecordType::A,
        IpAddr::V6(_) => kind == RecordType::AAAA,
    };
    records(ips.into_iter().filter(of_kind).map(|ip| address(name, ttl, ip)).collect())
}

fn address(name: &Name, ttl: u32, ip: IpAddr) -> Record {
    match ip {
        IpAddr::V4(ip) => record(name, ttl, RData::A(A(ip))),
        IpAddr::V6(ip) => record(name, ttl, RData::AAAA(AAAA(ip))),
    }
}

fn record(name: &Name, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name.clone(), ttl, data)
}

fn records(found: Vec<Record>) -> Answer {
    if found.is_empty() { Answer::NoData } else { Answer::Records(found, Vec::new()) }
}

#[cfg(test)]
mod tests;
