//! A server and an extension server beside it, which sees what it is asked and by whom.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use base64::Engine as _;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::{HeaderMap, Request, Response, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use meta::{Object, ObjectKey, Value};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::{
    Registry,
    auth::FrontProxy,
    http::tls_config,
    pki::{Authority, FRONT_PROXY, Identity, Leaf, Pki},
    rest::{Caller, DeleteOptions, Duplicates, ListOptions},
    testing_kinds::built_in_kinds,
    testing_server::{Running, request, start_with, value},
};

const GROUP: &str = "wardle.example.com";
/// Far more than anything here takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What an extension server was asked.
#[derive(Clone, Debug)]
struct Asked {
    /// CN of the client certificate.
    by: String,
    method: String,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// An extension server for `ext.ns.svc`. It stops when dropped.
struct Extension {
    address: SocketAddr,
    ca: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// What discovery is answered with.
    code: Arc<Mutex<u16>>,
    /// Connections that came to TLS.
    connections: Arc<AtomicU64>,
    /// Ends the connections that are open, and no others.
    cut: Arc<tokio::sync::Notify>,
    _stop: DropGuard,
}

impl Extension {
    /// Trusts front proxies of `pki` alone.
    async fn start(pki: &Pki) -> Self {
        let now = jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap();
        let authority = Authority::create("extension-ca", now).unwrap();
        let pair = authority.issue(&Leaf::server("ext", &["ext.ns.svc".to_owned()]), now).unwrap();
        let mut tls = tls_config(&pair, pki.front_proxy_ca_pem()).unwrap();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let (asked, code) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(200)));
        let (seen, answer) = (asked.clone(), code.clone());
        let (connections, cut) = (Arc::new(AtomicU64::new(0)), Arc::new(tokio::sync::Notify::new()));
        let (came, cutting) = (connections.clone(), cut.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, seen, answer) = (tls.clone(), seen.clone(), answer.clone());
                let (came, cutting) = (came.clone(), cutting.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    came.fetch_add(1, Relaxed);
                    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let by = chain.first().and_then(|leaf| Identity::of(leaf));
                    let by = by.map(|identity| identity.common_name).unwrap_or_default();
                    let serve =
                        service_fn(move |request| one(request, by.clone(), seen.clone(), answer.clone()));
                    let connection = hyper::server::conn::http1::Builder::new();
                    let serving = connection.serve_connection(TokioIo::new(stream), serve).with_upgrades();
                    tokio::select! {
                        ended = serving => drop(ended),
                        () = cutting.notified() => {}
                    }
                });
            }
        }));
        let ca = base64::engine::general_purpose::STANDARD.encode(&authority.pair().cert_pem);
        Self { address, ca, asked, code, connections, cut, _stop: guard }
    }

    /// The newest request on a path, query left out.
    fn last(&self, path: &str) -> Asked {
        let asked = self.asked.lock().unwrap();
        asked.iter().rev().find(|asked| asked.path.split('?').next() == Some(path)).unwrap().clone()
    }
}

