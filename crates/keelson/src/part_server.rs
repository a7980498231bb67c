//! What a part that is a process of its own says of itself over HTTPS, as upstream's do: health, metrics, configuration
//! (`component-base`, `apiserver/pkg/server/options/{authentication,authorization}.go`).
//!
//! Guarantees: health is for everybody; everything else is for whom the API server knows by a token (TokenReview) and
//! lets (SubjectAccessReview on the path), each time anew. Client certificates are not asked for: who has none but
//! a certificate is `system:anonymous` here.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use apiserver::pki::{Authority, Leaf, Pair};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use meta::{
    Clock,
    metrics::{Exposition, Kind},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::SecureOptions,
    error::Failure,
    serve::{self, Reply, Site},
    term,
};

/// Those who look send no bodies.
const BODY_BYTES_MAX: usize = 4096;
/// For the two questions to the API server.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const HEALTH: &[&str] = &["/healthz", "/livez", "/readyz"];

/// What is said.
#[derive(Clone)]
pub(crate) struct Said {
    /// The Lease, which the metrics name.
    pub(crate) lease: &'static str,
    /// The component in `/configz`, as upstream calls it, and what it was told.
    pub(crate) config: (&'static str, Value),
    /// Metrics in the Prometheus text form, beside those of the election.
    pub(crate) metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether this process leads now.
    pub(crate) leads: Arc<AtomicBool>,
}

/// Serves until `stop`. Port 0 serves nothing. The usual port in use is only told of, as several of a kind may run on one
/// machine; one that was asked for and is in use is a failure.
pub(crate) async fn start(
    options: &SecureOptions,
    usual: u16,
    client: Client,
    clock: &dyn Clock,
    said: Said,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let SecureOptions { bind_address, secure_port, tls_cert_file, tls_private_key_file } = options;
    let address = SocketAddr::new(*bind_address, secure_port.unwrap_or(usual));
    if address.port() == 0 {
        return Ok(());
    }
    let pair = match (tls_cert_file, tls_private_key_file) {
        (Some(certificate), Some(key)) => Pair { cert_pem: read(certificate)?, key_pem: read(key)? },
        _ => own(address.ip(), said.lease, clock)?,
    };
    let config = apiserver::http::tls_config(&pair, &pair.cert_pem)
        .map_err(|error| Failure::of("prepare tls", error))?;
    let listener = match serve::bind(address).await {
        Ok((listener, _)) => listener,
        Err(error) if secure_port.is_none() && error.kind() == std::io::ErrorKind::AddrInUse => {
            term::note(&format!(
                "{address} is in use: this {} shows no health and metrics; choose another with --secure-port PORT",
                said.lease
            ));
            return Ok(());
        }
        Err(error) => {
            return Err(Failure::of(format!("listen on {address}"), error)
                .advise("choose another port with --secure-port PORT, or 0 for none"));
        }
    };
    let site = Site {
        tls: Some(TlsAcceptor::from(Arc::new(config))),
        body_bytes_max: BODY_BYTES_MAX,
        handler: Arc::new(move |request| {
            let (client, said) = (client.clone(), said.clone());
            Box::pin(async move {
                let response = answer(&client, &said, &request).await;
                Some(Reply { response, cut_after: None })
            })
        }),
    };
    tokio::spawn(serve::serve(listener, site, stop));
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::of(format!("read {}", path.display()), error))
}

/// A certificate of an authority that nobody else knows, for as long as the process lives.
fn own(address: IpAddr, name: &str, clock: &dyn Clock) -> Result<Pair, Failure> {
    let mut names = vec!["localhost".to_owned()];
    names.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(|ip| ip.to_string()));
    if !address.is_unspecified() && !address.is_loopback() {
        names.push(address.to_string());
    }
    let now = clock.now();
    let authority = Authority::create(&format!("{name}-ca"), now);
    let issued = authority.and_then(|authority| authority.issue(&Leaf::server(name, &names), now));
    issued.map_err(|error| Failure::of("make the serving certificate", error))
}

async fn answer(client: &Client, said: &Said, request: &Request<Bytes>) -> Response<Bytes> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "only GET and HEAD are served");
    }
    let path = request.uri().path();
    if HEALTH.contains(&path) {
        return text("ok".to_owned());
    }
    match timeout(ASK_TIMEOUT, permit(client, request)).await {
        Ok(Ok(())) => {}
        Ok(Err(refusal)) => return refusal,
        Err(_) => return failed("the API server did not say in time who may see this"),
    }
    match path {
        "/metrics" => text(metrics(said)),
        "/configz" => {
            let (component, config) = &said.config;
            json(StatusCode::OK, &json!({ *component: config }))
        }
        _ => refused(
            StatusCode::NOT_FOUND,
            "NotFound",
            "there are /healthz, /livez, /readyz, /metrics and /configz",
        ),
    }
}

fn metrics(said: &Said) -> String {
    let mut out = Exposition::default();
    let help = "Whether this process leads (1) or stands by (0).";
    let mut leads = out.family("leader_election_master_status", Kind::Gauge, help);
    leads.value(&format!("name=\"{}\"", said.lease), u8::from(said.leads.load(Relaxed)));
    out.append(&(said.metrics)());
    out.into_text()
}

