//! Environment variables that tell containers where Services are (`enableServiceLinks`).
//!
//! Guarantees upstream's names and values (`pkg/kubelet/envvars`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};

/// Namespace and name of the Service every pod is told about.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// The variables for `pod` out of `services`. Those of other namespaces are passed over, except the
/// API server's.
pub fn variables<'a>(pod: &Pod, services: impl IntoIterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let mut env = BTreeMap::new();
    let mut master = BTreeMap::new();
    for service in services {
        let of = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        if of == namespace && links {
            add(service, name, &mut env);
        } else if (of, name) == MASTER {
            add(service, name, &mut master);
        }
    }
    // A Service called "kubernetes" in the pod's own namespace wins, as upstream.
    for (name, value) in master {
        env.entry(name).or_insert(value);
    }
    env
}

fn add(service: &Service, name: &str, env: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let prefix = name.to_uppercase().replace('-', "_");
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    env.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    env.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let port_name = port_name.to_uppercase().replace('-', "_");
            env.insert(format!("{prefix}_SERVICE_PORT_{port_name}"), port.port.to_string());
        }
        if index == 0 {
            env.insert(format!("{prefix}_PORT"), url.clone());
        }
        let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.insert(format!("{link}_PROTO"), protocol.to_lowercase());
        env.insert(format!("{link}_PORT"), port.port.to_string());
        env.insert(format!("{link}_ADDR"), ip.to_owned());
        env.insert(link, url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(links: bool) -> String {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns" },
            "spec": { "containers": [], "enableServiceLinks": links }
        }))
        .unwrap();
        let service = |namespace: &str, name: &str, ip: &str, ports: serde_json::Value| -> Service {
            serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": namespace }, "spec": { "clusterIP": ip, "ports": ports }
            }))
            .unwrap()
        };
        let services = [
            service(
                "ns",
                "my-db",
                "10.96.0.5",
                json!([{ "name": "p-g", "port": 5432 }, { "port": 53, "protocol": "UDP" }]),
            ),
            service("ns", "headless", "None", json!([{ "port": 1 }])),
            service("other", "x", "10.96.0.6", json!([{ "port": 1 }])),
            service("default", "kubernetes", "10.96.0.1", json!([{ "name": "https", "port": 443 }])),
        ];
        let lines: Vec<String> =
            variables(&pod, &services).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        lines.join("\n")
    }

    #[test]
    fn links_and_the_api_server() {
        insta::assert_snapshot!(names(true), @r"
        KUBERNETES_PORT=tcp://10.96.0.1:443
        KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
        KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
        KUBERNETES_PORT_443_TCP_PORT=443
        KUBERNETES_PORT_443_TCP_PROTO=tcp
        KUBERNETES_SERVICE_HOST=10.96.0.1
        KUBERNETES_SERVICE_PORT=443
        KUBERNETES_SERVICE_PORT_HTTPS=443
        MY_DB_PORT=tcp://10.96.0.5:5432
        MY_DB_PORT_53_UDP=udp://10.96.0.5:53
        MY_DB_PORT_53_UDP_ADDR=10.96.0.5
        MY_DB_PORT_53_UDP_PORT=53
        MY_DB_PORT_53_UDP_PROTO=udp
        MY_DB_PORT_5432_TCP=tcp://10.96.0.5:5432
        MY_DB_PORT_5432_TCP_ADDR=10.96.0.5
        MY_DB_PORT_5432_TCP_PORT=5432
        MY_DB_PORT_5432_TCP_PROTO=tcp
        MY_DB_SERVICE_HOST=10.96.0.5
        MY_DB_SERVICE_PORT=5432
        MY_DB_SERVICE_PORT_P_G=5432
        ");
        assert!(names(false).lines().all(|line| line.starts_with("KUBERNETES_")));
    }
}