async fn one(
    request: Request<Incoming>,
    by: String,
    seen: Arc<Mutex<Vec<Asked>>>,
    code: Arc<Mutex<u16>>,
) -> Result<Response<Body>, Infallible> {
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let body = body.collect().await.unwrap().to_bytes();
    let path = parts.uri.to_string();
    seen.lock().unwrap().push(Asked {
        by,
        method: parts.method.to_string(),
        path: path.clone(),
        headers: parts.headers.clone(),
        body: body.clone(),
    });
    let whole = |code: u16, value: Value| {
        let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
        Response::builder().status(code).header(header::CONTENT_TYPE, "application/json").body(body).unwrap()
    };
    let version = format!("{GROUP}/v1");
    let flunder = |name: &str| json!({"kind": "Flunder", "apiVersion": version, "metadata": {"name": name}});
    Ok(match parts.uri.path() {
        path if path == format!("/apis/{version}") => whole(
            *code.lock().unwrap(),
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [
                {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                 "verbs": ["create", "get", "list", "watch"], "shortNames": ["fl"]}]}),
        ),
        "/openapi/v3" => {
            let url = format!("/openapi/v3/apis/{version}?hash=WARDLE");
            whole(200, json!({"paths": {format!("apis/{version}"): {"serverRelativeURL": url}}}))
        }
        path if path.starts_with("/openapi/v3/") => whole(200, json!({"openapi": "3.0.0", "mark": "theirs"})),
        "/openapi/v2" => whole(
            200,
            json!({"swagger": "2.0", "definitions": {"wardle.Flunder": {"type": "object"}},
                "paths": {format!("/apis/{version}/flunders"): {"get": {"responses": {"200":
                    {"schema": {"$ref": "#/definitions/wardle.Flunder"}}}}}}}),
        ),
        _ if parts.headers.contains_key(header::UPGRADE) => echo(&parts, upgrade.unwrap()),
        _ if parts.uri.query().is_some_and(|query| query.contains("watch=true")) => {
            let event = json!({"type": "ADDED", "object": flunder("a")}).to_string() + "\n";
            let first = stream::once(async move { Ok(Frame::data(Bytes::from(event))) });
            // It stays open.
            let body = StreamBody::new(first.chain(stream::pending())).boxed_unsync();
            Response::new(body)
        }
        path if path.ends_with("/missing") => {
            whole(404, json!({"kind": "Status", "reason": "NotFound", "code": 404}))
        }
        _ if parts.method == "POST" => whole(201, serde_json::from_slice(&body).unwrap()),
        _ => whole(
            200,
            json!({"kind": "FlunderList", "apiVersion": version, "metadata": {}, "items": [flunder("a")]}),
        ),
    })
}

/// Switches, and gives back what it gets.
fn echo(parts: &Parts, upgrade: hyper::upgrade::OnUpgrade) -> Response<Body> {
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
        drop(tokio::io::copy(&mut from, &mut to).await);
    });
    Response::builder()
        .status(101)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, parts.headers[header::UPGRADE].clone())
        .body(Full::default().boxed_unsync())
        .unwrap()
}

/// A server with an aggregation layer, and the extension server.
struct World {
    running: Running,
    extension: Extension,
    _stop: DropGuard,
}

impl World {
    async fn start() -> Self {
        let registry = Registry::new();
        registry.install_all(built_in_kinds());
        let mut layer = None;
        let running = start_with(registry, |server, rest, pki| {
            let made = Aggregation::new(rest, pki.front_proxy_client().unwrap());
            layer = Some(made.clone());
            server.with_aggregation(made)
        })
        .await;
        let extension = Extension::start(&running.pki).await;
        let stop = CancellationToken::new();
        let trusted = Trusted {
            client_ca_pem: running.pki.ca_pem().to_owned(),
            proxy_ca_pem: running.pki.front_proxy_ca_pem().to_owned(),
            proxies: FrontProxy::standard(vec![FRONT_PROXY.to_owned()]),
        };
        tokio::spawn(layer.unwrap().run(trusted, stop.clone()));
        let world = Self { running, extension, _stop: stop.drop_guard() };
        for name in ["ns", "kube-system"] {
            world.make("", "namespaces", json!({"metadata": {"name": name}})).await;
        }
        world
    }

    async fn make(&self, group: &str, plural: &str, value: Value) {
        let rest = &self.running.rest;
        let resource = rest.registry().resolve(group, "v1", plural).unwrap();
        let mut object = Object::from_value(value).unwrap();
        object.set(&["apiVersion"], resource.api_version());
        object.set(&["kind"], resource.kind.to_string());
        let namespace = object.namespace().to_owned();
        rest.create(&Caller::server(), &resource, &namespace, object, Duplicates::default()).await.unwrap();
    }

    async fn service(&self) {
        let ports = json!([{"name": "https", "port": 443, "targetPort": 8443}]);
        let service = json!({"metadata": {"name": "ext", "namespace": "ns"},
            "spec": {"clusterIP": "None", "type": "ClusterIP", "ports": ports}});
        self.make("", "services", service).await;
    }

    async fn endpoints(&self) {
        let slice = json!({
            "metadata": {"name": "ext-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "ext"}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": self.extension.address.port()}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
        });
        self.make("discovery.k8s.io", "endpointslices", slice).await;
    }

