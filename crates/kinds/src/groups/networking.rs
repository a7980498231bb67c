//! `networking.k8s.io/v1`.

use resource::Resource;

use crate::{columns::AGE, entry::Group};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group.cluster("IngressClass", "ingressclasses").columns(&[AGE]).done(),
        group.namespaced("Ingress", "ingresses").short("ing").columns(&[AGE]).status().done(),
        group.cluster("IPAddress", "ipaddresses").short("ip").columns(&[AGE]).done(),
        group.namespaced("NetworkPolicy", "networkpolicies").short("netpol").columns(&[AGE]).done(),
        group.cluster("ServiceCIDR", "servicecidrs").columns(&[AGE]).status().done(),
    ]
}
