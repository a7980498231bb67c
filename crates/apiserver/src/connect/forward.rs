//! Passing one request on, and the bytes after an upgrade.

use std::{sync::Arc, time::Duration};

use futures::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, BodyStream, Limited};
use hyper::{body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use meta::{Reason, Status};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Endpoint, Kubelets};
use crate::http::{Body, InFlight, Input};

/// How long a node may take to accept a connection and to begin its answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What is read of an error text.
const ERROR_BYTES_MAX: usize = 8 << 10;

/// Headers that are this connection's or this server's own business.
const KEPT_BACK: [HeaderName; 9] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
];

/// One request to pass on.
pub(super) struct Forward<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: &'a HeaderMap,
    pub(super) input: Input,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) running: InFlight,
}

impl Kubelets {
    /// Dials, sends, and answers with what comes back.
    pub(super) async fn forward(&self, forward: Forward<'_>) -> Result<Response<Body>, Status> {
        let Forward { endpoint, method, path, headers, input, upgrade, running } = forward;
        let unreachable = |why: String| {
            let Endpoint { host, port, .. } = &endpoint;
            Status::new(
                503,
                Reason::ServiceUnavailable,
                format!("error dialing backend {host}:{port}: {why}"),
            )
        };
        let dialled = timeout(DIAL_TIMEOUT, self.dial(&endpoint)).await;
        let stream =
            dialled.map_err(|_| unreachable("timed out".into()))?.map_err(|e| unreachable(e.to_string()))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(e.to_string()))?;
        let stop = self.stop.clone();
        self.streams.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                ended = connection.with_upgrades() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection to node ended");
                    }
                }
            }
        });
        let request = request(&endpoint, method, &path, headers, upgrade.is_some(), input)?;
        let answer = timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let answer = answer.map_err(|_| unreachable("no answer in time".into()))?;
        let answer = answer.map_err(|e| unreachable(e.to_string()))?;
        match (answer.status(), upgrade) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade)) => Ok(self.switch(answer, upgrade, running)),
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                Err(Status::internal("the node switched protocols without being asked to"))
            }
            (code, _) if endpoint.kubelet && !code.is_success() && !code.is_redirection() => {
                Err(refused(answer).await)
            }
            _ => Ok(passed(answer, running, self.stop.clone())),
        }
    }

    async fn dial(&self, endpoint: &Endpoint) -> std::io::Result<Box<dyn Io>> {
        let Endpoint { host, port, kubelet } = endpoint;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        if !kubelet {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
        Ok(Box::new(TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?))
    }

    /// Joins both connections once both have switched.
    fn switch(&self, answer: Response<Incoming>, client: OnUpgrade, running: InFlight) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = answer.headers().clone();
        let node = hyper::upgrade::on(answer);
        let stop = self.stop.clone();
        self.streams.spawn(async move {
            let _running = running;
            let join = async {
                let (client, node) = futures::future::try_join(client, node).await?;
                let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
                copy_bidirectional(&mut client, &mut node).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            };
            tokio::select! {
                () = stop.cancelled() => {}
                joined = join => {
                    if let Err(error) = joined {
                        tracing::debug!(%error, "stream ended");
                    }
                }
            }
        });
        response
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

fn request(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    upgrades: bool,
    input: Input,
) -> Result<Request<Body>, Status> {
    let frames = BodyStream::new(input.into_body());
    let data = frames.filter_map(|frame| async move { frame.map(|f| f.into_data().ok()).transpose() });
    let body = if upgrades { Body::empty() } else { Body::stream(data) };
    let has_body =
        headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    let mut request = Request::new(if has_body { body } else { Body::empty() });
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| Status::bad_request(format!("invalid path {path:?}")))?;
    for (name, value) in headers {
        let own = KEPT_BACK.contains(name) || name.as_str().starts_with("impersonate-");
        let connection = matches!(*name, header::CONNECTION | header::UPGRADE);
        if !own && (!connection || upgrades) {
            request.headers_mut().append(name.clone(), value.clone());
        }
    }
    let host =
        if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.clone() };
    let host = HeaderValue::from_str(&format!("{host}:{}", endpoint.port)).map_err(Status::internal)?;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

/// The answer as it comes, until it ends, the client leaves or the server stops.
fn passed(
    answer: Response<Incoming>,
    running: InFlight,
    stop: tokio_util::sync::CancellationToken,
) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    let frames = BodyStream::new(body);
    let chunks = stream::unfold((frames, running, stop), |(mut frames, running, stop)| async move {
        loop {
            let frame = tokio::select! {
                () = stop.cancelled() => return None,
                frame = frames.next() => frame?,
            };
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => return Some((Ok(data), (frames, running, stop))),
                Ok(Err(_)) => {}
                Err(error) => return Some((Err(error.into()), (frames, running, stop))),
            }
        }
    });
    Response::from_parts(parts, Body::stream(chunks.fuse()))
}

/// A node's refusal as a Status: its own when it sent one, else its text.
async fn refused(answer: Response<Incoming>) -> Status {
    let code = answer.status().as_u16();
    let text = match Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let told: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let message = told.as_ref().and_then(|status| status.get("message")).and_then(serde_json::Value::as_str);
    let message = message.map_or(text.clone(), str::to_owned);
    let reason = match code {
        400 => Reason::BadRequest,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        429 => Reason::TooManyRequests,
        503 => Reason::ServiceUnavailable,
        _ => Reason::InternalError,
    };
    Status::new(code, reason, if message.is_empty() { format!("the node answered {code}") } else { message })
}