    async fn register(&self, trust: Value) {
        let mut spec = json!({"group": GROUP, "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": "ns", "name": "ext"}});
        spec.as_object_mut().unwrap().extend(trust.as_object().unwrap().clone());
        let service = json!({"metadata": {"name": format!("v1.{GROUP}")}, "spec": spec});
        self.make("apiregistration.k8s.io", "apiservices", service).await;
    }

    async fn with_service(trust: impl FnOnce(&Extension) -> Value) -> Self {
        let world = Self::start().await;
        world.service().await;
        world.endpoints().await;
        world.register(trust(&world.extension)).await;
        world
    }

    /// Waits until the condition of the APIService begins with this.
    async fn until(&self, expected: &str) {
        let rest = &self.running.rest;
        let resource = rest.registry().resolve("apiregistration.k8s.io", "v1", "apiservices").unwrap();
        let mut watch = rest.watch(&resource, None, &ListOptions::default()).await.unwrap();
        let mut seen = String::new();
        let wanted = async {
            while let Some(event) = watch.next().await {
                let object = event.unwrap().entry.object().unwrap();
                if object.name() != format!("v1.{GROUP}") {
                    continue;
                }
                let condition = meta::find_condition(&object, "Available").cloned().unwrap_or_default();
                let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
                seen = format!("{} {}: {}", text("status"), text("reason"), text("message"));
                if seen.starts_with(expected) {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, wanted).await;
        assert!(in_time.is_ok(), "{expected} was not reached, it is {seen}");
    }

    async fn get(&self, path: &str) -> Response<Bytes> {
        let admin = self.running.pki.admin().unwrap();
        self.running.send(Some(&admin), true, request("GET", path, None)).await
    }
}

fn bundle(extension: &Extension) -> Value {
    json!({"caBundle": extension.ca})
}

const FLUNDERS: &str = "/apis/wardle.example.com/v1/namespaces/ns/flunders";

#[tokio::test]
async fn requests_are_passed_with_the_user_in_headers() {
    let world = World::with_service(bundle).await;
    world.until("True Passed: all checks passed").await;
    let probe = world.extension.last("/apis/wardle.example.com/v1");
    assert_eq!(
        (probe.by.as_str(), &probe.headers["x-remote-user"]),
        (FRONT_PROXY, &"system:kube-aggregator".parse().unwrap())
    );
    let admin = world.running.pki.admin().unwrap();
    for h2 in [false, true] {
        let mut post = request("POST", FLUNDERS, Some(json!({"kind": "Flunder", "n": 1})));
        for (name, given) in [
            ("x-remote-user", "forged"),
            ("x-remote-group", "system:masters"),
            ("x-remote-uid", "0"),
            ("x-remote-extra-scope", "all"),
            ("authorization", "Bearer secret"),
            ("x-other", "kept"),
        ] {
            post.headers_mut().append(name, given.parse().unwrap());
        }
        let made = world.running.send(Some(&admin), h2, post).await;
        assert_eq!((made.status().as_u16(), value(&made)["n"].as_u64()), (201, Some(1)));
        assert!(made.headers().contains_key("audit-id"));
        let asked = world.extension.last(FLUNDERS);
        let all =
            |name: &str| asked.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((asked.by.as_str(), asked.method.as_str()), (FRONT_PROXY, "POST"));
        assert_eq!(all("x-remote-user"), ["kubernetes-admin"]);
        assert_eq!(all("x-remote-group"), ["system:masters", "system:authenticated"]);
        assert_eq!((all("x-remote-uid"), all("x-remote-extra-scope")), (vec![], vec![]));
        assert_eq!((all("authorization"), all("x-other")), (vec![], vec!["kept"]));
        assert_eq!(all("host"), ["ext.ns.svc:443"]);
        assert!(!asked.body.is_empty());
    }
    let list = world.get(&format!("{FLUNDERS}?limit=5")).await;
    assert_eq!((list.status().as_u16(), value(&list)["kind"].as_str()), (200, Some("FlunderList")));
    assert_eq!(world.extension.last(FLUNDERS).path, format!("{FLUNDERS}?limit=5"));
    let missing = world.get(&format!("{FLUNDERS}/missing")).await;
    assert_eq!((missing.status().as_u16(), value(&missing)["reason"].as_str()), (404, Some("NotFound")));
    // Who may not is refused here, and the extension server hears nothing of it.
    let before = world.extension.asked.lock().unwrap().len();
    let nobody = world.running.pki.component("nobody").unwrap();
    let refused = world.running.send(Some(&nobody), true, request("GET", FLUNDERS, None)).await;
    assert_eq!(refused.status(), 403);
    assert_eq!(world.extension.asked.lock().unwrap().len(), before);
    world.running.serving.stop().await;
}

#[tokio::test]
async fn streams_and_upgrades_pass_through() {
    let world = World::with_service(bundle).await;
    world.until("True Passed").await;
    let admin = world.running.pki.admin().unwrap();
    let path = format!("{FLUNDERS}?watch=true");
    let mut watch = world.running.begin(Some(&admin), true, request("GET", &path, None)).await;
    let line = watch.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&line).unwrap()["object"]["metadata"]["name"], "a");
    assert_eq!(world.running.server.running_watches(), 1);
    let mut exec = request("GET", &format!("{FLUNDERS}/a/exec"), None);
    exec.headers_mut().insert(header::CONNECTION, "Upgrade".parse().unwrap());
    exec.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
    let switched = world.running.begin(Some(&admin), false, exec).await;
    assert_eq!(switched.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut both = TokioIo::new(hyper::upgrade::on(switched).await.unwrap());
    both.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    both.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    // Both end with the server.
    world.running.serving.stop().await;
    assert_eq!(both.read(&mut back).await.unwrap_or(0), 0);
    while let Some(Ok(_)) = watch.body_mut().frame().await {}
}

