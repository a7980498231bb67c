//! Streams to nodes: log, exec, attach, port-forward and proxy.
//!
//! Guarantees: bytes pass both ways as they are, so that SPDY and WebSocket need no translation here; a
//! stream ends with the server; nobody's credentials are passed on. Pages that are reached through `proxy` have their
//! links lead back through it. Knows the kinds it must look at to find an endpoint: Pod, Node, Service, EndpointSlice.

mod endpoint;
mod forward;
mod links;
mod pool;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use meta::{Object, ObjectKey, Reason, Status, Value};
use resource::Resource;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    http::{Body, Call, Input, TlsError, Trust, client_config},
    pki::Pki,
    rest::Caller,
};

pub(crate) use endpoint::service_endpoints;
use endpoint::{Endpoint, Over};
use forward::authority;
pub(crate) use forward::{Forward, Refusals};

/// How long streams may take to end when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Reaches the kubelet endpoints of nodes, and addresses of pods and services.
#[derive(Clone)]
pub struct Kubelets {
    tls: Arc<ClientConfig>,
    /// For endpoints of pods and services: who answers there is whom the user means.
    anybody: Arc<ClientConfig>,
    forwarder: Forwarder,
}

/// Passes requests on, and keeps account of the streams that came of it.
#[derive(Clone, Default)]
pub(crate) struct Forwarder {
    streams: TaskTracker,
    stop: CancellationToken,
    kept: pool::Pool,
}

impl Forwarder {
    /// Ends every stream and waits for it.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.kept.clear();
        self.streams.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.streams.wait()).await.is_err() {
            tracing::warn!("some streams to other servers did not end in time");
        }
    }
}

impl Kubelets {
    /// Calls kubelets with a certificate of this authority, and trusts theirs if it issued them.
    pub fn new(pki: &Pki) -> Result<Self, TlsError> {
        let client = pki.kubelet_client().map_err(TlsError::Pki)?;
        let tls = client_config(Trust::Authorities(pki.ca_pem().as_bytes()), Some(&client))?;
        let anybody = client_config(Trust::Anybody, None)?;
        Ok(Self { tls: Arc::new(tls), anybody: Arc::new(anybody), forwarder: Forwarder::default() })
    }

    /// Ends every stream and waits for it.
    pub(crate) async fn stop(&self) {
        self.forwarder.stop().await;
    }

    /// Answers a request on a streaming subresource.
    pub(crate) async fn connect(
        &self,
        call: &Call<'_>,
        resource: &Arc<Resource>,
        uri: &Uri,
        input: Input,
        upgrade: Option<hyper::upgrade::OnUpgrade>,
    ) -> Result<Response<Body>, Status> {
        // Logs are read, not connected to.
        if call.subresource() != "log" {
            let caller = Caller { user: call.user.clone(), ..Caller::default() };
            call.rest().admit_connect(&caller, resource, &call.target(), options(call, resource)).await?;
        }
        let (endpoint, path) = match (&*resource.plural, call.subresource()) {
            ("pods", "log" | "exec" | "attach" | "portforward") => {
                let pod = object(call, resource, &call.named.name).await?;
                (endpoint::of_pod(call, &pod)?, pod_path(call, &pod)?)
            }
            ("nodes", "proxy") => {
                let node = object(call, resource, &call.named.name).await?;
                (endpoint::kubelet(&node)?, tail(call, uri))
            }
            ("pods", "proxy") => (endpoint::of_pod_port(call, resource).await?, tail(call, uri)),
            ("services", "proxy") => (endpoint::of_service(call, resource).await?, tail(call, uri)),
            (plural, subresource) => {
                let why = format!("{plural}/{subresource} is not supported by this server");
                return Err(Status::new(501, Reason::MethodNotAllowed, why));
            }
        };
        let is_proxy = call.subresource() == "proxy";
        let upgrades = call.headers.contains_key(header::UPGRADE);
        if is_proxy && !upgrades && is_bare(call, uri) {
            return moved(uri);
        }
        let needs_upgrade = matches!(call.subresource(), "exec" | "attach" | "portforward");
        if needs_upgrade && upgrade.is_none() {
            return Err(Status::bad_request(
                "Upgrade request required: exec, attach and port-forward need an HTTP/1.1 connection",
            ));
        }
        let running = call.running(resource, "CONNECT");
        let method = if call.subresource() == "proxy" { call.method.clone() } else { streaming(call.method) };
        let Endpoint { name, host, port, over } = endpoint;
        let tls = match over {
            Over::Plain => None,
            Over::Kubelet => Some(&self.tls),
            Over::Tls => Some(&self.anybody),
        };
        let name = || {
            ServerName::try_from(name.clone())
                .map_err(|_| Status::bad_request(format!("{name:?} is not the name of a host")))
        };
        let tls = tls.map(|tls| Ok::<_, Status>((tls.clone(), name()?))).transpose()?;
        let authority = authority(&host, port);
        let place = (is_proxy && !upgrades).then(|| links::Place {
            prefix: uri
                .path()
                .strip_suffix(call.named.tail)
                .unwrap_or(uri.path())
                .trim_end_matches('/')
                .to_owned(),
            server: authority.clone(),
            asked: asked(call, uri),
        });
        let mut headers = std::borrow::Cow::Borrowed(call.headers);
        let mut added = HeaderMap::new();
        if is_proxy {
            added.insert("x-forwarded-uri", HeaderValue::try_from(uri.path()).map_err(Status::internal)?);
            if wants_page(&headers) {
                headers.to_mut().remove(header::ACCEPT_ENCODING);
            }
        }
        let forward = Forward {
            tls,
            authority,
            addresses: vec![(host, port)],
            method,
            path,
            headers: &headers,
            added,
            input,
            upgrade,
            running: Some(running),
            kept: false,
            limit: None,
            refusals: if over == Over::Kubelet { Refusals::Worded } else { Refusals::Passed },
        };
        let answer = self.forwarder.forward(forward).await?;
        Ok(match place {
            Some(place) => links::rewrite(answer, place),
            None => answer,
        })
    }
}

