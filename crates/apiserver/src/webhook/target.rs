//! Where a webhook is: a URL, or a port of a Service; and how it is told who calls.

use base64::Engine as _;
use http::HeaderValue;
use meta::{GroupResource, Value};
use resource::View;

use super::{Authorization, Endpoint};
use crate::{connect::service_endpoints, pki::Pair};

/// What a `clientConfig` or a kubeconfig says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Target {
    place: Place,
    access: Access,
    /// PEM; empty for the system's roots.
    pub(crate) ca: Vec<u8>,
    /// Path with a leading slash.
    pub(super) path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Url { host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

/// What only a kubeconfig says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Access {
    server_name: Option<String>,
    insecure: bool,
    login: Option<Pair>,
    authorization: Authorization,
}

impl Target {
    /// The server of a kubeconfig.
    pub(super) fn of(endpoint: &Endpoint) -> Result<Self, String> {
        let Endpoint { url, ca_pem, server_name, insecure, login, authorization } = endpoint;
        let access = Access {
            server_name: server_name.clone(),
            insecure: *insecure,
            login: login.clone(),
            authorization: authorization.clone(),
        };
        let (place, path) = Place::of_url(url)?;
        Ok(Self { place, access, ca: ca_pem.clone().into_bytes(), path })
    }

    pub(super) fn insecure(&self) -> bool {
        self.access.insecure
    }

    pub(super) fn login(&self) -> Option<&Pair> {
        self.access.login.as_ref()
    }

    /// The `Authorization` header.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        let bearer;
        let text = match &self.access.authorization {
            Authorization::None => return Ok(None),
            Authorization::Fixed(text) => text,
            Authorization::TokenFile(path) => {
                let read = std::fs::read_to_string(path);
                let token = read.map_err(|error| format!("read {}: {error}", path.display()))?;
                bearer = format!("Bearer {}", token.trim());
                &bearer
            }
        };
        let mut value = HeaderValue::from_str(text).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Reads a validated `clientConfig`.
    pub(crate) fn read(config: &Value) -> Result<Self, String> {
        let ca = match config.get("caBundle").and_then(Value::as_str) {
            Some(text) => base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|_| "unable to load root certificates: caBundle is not base64".to_owned())?,
            None => Vec::new(),
        };
        if let Some(service) = config.get("service").filter(|service| service.is_object()) {
            let text = |key: &str| service.get(key).and_then(Value::as_str).unwrap_or_default();
            let port = service.get("port").and_then(Value::as_u64).unwrap_or(443);
            let port = u16::try_from(port).map_err(|_| format!("invalid service port {port}"))?;
            let path = match text("path") {
                "" => "/".to_owned(),
                path => path.to_owned(),
            };
            let place = Place::Service {
                namespace: text("namespace").to_owned(),
                name: text("name").to_owned(),
                port,
            };
            return Ok(Self { place, access: Access::default(), ca, path });
        }
        let (place, path) = Place::of_url(config.get("url").and_then(Value::as_str).unwrap_or_default())?;
        Ok(Self { place, access: Access::default(), ca, path })
    }

    /// The name that its certificate must have.
    pub(crate) fn server_name(&self) -> String {
        self.access.server_name.clone().unwrap_or_else(|| self.place.host())
    }

    /// `host:port` as a URL and the `Host` header have it.
    pub(crate) fn authority(&self) -> String {
        let (host, port) = match &self.place {
            Place::Url { host, port } if host.contains(':') => (format!("[{host}]"), *port),
            Place::Url { port, .. } | Place::Service { port, .. } => (self.place.host(), *port),
        };
        format!("{host}:{port}")
    }

    /// The URL as errors show it.
    pub(super) fn url(&self) -> String {
        format!("https://{}{}", self.authority(), self.path)
    }

    /// Addresses to dial, the next after each failure.
    pub(crate) fn addresses(&self, view: &dyn View) -> Result<Vec<(String, u16)>, String> {
        match &self.place {
            Place::Url { host, port } => Ok(vec![(host.clone(), *port)]),
            Place::Service { namespace, name, port } => {
                let services = GroupResource::new("", "services");
                let service = view
                    .get(&services, namespace, name)
                    .ok_or_else(|| format!("service {name:?} not found"))?;
                let service = service.object().map_err(|error| error.to_string())?;
                if service.str(&["spec", "type"]) == Some("ExternalName") {
                    let host = service.str(&["spec", "externalName"]).unwrap_or_default();
                    return Ok(vec![(host.to_owned(), *port)]);
                }
                service_endpoints(view, &service, &port.to_string()).map_err(|status| status.message)
            }
        }
    }
}

impl Place {
    fn of_url(url: &str) -> Result<(Self, String), String> {
        let rest = url.strip_prefix("https://").ok_or_else(|| format!("invalid webhook url {url:?}"))?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let uri: http::uri::Authority =
            authority.parse().map_err(|_| format!("invalid webhook url {url:?}"))?;
        let host = uri.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(443);
        Ok((Self::Url { host, port }, path.to_owned()))
    }

    fn host(&self) -> String {
        match self {
            Self::Url { host, .. } => host.clone(),
            Self::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Objects;

    fn check(config: Value, expected: Result<(&str, &str), &str>) {
        let target = Target::read(&config);
        let seen = target.as_ref().map(|target| (target.url(), target.server_name()));
        let expected = expected.map(|(url, name)| (url.to_owned(), name.to_owned()));
        assert_eq!(seen.map_err(Clone::clone), expected.map_err(str::to_owned));
    }

    #[test]
    fn configurations() {
        check(
            json!({"url": "https://hooks.example/a/b"}),
            Ok(("https://hooks.example:443/a/b", "hooks.example")),
        );
        check(json!({"url": "https://[::1]:8443"}), Ok(("https://[::1]:8443/", "::1")));
        check(json!({"url": "http://x"}), Err("invalid webhook url \"http://x\""));
        let service = json!({"service": {"namespace": "ns", "name": "hook", "path": "/x"}});
        check(service, Ok(("https://hook.ns.svc:443/x", "hook.ns.svc")));
        let ca = json!({"url": "https://x", "caBundle": "!"});
        check(ca, Err("unable to load root certificates: caBundle is not base64"));
    }

    #[test]
    fn services_are_reached_at_their_ready_endpoints() {
        let service = json!({"service": {"namespace": "ns", "name": "hook", "port": 8443}});
        let target = Target::read(&service).unwrap();
        let services = GroupResource::new("", "services");
        assert_eq!(target.addresses(&Objects::default()), Err("service \"hook\" not found".to_owned()));
        let view = Objects::default().with(
            &services,
            json!({"metadata": {"name": "hook", "namespace": "ns"},
                "spec": {"ports": [{"name": "https", "port": 8443, "targetPort": 443}]}}),
        );
        let none = "no endpoints available for service \"hook\"";
        assert_eq!(target.addresses(&view), Err(none.to_owned()));
        let view = view.with(
            &GroupResource::new("discovery.k8s.io", "endpointslices"),
            json!({"metadata": {"name": "hook-1", "namespace": "ns",
                "labels": {"kubernetes.io/service-name": "hook"}},
                "ports": [{"name": "https", "port": 443}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}},
                    {"addresses": ["10.0.0.2"]}]}),
        );
        assert_eq!(target.addresses(&view), Ok(vec![("10.0.0.2".to_owned(), 443)]));
    }
}
