//! As much of a Kubernetes API server as the generator asks for, with faults to order: so that a
//! test knows what the numbers must be.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, sync::broadcast};
use tokio_rustls::TlsAcceptor;

pub(crate) const TOKEN: &str = "a-token";

/// What the stub does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Watchers are not given every so many-th event.
    pub(crate) drop_event: Option<u64>,
    /// Watchers are given every so many-th event twice.
    pub(crate) double_event: Option<u64>,
    /// Every so many-th update is refused.
    pub(crate) refuse_update: Option<u64>,
}

/// A running stub.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    /// Its certificate, which vouches for itself.
    pub(crate) certificate: String,
    pub(crate) state: Arc<Mutex<State>>,
}

pub(crate) struct State {
    faults: Faults,
    revision: u64,
    updates: u64,
    pub(crate) objects: BTreeMap<String, serde_json::Value>,
    /// Everything that ever was created, also what is deleted by now.
    pub(crate) created: u64,
    events: broadcast::Sender<Bytes>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) async fn start(faults: Faults) -> Stub {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (events, _) = broadcast::channel(1 << 16);
    let state = State { faults, revision: 0, updates: 0, objects: BTreeMap::new(), created: 0, events };
    let state = Arc::new(Mutex::new(state));
    let shared = state.clone();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, state) = (acceptor.clone(), shared.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let service = service_fn(move |request| answer(state.clone(), request));
                // Ends when the client goes.
                drop(
                    http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(tls), service)
                        .await,
                );
            });
        }
    });
    Stub { address, certificate: made.cert.pem(), state }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let authorization = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or("").to_owned());
    if path == "/readyz" {
        return Ok(json(StatusCode::OK, "ok".into()));
    }
    if authorization != Some(&format!("Bearer {TOKEN}")) {
        return Ok(json(StatusCode::UNAUTHORIZED, r#"{"kind":"Status","message":"Unauthorized"}"#.into()));
    }
    let body = body.collect().await.unwrap().to_bytes();
    let mut state = state.lock().unwrap();
    if query.contains("watch=true") {
        return Ok(state.watch(&query));
    }
    let (status, text) = match parts.method {
        Method::GET => state.get(&path),
        Method::POST => state.write(&path, &body, true),
        Method::PUT => state.write(&path, &body, false),
        Method::DELETE => {
            state.objects.retain(|key, _| !key.starts_with(&path));
            (StatusCode::OK, "{}".into())
        }
        other => panic!("unexpected {other}"),
    };
    Ok(json(status, text))
}

fn json(status: StatusCode, text: String) -> Response<Body> {
    let body = http_body_util::Full::new(Bytes::from(text)).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

impl State {
    fn get(&self, path: &str) -> (StatusCode, String) {
        if path == "/version" {
            return (StatusCode::OK, r#"{"gitVersion":"v0-stub"}"#.into());
        }
        if let Some(object) = self.objects.get(path) {
            return (StatusCode::OK, object.to_string());
        }
        let items: Vec<_> = self
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(&format!("{path}/")))
            .map(|(_, o)| o)
            .collect();
        let list =
            serde_json::json!({"metadata": {"resourceVersion": self.revision.to_string()}, "items": items});
        (StatusCode::OK, list.to_string())
    }

    fn write(&mut self, path: &str, body: &[u8], create: bool) -> (StatusCode, String) {
        let mut object: serde_json::Value = serde_json::from_slice(body).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let key = if create { format!("{path}/{name}") } else { path.to_owned() };
        let refuse = |why: &str| (StatusCode::CONFLICT, serde_json::json!({"message": why}).to_string());
        match (create, self.objects.get(&key)) {
            (true, Some(_)) => return refuse("already exists"),
            (true, None) => self.created += 1,
            (false, old) => {
                self.updates += 1;
                if self.faults.refuse_update.is_some_and(|every| self.updates.is_multiple_of(every)) {
                    return refuse("refused to order");
                }
                let version = old.map(|old| old["metadata"]["resourceVersion"].clone());
                if version.as_ref() != Some(&object["metadata"]["resourceVersion"]) {
                    return refuse("the object has been modified");
                }
            }
        }
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let event = Bytes::from(format!("{{\"type\":\"MODIFIED\",\"object\":{object}}}\n"));
        let every = |n: Option<u64>| n.is_some_and(|n| self.revision.is_multiple_of(n));
        let times =
            if every(self.faults.drop_event) { 0 } else { 1 + u8::from(every(self.faults.double_event)) };
        for _ in 0..times {
            // Nobody may be watching.
            drop(self.events.send(event.clone()));
        }
        let text = object.to_string();
        self.objects.insert(key, object);
        (StatusCode::OK, text)
    }

    fn watch(&self, query: &str) -> Response<Body> {
        let group =
            query.split_once("labelSelector=group%3D").map(|(_, group)| format!("\"group\":\"{group}\""));
        let events = stream::unfold((self.events.subscribe(), group), |(mut events, group)| async move {
            loop {
                let event = events.recv().await.ok()?;
                if group.as_ref().is_none_or(|group| memchr::memmem::find(&event, group.as_bytes()).is_some())
                {
                    return Some((Ok(Frame::data(event)), (events, group)));
                }
            }
        });
        Response::new(StreamBody::new(events.boxed()).boxed_unsync())
    }
}
