//! HTTP for the small servers of this program: a listener, TLS or none, a handler on whole bodies.
//!
//! Guarantees: bodies, headers, connections and time are bounded; a handler may refuse to answer, and the
//! connection is closed then. The API server has its own, which streams.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 512;
/// For a handshake, and for the head of a request.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the first byte of a connection, and between requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// For an answer that is made without waiting for anything.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For a whole body: 150 MB at 256 KB a second.
const BODY_TIMEOUT: Duration = Duration::from_secs(600);
/// For what runs when the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the system refused a connection (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BoxError>;

/// An answer, and how much of its body is sent before the connection is cut.
pub(crate) struct Reply {
    pub(crate) response: Response<Bytes>,
    pub(crate) cut_after: Option<usize>,
}

/// Answers a request; `None` closes the connection.
pub(crate) type Handler = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Option<Reply>> + Send + Sync>;

/// A handler that always answers: with 503 when `answer` takes longer than it may. It runs beside the threads
/// that serve connections, so that a long answer, or one that waits for a lock, holds up no other connection.
pub(crate) fn plain(answer: impl Fn(&Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static) -> Handler {
    let answer = Arc::new(answer);
    Arc::new(move |request| {
        let answer = Arc::clone(&answer);
        Box::pin(async move {
            let answering = tokio::task::spawn_blocking(move || answer(&request));
            let failed = |status, why: &'static str| {
                let mut response = Response::new(Bytes::from_static(why.as_bytes()));
                *response.status_mut() = status;
                response
            };
            let response = match timeout(ANSWER_TIMEOUT, answering).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => {
                    tracing::error!(%error, "a request ended unexpectedly");
                    failed(StatusCode::INTERNAL_SERVER_ERROR, "the request ended unexpectedly")
                }
                Err(_) => failed(StatusCode::SERVICE_UNAVAILABLE, "it took too long: ask again"),
            };
            Some(Reply { response, cut_after: None })
        })
    })
}

/// What one listener serves.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) body_bytes_max: usize,
    pub(crate) handler: Handler,
}

/// Serves until `stop`, then lets what runs end.
pub(crate) async fn serve(listener: TcpListener, site: Site, stop: CancellationToken) {
    accept(listener, stop, |stream, watcher| connection(site.clone(), watcher, stream)).await;
}

/// Accepts connections until `stop`, then lets those that run end.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    stop: CancellationToken,
    connection: impl Fn(TcpStream, Watcher) -> F,
) where
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, stream) = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            (permit, accepted) = accepted => match accepted {
                Ok((stream, _)) => (permit, stream),
                Err(error) => {
                    tracing::warn!(%error, "accept connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let served = connection(stream, graceful.watcher());
        connections.spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    let drained = async {
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    };
    if timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::debug!("some connections did not end in time, they are cut");
    }
}

async fn connection(site: Site, watcher: Watcher, stream: TcpStream) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    match site.tls.clone() {
        Some(tls) => {
            let stream = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
            speak(site, watcher, TokioIo::new(stream)).await
        }
        None => {
            // What says nothing at all must not keep its place for ever.
            timeout(IDLE_TIMEOUT, stream.readable()).await??;
            speak(site, watcher, TokioIo::new(stream)).await
        }
    }
}

async fn speak<I>(site: Site, watcher: Watcher, io: I) -> Result<(), BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Some(IDLE_TIMEOUT));
    builder.http2().timer(TokioTimer::new());
    let service = service_fn(move |request| one(site.clone(), request));
    let served = builder.serve_connection(io, service).into_owned();
    watcher.watch(served).await
}

async fn one(site: Site, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let whole = timeout(BODY_TIMEOUT, Limited::new(body, site.body_bytes_max).collect()).await?;
    let body = match whole {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let mut response = Response::new(full(Bytes::from_static(b"the body is too large")));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            return Ok(response);
        }
        Err(error) => return Err(error),
    };
    match (site.handler)(Request::from_parts(parts, body)).await {
        Some(Reply { response, cut_after: None }) => Ok(response.map(full)),
        Some(Reply { response, cut_after: Some(bytes) }) => Ok(response.map(|body| cut(body, bytes))),
        None => Err("closed on purpose".into()),
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// The beginning of a body, and then an error, which closes the connection.
fn cut(body: Bytes, bytes: usize) -> Body {
    let first = Ok(Frame::data(body.slice(..bytes.min(body.len()))));
    let then = Err(BoxError::from("cut on purpose"));
    StreamBody::new(futures::stream::iter([first, then])).boxed_unsync()
}

/// Binds a listener.
pub(crate) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), std::io::Error> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}
