//! kubectl and a kind that an extension server serves, which trusts whom the cluster says to trust.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use apiserver::{
    http::tls_config,
    pki::{Authority, Identity, Leaf},
};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime as Tokio;
use tokio_rustls::TlsAcceptor;

use crate::cluster::{Cluster, Runtime};

const DISCOVERY: &str = r#"{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1",
    "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
        "shortNames": ["fl"], "verbs": ["get", "list"]}]}"#;

/// Who serves flunders: to the front proxy alone, with one flunder that has the name of whoever asks.
struct Extension {
    address: SocketAddr,
    ca_pem: String,
    _tokio: Tokio,
}

impl Extension {
    fn start(front_proxy_ca: &str) -> Self {
        let now = jiff::Timestamp::now();
        let authority = Authority::create("extension-ca", now).unwrap();
        let pair = authority.issue(&Leaf::server("ext", &["ext.default.svc".to_owned()]), now).unwrap();
        let mut tls = tls_config(&pair, front_proxy_ca).unwrap();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = TlsAcceptor::from(Arc::new(tls));
        let tokio = Tokio::new().unwrap();
        let listener = tokio.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        tokio.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let by = chain.first().and_then(|leaf| Identity::of(leaf)).map(|of| of.common_name);
                    let answer = service_fn(move |request| {
                        let answer = answer(&request, by.as_deref());
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
                });
            }
        });
        Self { address, ca_pem: authority.pair().cert_pem.clone(), _tokio: tokio }
    }
}

fn answer(request: &Request<Incoming>, by: Option<&str>) -> Response<Full<Bytes>> {
    let user = request.headers().get("x-remote-user").and_then(|user| user.to_str().ok()).unwrap_or_default();
    let (code, body) = match request.uri().path() {
        _ if by != Some("front-proxy-client") => (403, "{}".to_owned()),
        "/apis/wardle.example.com/v1" => (200, DISCOVERY.to_owned()),
        path if path.ends_with("/flunders") => {
            let item = format!(
                r#"{{"kind": "Flunder", "apiVersion": "wardle.example.com/v1", "metadata": {{"name": "for-{user}", "namespace": "default"}}}}"#
            );
            let list = format!(
                r#"{{"kind": "FlunderList", "apiVersion": "wardle.example.com/v1", "metadata": {{}}, "items": [{item}]}}"#
            );
            (200, list)
        }
        _ => (404, "{}".to_owned()),
    };
    let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    response.body(Full::new(body.into())).unwrap()
}

fn ask(cluster: &Cluster, arguments: &[&str]) -> Result<String, String> {
    let output = cluster.try_kubectl(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn kubectl_uses_what_an_extension_server_serves() {
    let mut cluster = Cluster::up(Runtime::Simulated, &["--operators", "none"]);
    let local = cluster.kubectl(&["get", "apiservices"]);
    assert!(
        local.lines().any(|line| line.split_whitespace().take(3).eq(["v1.apps", "Local", "True"])),
        "{local}"
    );
    let ca = || {
        ask(
            &cluster,
            &[
                "get",
                "configmap",
                "extension-apiserver-authentication",
                "-n",
                "kube-system",
                "-o",
                r"jsonpath={.data.requestheader-client-ca-file}",
            ],
        )
    };
    cluster.eventually("whom to trust is published", || ca().map(|_| ()));
    let extension = Extension::start(&ca().unwrap());
    let ca_bundle: String = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(&extension.ca_pem)
    };
    let port = extension.address.port();
    cluster.apply(&format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: ext}}
spec: {{type: ExternalName, externalName: localhost}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1.wardle.example.com}}
spec:
  group: wardle.example.com
  version: v1
  groupPriorityMinimum: 2000
  versionPriority: 200
  caBundle: {ca_bundle}
  service: {{namespace: default, name: ext, port: {port}}}
"
    ));
    cluster.kubectl(&[
        "wait",
        "--for=condition=Available",
        "apiservice/v1.wardle.example.com",
        "--timeout=120s",
    ]);
    let resources = cluster.kubectl(&["api-resources", "--api-group=wardle.example.com"]);
    assert!(resources.contains("flunders") && resources.contains("Flunder"), "{resources}");
    assert!(cluster.kubectl(&["get", "fl"]).contains("for-kubernetes-admin"));
    assert!(
        cluster.kubectl(&["get", "flunders", "--as=ann", "--as-group=system:masters"]).contains("for-ann")
    );
    assert!(ask(&cluster, &["get", "flunders", "--as=ann"]).unwrap_err().contains("Forbidden"));
    cluster.kubectl(&["delete", "service", "ext"]);
    cluster.eventually("it is not available", || {
        let shown = cluster.kubectl(&["get", "apiservice", "v1.wardle.example.com"]);
        if shown.contains("False (ServiceNotFound)") { Ok(()) } else { Err(shown) }
    });
    let refused = ask(&cluster, &["get", "flunders"]).unwrap_err();
    assert!(refused.contains("ServiceUnavailable"), "{refused}");
    cluster.kubectl(&["delete", "apiservice", "v1.wardle.example.com"]);
    assert_eq!(cluster.stop(), 0, "{}", cluster.said());
}