#[tokio::test]
async fn discovery_and_openapi_show_what_others_serve() {
    let world = World::with_service(bundle).await;
    world.until("True Passed").await;
    let groups = value(&world.get("/apis").await);
    let group = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == GROUP).unwrap();
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1");
    assert_eq!(value(&world.get("/apis/wardle.example.com").await)["kind"], "APIGroup");
    assert_eq!(value(&world.get("/apis/wardle.example.com/v1").await)["resources"][0]["name"], "flunders");
    let aggregated = || async {
        let mut ask = request("GET", "/apis", None);
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        ask.headers_mut().insert(header::ACCEPT, accept.parse().unwrap());
        let admin = world.running.pki.admin().unwrap();
        let all = value(&world.running.send(Some(&admin), true, ask).await);
        let mut groups = all["items"].as_array().unwrap().iter();
        groups.find(|group| group["metadata"]["name"] == GROUP).unwrap()["versions"][0].clone()
    };
    let version = aggregated().await;
    assert_eq!(version["freshness"], "Current");
    assert_eq!(version["resources"][0]["responseKind"]["kind"], "Flunder");
    let index = value(&world.get("/openapi/v3").await);
    let url = "/openapi/v3/apis/wardle.example.com/v1?hash=WARDLE";
    assert_eq!(index["paths"]["apis/wardle.example.com/v1"]["serverRelativeURL"], url);
    assert_eq!(value(&world.get(url).await)["mark"], "theirs");
    let v2 = value(&world.get("/openapi/v2").await);
    assert!(v2["paths"]["/apis/wardle.example.com/v1/flunders"].is_object());
    assert!(
        v2["definitions"]["wardle.Flunder"].is_object() && v2["definitions"].as_object().unwrap().len() > 100
    );
    // While it does not answer, what it said last is shown as stale.
    *world.extension.code.lock().unwrap() = 500;
    world.endpoints_changed().await;
    world.until("False FailedDiscoveryCheck: failing or missing response from https://ext.ns.svc:443/apis/wardle.example.com/v1: bad status from https://ext.ns.svc:443/apis/wardle.example.com/v1: 500").await;
    let version = aggregated().await;
    assert_eq!(
        (version["freshness"].as_str(), version["resources"][0]["resource"].as_str()),
        (Some("Stale"), Some("flunders"))
    );
    let refused = world.get(FLUNDERS).await;
    assert_eq!((refused.status().as_u16(), &refused.body()[..]), (503, &b"service unavailable\n"[..]));
    let metrics = String::from_utf8(world.get("/metrics").await.body().to_vec()).unwrap();
    let line = "aggregator_unavailable_apiservice{name=\"v1.wardle.example.com\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    // And when its APIService goes, nothing is left of it.
    let rest = &world.running.rest;
    let resource = rest.registry().resolve("apiregistration.k8s.io", "v1", "apiservices").unwrap();
    let key = ObjectKey::new("", format!("v1.{GROUP}"));
    let mut changes = rest.registry().changes();
    rest.delete(&Caller::server(), &resource, &key, &DeleteOptions::default()).await.unwrap();
    while !rest.registry().remotes().is_empty() {
        tokio::time::timeout(PATIENCE, changes.changed()).await.unwrap().unwrap();
    }
    assert_eq!(world.get("/apis/wardle.example.com").await.status(), 404);
    assert_eq!(world.get(FLUNDERS).await.status(), 404);
}

