//! Services, Ingresses and NetworkPolicies.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Fields, Inventory, Meta, lite, texts};
use crate::Kind;

lite! {
    Service { metadata: Meta, spec: ServiceSpec }
    ServiceSpec {
        r#type: String,
        #[serde(rename = "clusterIP")]
        cluster_ip: String,
        ports: Vec<ServicePort>,
        selector: BTreeMap<String, String>,
    }
    ServicePort { name: String, protocol: String, port: i64, target_port: Value }

    Ingress { metadata: Meta, spec: IngressSpec, status: IngressStatus }
    IngressSpec { ingress_class_name: String, rules: Vec<Rule>, tls: Vec<Tls> }
    Rule { host: String, http: Http }
    Http { paths: Vec<Path> }
    Path { path: String, path_type: String, backend: Backend }
    Backend { service: BackendService }
    BackendService { name: String, port: BackendPort }
    BackendPort { number: i64 }
    Tls { hosts: Vec<String>, secret_name: String }
    IngressStatus { load_balancer: LoadBalancer }
    LoadBalancer { ingress: Vec<Address> }
    Address { ip: String, hostname: String }

    NetworkPolicy { metadata: Meta, spec: PolicySpec }
    PolicySpec {
        pod_selector: Selector, policy_types: Vec<String>, ingress: Vec<IgnoredAny>, egress: Vec<IgnoredAny>,
    }
    Selector { match_labels: BTreeMap<String, String> }
}

impl Inventory for Service {
    const KIND: Kind = Kind::Service;

    fn split(self) -> (Meta, Fields) {
        let spec = self.spec.unwrap_or_default();
        let ports: Vec<Value> = spec.ports.into_iter().flatten().map(service_port).collect();
        let fields = Fields::default()
            .unless_empty("service_type", spec.r#type)
            .unless_empty("cluster_ip", spec.cluster_ip)
            .unless_empty("ports", ports)
            .unless_empty("selector", texts(spec.selector));
        (self.metadata.unwrap_or_default(), fields)
    }
}

/// `targetPort` is the one camelCase name of the contract, and a number or a name as text.
fn service_port(port: ServicePort) -> Value {
    let target = match port.target_port {
        Some(Value::String(name)) => name,
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => "0".to_owned(),
    };
    Fields::default()
        .unless_empty("name", port.name)
        .always("protocol", port.protocol.unwrap_or_default())
        .always("port", port.port.unwrap_or(0))
        .unless_empty("targetPort", target)
        .into()
}

impl Inventory for Ingress {
    const KIND: Kind = Kind::Ingress;

    fn split(self) -> (Meta, Fields) {
        let spec = self.spec.unwrap_or_default();
        let rules: Vec<Value> = spec.rules.into_iter().flatten().map(rule).collect();
        let tls: Vec<Value> = spec.tls.into_iter().flatten().map(tls).collect();
        let balancer = self.status.and_then(|status| status.load_balancer).and_then(|lb| lb.ingress);
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        let addresses: Vec<String> = balancer
            .into_iter()
            .flatten()
            .filter_map(|address| text(address.ip).or_else(|| text(address.hostname)))
            .collect();
        let fields = Fields::default()
            .unless_empty("ingress_class_name", spec.ingress_class_name)
            .unless_empty("rules", rules)
            .unless_empty("tls", tls)
            .unless_empty("load_balancer_ips", addresses);
        (self.metadata.unwrap_or_default(), fields)
    }
}

fn rule(rule: Rule) -> Value {
    let paths = rule.http.and_then(|http| http.paths);
    let paths: Vec<Value> = paths.into_iter().flatten().map(path).collect();
    Fields::default().unless_empty("host", rule.host).unless_empty("paths", paths).into()
}

/// The port only where it is a number, as the original.
fn path(path: Path) -> Value {
    let service = path.backend.and_then(|backend| backend.service).unwrap_or_default();
    let port = service.port.and_then(|port| port.number).filter(|number| *number != 0);
    Fields::default()
        .unless_empty("path", path.path)
        .unless_empty("path_type", path.path_type)
        .unless_empty("service_name", service.name)
        .unless_empty("service_port", port)
        .into()
}

fn tls(tls: Tls) -> Value {
    Fields::default().unless_empty("hosts", tls.hosts).unless_empty("secret_name", tls.secret_name).into()
}

impl Inventory for NetworkPolicy {
    const KIND: Kind = Kind::NetworkPolicy;

    fn split(self) -> (Meta, Fields) {
        let spec = self.spec.unwrap_or_default();
        let fields = Fields::default()
            .unless_empty("pod_selector", texts(spec.pod_selector.and_then(|selector| selector.match_labels)))
            .unless_empty("policy_types", spec.policy_types)
            .always("ingress_rules", spec.ingress.map_or(0, |rules| rules.len()))
            .always("egress_rules", spec.egress.map_or(0, |rules| rules.len()));
        (self.metadata.unwrap_or_default(), fields)
    }
}
