//! The kubelet API as the API server calls it: over TLS, in real time.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{World, api::Api, container};
use crate::ServerOptions;

pub(super) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A server for the node n1 that answers the user `apiserver`.
    pub(super) fn options(&self) -> ServerOptions {
        let (certificate_pem, key_pem) = self.issue("system:node:n1");
        ServerOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            certificate_pem,
            key_pem,
            client_ca_pem: self.0.pem(),
            users: vec!["apiserver".into()],
        }
    }

    /// Certificate and key, PEM.
    pub(super) fn issue(&self, user: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, user);
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// The port that the Node object shows.
pub(super) fn port(api: &Api) -> u16 {
    let node = api.get("nodes", "", "n1").unwrap();
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap();
    u16::try_from(port).unwrap()
}

pub(super) struct Caller {
    tls: Arc<rustls::ClientConfig>,
    port: u16,
}

impl Caller {
    pub(super) fn new(ca: &Ca, identity: Option<(String, String)>, port: u16) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.0.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let tls = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                    .unwrap()
            }
        };
        Self { tls: Arc::new(tls), port }
    }

    /// All that is said on an upgraded connection until `output` comes.
    pub(super) async fn upgraded(&self, path: &str, output: &str) -> String {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let mut stream = connector.connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: kubelet\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&said).into_owned();
            if text.contains(output) {
                return text;
            }
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "it ended without {output:?}: {text}");
            said.extend_from_slice(&buffer[..count]);
        }
    }

    async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.map_err(|e| e.to_string())?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut send, connection) = handshake.map_err(|e| e.to_string())?;
        let exchange = async {
            let request =
                http::Request::get(path).header("host", "kubelet").body(Empty::<Bytes>::new()).unwrap();
            let response = send.send_request(request).await.map_err(|e| e.to_string())?;
            let code = response.status().as_u16();
            let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
            drop(send);
            Ok((code, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::join!(exchange, connection).0
    }
}

#[tokio::test]
async fn only_the_api_server_gets_answers() {
    let ca = Ca::new();
    let world = World::with(Some(ca.options())).await;
    let port = port(&world.api);
    world.pod("web", json!({ "simulated.keelson.dev/log": "hello" }), json!({ "containers": [container()] }));
    world.ready("web", "True").await;

    let caller = Caller::new(&ca, Some(ca.issue("apiserver")), port);
    for (path, code, part) in [
        ("/healthz", 200, "ok"),
        ("/pods", 200, "\"kind\":\"PodList\""),
        ("/metrics", 200, "kubelet_running_containers 1"),
        ("/stats/summary", 200, "\"nodeName\":\"n1\""),
        ("/containerLogs/ns/web/c", 200, "hello\n"),
        ("/containerLogs/ns/web/c?limitBytes=2", 200, "he"),
        ("/containerLogs/ns/web/c?tailLines=0", 200, ""),
        ("/containerLogs/ns/web/c?tailLines=x", 400, "is not a number"),
        ("/containerLogs/ns/web/c?previous=true", 400, "previous terminated container"),
        ("/containerLogs/ns/web/none", 400, "is not available"),
        ("/containerLogs/ns/none/c", 404, "does not run on node n1"),
        ("/exec/ns/web/c?command=ls&output=1", 400, "Upgrade request required"),
        ("/exec/ns/web/c?output=1", 400, "at least one command"),
        ("/exec/ns/web/c?command=ls", 400, "at least 1 of"),
        ("/nothing", 404, ""),
    ] {
        let (got, body) = caller.get(path).await.unwrap();
        assert_eq!(got, code, "{path}: {body}");
        assert!(body.contains(part), "{path}: {body}");
    }
    let other = Caller::new(&ca, Some(ca.issue("system:node:n2")), port);
    let (code, body) = other.get("/pods").await.unwrap();
    assert!(code == 403 && body.contains("for the API server only"), "{body}");
    assert!(Caller::new(&ca, None, port).get("/pods").await.is_err(), "no certificate, no connection");
    let stranger = Ca::new();
    let imposter = Caller::new(&ca, Some(stranger.issue("apiserver")), port);
    assert!(imposter.get("/pods").await.is_err(), "another CA's certificate does not count");
}
