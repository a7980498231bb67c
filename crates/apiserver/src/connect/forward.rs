//! Passing one request on, and the bytes after an upgrade.

use std::{sync::Arc, time::Duration};

use futures::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, BodyStream, Limited};
use hyper::{body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use meta::{Reason, Status};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    Forwarder,
    pool::{Identity, Pool, Target},
};
use crate::{
    http::{Body, Input},
    metrics::InFlight,
};

/// How long a node may take to accept a connection and to begin its answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What is read of the head of an answer.
const HEAD_BYTES_MAX: usize = 128 << 10;
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
pub(crate) struct Forward<'a> {
    /// Where to dial, the next after each failure.
    pub(crate) addresses: Vec<(String, u16)>,
    /// With what and whom TLS is spoken; `None` for none.
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The `Host` header.
    pub(crate) authority: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: &'a HeaderMap,
    /// What this server says in headers of its own.
    pub(crate) added: HeaderMap,
    pub(crate) input: Input,
    pub(crate) upgrade: Option<OnUpgrade>,
    pub(crate) running: Option<InFlight>,
    /// Whether the connection may be one that is kept, and is kept after.
    pub(crate) kept: bool,
    /// How long request and answer may take together; `None` for streams.
    pub(crate) limit: Option<Duration>,
    pub(crate) refusals: Refusals,
}

/// What becomes of an answer that is a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusals {
    /// The client gets it as it is.
    Passed,
    /// The client gets a Status with its text: a kubelet refuses in plain words.
    Worded,
}

/// `host:port` as the `Host` header has it.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Forwarder {
    /// Dials, sends, and answers with what comes back.
    pub(crate) async fn forward(&self, forward: Forward<'_>) -> Result<Response<Body>, Status> {
        let Forward {
            addresses,
            tls,
            authority,
            method,
            path,
            headers,
            added,
            input,
            upgrade,
            running,
            kept,
            limit,
            refusals,
        } = forward;
        let deadline = limit.map(|limit| Instant::now() + limit);
        let to = To { addresses: &addresses, tls: tls.as_ref(), authority: &authority };
        let kept = kept && upgrade.is_none();
        // What has no body and changes nothing may be sent again when a kept connection breaks under it.
        let again = (input.is_empty() && method.is_safe()).then(|| (method.clone(), added.clone()));
        let mut request = request(&authority, method, &path, headers, upgrade.is_some(), input)?;
        request.headers_mut().extend(added);
        let tried =
            if kept { self.on_kept(&to, request).await } else { Err(Tried::NotSent(Box::new(request))) };
        let (answer, keep) = match (tried, again) {
            (Ok(answered), _) => answered,
            (Err(Tried::NotSent(request)), _) => self.on_new(&to, *request, kept).await?,
            (Err(Tried::Lost(_)), Some((method, added))) => {
                let mut request = self::request(&authority, method, &path, headers, false, Input::empty())?;
                request.headers_mut().extend(added);
                self.on_new(&to, request, kept).await?
            }
            (Err(Tried::Lost(why)), None) => return Err(unreachable(&authority, &why)),
            (Err(Tried::Slow), _) => return Err(unreachable(&authority, "no answer in time")),
        };
        match (answer.status(), upgrade) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade)) => Ok(self.switch(answer, upgrade, running)),
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                Err(Status::internal("the other server switched protocols without being asked to"))
            }
            (code, _) if refusals == Refusals::Worded && !code.is_success() && !code.is_redirection() => {
                Err(refused(answer).await)
            }
            _ => Ok(passed(
                answer,
                keep.map(|keep| (self.kept.clone(), keep)),
                running,
                deadline,
                self.stop.clone(),
            )),
        }
    }

    /// Sends on a connection that was kept.
    async fn on_kept(&self, to: &To<'_>, mut request: Request<Body>) -> Result<Answered, Tried> {
        for target in to.targets() {
            while let Some(mut sender) = self.kept.take(&target) {
                match timeout(ANSWER_TIMEOUT, sender.try_send_request(request)).await {
                    Ok(Ok(answer)) => return Ok((answer, Some(Keep { target, sender }))),
                    Ok(Err(mut failed)) => match failed.take_message() {
                        Some(back) => request = back,
                        None => return Err(Tried::Lost(failed.into_error().to_string())),
                    },
                    Err(_) => return Err(Tried::Slow),
                }
            }
        }
        Err(Tried::NotSent(Box::new(request)))
    }

    /// Sends on a connection of its own, to be kept after where that is wanted.
    async fn on_new(&self, to: &To<'_>, request: Request<Body>, keep: bool) -> Result<Answered, Status> {
        let (stream, address) = dial(to).await?;
        let unreachable = |why: String| unreachable(to.authority, &why);
        let mut client = http1::Builder::new();
        client.max_buf_size(HEAD_BYTES_MAX);
        let (mut sender, connection) =
            client.handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(e.to_string()))?;
        let stop = self.stop.clone();
        self.streams.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                ended = connection.with_upgrades() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection to another server ended");
                    }
                }
            }
        });
        let answer = timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let answer = answer.map_err(|_| unreachable("no answer in time".into()))?;
        let answer = answer.map_err(|e| unreachable(e.to_string()))?;
        let target = to.targets().nth(address).filter(|_| keep);
        Ok((answer, target.map(|target| Keep { target, sender })))
    }

    /// Joins both connections once both have switched.
    fn switch(
        &self,
        answer: Response<Incoming>,
        client: OnUpgrade,
        running: Option<InFlight>,
    ) -> Response<Body> {
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

/// Where a request goes.
struct To<'a> {
    addresses: &'a [(String, u16)],
    tls: Option<&'a (Arc<ClientConfig>, ServerName<'static>)>,
    authority: &'a str,
}

