//! `networking.k8s.io/v1`.

use resource::Resource;

use crate::{
    columns::{INGRESS, INGRESS_CLASS, IP_ADDRESS, NETWORK_POLICY, SERVICE_CIDR},
    entry::Group,
    strategy::{Address, Ingress, IngressClass, NODE_PORTS, NetworkPolicy, NodePort, ServiceCidr},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group.cluster("IngressClass", "ingressclasses").columns(INGRESS_CLASS).strategy(IngressClass).done(),
        group
            .namespaced("Ingress", "ingresses")
            .short("ing")
            .columns(INGRESS)
            .strategy(Ingress)
            .status()
            .done(),
        group.cluster("IPAddress", "ipaddresses").short("ip").columns(IP_ADDRESS).strategy(Address).done(),
        group
            .namespaced("NetworkPolicy", "networkpolicies")
            .short("netpol")
            .columns(NETWORK_POLICY)
            .strategy(NetworkPolicy)
            .done(),
        group
            .cluster("ServiceCIDR", "servicecidrs")
            .columns(SERVICE_CIDR)
            .strategy(ServiceCidr)
            .status()
            .done(),
    ]
}

/// The hidden kind of node port claims: stored, so that a port is claimed by creating an object, and
/// without verbs, so that nobody sees it. It has no schema: only the server makes its objects.
pub(super) fn claims(group: &Group<'_>) -> Vec<Resource> {
    vec![group.cluster("NodePort", NODE_PORTS.1).strategy(NodePort).hidden().done()]
}
