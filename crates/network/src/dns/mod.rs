//! Cluster DNS: a small server, authoritative for the cluster's domain, that passes everything else
//! on to the machine's resolvers.
//!
//! Guarantees: answers about the cluster come from memory, without waiting for anything; before the
//! first complete list an absent name is a server failure, not an absence; sockets, connections and
//! questions under way are bounded. It caches nothing: its own answers are in memory, and resolvers
//! upstream have caches.
//!
//! hickory-server would bring its own runtime of catalogs, zones and a resolver; the messages
//! (hickory-proto) are all that is needed here.

mod respond;
mod upstream;
mod zone;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::StreamExt;
use hickory_proto::rr::Name;
use kube::Client;
use meta::Random;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    respond::{Reply, Responder},
    upstream::{Transport, Upstream, read_framed, write_framed},
};
pub use self::{
    upstream::Upstreams,
    zone::{Answer, Zone},
};
use crate::{
    services::Change,
    watches::{KINDS, Signal, all},
};

/// TCP connections at a time on each address.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may be idle (RFC 7766 asks for seconds).
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Answers under way at a time on each UDP socket, besides what upstream bounds.
const PENDING_MAX: usize = 1024;
/// How often an address that is not there yet is tried.
const BIND_AGAIN: Duration = Duration::from_secs(1);
/// Room for one message: larger questions than this are not asked over UDP.
const UDP_QUESTION_MAX: usize = 4096;

/// How a DNS server runs.
#[derive(Clone)]
pub struct DnsOptions {
    /// The cluster's domain, usually `cluster.local`.
    pub cluster_domain: String,
    /// Addresses to listen on, each by UDP and TCP. An address that the machine does not have yet,
    /// such as a bridge's, is waited for.
    pub listen: Vec<SocketAddr>,
    /// Other addresses that lead here, such as the DNS service's: never asked as upstream.
    pub own: Vec<SocketAddr>,
    /// Who is asked about other names.
    pub upstreams: Upstreams,
    /// Identifiers of questions to upstream; must be hard to guess in production.
    pub random: Arc<dyn Random>,
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The domain is not one.
    #[error("{0:?} is not a domain name such as cluster.local")]
    Domain(String),
    /// An address cannot be listened on.
    #[error("cannot listen for DNS on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Serves DNS until `shutdown` completes.
pub async fn run_dns(
    client: Client,
    options: DnsOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), DnsError> {
    let server = Server::new(&options)?;
    let feed = async {
        let mut signals = std::pin::pin!(all(&client));
        let mut synced = 0;
        while let Some(signal) = signals.next().await {
            match signal {
                Signal::Change(change) => server.apply(change),
                Signal::Synced => {
                    synced += 1;
                    if synced == KINDS {
                        server.complete();
                    }
                }
            }
        }
    };
    let serve = server.serve(&options.listen);
    tokio::select! {
        () = shutdown => Ok(()),
        done = serve => done,
        () = feed => Ok(()),
    }
}

/// A DNS server without its watches.
#[derive(Clone)]
pub struct Server {
    responder: Arc<Responder>,
}

impl Server {
    /// A server that knows no service yet.
    pub fn new(options: &DnsOptions) -> Result<Self, DnsError> {
        let refuse = || DnsError::Domain(options.cluster_domain.clone());
        let domain = Name::from_ascii(&options.cluster_domain).map_err(|_| refuse())?;
        if domain.is_root() {
            return Err(refuse());
        }
        let own: Vec<SocketAddr> = options.own.iter().chain(&options.listen).copied().collect();
        let mut servers: Vec<_> = own.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
        servers.sort_unstable();
        servers.dedup();
        let upstream = Upstream::new(options.upstreams.clone(), own, Arc::clone(&options.random));
        let zone = RwLock::new((Zone::new(&domain, servers), false));
        Ok(Self { responder: Arc::new(Responder { zone, upstream }) })
    }

    /// Takes note of a change.
    pub fn apply(&self, change: Change) {
        self.responder.zone.write().unwrap_or_else(PoisonError::into_inner).0.apply(change);
    }

