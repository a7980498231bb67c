//! One POST of JSON, answered by JSON.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use meta::{Value, metrics::Exposition};
use resource::View;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_util::{sync::CancellationToken, sync::DropGuard, task::TaskTracker};

use super::Target;
use crate::{http::Trust, metrics::WebhookCounts};

/// What is read of an answer: as much as of a request, since an answer may carry a whole object.
const ANSWER_BYTES_MAX: usize = 3 << 20;
/// Connections kept for one target; more calls at once open more, which are closed after.
const IDLE_MAX: usize = 8;
/// Targets with kept connections; beyond it all of them are let go.
const TARGETS_MAX: usize = 256;

type Sender = SendRequest<Full<Bytes>>;

/// The client of all webhooks of a server. Cheap to clone; its connections end with the last clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    view: Arc<dyn View>,
    targets: Mutex<HashMap<Target, Kept>>,
    counts: WebhookCounts,
    connections: TaskTracker,
    stop: CancellationToken,
    _guard: DropGuard,
}

/// What is kept of a target between calls.
struct Kept {
    tls: Arc<ClientConfig>,
    idle: Vec<Sender>,
}

impl Webhooks {
    /// A client that finds Services in `view`.
    pub fn new(view: Arc<dyn View>) -> Self {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let connections = TaskTracker::new();
        let (targets, counts) = Default::default();
        Self(Arc::new(Inner { view, targets, counts, connections, stop, _guard: guard }))
    }

    /// What became of the calls of admission webhooks.
    pub(crate) fn counts(&self) -> &WebhookCounts {
        &self.0.counts
    }

    /// Writes that for `/metrics`.
    pub fn expose(&self, out: &mut Exposition) {
        self.0.counts.expose(out);
    }

    /// Sends `body` and gives the answer; what went wrong otherwise, as upstream's client words it.
    pub(crate) async fn post(
        &self,
        target: &Target,
        body: &Value,
        within: Duration,
    ) -> Result<Value, String> {
        self.send(target, Asked::Admission, body, within).await.map_err(Failure::into_text)
    }

    pub(super) async fn send(
        &self,
        target: &Target,
        asked: Asked,
        body: &Value,
        within: Duration,
    ) -> Result<Value, Failure> {
        let query = asked.query(within);
        let failed = |why: String| format!("Post \"{}{query}\": {why}", target.url());
        let bytes = serde_json::to_vec(body).map_err(|error| Failure::Answer(failed(error.to_string())))?;
        let call = Call { target, asked, query: &query, body: bytes.into() };
        match timeout(within, self.exchange(&call)).await {
            Ok(Err(Failure::Transport(why))) => Err(Failure::Transport(failed(why))),
            Ok(done) => done,
            Err(_) => Err(Failure::Late(failed("context deadline exceeded".to_owned()))),
        }
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Value, Failure> {
        // A kept connection may have been closed meanwhile; only a new one tells that the target is gone.
        while let Some(sender) = self.kept(call.target) {
            if let Ok(answer) = self.ask(sender, call).await {
                return answer;
            }
        }
        let sender = self.connect(call.target).await.map_err(Failure::Transport)?;
        self.ask(sender, call).await.map_err(|error| Failure::Transport(error.to_string()))?
    }

    fn kept(&self, target: &Target) -> Option<Sender> {
        let mut targets = self.0.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = &mut targets.get_mut(target)?.idle;
        while let Some(sender) = idle.pop() {
            if !sender.is_closed() && sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, target: &Target, sender: Sender) {
        let mut targets = self.0.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = targets.get_mut(target).filter(|kept| kept.idle.len() < IDLE_MAX) {
            kept.idle.push(sender);
        }
    }

    fn tls(&self, target: &Target) -> Result<Arc<ClientConfig>, String> {
        let mut targets = self.0.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = targets.get(target) {
            return Ok(kept.tls.clone());
        }
        let tls = Arc::new(client_config(target)?);
        if targets.len() >= TARGETS_MAX {
            targets.clear();
        }
        targets.insert(target.clone(), Kept { tls: tls.clone(), idle: Vec::new() });
        Ok(tls)
    }

    async fn connect(&self, target: &Target) -> Result<Sender, String> {
        let tls = TlsConnector::from(self.tls(target)?);
        let name = ServerName::try_from(target.server_name()).map_err(|error| error.to_string())?;
        let mut last = "no address".to_owned();
        for (host, port) in target.addresses(&*self.0.view)? {
            let shown =
                if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            let stream = match TcpStream::connect((host.as_str(), port)).await {
                Ok(stream) => stream,
                Err(error) => {
                    last = format!("dial tcp {shown}: {error}");
                    continue;
                }
            };
            let stream = tls.connect(name.clone(), stream).await.map_err(|error| format!("tls: {error}"))?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            let stop = self.0.stop.clone();
            self.0.connections.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    ended = connection => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "connection to webhook ended");
                        }
                    }
                }
            });
            return Ok(sender);
        }
        Err(last)
    }

    /// Fails where the connection did; an answer that is no good is the inner error.
    async fn ask(&self, mut sender: Sender, call: &Call<'_>) -> Result<Result<Value, Failure>, hyper::Error> {
        let request = match call.request() {
            Ok(request) => request,
            Err(why) => return Ok(Err(Failure::Transport(why))),
        };
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let read = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = match read {
            Ok(read) => read.to_bytes(),
            Err(error) => return Ok(Err(Failure::Answer(format!("read the answer: {error}")))),
        };
        self.keep(call.target, sender);
        if !status.is_success() {
            let why = format!("the server responded with the status code {status}");
            return Ok(Err(Failure::Status(status, why)));
        }
        if call.asked == Asked::Events {
            return Ok(Ok(Value::Null));
        }
        Ok(serde_json::from_slice(&bytes)
            .map_err(|error| Failure::Answer(format!("couldn't decode the answer: {error}"))))
    }
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Admission or conversion: the target is told how long it has.
    Admission,
    /// A review of a token or of access.
    Review,
    /// Audit events: what is answered beside the code says nothing.
    Events,
}

