//! Where a stream goes.

use std::sync::Arc;

use meta::{GroupResource, Object, ObjectKey, Status, Value};
use resource::{Resource, View};

use super::Call;

/// An address to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Of whom a certificate is expected, where one is looked at.
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) over: Over,
}

/// How it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Plain,
    /// TLS with whoever answers, as upstream.
    Tls,
    /// TLS with our certificate.
    Kubelet,
}

fn port_of(value: Option<&Value>) -> Option<u16> {
    value.and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// The kubelet endpoint of a node.
pub(super) fn kubelet(node: &Object) -> Result<Endpoint, Status> {
    let missing = |what: &str| {
        let why = format!("node {:?} reports no {what}; is its agent running?", node.name());
        Status::new(503, meta::Reason::ServiceUnavailable, why)
    };
    let addresses = node.list(&["status", "addresses"]);
    let address = |of: &str| addresses.iter().find(|a| a.get("type").and_then(Value::as_str) == Some(of));
    let found = ["InternalIP", "Hostname", "InternalDNS", "ExternalIP"].iter().find_map(|of| address(of));
    let host =
        found.and_then(|a| a.get("address")).and_then(Value::as_str).ok_or_else(|| missing("address"))?;
    let port = port_of(node.get(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]));
    let port = port.ok_or_else(|| match node.str(&["status", "nodeInfo", "containerRuntimeVersion"]) {
        Some(runtime) if runtime.starts_with("simulated:") => Status::bad_request(format!(
            "node {:?} is simulated: its pods exist in memory only, without logs, exec, attach and port-forward; \
             `keelson up --runtime containerd` as root runs real containers",
            node.name()
        )),
        _ => missing("kubelet endpoint"),
    })?;
    // A node may say that it has any address, but has a certificate for its own name only.
    Ok(Endpoint { name: node.name().to_owned(), host: host.to_owned(), port, over: Over::Kubelet })
}

/// The kubelet endpoint of the node that runs a pod.
pub(super) fn of_pod(call: &Call<'_>, pod: &Object) -> Result<Endpoint, Status> {
    let name = pod.str(&["spec", "nodeName"]).filter(|name| !name.is_empty());
    let name =
        name.ok_or_else(|| Status::bad_request(format!("pod {} does not have a host assigned", pod.name())))?;
    let nodes = GroupResource::new("", "nodes");
    let node = call.rest().cache().get(&nodes, "", name).ok_or_else(|| Status::not_found(&nodes, name))?;
    kubelet(&node.object().map_err(Status::internal)?)
}

/// The container that is meant (upstream `podutil` and `LogLocation`).
pub(super) fn container(call: &Call<'_>, pod: &Object) -> Result<String, Status> {
    let names = |list: &str| -> Vec<&str> {
        let containers = pod.list(&["spec", list]).iter();
        containers.filter_map(|container| container.get("name").and_then(Value::as_str)).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    if let Some(asked) = call.query.get("container") {
        let all = main.iter().chain(&init).copied().chain(names("ephemeralContainers"));
        return match all.into_iter().find(|name| *name == asked) {
            Some(name) => Ok(name.to_owned()),
            None => {
                let why = format!("container {asked} is not valid for pod {}", pod.name());
                Err(Status::bad_request(why))
            }
        };
    }
    let default =
        pod.annotation("kubectl.kubernetes.io/default-container").filter(|name| main.contains(name));
    match (default, main.as_slice()) {
        (Some(name), _) | (None, &[name]) => Ok(name.to_owned()),
        _ => {
            let mut why = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.name(),
                main.join(" ")
            );
            if !init.is_empty() {
                why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(why))
        }
    }
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
fn split(text: &str) -> Result<(Over, &str, &str), Status> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [name] => Ok((Over::Plain, name, "")),
        [name, port] | ["http" | "", name, port] => Ok((Over::Plain, name, port)),
        ["https", name, port] => Ok((Over::Tls, name, port)),
        _ => Err(Status::bad_request(format!(
            "invalid proxy target {text:?}: want NAME, NAME:PORT or SCHEME:NAME:PORT"
        ))),
    }
}