impl To<'_> {
    /// What kept connections are found by, in the order of the addresses; none without TLS.
    fn targets(&self) -> impl Iterator<Item = Target> {
        self.addresses.iter().filter_map(|(host, port)| {
            let (tls, name) = self.tls?;
            Some(Target { host: host.clone(), port: *port, name: name.clone(), tls: Identity(tls.clone()) })
        })
    }
}

/// An answer that has begun, and the connection it comes on where that may be kept.
type Answered = (Response<Incoming>, Option<Keep>);

/// A connection that may be kept once its answer was read.
struct Keep {
    target: Target,
    sender: http1::SendRequest<Body>,
}

/// What became of a request on kept connections.
enum Tried {
    /// Nobody has seen it.
    NotSent(Box<Request<Body>>),
    /// Somebody may have.
    Lost(String),
    /// Somebody has, and does not answer.
    Slow,
}

fn unreachable(authority: &str, why: &str) -> Status {
    let why = format!("error dialing backend {authority}: {why}");
    Status::new(503, Reason::ServiceUnavailable, why)
}

/// The first address that answers, and which that is.
async fn dial(to: &To<'_>) -> Result<(Box<dyn Io>, usize), Status> {
    let mut last = unreachable(to.authority, "no address");
    for (at, (host, port)) in to.addresses.iter().enumerate() {
        let shown = authority(host, *port);
        match timeout(DIAL_TIMEOUT, dial_one(host, *port, to.tls)).await {
            Ok(Ok(stream)) => return Ok((stream, at)),
            Ok(Err(error)) => last = unreachable(&shown, &error.to_string()),
            Err(_) => last = unreachable(&shown, "timed out"),
        }
    }
    Err(last)
}

