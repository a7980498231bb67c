//! The way from one component to the API server, and what can go wrong on it.
//!
//! Guarantees: a request that is answered was carried out by the server as it was sent; one that fails
//! may or may not have been, as on a real network. A watch shows what the server sent, in order, until
//! it breaks; an event may come twice.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use apiserver::http::Server;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use meta::{Random, Reason, Status};
use resource::User;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// How long a request waits on a network that drops it.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// Refusals that are remembered: enough to see what is missing.
const REFUSED_MAX: usize = 50;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = UnsyncBoxBody<Bytes, BoxError>;

/// What a client is told when its connection breaks.
#[derive(Debug, thiserror::Error)]
#[error("connection to the API server: {0}")]
struct Broken(&'static str);

/// How often things go wrong: per thousand requests or events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// A write is answered with a conflict and not carried out.
    pub conflict: u64,
    /// A request never arrives.
    pub lost_request: u64,
    /// A request is carried out and its answer lost.
    pub lost_answer: u64,
    /// A watch breaks when an event comes.
    pub cut_watch: u64,
    /// An event comes twice.
    pub repeat_event: u64,
    /// A request takes up to so long.
    pub delay_ms_max: u64,
}

/// The faults of one component's link.
pub struct Faults {
    random: Arc<dyn Random>,
    rates: Mutex<Rates>,
    partitioned: watch::Sender<bool>,
    refused: Mutex<BTreeSet<String>>,
}

impl Faults {
    pub(crate) fn new(random: Arc<dyn Random>) -> Self {
        let (rates, partitioned) = (Mutex::default(), watch::Sender::new(false));
        Self { random, rates, partitioned, refused: Mutex::default() }
    }

    /// What the component asked for and had no right to, as it was told.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Passes an answer on; what it refuses for want of a right is remembered.
    async fn read(&self, response: Response<apiserver::http::Body>) -> Result<Response<Answer>, BoxError> {
        if response.status() != StatusCode::FORBIDDEN {
            return Ok(response.map(BodyExt::boxed_unsync));
        }
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let message = serde_json::from_slice::<Value>(&body).ok();
        let message = message.as_ref().and_then(|status| status.get("message")?.as_str()).unwrap_or_default();
        // Others are refusals of admission, such as a quota's.
        if message.contains("forbidden: User ") {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused.len() < REFUSED_MAX {
                refused.insert(message.to_owned());
            }
        }
        let body = Full::new(body).map_err(|never: Infallible| -> BoxError { match never {} });
        Ok(Response::from_parts(parts, body.boxed_unsync()))
    }

    /// Changes how often things go wrong.
    pub fn set(&self, rates: Rates) {
        *self.rates() = rates;
    }

    /// Cuts the component off, or ends that.
    pub fn partition(&self, on: bool) {
        self.partitioned.send_replace(on);
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rolls(&self, rate: impl Fn(&Rates) -> u64) -> bool {
        let rate = rate(&self.rates());
        rate > 0 && self.random.below(1000) < rate
    }

    async fn reachable(&self) {
        let mut partitioned = self.partitioned.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        drop(partitioned.wait_for(|partitioned| !*partitioned).await);
    }
}

/// Where the API server is, if it runs.
#[derive(Default)]
pub(crate) struct Gate(Mutex<Option<(Arc<Server>, CancellationToken)>>);

impl Gate {
    pub(crate) fn open(&self, server: Arc<Server>, dead: CancellationToken) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((server, dead));
    }

    pub(crate) fn shut(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn current(&self) -> Option<(Arc<Server>, CancellationToken)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One component's link: a service for `kube::Client`.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) gate: Arc<Gate>,
    pub(crate) user: User,
    pub(crate) faults: Arc<Faults>,
}

impl Link {
    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Answer>, BoxError> {
        let Self { gate, user, faults } = self;
        let writes = request.method() != Method::GET;
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        if tokio::time::timeout(LOST_AFTER, faults.reachable()).await.is_err() {
            return Err(Broken("timed out").into());
        }
        let delay_ms = faults.random.below(faults.rates().delay_ms_max);
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        let Some((server, dead)) = gate.current() else { return Err(Broken("refused").into()) };
        if faults.rolls(|rates| rates.lost_request) {
            return Err(Broken("reset").into());
        }
        if writes && faults.rolls(|rates| rates.conflict) {
            return Ok(conflict());
        }
        let carried_out = server.service(user).call(request);
        let response = tokio::select! {
            response = carried_out => response.unwrap_or_else(|never: Infallible| match never {}),
            () = dead.cancelled() => return Err(Broken("reset").into()),
        };
        drop(server);
        if writes && faults.rolls(|rates| rates.lost_answer) {
            return Err(Broken("reset").into());
        }
        if watches && response.status().is_success() {
            return Ok(response.map(|body| watched(body, faults, dead)));
        }
        faults.read(response).await
    }
}

impl controllers::Accounts for Link {
    fn client(&self, account: &str) -> kube::Client {
        let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
        let name = format!("system:serviceaccount:{}:{account}", controllers::accounts::NAMESPACE);
        let user = User { name, groups: groups.map(str::to_owned).to_vec(), ..User::default() };
        Self { user, ..self.clone() }.client()
    }
}

impl Service<Request<Body>> for Link {
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().send(request).boxed()
    }
}

fn conflict() -> Response<Answer> {
    let status = Status::new(409, Reason::Conflict, "the object has been modified; please try again");
    let body = Full::new(Bytes::from(status.to_json().to_string()));
    let body = body.map_err(|never: Infallible| -> BoxError { match never {} }).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::CONFLICT;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

struct Watched {
    body: apiserver::http::Body,
    faults: Arc<Faults>,
    dead: CancellationToken,
    again: Option<Bytes>,
    over: bool,
}

fn watched(body: apiserver::http::Body, faults: Arc<Faults>, dead: CancellationToken) -> Answer {
    let watched = Watched { body, faults, dead, again: None, over: false };
    let frames = stream::unfold(watched, |mut watched| async move {
        let next = watched.next().await?;
        Some((next.map(Frame::data), watched))
    });
    StreamBody::new(frames.boxed()).boxed_unsync()
}

impl Watched {
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        if self.over {
            return None;
        }
        if let Some(again) = self.again.take() {
            return Some(Ok(again));
        }
        let frame = tokio::select! {
            frame = self.body.frame() => frame?,
            () = self.dead.cancelled() => return Some(Err(self.broken())),
        };
        let cut_off = *self.faults.partitioned.borrow();
        if cut_off {
            // Nothing comes through; when the network is back, the connection is found to be dead.
            self.faults.reachable().await;
            return Some(Err(self.broken()));
        }
        if self.faults.rolls(|rates| rates.cut_watch) {
            return Some(Err(self.broken()));
        }
        let data = frame.map(|frame| frame.into_data().unwrap_or_default());
        if let Ok(bytes) = &data
            && self.faults.rolls(|rates| rates.repeat_event)
        {
            self.again = Some(bytes.clone());
        }
        Some(data)
    }

    fn broken(&mut self) -> BoxError {
        self.over = true;
        Broken("reset").into()
    }
}
