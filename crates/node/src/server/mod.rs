//! The kubelet API over HTTPS: what the API server needs for logs, exec, attach and port-forward.
//!
//! Guarantees: a client certificate of the cluster's CA is required to connect, and only the users
//! named in [`ServerOptions`] get an answer; the number of connections is bounded. `exec`, `attach` and
//! `portForward` are passed to the runtime's own streaming server byte by byte, so SPDY and WebSocket
//! both work as far as the runtime speaks them. Not served: /run, /logs, /debug, cAdvisor metrics.

mod logs;
mod proxy;
mod routes;
mod stats;
mod tls;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::agent::Agent;

/// Connections at once; each `kubectl logs -f` or `exec` holds one.
const CONNECTIONS_MAX: usize = 1024;
/// A client that takes longer for TLS is dropped.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long sessions may take to end when the agent stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How to serve the kubelet API.
#[derive(Clone)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one, which the Node object then shows.
    pub listen: SocketAddr,
    /// Certificate chain, PEM.
    pub certificate_pem: String,
    /// Private key, PEM.
    pub key_pem: String,
    /// CA whose client certificates are accepted, PEM.
    pub client_ca_pem: String,
    /// Users (common names) that may call; the API server's.
    pub users: Vec<String>,
}

/// Why the kubelet API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be had.
    #[error("listen on {address}: {source}; choose another port or stop what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The TLS material cannot be used.
    #[error("TLS material: {0}")]
    Tls(String),
}

/// A server that listens but does not answer yet.
pub(crate) struct Bound {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    users: Arc<[String]>,
    port: u16,
}

/// Listens, so that the port is known before the node registers.
pub(crate) async fn bind(options: &ServerOptions) -> Result<Bound, ServerError> {
    let acceptor = tls::acceptor(options)?;
    let address = options.listen;
    let fail = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(fail)?;
    let port = listener.local_addr().map_err(fail)?.port();
    Ok(Bound { listener, acceptor, users: options.users.clone().into(), port })
}

impl Bound {
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Answers until told to stop.
    pub(crate) async fn serve(self, agent: Arc<Agent>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let server = Server {
            agent,
            users: self.users,
            acceptor: self.acceptor,
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        loop {
            // Without a free slot nobody is accepted: clients wait in the listener's queue.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => { tasks.spawn(server.clone().connection(stream, slot)); }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection to the kubelet API");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        tasks.close();
        if tokio::time::timeout(DRAIN_MAX, tasks.wait()).await.is_err() {
            tracing::debug!("sessions of the kubelet API were cut off");
        }
    }
}

/// What each connection and session needs.
#[derive(Clone)]
pub(crate) struct Server {
    agent: Arc<Agent>,
    users: Arc<[String]>,
    acceptor: TlsAcceptor,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    async fn connection(self, stream: TcpStream, _slot: OwnedSemaphorePermit) {
        let stream = match tokio::time::timeout(HANDSHAKE_MAX, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake with the kubelet API failed");
                return;
            }
            Err(_) => return,
        };
        let user = tls::user(stream.get_ref().1.peer_certificates());
        let stop = self.stop.clone();
        let service = hyper::service::service_fn(move |request| {
            let (server, user) = (self.clone(), user.clone());
            async move { Ok::<_, std::convert::Infallible>(server.answer(user.as_deref(), request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::select! {
            () = stop.cancelled() => {}
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the kubelet API broke off");
            },
        }
    }
}
