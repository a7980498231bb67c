//! Services, endpoints, ingresses.

use meta::{Object, Timestamp, Value};

use super::{AGE, Col, joined, labels, or, selector, some_of};

/// As wide as addresses of a load balancer are shown without `-o wide`. The server does not know whether
/// it is asked for a wide table, so it is the narrow form always.
const ADDRESSES_WIDTH: usize = 16;
/// As many items as lists are shown with.
const SHOWN_MAX: usize = 3;

/// Columns of a Service.
pub(crate) const SERVICE: &[Col] = &[
    Col::text_at("Type", "spec.type", "<unknown>"),
    Col::text("Cluster-IP", |o, _| {
        or(o.list(&["spec", "clusterIPs"]).first().and_then(Value::as_str), "<none>").into()
    }),
    Col::text("External-IP", external_ip),
    Col::text("Port(s)", ports),
    AGE,
    Col::text("Selector", |o, _| labels(o.get(&["spec", "selector"])).into()).wide(),
];

fn addresses(object: &Object) -> String {
    let ingress = object.list(&["status", "loadBalancer", "ingress"]).iter();
    let text = |item: &Value, field: &str| {
        item.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let mut all: Vec<String> =
        ingress.filter_map(|item| text(item, "ip").or_else(|| text(item, "hostname"))).collect();
    all.sort();
    all.dedup();
    let all = all.join(",");
    match all.get(..ADDRESSES_WIDTH - 3) {
        Some(head) if all.len() > ADDRESSES_WIDTH => format!("{head}..."),
        _ => all,
    }
}

fn external_ip(service: &Object, _: Timestamp) -> Value {
    let own = joined(service.list(&["spec", "externalIPs"]));
    match service.str(&["spec", "type"]) {
        Some("ClusterIP" | "NodePort") => or(Some(&own), "<none>").into(),
        Some("LoadBalancer") => {
            let all = [addresses(service), own];
            let all: Vec<&str> = all.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
            or(Some(&all.join(",")), "<pending>").into()
        }
        Some("ExternalName") => service.str(&["spec", "externalName"]).unwrap_or_default().into(),
        _ => "<unknown>".into(),
    }
}

fn ports(service: &Object, _: Timestamp) -> Value {
    let shown: Vec<String> = service
        .list(&["spec", "ports"])
        .iter()
        .map(|port| {
            let number = |field: &str| port.get(field).and_then(Value::as_i64).unwrap_or(0);
            let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or_default();
            match number("nodePort") {
                0 => format!("{}/{protocol}", number("port")),
                node => format!("{}:{node}/{protocol}", number("port")),
            }
        })
        .collect();
    or(Some(&shown.join(",")), "<none>").into()
}

/// Columns of Endpoints.
pub(crate) const ENDPOINTS: &[Col] = &[Col::text("Endpoints", endpoints), AGE];

fn endpoints(object: &Object, _: Timestamp) -> Value {
    let list =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all = Vec::new();
    for subset in object.list(&["subsets"]) {
        let ips: Vec<String> = list(subset, "addresses")
            .iter()
            .filter_map(|address| address.get("ip")?.as_str().map(str::to_owned))
            .collect();
        let ports = list(subset, "ports");
        if ports.is_empty() {
            all.extend(ips.iter().cloned());
        }
        for port in ports {
            let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
            all.extend(ips.iter().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{number}"),
                false => format!("{ip}:{number}"),
            }));
        }
    }
    if all.is_empty() && !object.list(&["subsets"]).is_empty() {
        return "".into();
    }
    some_of(&all, SHOWN_MAX).into()
}

/// Columns of an EndpointSlice.
pub(crate) const ENDPOINT_SLICE: &[Col] = &[
    Col::text_at("AddressType", "addressType", ""),
    Col::text("Ports", |o, _| {
        let ports = o.list(&["ports"]).iter();
        let shown: Vec<String> = ports
            .map(|port| match (port.get("port").and_then(Value::as_i64), port.get("name")) {
                (Some(number), _) => number.to_string(),
                (None, Some(Value::String(name))) => name.clone(),
                (None, _) => "*".to_owned(),
            })
            .collect();
        or(Some(&some_of(&shown, SHOWN_MAX)), "<unset>").replace("<none>", "<unset>").into()
    }),
    Col::text("Endpoints", |o, _| {
        let all = o.list(&["endpoints"]).iter().filter_map(|e| e.get("addresses")?.as_array()).flatten();
        let all: Vec<String> = all.filter_map(|a| a.as_str().map(str::to_owned)).collect();
        some_of(&all, SHOWN_MAX).replace("<none>", "<unset>").into()
    }),
    AGE,
];

/// Columns of an Ingress.
pub(crate) const INGRESS: &[Col] = &[
    Col::text_at("Class", "spec.ingressClassName", "<none>"),
    Col::text("Hosts", hosts),
    Col::text("Address", |o, _| addresses(o).into()),
    Col::text(
        "Ports",
        |o, _| if o.list(&["spec", "tls"]).is_empty() { "80".into() } else { "80, 443".into() },
    ),
    AGE,
];

fn hosts(ingress: &Object, _: Timestamp) -> Value {
    let rules = ingress.list(&["spec", "rules"]);
    let named = rules.iter().filter_map(|rule| rule.get("host")?.as_str()).filter(|host| !host.is_empty());
    let all: Vec<&str> = named.collect();
    match all.split_at_checked(SHOWN_MAX) {
        _ if all.is_empty() => "*".into(),
        Some((first, rest)) if !rest.is_empty() => {
            format!("{} + {} more...", first.join(","), rules.len() - SHOWN_MAX).into()
        }
        _ => all.join(",").into(),
    }
}

/// Columns of an IngressClass; the name says which is the default.
pub(crate) const INGRESS_CLASS: &[Col] = &[
    Col::text("Name", |o, _| named(o, "ingressclass.kubernetes.io/is-default-class")),
    Col::text_at("Controller", "spec.controller", ""),
    Col::text("Parameters", |o, _| {
        let text = |field| o.str(&["spec", "parameters", field]);
        let Some(kind) = text("kind") else { return "<none>".into() };
        let group = text("apiGroup").map_or(String::new(), |group| format!(".{group}"));
        format!("{kind}{group}/{}", text("name").unwrap_or_default()).into()
    }),
    AGE,
];

/// The name, marked when an annotation makes it the default.
pub(super) fn named(object: &Object, annotation: &str) -> Value {
    let name = object.name();
    if object.annotation(annotation) == Some("true") {
        format!("{name} (default)").into()
    } else {
        name.into()
    }
}

/// Columns of a NetworkPolicy.
pub(crate) const NETWORK_POLICY: &[Col] =
    &[Col::text("Pod-Selector", |o, _| selector(o.get(&["spec", "podSelector"]), "<none>").into()), AGE];

/// Columns of an IPAddress.
pub(crate) const IP_ADDRESS: &[Col] = &[
    Col::text("ParentRef", |o, _| {
        let text = |field| o.str(&["spec", "parentRef", field]).filter(|text| !text.is_empty());
        let Some(resource) = text("resource") else { return "<none>".into() };
        let group = text("group").map_or(String::new(), |group| format!(".{group}"));
        let namespace = text("namespace").map_or(String::new(), |namespace| format!("/{namespace}"));
        format!("{resource}{group}{namespace}/{}", text("name").unwrap_or_default()).to_lowercase().into()
    }),
    AGE,
];

/// Columns of a ServiceCIDR.
pub(crate) const SERVICE_CIDR: &[Col] =
    &[Col::text("CIDRs", |o, _| joined(o.list(&["spec", "cidrs"])).into()), AGE];
