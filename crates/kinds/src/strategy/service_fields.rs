//! What a Service says, as the other files about Services ask it.

use meta::{Object, Value};

/// `spec.type`, defaulted.
pub(super) fn of(service: &Object) -> &str {
    service.str(&["spec", "type"]).filter(|text| !text.is_empty()).unwrap_or("ClusterIP")
}

/// Whether it has a cluster address, or `None` in place of one.
pub(super) fn needs_cluster_ip(service: &Object) -> bool {
    of(service) != "ExternalName"
}

/// Whether it is reached by a port on every node.
pub(super) fn needs_node_ports(service: &Object) -> bool {
    matches!(of(service), "NodePort" | "LoadBalancer")
}

/// Whether node ports are chosen for it.
pub(super) fn chooses_node_ports(service: &Object) -> bool {
    match of(service) {
        "NodePort" => true,
        "LoadBalancer" => service.bool(&["spec", "allocateLoadBalancerNodePorts"]).unwrap_or(true),
        _ => false,
    }
}

/// Whether load balancers ask nodes if they have an endpoint.
pub(super) fn needs_health_check(service: &Object) -> bool {
    of(service) == "LoadBalancer" && service.str(&["spec", "externalTrafficPolicy"]) == Some("Local")
}

/// Whether anything outside the cluster reaches it.
pub(super) fn is_externally_accessible(service: &Object) -> bool {
    needs_node_ports(service)
        || (of(service) == "ClusterIP" && !service.list(&["spec", "externalIPs"]).is_empty())
}

/// `spec.clusterIP`, or empty.
pub(super) fn cluster_ip(service: &Object) -> &str {
    service.str(&["spec", "clusterIP"]).unwrap_or_default()
}

/// `spec.clusterIPs`.
pub(super) fn cluster_ips(service: &Object) -> Vec<&str> {
    service.list(&["spec", "clusterIPs"]).iter().filter_map(Value::as_str).collect()
}

/// Whether it has no address on purpose.
pub(super) fn is_headless(service: &Object) -> bool {
    cluster_ips(service).first() == Some(&"None") || cluster_ip(service) == "None"
}

/// `spec.healthCheckNodePort`, 0 when unset.
pub(super) fn health_check_port(service: &Object) -> i64 {
    service.int(&["spec", "healthCheckNodePort"]).unwrap_or(0)
}

/// Node ports of all its ports, 0 where unset.
pub(super) fn node_ports(service: &Object) -> Vec<i64> {
    let ports = service.list(&["spec", "ports"]).iter();
    ports.map(|port| port.get("nodePort").and_then(Value::as_i64).unwrap_or(0)).collect()
}
