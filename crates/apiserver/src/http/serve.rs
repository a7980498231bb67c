//! Listeners and connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use resource::User;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    Input,
    chain::{Configured, Expose, Sender, Shared},
    cork::{Corked, Running},
    health::Health,
    service::InProcess,
};
use crate::{
    aggregation::Aggregation,
    audit::Audit,
    auth::{Authenticator, Authorizer},
    connect::Kubelets,
    discovery::Discovery,
    flow::{self, Flow},
    openapi::{Describe, OpenApi},
    rest::Rest,
    tokens::Tokens,
    trace::Tracing,
};

/// A client that does not finish its handshake in this time is not waited for.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be without its first request, upstream's `ReadHeaderTimeout`.
const HEAD_TIMEOUT: Duration = Duration::from_secs(32);
/// How long a connection may be without its next request, upstream's `IdleTimeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Header lines of an HTTP/1.1 request: a front proxy says each group of a user in one.
const HEADERS_MAX: usize = 512;
/// Bytes of all headers of an HTTP/2 request, its address among them: an address alone may have 64 KiB.
const HEADER_BYTES_MAX: u32 = 128 << 10;
/// How long running requests may take after the server was told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams of one HTTP/2 connection. A controller holds a watch per kind beside its requests.
pub(super) const STREAMS_MAX: u32 = 1_000;
/// Flow control windows: a body of the largest size fits without a round trip.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// What may be queued for a client that reads slowly, per stream; beyond, the producer waits.
const SEND_BUFFER: usize = 1 << 20;
/// Pause after the system refused a connection (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server is made of.
pub struct Server {
    shared: Arc<Shared>,
}

/// What cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}")]
pub struct ServeError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// Sockets that are being served.
pub struct Serving {
    /// The addresses, with the ports that the system chose.
    pub addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// A server on this engine, with these guards. `version` is `gitVersion`, such as
    /// `v1.36.0+keelson.0.1.0`.
    pub fn new(
        rest: Rest,
        authenticator: Arc<Authenticator>,
        authorizer: Arc<dyn Authorizer>,
        version: &str,
    ) -> Self {
        let shared = Shared {
            flow: Flow::new(rest.cache(), flow::SEATS),
            rest,
            authenticator,
            authorizer,
            tokens: None,
            kubelets: None,
            aggregation: None,
            backup: None,
            audit: None,
            health: Health::default(),
            exposed: Vec::new(),
            configured: Vec::new(),
            tracing: None,
            head_timeout: HEAD_TIMEOUT,
            discovery: Discovery::default(),
            openapi: OpenApi::new(version),
            version: version_info(version),
            stop: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    fn with(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            change(shared);
        }
        self
    }

    /// Publishes the token issuer's documents.
    #[must_use]
    pub fn with_tokens(self, tokens: Arc<Tokens>) -> Self {
        self.with(|shared| shared.tokens = Some(tokens))
    }

    /// Lets `log`, `exec` and the like reach the nodes.
    #[must_use]
    pub fn with_kubelets(self, kubelets: Kubelets) -> Self {
        self.with(|shared| shared.kubelets = Some(kubelets))
    }

    /// Passes requests on to the servers that APIServices name.
    #[must_use]
    pub fn with_aggregation(self, aggregation: Aggregation) -> Self {
        self.with(|shared| shared.aggregation = Some(aggregation))
    }

    /// Gives whoever may do everything a snapshot of the store.
    #[must_use]
    pub fn with_backup(self, store: Arc<dyn store::Store>) -> Self {
        self.with(|shared| shared.backup = Some(store))
    }

    /// Logs requests as a policy says.
    #[must_use]
    pub fn with_audit(self, audit: Arc<Audit>) -> Self {
        self.with(|shared| shared.audit = Some(audit))
    }

    /// Has `/metrics` say what somebody else counts.
    #[must_use]
    pub fn with_metrics(self, expose: Expose) -> Self {
        self.with(|shared| shared.exposed.push(expose))
    }

    /// Traces requests.
    #[must_use]
    pub fn with_tracing(self, tracing: Tracing) -> Self {
        self.with(|shared| shared.tracing = Some(tracing))
    }

    /// Has `/configz` say what a component is configured with.
    #[must_use]
    pub fn with_config(self, component: &str, configured: Configured) -> Self {
        self.with(|shared| shared.configured.push((component.to_owned(), configured)))
    }

    /// Shares so many seats among the priority levels instead of 600.
    #[must_use]
    pub fn with_seats(self, seats: u64) -> Self {
        self.with(|shared| shared.flow = Flow::new(shared.rest.cache(), seats))
    }

    /// Replaces the health checks.
    #[must_use]
    pub fn with_health(self, health: Health) -> Self {
        self.with(|shared| shared.health = health)
    }

    /// Texts for `kubectl explain` of kinds whose schema has none.
    #[must_use]
    pub fn with_descriptions(self, describe: Describe) -> Self {
        self.with(|shared| shared.openapi.describe(describe))
    }

    /// The server as a tower service that acts as `user`, without a socket.
    pub fn service(&self, user: User) -> InProcess {
        InProcess::new(self.shared.clone(), user)
    }

    /// What priority and fairness does beside requests, until `stop`: priority levels lend seats and borrow them, and
    /// FlowSchemas say whether their level is there. To be run once, when the server has everything that it is made of.
    pub fn keep_flow(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let shared = self.shared.clone();
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = shared.flow.keep(&shared.rest) => {}
            }
        }
    }

    /// Serves HTTPS on every address until [`Serving::stop`].
    pub async fn serve(
        &self,
        addresses: &[SocketAddr],
        tls: rustls::ServerConfig,
    ) -> Result<Serving, ServeError> {
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let stop = CancellationToken::new();
        let mut bound = Vec::with_capacity(addresses.len());
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            let failed = |source| ServeError { address: *address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            bound.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let listen = |listener| {
            let listening =
                Listening { shared: self.shared.clone(), acceptor: acceptor.clone(), stop: stop.clone() };
            tokio::spawn(listening.run(listener))
        };
        let tasks = listeners.into_iter().map(listen).collect();
        Ok(Serving { addresses: bound, shared: self.shared.clone(), stop, tasks })
    }
}

