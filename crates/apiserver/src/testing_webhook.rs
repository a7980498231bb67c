//! A webhook for tests: HTTPS on loopback, answered by a function.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use meta::Value;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    http::tls_config,
    pki::{Authority, Leaf},
};

/// What a webhook answers.
pub(crate) enum Reply {
    /// 200 with JSON.
    Json(Value),
    /// A status code with these bytes.
    Raw(u16, Vec<u8>),
    /// Nothing, ever.
    Never,
}

/// A running webhook. It stops when dropped.
pub(crate) struct Hook {
    address: SocketAddr,
    ca: String,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    _stop: DropGuard,
}

impl Hook {
    /// Answers each POST by path and body.
    pub(crate) async fn start(answer: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        let now = jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap();
        let authority = Authority::create("webhook-ca", now).unwrap();
        let names = ["127.0.0.1".to_owned(), "hook.ns.svc".to_owned()];
        let pair = authority.issue(&Leaf::server("webhook", &names), now).unwrap();
        let ca_pem = authority.pair().cert_pem.clone();
        let mut tls = tls_config(&pair, &ca_pem).unwrap();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), calls.clone());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let (tls, answer, seen, stop) = (tls.clone(), answer.clone(), seen.clone(), stop.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(accepted.unwrap().0).await else { return };
                    let serve = service_fn(move |request| one(request, answer.clone(), seen.clone()));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), serve);
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = connection => {}
                    }
                });
            }
        });
        let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
        Self { address, ca, calls, _stop: guard }
    }

    /// Where it is bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A `clientConfig` with its URL.
    pub(crate) fn client_config(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": self.ca})
    }

    /// Its authority, PEM.
    pub(crate) fn ca_pem(&self) -> String {
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(&self.ca).unwrap()).unwrap()
    }

    /// Its authority as `caBundle`.
    pub(crate) fn ca(&self) -> &str {
        &self.ca
    }

    /// Paths and bodies so far.
    pub(crate) fn calls(&self) -> Vec<(String, Value)> {
        self.calls.lock().unwrap().clone()
    }
}

async fn one(
    request: Request<Incoming>,
    answer: Arc<impl Fn(&str, &Value) -> Reply>,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let reply = answer(&path, &body);
    seen.lock().unwrap().push((path, body));
    let (code, bytes) = match reply {
        Reply::Json(value) => (200, value.to_string().into_bytes()),
        Reply::Raw(code, bytes) => (code, bytes),
        Reply::Never => std::future::pending().await,
    };
    Ok(Response::builder().status(code).body(Full::new(bytes.into())).unwrap())
}