impl World {
    async fn endpoints_changed(&self) {
        let slice = json!({
            "metadata": {"name": "ext-2", "namespace": "ns", "labels": {"kubernetes.io/service-name": "ext"}},
            "addressType": "IPv4", "ports": [], "endpoints": [],
        });
        self.make("discovery.k8s.io", "endpointslices", slice).await;
    }
}

#[tokio::test]
async fn conditions_follow_service_and_endpoints() {
    let world = World::start().await;
    world.register(json!({"caBundle": world.extension.ca})).await;
    world.until("False ServiceNotFound: service/ext in \"ns\" is not present").await;
    world.service().await;
    world.until("False EndpointsNotFound").await;
    world.endpoints_changed().await;
    world.until("False MissingEndpoints").await;
    world.endpoints().await;
    world.until("True Passed").await;
    // And the authorities for extension servers were published.
    let key = ObjectKey::new("kube-system", "extension-apiserver-authentication");
    let resource = world.running.rest.registry().resolve("", "v1", "configmaps").unwrap();
    let mut watch =
        world.running.rest.watch(&resource, Some("kube-system"), &ListOptions::default()).await.unwrap();
    let published = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap().entry;
    assert_eq!(published.header.key, key);
    let data = published.object().unwrap();
    assert_eq!(
        data.str(&["data", "requestheader-client-ca-file"]).unwrap().trim(),
        world.running.pki.front_proxy_ca_pem().trim()
    );
}

#[tokio::test]
async fn whom_to_trust_is_heeded() {
    // The system's authorities did not sign it.
    let world = World::with_service(|_| json!({})).await;
    world.until("False FailedDiscoveryCheck").await;
    let world = World::with_service(|_| json!({"insecureSkipTLSVerify": true})).await;
    world.until("True Passed").await;
    assert_eq!(world.get(FLUNDERS).await.status(), 200);
}

#[tokio::test]
async fn front_proxies_vouch_for_users_here_too() {
    let world = World::start().await;
    let proxy = world.running.pki.front_proxy_client().unwrap();
    let admin = world.running.pki.admin().unwrap();
    let ask = |user: &str, group: &str| {
        let mut ask = request("GET", "/api/v1/namespaces", None);
        ask.headers_mut().insert("x-remote-user", user.parse().unwrap());
        ask.headers_mut().insert("x-remote-group", group.parse().unwrap());
        ask
    };
    let nobody = world.running.pki.component("nobody").unwrap();
    for (login, group, expected) in [
        (&proxy, "system:masters", 200),
        (&proxy, "others", 403),
        (&nobody, "system:masters", 403),
        (&admin, "others", 200),
    ] {
        let answer = world.running.send(Some(login), true, ask("ann", group)).await;
        assert_eq!(answer.status(), expected, "{group}");
    }
    // Of itself a front proxy is nobody.
    let plain = world.running.send(Some(&proxy), true, request("GET", "/api/v1/namespaces", None)).await;
    assert_eq!(
        (plain.status().as_u16(), value(&plain)["message"].as_str().unwrap().contains("system:anonymous")),
        (403, true)
    );
}

/// Requests one after the other need no connection each, and one that the other server has closed is not the end.
#[tokio::test]
async fn connections_are_kept_between_requests() {
    let world = World::with_service(bundle).await;
    world.until("True Passed: all checks passed").await;
    for _ in 0..8 {
        assert_eq!(world.get(FLUNDERS).await.status(), 200);
    }
    // Whoever judges the server may ask at the same time.
    let made = world.extension.connections.load(Relaxed);
    assert!(made <= 3, "{made} connections");
    world.extension.cut.notify_waiters();
    assert_eq!(world.get(FLUNDERS).await.status(), 200);
    assert!(world.extension.connections.load(Relaxed) > made, "the cut connections were used again");
}
