//! Whether another server can be asked (upstream `remote_available_controller.go`).

use meta::{Condition, ConditionStatus, GroupResource, Value};
use resource::View;

use super::remote::Service;
use crate::connect::service_endpoints;

const AVAILABLE: &str = "Available";

/// The condition of a server that answered.
pub(super) fn passed() -> Condition {
    Condition::new(AVAILABLE, ConditionStatus::True, "Passed").message("all checks passed")
}

/// The condition of what this server answers for.
pub(super) fn local() -> Condition {
    Condition::new(AVAILABLE, ConditionStatus::True, "Local")
        .message("Local APIServices are always available")
}

/// The condition of a server that did not answer well.
pub(super) fn failed(why: impl Into<String>) -> Condition {
    Condition::new(AVAILABLE, ConditionStatus::False, "FailedDiscoveryCheck").message(why)
}

/// What stands in the way before anybody is asked.
pub(super) fn obstacle(view: &dyn View, of: &Service) -> Option<Condition> {
    let Service { namespace, name, port } = of;
    let no = |reason: &str, message: String| {
        Some(Condition::new(AVAILABLE, ConditionStatus::False, reason).message(message))
    };
    let shown = format!("service/{name} in {namespace:?}");
    let Some(service) = view.get(&GroupResource::new("", "services"), namespace, name) else {
        return no("ServiceNotFound", format!("{shown} is not present"));
    };
    let Ok(service) = service.object() else {
        let unknown = Condition::new(AVAILABLE, ConditionStatus::Unknown, "ServiceAccessError");
        return Some(unknown.message(format!("{shown} cannot be checked due to: it is damaged")));
    };
    // Others, such as an ExternalName, have no endpoints to look at.
    if !matches!(service.str(&["spec", "type"]), None | Some("" | "ClusterIP")) {
        return None;
    }
    let mut ports = service.list(&["spec", "ports"]).iter();
    let found = ports.find(|found| found.get("port").and_then(Value::as_u64) == Some(*port));
    let Some(found) = found else {
        return no("ServicePortError", format!("{shown} is not listening on port {port}"));
    };
    let slices = view.list(&GroupResource::new("discovery.k8s.io", "endpointslices"), Some(namespace));
    let label = "kubernetes.io/service-name";
    if !slices.iter().any(|slice| slice.header.labels.get(label).is_some_and(|of| of == name)) {
        return no("EndpointsNotFound", format!("cannot find endpointslices for {shown}"));
    }
    if service_endpoints(view, &service, &port.to_string()).is_err() {
        let port = found.get("name").and_then(Value::as_str).unwrap_or_default();
        let message = format!("endpointslices for {shown} have no addresses with port name {port:?}");
        return no("MissingEndpoints", message);
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Objects;

    fn check(view: &Objects, expected: &str) {
        let of = Service { namespace: "ns".to_owned(), name: "ext".to_owned(), port: 443 };
        let seen = obstacle(view, &of).map(|c| format!("{} {}: {}", c.status.as_str(), c.reason, c.message));
        assert_eq!(seen.as_deref().unwrap_or("none"), expected);
    }

    #[test]
    fn obstacles() {
        let (services, slices) =
            (GroupResource::new("", "services"), GroupResource::new("discovery.k8s.io", "endpointslices"));
        let service = |spec: Value| {
            let metadata = json!({"name": "ext", "namespace": "ns"});
            Objects::default().with(&services, json!({"metadata": metadata, "spec": spec}))
        };
        check(&Objects::default(), "False ServiceNotFound: service/ext in \"ns\" is not present");
        check(
            &service(json!({"ports": [{"port": 80}]})),
            "False ServicePortError: service/ext in \"ns\" is not listening on port 443",
        );
        check(&service(json!({"type": "ExternalName", "externalName": "x"})), "none");
        let view = service(json!({"type": "ClusterIP", "ports": [{"name": "https", "port": 443}]}));
        check(&view, "False EndpointsNotFound: cannot find endpointslices for service/ext in \"ns\"");
        let slice = |ready: bool| {
            json!({"metadata": {"name": "ext-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "ext"}},
                "ports": [{"name": "https", "port": 8443}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]})
        };
        let view = view.with(&slices, slice(false));
        let missing = "endpointslices for service/ext in \"ns\" have no addresses with port name \"https\"";
        check(&view, &format!("False MissingEndpoints: {missing}"));
        check(&view.with(&slices, slice(true)), "none");
    }
}