impl Asked {
    fn query(self, within: Duration) -> String {
        match self {
            Self::Admission => format!("?timeout={}s", within.as_secs()),
            Self::Review | Self::Events => String::new(),
        }
    }

    fn user_agent(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Admission => "kube-apiserver-admission",
            Self::Review | Self::Events => "kube-apiserver",
        })
    }
}

/// Why a call has no answer that is good for anything.
pub(super) enum Failure {
    /// It did not come to an answer.
    Transport(String),
    /// It did not come in time.
    Late(String),
    /// The answer is one of these codes.
    Status(StatusCode, String),
    /// The answer is no good.
    Answer(String),
}

impl Failure {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Transport(why) | Self::Late(why) | Self::Status(_, why) | Self::Answer(why) => why,
        }
    }

    pub(super) fn into_text(self) -> String {
        match self {
            Self::Transport(why) | Self::Late(why) | Self::Status(_, why) | Self::Answer(why) => why,
        }
    }
}

/// One POST.
struct Call<'a> {
    target: &'a Target,
    asked: Asked,
    query: &'a str,
    body: Bytes,
}

impl Call<'_> {
    fn request(&self) -> Result<Request<Full<Bytes>>, String> {
        let Self { target, asked, query, body } = self;
        let host = HeaderValue::from_str(&target.authority()).map_err(|error| error.to_string())?;
        let mut request = Request::post(format!("{}{query}", target.path))
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, asked.user_agent());
        if let Some(authorization) = target.authorization()? {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some((name, value)) = crate::trace::header() {
            request = request.header(name, value);
        }
        request.body(Full::new(body.clone())).map_err(|error| error.to_string())
    }
}

fn client_config(target: &Target) -> Result<ClientConfig, String> {
    let ca = &target.ca;
    let trust = match target.insecure() {
        true => Trust::Anybody,
        false if ca.is_empty() => Trust::System,
        false => Trust::Authorities(ca),
    };
    crate::http::client_config(trust, target.login()).map_err(|error| match trust {
        Trust::Authorities(_) => format!("unable to load root certificates: caBundle: {error}"),
        Trust::System | Trust::Anybody => error.to_string(),
    })
}