/// A port of a pod, by number or name; the first container port when none is asked for.
pub(super) async fn of_pod_port(call: &Call<'_>, resource: &Arc<Resource>) -> Result<Endpoint, Status> {
    let (over, name, port) = split(&call.named.name)?;
    let pod = super::object(call, resource, name).await?;
    let mut ports = pod
        .list(&["spec", "containers"])
        .iter()
        .filter_map(|container| container.get("ports").and_then(Value::as_array))
        .flatten();
    let number = match port.parse::<u16>() {
        Ok(number) => Some(number),
        Err(_) if port.is_empty() => port_of(ports.next().and_then(|p| p.get("containerPort"))).or(Some(80)),
        Err(_) => {
            let named = ports.find(|p| p.get("name").and_then(Value::as_str) == Some(port));
            port_of(named.and_then(|p| p.get("containerPort")))
        }
    };
    let number = number.ok_or_else(|| Status::bad_request(format!("pod {name} has no port {port:?}")))?;
    let host = pod.str(&["status", "podIP"]).filter(|ip| !ip.is_empty());
    let host = host.ok_or_else(|| Status::bad_request(format!("pod {name} has no address yet")))?;
    Ok(Endpoint { name: host.to_owned(), host: host.to_owned(), port: number, over })
}

/// A ready endpoint of a service.
pub(super) async fn of_service(call: &Call<'_>, resource: &Arc<Resource>) -> Result<Endpoint, Status> {
    let (over, name, asked) = split(&call.named.name)?;
    let namespace = &*call.named.namespace;
    // 404 when the service is not there, before looking for its endpoints.
    let service = call.rest().get(resource, &ObjectKey::new(namespace, name), None).await?;
    let service = service.object().map_err(Status::internal)?;
    let found = service_endpoints(call.rest().cache().as_ref(), &service, asked)?;
    let (host, port) = found.into_iter().next().ok_or_else(|| no_endpoints(name))?;
    Ok(Endpoint { name: host.clone(), host, port, over })
}

fn no_endpoints(service: &str) -> Status {
    let why = format!("no endpoints available for service {service:?}");
    Status::new(503, meta::Reason::ServiceUnavailable, why)
}

/// Addresses of the ready endpoints of a service, for a port by name or number; its first port when none is
/// asked for. 503 when there is none.
pub(crate) fn service_endpoints(
    view: &dyn View,
    service: &Object,
    asked: &str,
) -> Result<Vec<(String, u16)>, Status> {
    let name = service.name();
    let text =
        |port: &'_ Value, key: &str| port.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let wanted = service.list(&["spec", "ports"]).iter().find(|port| {
        asked.is_empty()
            || text(port, "name") == asked
            || port_of(port.get("port")).is_some_and(|p| p.to_string() == asked)
    });
    let port_name = wanted
        .map(|port| text(port, "name"))
        .ok_or_else(|| Status::bad_request(format!("service {name} has no port {asked:?}")))?;
    let slices =
        view.list(&GroupResource::new("discovery.k8s.io", "endpointslices"), Some(service.namespace()));
    let mut found = Vec::new();
    for slice in slices
        .iter()
        .filter(|slice| slice.header.labels.get("kubernetes.io/service-name").is_some_and(|of| of == name))
    {
        let slice = slice.object().map_err(Status::internal)?;
        let port = slice.list(&["ports"]).iter().find(|port| text(port, "name") == port_name);
        let Some(port) = port_of(port.and_then(|p| p.get("port"))) else { continue };
        let ready = slice.list(&["endpoints"]).iter().filter(|endpoint| {
            endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true)
        });
        let addresses =
            ready.filter_map(|endpoint| endpoint.pointer("/addresses/0")).filter_map(Value::as_str);
        found.extend(addresses.map(|host| (host.to_owned(), port)));
    }
    if found.is_empty() { Err(no_endpoints(name)) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_targets() {
        for (text, expected) in [
            ("web", Some((Over::Plain, "web", ""))),
            ("web:80", Some((Over::Plain, "web", "80"))),
            ("http:web:80", Some((Over::Plain, "web", "80"))),
            (":web:80", Some((Over::Plain, "web", "80"))),
            ("https:web:tls", Some((Over::Tls, "web", "tls"))),
            ("https:web:", Some((Over::Tls, "web", ""))),
            ("ftp:web:80", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(split(text).ok(), expected, "{text}");
        }
    }
}
