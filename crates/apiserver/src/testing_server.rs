//! A whole server for tests: over loopback TLS, with a memory store.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use meta::Value;
use rustls::pki_types::ServerName;

use crate::{
    Cache, Registry,
    auth::{Authenticator, Authorizer, FrontProxy, Rbac},
    http::{Server, Serving, Trust, client_config, tls_config},
    pki::{FRONT_PROXY, Pair, Pki},
    rest::{Parts, Rest},
};

/// A running server.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) serving: Serving,
    pub(crate) rest: Rest,
    pub(crate) pki: Pki,
    _home: tempfile::TempDir,
}

/// Serves these kinds, to certified users and to front proxies.
pub(crate) async fn start(registry: Registry) -> Running {
    start_with(registry, |server, _, _| server).await
}

/// The same with more to the server.
pub(crate) async fn start_with(
    registry: Registry,
    change: impl FnOnce(Server, &Rest, &Pki) -> Server,
) -> Running {
    let home = tempfile::tempdir().unwrap();
    // Certificates are checked against the real time by TLS.
    let clock = Arc::new(meta::Fixed::new(std::time::SystemTime::now().try_into().unwrap()));
    let pki = Pki::open(home.path(), &*clock).unwrap();
    let registry = Arc::new(registry);
    let store = store::Memory::new();
    let cache = Arc::new(Cache::load(&store, &registry).await.unwrap());
    let authorizer: Arc<dyn Authorizer> = Arc::new(Rbac::new(cache.clone(), Arc::new(|| 0)));
    let proxies = FrontProxy::standard(vec![FRONT_PROXY.to_owned()]);
    let authenticator = Authenticator::new(cache.clone(), clock.clone());
    let authenticator =
        authenticator.with_front_proxy(proxies, pki.ca_pem(), pki.front_proxy_ca_pem()).unwrap();
    let (rest, _task) = Rest::start(Parts {
        store: Arc::new(store),
        cache,
        registry,
        admission: Vec::new(),
        clock,
        random: Arc::new(meta::Seeded::new(1)),
    });
    let server = Server::new(rest.clone(), Arc::new(authenticator), authorizer, "v1.36.0+test");
    let server = change(server, &rest, &pki);
    let serving = serve(&server, &pki).await;
    Running { server, serving, rest, pki, _home: home }
}

async fn serve(server: &Server, pki: &Pki) -> Serving {
    let client_ca = format!("{}\n{}", pki.ca_pem(), pki.front_proxy_ca_pem());
    let tls = tls_config(&pki.serving(&["127.0.0.1".to_owned()]).unwrap(), &client_ca).unwrap();
    server.serve(&[SocketAddr::from(([127, 0, 0, 1], 0))], tls).await.unwrap()
}

impl Running {
    /// The same server changed, on a port of its own; what it served before ends.
    pub(crate) async fn again(self, change: impl FnOnce(Server) -> Server) -> Self {
        let Self { server, serving, rest, pki, _home } = self;
        serving.stop().await;
        let server = change(server);
        let serving = serve(&server, &pki).await;
        Self { server, serving, rest, pki, _home }
    }

    /// A new connection.
    pub(crate) async fn dial(
        &self,
        login: Option<&Pair>,
        protocol: &str,
    ) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let ca = self.pki.ca_pem().as_bytes();
        let mut config = client_config(Trust::Authorities(ca), login).unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = tokio::net::TcpStream::connect(self.serving.addresses[0]).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// Sends over a new connection, with HTTP/2 when `h2`; the answer as it begins.
    pub(crate) async fn begin(
        &self,
        login: Option<&Pair>,
        h2: bool,
        request: Request<Full<Bytes>>,
    ) -> Response<Incoming> {
        let stream = TokioIo::new(self.dial(login, if h2 { "h2" } else { "http/1.1" }).await);
        if h2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection.with_upgrades());
            sender.send_request(request).await.unwrap()
        }
    }

    /// The whole answer.
    pub(crate) async fn send(
        &self,
        login: Option<&Pair>,
        h2: bool,
        request: Request<Full<Bytes>>,
    ) -> Response<Bytes> {
        let (parts, body) = self.begin(login, h2, request).await.into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }
}

/// A request with JSON.
pub(crate) fn request(method: &str, path: &str, body: Option<Value>) -> Request<Full<Bytes>> {
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "127.0.0.1")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .unwrap()
}

/// The JSON of an answer.
pub(crate) fn value(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}