    /// Everything is known now; what is not there does not exist.
    pub fn complete(&self) {
        self.responder.zone.write().unwrap_or_else(PoisonError::into_inner).1 = true;
        tracing::info!("cluster DNS is ready");
    }

    /// Serves on all addresses until one fails; dropping it stops everything it started.
    pub async fn serve(&self, listen: &[SocketAddr]) -> Result<(), DnsError> {
        let mut tasks = JoinSet::new();
        for &address in listen {
            let failed = move |source| DnsError::Listen { address, source };
            let responder = Arc::clone(&self.responder);
            tasks.spawn(async move {
                let socket = patiently(address, || UdpSocket::bind(address)).await.map_err(failed)?;
                serve_udp(responder, socket).await.map_err(failed)
            });
            let responder = Arc::clone(&self.responder);
            tasks.spawn(async move {
                let listener = patiently(address, || TcpListener::bind(address)).await.map_err(failed)?;
                serve_tcp(responder, listener).await;
                Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(done) => done?,
                Err(error) => tracing::error!(%error, "a DNS listener ended early"),
            }
        }
        // Without addresses there is nothing to serve, and nothing to end for.
        std::future::pending().await
    }
}

/// Binds, waiting for the address to appear.
async fn patiently<T, F: Future<Output = io::Result<T>>>(
    address: SocketAddr,
    bind: impl Fn() -> F,
) -> io::Result<T> {
    let mut waiting = false;
    loop {
        match bind().await {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                if !std::mem::replace(&mut waiting, true) {
                    tracing::info!(%address, "waiting for the address to appear before serving DNS on it");
                }
                sleep(BIND_AGAIN).await;
            }
            other => return other,
        }
    }
}

async fn serve_udp(responder: Arc<Responder>, socket: UdpSocket) -> io::Result<()> {
    let socket = Arc::new(socket);
    let mut pending = JoinSet::new();
    let mut buffer = vec![0; UDP_QUESTION_MAX];
    loop {
        let (length, from) = tokio::select! {
            Some(ended) = pending.join_next(), if !pending.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "an answer ended early");
                }
                continue;
            }
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // A client that went away before its answer came is no reason to stop.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            },
        };
        match responder.reply(buffer.get(..length).unwrap_or_default(), Transport::Udp) {
            Reply::Now(answer) => send(&socket, &answer, from).await,
            Reply::Later(question) if pending.len() < PENDING_MAX => {
                let (responder, socket) = (Arc::clone(&responder), Arc::clone(&socket));
                pending.spawn(async move { send(&socket, &responder.finish(question).await, from).await });
            }
            // Beyond the bound the client asks again, as for a lost packet.
            Reply::Later(_) => tracing::debug!("too many questions under way, one was dropped"),
            Reply::Nothing => {}
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(answer, to).await {
        tracing::debug!(%to, %error, "an answer could not be sent");
    }
}

async fn serve_tcp(responder: Arc<Responder>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // Beyond the bound new connections wait in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = loop {
            tokio::select! {
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => break stream,
                    Err(error) => {
                        tracing::warn!(%error, "accepting a DNS connection failed");
                        sleep(BIND_AGAIN).await;
                    }
                },
            }
        };
        let responder = Arc::clone(&responder);
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = converse(responder, stream).await {
                tracing::debug!(%error, "a DNS connection ended early");
            }
        });
    }
}

/// Answers the questions of one connection in order.
async fn converse(responder: Arc<Responder>, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let question = match timeout(IDLE_MAX, read_framed(&mut stream)).await {
            Ok(read) => read?,
            Err(_) => return Ok(()),
        };
        let Some(question) = question else { return Ok(()) };
        let answer = match responder.reply(&question, Transport::Tcp) {
            Reply::Now(answer) => answer,
            Reply::Later(pending) => Arc::clone(&responder).finish(pending).await,
            Reply::Nothing => return Ok(()),
        };
        timeout(IDLE_MAX, write_framed(&mut stream, &answer))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
    }
}