/// Whether a page is asked for at a proxy's own address, without the `/` that its links are relative to.
fn is_bare(call: &Call<'_>, uri: &Uri) -> bool {
    let reads = matches!(*call.method, Method::GET | Method::HEAD);
    reads && call.named.tail.is_empty() && !uri.path().ends_with('/')
}

/// Sends the client to the same address with a `/` behind it, as upstream.
fn moved(uri: &Uri) -> Result<Response<Body>, Status> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let to = HeaderValue::try_from(format!("{}/{query}", uri.path())).map_err(Status::internal)?;
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    answer.headers_mut().insert(header::LOCATION, to);
    Ok(answer)
}

/// Host and port that the client asked.
fn asked(call: &Call<'_>, uri: &Uri) -> String {
    let host = call.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    uri.authority().map(|authority| authority.as_str()).or(host).unwrap_or_default().to_owned()
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted.filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html"))
}

/// The options of a stream as an object, which is what admission sees of it.
fn options(call: &Call<'_>, resource: &Resource) -> Object {
    let mut options = Object::default();
    let kind = match call.subresource() {
        "exec" => "PodExecOptions".to_owned(),
        "attach" => "PodAttachOptions".to_owned(),
        "portforward" => "PodPortForwardOptions".to_owned(),
        _ => format!("{}ProxyOptions", resource.kind),
    };
    options.set(&["kind"], kind);
    options.set(&["apiVersion"], "v1");
    match call.subresource() {
        "portforward" => {
            let ports = call.query.all("ports").flat_map(|ports| ports.split(','));
            let ports: Vec<Value> =
                ports.filter_map(|port| port.parse::<u16>().ok()).map(Value::from).collect();
            options.set(&["ports"], ports);
        }
        "exec" | "attach" => {
            for flag in ["stdin", "stdout", "stderr", "tty"] {
                options.set(&[flag], call.query.flag(flag));
            }
            if let Some(container) = call.query.get("container") {
                options.set(&["container"], container);
            }
            let command: Vec<Value> = call.query.all("command").map(Value::from).collect();
            if !command.is_empty() {
                options.set(&["command"], command);
            }
        }
        _ => options.set(&["path"], call.named.tail),
    }
    options
}

/// The kubelet takes GET for logs and POST or GET (WebSocket) for the rest.
fn streaming(method: &Method) -> Method {
    if *method == Method::POST { Method::POST } else { Method::GET }
}

async fn object(call: &Call<'_>, resource: &Arc<Resource>, name: &str) -> Result<Object, Status> {
    let key = ObjectKey::new(&*call.named.namespace, name);
    call.rest().get(resource, &key, None).await?.object().map_err(Status::internal)
}

/// What is behind `/proxy`, with the query.
fn tail(call: &Call<'_>, uri: &Uri) -> String {
    let path = if call.named.tail.is_empty() { "/" } else { call.named.tail };
    uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}

/// The kubelet's path for a stream of a pod (`pkg/kubelet/server`).
fn pod_path(call: &Call<'_>, pod: &Object) -> Result<String, Status> {
    let place = format!("{}/{}", pod.namespace(), pod.name());
    let mut query = form_urlencoded::Serializer::new(String::new());
    let root = match call.subresource() {
        "log" => {
            let names = [
                "follow",
                "previous",
                "sinceSeconds",
                "sinceTime",
                "timestamps",
                "tailLines",
                "limitBytes",
                "stream",
                "insecureSkipTLSVerifyBackend",
            ];
            for name in names {
                if let Some(value) = call.query.get(name) {
                    query.append_pair(name, value);
                }
            }
            format!("/containerLogs/{place}/{}", endpoint::container(call, pod)?)
        }
        "portforward" => {
            for ports in call.query.all("ports") {
                for port in ports.split(',') {
                    query.append_pair("port", port);
                }
            }
            format!("/portForward/{place}")
        }
        stream => {
            for (name, kubelet) in
                [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
            {
                if call.query.flag(name) {
                    query.append_pair(kubelet, "1");
                }
            }
            for word in call.query.all("command") {
                query.append_pair("command", word);
            }
            format!("/{stream}/{place}/{}", endpoint::container(call, pod)?)
        }
    };
    let query = query.finish();
    Ok(if query.is_empty() { root } else { format!("{root}?{query}") })
}
