//! The pods behind a Service and what both controllers say of each (upstream
//! `k8s.io/endpointslice/util`).

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::core::v1::{ContainerPort, ObjectReference, Pod, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{Resource, ResourceExt};
use meta::ObjectKey;
use reconcile::{Change, Stores, key_of};

use crate::{pods, spec::HasSpec};

/// One port of a Service as one pod serves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) port: i32,
    pub(super) protocol: String,
    pub(super) app_protocol: Option<String>,
}

/// The selector of a Service whose endpoints are ours to make: it has one and is not an ExternalName.
pub(super) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let external = service.spec().type_.as_deref() == Some("ExternalName");
    service.spec().selector.as_ref().filter(|selector| !external && !selector.is_empty())
}

fn selects<K: Resource>(selector: &BTreeMap<String, String>, object: &K) -> bool {
    let labels = object.meta().labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// The pods a Service selects that have an address and have not finished.
pub(super) fn select(service: &Service, pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
    let Some(selector) = selector(service) else { return Vec::new() };
    let fits =
        |pod: &Arc<Pod>| selects(selector, &**pod) && !pods::is_terminal(pod) && !addresses(pod).is_empty();
    pods.into_iter().filter(fits).collect()
}

/// The Services that select either version of a changed pod.
pub(super) fn services_of_pod(change: &Change<Pod>, stores: &Stores) -> Vec<ObjectKey> {
    let Some(pod) = change.object() else { return Vec::new() };
    let services = stores.of::<Service>().in_namespace(&pod.namespace().unwrap_or_default());
    let concerned = services.iter().filter(|service| {
        selector(service)
            .is_some_and(|selector| change.versions().any(|version| selects(selector, &**version)))
    });
    concerned.map(|service| key_of(&**service)).collect()
}

/// The pod's addresses.
pub(super) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut all: Vec<IpAddr> = listed.filter_map(|text| text.parse().ok()).collect();
    if all.is_empty() {
        all.extend(status.pod_ip.as_deref().and_then(|text| text.parse::<IpAddr>().ok()));
    }
    all
}

/// No cluster IP: DNS answers with the pods.
pub(super) fn is_headless(service: &Service) -> bool {
    service.spec().cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None")
}

/// Whether pods count as ready before they are.
pub(super) fn publishes_not_ready(service: &Service) -> bool {
    service.spec().publish_not_ready_addresses == Some(true)
}

/// The ports of the Service that the pod serves; one with a target port of a name the pod does not
/// have is left out.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let served = |port: &ServicePort| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            port: target(port, pod)?,
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: port.app_protocol.clone(),
        })
    };
    let mut ports: Vec<Port> = service.spec().ports.iter().flatten().filter_map(served).collect();
    ports.sort();
    ports
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let named = |p: &&ContainerPort| {
                p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            let spec = pod.spec();
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let containers = spec.containers.iter().chain(sidecars);
            containers.flat_map(|c| c.ports.iter().flatten()).find(named).map(|port| port.container_port)
        }
    }
}

/// The pod's DNS name below the Service, if it has one.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let below = pod.spec().subdomain.as_deref() == service.metadata.name.as_deref();
    pod.spec().hostname.clone().filter(|name| below && !name.is_empty())
}

/// The reference to a pod; without its version, which changes for reasons nobody here cares about.
pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The labels of endpoints objects: the Service's own, and whether it is headless.
pub(super) fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

const HEADLESS: &str = "service.kubernetes.io/headless";