async fn dial_one(
    host: &str,
    port: u16,
    tls: Option<&(Arc<ClientConfig>, ServerName<'static>)>,
) -> std::io::Result<Box<dyn Io>> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(match tls {
        None => Box::new(stream),
        Some((tls, name)) => {
            Box::new(TlsConnector::from(Arc::clone(tls)).connect(name.clone(), stream).await?)
        }
    })
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

fn request(
    authority: &str,
    method: Method,
    path: &str,
    headers: &HeaderMap,
    upgrades: bool,
    input: Input,
) -> Result<Request<Body>, Status> {
    // Whether there is a body is not said by headers: HTTP/2 needs none for it.
    let has_body = !upgrades && !input.is_empty();
    let body = if has_body {
        let frames = BodyStream::new(input.into_body());
        Body::stream(frames.filter_map(|frame| async move { frame.map(|f| f.into_data().ok()).transpose() }))
    } else {
        Body::empty()
    };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| Status::bad_request(format!("invalid path {path:?}")))?;
    for (name, value) in headers {
        // Who vouches for a user in headers is this server, not its client.
        let vouching = ["impersonate-", "x-remote-"].iter().any(|begin| name.as_str().starts_with(begin));
        let own = KEPT_BACK.contains(name) || vouching;
        let connection = matches!(*name, header::CONNECTION | header::UPGRADE)
            || name.as_str().starts_with("sec-websocket-");
        if !own && (!connection || upgrades) {
            request.headers_mut().append(name.clone(), value.clone());
        }
    }
    if let (true, Some(length)) = (has_body, headers.get(header::CONTENT_LENGTH)) {
        request.headers_mut().insert(header::CONTENT_LENGTH, length.clone());
    }
    if let Some((name, value)) = crate::trace::header() {
        request.headers_mut().insert(name, value);
    }
    let host = HeaderValue::from_str(authority).map_err(Status::internal)?;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

/// The answer as it comes, until it ends, the client leaves or the server stops.
fn passed(
    answer: Response<Incoming>,
    keep: Option<(Pool, Keep)>,
    running: Option<InFlight>,
    deadline: Option<Instant>,
    stop: tokio_util::sync::CancellationToken,
) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    let frames = BodyStream::new(body);
    let over = async move {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let state = (frames, keep, running, stop, Box::pin(over));
    let chunks = stream::unfold(state, |(mut frames, keep, running, stop, mut over)| async move {
        loop {
            let frame = tokio::select! {
                () = stop.cancelled() => return None,
                () = &mut over => {
                    let slow = std::io::Error::from(std::io::ErrorKind::TimedOut).into();
                    // Nothing comes any more: the answer is cut, which the client notices.
                    return Some((Err(slow), (frames, None, running, stop, over)));
                }
                frame = frames.next() => frame,
            };
            let Some(frame) = frame else {
                if let Some((pool, Keep { target, sender })) = keep {
                    pool.keep(target, sender);
                }
                return None;
            };
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => return Some((Ok(data), (frames, keep, running, stop, over))),
                Ok(Err(_)) => {}
                Err(error) => return Some((Err(error.into()), (frames, None, running, stop, over))),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        http::{Trust, client_config},
        testing_webhook::{Hook, Reply},
    };

    /// What comes of a POST to an address with these roots.
    async fn check(addresses: &[(&str, u16)], trust: Trust<'_>, expected: Result<Value, (u16, &str)>) {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("secret"))]);
        let forward = Forward {
            addresses: addresses.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect(),
            tls: Some((Arc::new(client_config(trust, None).unwrap()), name)),
            authority: "somewhere:443".to_owned(),
            method: Method::POST,
            path: "/x?y=z".to_owned(),
            headers: &headers,
            added: HeaderMap::new(),
            input: Input::new(http_body_util::Full::new("{}".into())),
            upgrade: None,
            running: None,
            kept: false,
            limit: None,
            refusals: Refusals::Passed,
        };
        let answer = match Forwarder::default().forward(forward).await {
            Ok(answer) => {
                let bytes = answer.into_body().collect().await.unwrap().to_bytes();
                Ok(serde_json::from_slice::<Value>(&bytes).unwrap())
            }
            Err(status) => Err((status.code, status.message)),
        };
        match (answer, expected) {
            (Ok(answer), Ok(expected)) => assert_eq!(answer, expected),
            (Err((code, why)), Err((as_code, part))) => {
                assert!(code == as_code && why.contains(part), "{code} {why}");
            }
            (answer, expected) => panic!("{answer:?}, not {expected:?}"),
        }
    }

    #[tokio::test]
    async fn the_first_address_that_answers_is_used_and_whom_to_trust_is_heeded() {
        let hook = Hook::start(|path, _| Reply::Json(json!({"path": path}))).await;
        let port = hook.address().port();
        let seen = json!({"path": "/x"});
        let dead = ("127.0.0.1", 1);
        check(&[dead, ("127.0.0.1", port)], Trust::Anybody, Ok(seen.clone())).await;
        let ca = hook.ca_pem();
        check(&[("127.0.0.1", port)], Trust::Authorities(ca.as_bytes()), Ok(seen)).await;
        let other = Hook::start(|_, _| Reply::Json(json!({}))).await.ca_pem();
        let stranger = Err((503, "error dialing backend 127.0.0.1:"));
        check(&[("127.0.0.1", port)], Trust::Authorities(other.as_bytes()), stranger.clone()).await;
        check(&[dead], Trust::Anybody, stranger).await;
        check(&[], Trust::Anybody, Err((503, "somewhere:443: no address"))).await;
    }
}