/// Who asks, and whether they may see the path.
async fn permit(client: &Client, request: &Request<Bytes>) -> Result<(), Response<Bytes>> {
    let user = match bearer(request) {
        None => UserInfo {
            username: Some("system:anonymous".to_owned()),
            groups: Some(vec!["system:unauthenticated".to_owned()]),
            ..UserInfo::default()
        },
        Some(token) => known(client, token).await?,
    };
    let path = request.uri().path().to_owned();
    let verb = request.method().as_str().to_lowercase();
    let name = user.username.clone().unwrap_or_default();
    let why = format!("forbidden: User \"{name}\" cannot {verb} path \"{path}\"");
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes { path: Some(path), verb: Some(verb) }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let answered = reviews.create(&PostParams::default(), &review).await.map_err(|error| unasked(&error))?;
    let allowed = answered.status.is_some_and(|status| status.allowed);
    if allowed { Ok(()) } else { Err(refused(StatusCode::FORBIDDEN, "Forbidden", &why)) }
}

fn bearer(request: &Request<Bytes>) -> Option<&str> {
    let given = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

async fn known(client: &Client, token: &str) -> Result<UserInfo, Response<Bytes>> {
    let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
    let review = TokenReview { spec, ..TokenReview::default() };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let answered = reviews.create(&PostParams::default(), &review).await.map_err(|error| unasked(&error))?;
    let status = answered.status.filter(|status| status.authenticated == Some(true));
    status
        .and_then(|status| status.user)
        .ok_or_else(|| refused(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"))
}

fn unasked(error: &kube::Error) -> Response<Bytes> {
    tracing::warn!(error = reconcile::text(error), "cannot ask the API server who may see metrics");
    failed("the API server cannot be asked who may see this")
}

fn failed(why: &str) -> Response<Bytes> {
    refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", why)
}

fn refused(status: StatusCode, reason: &str, message: &str) -> Response<Bytes> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": status.as_u16(),
    });
    json(status, &body)
}

fn json(status: StatusCode, body: &Value) -> Response<Bytes> {
    made(status, "application/json", body.to_string())
}

fn text(body: String) -> Response<Bytes> {
    made(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

fn made(status: StatusCode, form: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(form));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use kube::client::Body;

    use super::*;

    /// An API server that knows the token `good`, of `ann`, who may see metrics only, and that fails for `broken`.
    fn client() -> Client {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let (parts, body) = request.into_parts();
            let asked = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut review: Value = serde_json::from_slice(&asked).unwrap();
            let mut code = 201;
            review["status"] = if parts.uri.path().ends_with("/tokenreviews") {
                match review["spec"]["token"].as_str().unwrap() {
                    "good" => {
                        json!({ "authenticated": true, "user": { "username": "ann", "groups": ["dev"] } })
                    }
                    "broken" => {
                        code = 500;
                        json!({})
                    }
                    _ => json!({ "authenticated": false }),
                }
            } else {
                let spec = &review["spec"];
                let metrics = json!({ "path": "/metrics", "verb": "get" });
                json!({ "allowed": spec["user"] == "ann" && spec["groups"] == json!(["dev"])
                    && spec["nonResourceAttributes"] == metrics })
            };
            let response = Response::builder().status(code).body(Body::from(review.to_string().into_bytes()));
            Ok::<_, std::convert::Infallible>(response.unwrap())
        });
        Client::new(service, "default")
    }

    fn said() -> Said {
        Said {
            lease: "kube-scheduler",
            config: ("component", json!({ "size": 7 })),
            metrics: Arc::new(|| "workqueue_depth{name=\"job\"} 1\n".to_owned()),
            leads: Arc::new(AtomicBool::new(true)),
        }
    }

    async fn check(method: &str, path: &str, token: Option<&str>, expected: (u16, &str)) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = answer(&client(), &said(), &request.body(Bytes::new()).unwrap()).await;
        let body = String::from_utf8_lossy(response.body()).into_owned();
        assert_eq!(response.status(), expected.0, "{method} {path} {token:?}: {body}");
        assert!(body.contains(expected.1), "{method} {path} {token:?}: {body}");
    }

    #[tokio::test]
    async fn health_is_for_all_and_the_rest_for_whom_the_api_server_lets() {
        for path in ["/healthz", "/livez", "/readyz"] {
            check("GET", path, None, (200, "ok")).await;
        }
        let told =
            "leader_election_master_status{name=\"kube-scheduler\"} 1\nworkqueue_depth{name=\"job\"} 1\n";
        check("GET", "/metrics", Some("good"), (200, told)).await;
        let anonymous = r#"forbidden: User \"system:anonymous\" cannot get path \"/metrics\""#;
        check("GET", "/metrics", None, (403, anonymous)).await;
        check("GET", "/metrics", Some("bad"), (401, "Unauthorized")).await;
        check("GET", "/metrics", Some("broken"), (500, "cannot be asked")).await;
        check("GET", "/configz", Some("good"), (403, r#"User \"ann\" cannot get path \"/configz\""#)).await;
        check("POST", "/metrics", Some("good"), (405, "only GET")).await;
    }

    #[test]
    fn a_certificate_of_its_own_is_one_that_can_be_served() {
        let clock = crate::clock::System;
        let pair = own(IpAddr::from([10, 0, 0, 1]), "kube-scheduler", &clock).unwrap();
        assert!(apiserver::http::tls_config(&pair, &pair.cert_pem).is_ok());
    }
}
