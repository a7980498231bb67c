//! Services and their endpoints, projected to what the proxy and DNS look at.
//!
//! Guarantees: [`Services::apply`] names the services whose state changed, and only those; endpoints of
//! one service are the union of its slices, each address once. Deliberately unaware of packets and of
//! names.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::Service as WireService,
    discovery::v1::{Endpoint as WireEndpoint, EndpointSlice},
};
use meta::ObjectKey;

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Lower case, as nftables and SRV names write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    fn read(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// What stands behind a service's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A virtual address.
    Addresses(Vec<IpAddr>),
    /// The endpoints themselves.
    Headless,
    /// Another name.
    External(String),
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty when the service has one port.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on the virtual addresses.
    pub port: u16,
    /// Port on every node; 0 for none.
    pub node_port: u16,
}

/// Where traffic may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// To every endpoint.
    #[default]
    Cluster,
    /// To endpoints on the same node.
    Local,
}

/// The projection of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// What stands behind its name.
    pub target: Target,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// External IPs and load balancer addresses that arrive unchanged, with whether source ranges
    /// guard them.
    pub external: Vec<(IpAddr, bool)>,
    /// `loadBalancerSourceRanges` as written; empty admits all.
    pub source_ranges: Vec<String>,
    /// Seconds a client stays with its endpoint, for ClientIP affinity.
    pub affinity_seconds: Option<u32>,
    /// `externalTrafficPolicy`.
    pub external_policy: Policy,
    /// `internalTrafficPolicy`.
    pub internal_policy: Policy,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
}

/// One endpoint of a service, with the ports of its slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// Takes new connections.
    pub ready: bool,
    /// Still answers, though perhaps terminating.
    pub serving: bool,
    /// Is going away.
    pub terminating: bool,
    /// Its node.
    pub node: Option<String>,
    /// `hostname` of its pod within the subdomain.
    pub hostname: Option<String>,
    /// Ports of its slice: name, protocol, number.
    pub ports: Arc<[(String, Protocol, u16)]>,
}

impl Service {
    /// Projects a wire service.
    pub fn read(service: &WireService) -> Self {
        let key = ObjectKey {
            namespace: service.metadata.namespace.clone().unwrap_or_default(),
            name: service.metadata.name.clone().unwrap_or_default(),
        };
        let spec = service.spec.clone().unwrap_or_default();
        let ips = spec.cluster_ips.or_else(|| spec.cluster_ip.map(|ip| vec![ip])).unwrap_or_default();
        let target = if spec.type_.as_deref() == Some("ExternalName") {
            Target::External(spec.external_name.unwrap_or_default())
        } else {
            let ips: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
            if ips.is_empty() { Target::Headless } else { Target::Addresses(ips) }
        };
        let ports = spec.ports.unwrap_or_default();
        let local = |policy: Option<String>| match policy.as_deref() {
            Some("Local") => Policy::Local,
            _ => Policy::Cluster,
        };
        let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_deref());
        let balancers = ingress
            .unwrap_or_default()
            .iter()
            .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|i| Some((i.ip.as_ref()?.parse().ok()?, true)));
        let external = spec.external_ips.unwrap_or_default();
        let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
        let timeout = spec.session_affinity_config.and_then(|c| c.client_ip?.timeout_seconds);
        Self {
            key,
            target,
            ports: ports
                .into_iter()
                .filter_map(|p| {
                    Some(ServicePort {
                        name: p.name.unwrap_or_default(),
                        protocol: Protocol::read(p.protocol.as_deref())?,
                        port: u16::try_from(p.port).ok()?,
                        node_port: p.node_port.and_then(|n| u16::try_from(n).ok()).unwrap_or_default(),
                    })
                })
                .collect(),
            external: external
                .iter()
                .filter_map(|ip| Some((ip.parse().ok()?, false)))
                .chain(balancers)
                .collect(),
            source_ranges: spec.load_balancer_source_ranges.unwrap_or_default(),
            affinity_seconds: affinity.then(|| timeout.and_then(|t| u32::try_from(t).ok()).unwrap_or(10_800)),
            external_policy: local(spec.external_traffic_policy),
            internal_policy: local(spec.internal_traffic_policy),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        }
    }
}

/// The projection of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The service it belongs to; empty when it names none.
    pub service: String,
    /// Endpoints, one for each address.
    pub endpoints: Vec<Endpoint>,
}