#[cfg(test)]
impl Server {
    pub(crate) fn with_head_timeout(self, within: Duration) -> Self {
        self.with(|shared| shared.head_timeout = within)
    }

    /// What the task of one request takes before anything is on the heap.
    pub(crate) fn bytes_of_a_request(&self) -> usize {
        let sender = Sender::InProcess(Arc::new(User::default()));
        size_of_val(&self.shared.clone().respond(sender, Request::new(Input::empty())))
    }

    pub(crate) fn flow(&self) -> &Flow {
        &self.shared.flow
    }

    pub(crate) fn running_watches(&self) -> i64 {
        self.shared.rest.metrics().requests.watching()
    }

    pub(crate) fn stop_streams(&self) {
        self.shared.stop.cancel();
    }
}

impl Serving {
    /// From now on `/readyz` says no, and everything else is answered as before: a balancer that asks sends
    /// nothing new by the time of [`stop`](Self::stop).
    pub fn retire(&self) {
        self.shared.health.stop();
    }

    /// Stops accepting, ends watches and streams, waits for running requests (20 seconds at most).
    pub async fn stop(self) {
        self.shared.health.stop();
        self.stop.cancel();
        self.shared.stop.cancel();
        if let Some(kubelets) = &self.shared.kubelets {
            kubelets.stop().await;
        }
        if let Some(aggregation) = &self.shared.aggregation {
            aggregation.stop().await;
        }
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "listener failed");
            }
        }
    }
}

struct Listening {
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    stop: CancellationToken,
}

impl Listening {
    async fn run(self, listener: TcpListener) {
        let graceful = GracefulShutdown::new();
        let builders = Arc::new(Builders::new());
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                () = self.stop.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "accept connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let watcher = graceful.watcher();
            let (shared, acceptor, builders) = (self.shared.clone(), self.acceptor.clone(), builders.clone());
            connections.spawn(async move {
                if let Err(error) = connection(shared, acceptor, &builders, watcher, stream).await {
                    tracing::debug!(%error, "connection ended");
                }
            });
        }
        drop(listener);
        let drained = async {
            graceful.shutdown().await;
            while connections.join_next().await.is_some() {}
        };
        if timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::warn!("some connections did not end in time, they are cut");
        }
    }
}

/// How connections are served, by what was agreed on in TLS: who agreed on one protocol is not asked again which one
/// it speaks.
struct Builders {
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
    either: auto::Builder<TokioExecutor>,
}

impl Builders {
    fn new() -> Self {
        Self { http1: builder().http1_only(), http2: builder().http2_only(), either: builder() }
    }

    fn of(&self, protocol: Option<&[u8]>) -> &auto::Builder<TokioExecutor> {
        match protocol {
            Some(b"h2") => &self.http2,
            Some(b"http/1.1") => &self.http1,
            _ => &self.either,
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Some(IDLE_TIMEOUT)).max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(15));
    builder
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    builders: &Builders,
    watcher: hyper_util::server::graceful::Watcher,
    stream: TcpStream,
) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let address = stream.peer_addr().ok().map(|address| address.ip());
    let handshake = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    if !matches!(handshake, Ok(Ok(_))) {
        shared.rest.metrics().handshake_failed();
    }
    let stream = handshake??;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let until = chain.first().and_then(|leaf| crate::pki::not_after(leaf));
    let sender = Sender::Connection(shared.authenticator.peer(chain, address), until);
    let protocol = stream.get_ref().1.alpn_protocol();
    let builder = builders.of(protocol);
    let is_http2 = protocol == Some(b"h2");
    let (head_timeout, came) = (shared.head_timeout, Arc::new(AtomicBool::new(false)));
    let asked = came.clone();
    let running = Arc::new(AtomicUsize::new(0));
    let counted = running.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let (shared, sender, running) = (shared.clone(), sender.clone(), Running::begin(&counted));
        async move {
            let answer = shared.respond(sender, request.map(Input::new)).await;
            drop(running);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let stream = Corked::new(stream, is_http2);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream.clone()), service);
    tokio::select! {
        served = stream.run(&running, watcher.watch(served)) => served,
        () = nothing_came(head_timeout, &came) => Err("no request came in time".into()),
    }
}

/// Completes when the time is over and there was no request; never after one came.
async fn nothing_came(within: Duration, came: &AtomicBool) {
    tokio::time::sleep(within).await;
    if came.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// `/version`. Major and minor are those of `gitVersion`.
fn version_info(git_version: &str) -> serde_json::Value {
    let mut numbers = git_version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    serde_json::json!({
        "major": major, "minor": minor, "gitVersion": git_version, "gitCommit": "", "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }),
        "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": minor,
    })
}