impl Slice {
    /// Projects a wire slice. Slices of names (`addressType: FQDN`) have no endpoints here.
    pub fn read(slice: &EndpointSlice) -> Self {
        let labels = slice.metadata.labels.as_ref();
        let ports: Arc<[_]> = slice
            .ports
            .as_deref()
            .unwrap_or_default()
            .iter()
            .filter_map(|p| {
                let protocol = Protocol::read(p.protocol.as_deref())?;
                Some((p.name.clone().unwrap_or_default(), protocol, u16::try_from(p.port?).ok()?))
            })
            .collect();
        let read = |endpoint: &WireEndpoint| -> Vec<Endpoint> {
            // Absent conditions mean ready (discovery/v1 `EndpointConditions`).
            let conditions = endpoint.conditions.as_ref();
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let ips = endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok());
            ips.map(|ip| Endpoint {
                ip,
                ready,
                serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
                terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
                node: endpoint.node_name.clone(),
                hostname: endpoint.hostname.clone().filter(|h| !h.is_empty()),
                ports: Arc::clone(&ports),
            })
            .collect()
        };
        Self {
            key: ObjectKey {
                namespace: slice.metadata.namespace.clone().unwrap_or_default(),
                name: slice.metadata.name.clone().unwrap_or_default(),
            },
            service: labels.and_then(|l| l.get("kubernetes.io/service-name")).cloned().unwrap_or_default(),
            endpoints: slice.endpoints.iter().flatten().flat_map(read).collect(),
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Change {
    /// A service was added or changed.
    Service(Box<Service>),
    /// A service is gone.
    ServiceGone(ObjectKey),
    /// A slice was added or changed.
    Slice(Box<Slice>),
    /// A slice is gone.
    SliceGone(ObjectKey),
}

/// All services and their slices.
#[derive(Debug, Default)]
pub struct Services {
    services: BTreeMap<ObjectKey, Service>,
    slices: BTreeMap<ObjectKey, Slice>,
    of_service: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

impl Services {
    /// Takes note of a change; returns the services it concerns.
    pub fn apply(&mut self, change: Change) -> Vec<ObjectKey> {
        match change {
            Change::Service(service) => {
                let key = service.key.clone();
                if self.services.get(&key) == Some(&*service) {
                    return Vec::new();
                }
                self.services.insert(key.clone(), *service);
                vec![key]
            }
            Change::ServiceGone(key) => self.services.remove(&key).map(|_| key).into_iter().collect(),
            Change::Slice(slice) => {
                if self.slices.get(&slice.key) == Some(&*slice) {
                    return Vec::new();
                }
                let mut touched = self.remove_slice(&slice.key);
                let owner = ObjectKey::new(&slice.key.namespace, &slice.service);
                self.of_service.entry(owner.clone()).or_default().insert(slice.key.clone());
                self.slices.insert(slice.key.clone(), *slice);
                if !touched.contains(&owner) {
                    touched.push(owner);
                }
                touched
            }
            Change::SliceGone(key) => self.remove_slice(&key),
        }
    }

    /// One service.
    pub fn get(&self, key: &ObjectKey) -> Option<&Service> {
        self.services.get(key)
    }

    /// Every service, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The endpoints of a service. An address that is in two slices, as while slices are merged, is
    /// reported by each with that slice's ports.
    pub fn endpoints(&self, key: &ObjectKey) -> impl Iterator<Item = &Endpoint> + Clone {
        let slices = self.of_service.get(key).into_iter().flatten();
        slices.filter_map(|slice| self.slices.get(slice)).flat_map(|slice| &slice.endpoints)
    }

    fn remove_slice(&mut self, key: &ObjectKey) -> Vec<ObjectKey> {
        let Some(old) = self.slices.remove(key) else { return Vec::new() };
        let owner = ObjectKey::new(&key.namespace, &old.service);
        if let Some(slices) = self.of_service.get_mut(&owner) {
            slices.remove(key);
            if slices.is_empty() {
                self.of_service.remove(&owner);
            }
        }
        vec![owner]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A change from a service in JSON, in namespace `ns`.
    pub(crate) fn service(name: &str, spec: Value) -> Change {
        let wire = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
        Change::Service(Box::new(Service::read(&serde_json::from_value(wire).unwrap())))
    }

    /// A change from a slice of a service, in namespace `ns`.
    pub(crate) fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> Change {
        let wire = json!({
            "metadata": {"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints
        });
        Change::Slice(Box::new(Slice::read(&serde_json::from_value(wire).unwrap())))
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    #[test]
    fn changes_name_the_services_they_concern() {
        let mut all = Services::default();
        let web = || service("web", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}));
        assert_eq!(all.apply(web()), [key("web")]);
        assert!(all.apply(web()).is_empty());
        let one = json!([{"addresses": ["10.0.0.1"]}]);
        assert_eq!(all.apply(slice("s", "web", json!([]), one.clone())), [key("web")]);
        assert!(all.apply(slice("s", "web", json!([]), one.clone())).is_empty());
        assert_eq!(all.endpoints(&key("web")).count(), 1);
        // A slice that changes hands concerns both.
        assert_eq!(all.apply(slice("s", "api", json!([]), one)), [key("web"), key("api")]);
        assert_eq!(all.endpoints(&key("web")).count(), 0);
        assert_eq!(all.apply(Change::SliceGone(key("s"))), [key("api")]);
        assert_eq!(all.apply(Change::ServiceGone(key("web"))), [key("web")]);
        assert!(all.apply(Change::ServiceGone(key("web"))).is_empty());
    }

    #[test]
    fn reads_services_and_conditions() {
        let Change::Service(read) = service(
            "web",
            json!({"clusterIPs": ["10.96.0.1", "fd00::1"], "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local",
                "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}]}),
        ) else {
            panic!("not a service")
        };
        assert_eq!((read.affinity_seconds, read.external_policy), (Some(10_800), Policy::Local));
        assert_eq!(
            read.target,
            Target::Addresses(vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()])
        );
        assert_eq!((read.ports[0].protocol, read.ports[0].node_port), (Protocol::Udp, 30053));
        let Change::Service(headless) = service("db", json!({"clusterIP": "None"})) else {
            panic!("not a service")
        };
        assert_eq!(headless.target, Target::Headless);
        let Change::Slice(read) = slice(
            "s",
            "web",
            json!([{"name": "http", "port": 80}]),
            json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.2"]}]),
        ) else {
            panic!("not a slice")
        };
        let flags: Vec<_> = read.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
        assert_eq!(flags, [(false, true, true), (true, true, false)]);
        assert_eq!(&*read.endpoints[0].ports, [("http".to_owned(), Protocol::Tcp, 80)]);
    }
}
