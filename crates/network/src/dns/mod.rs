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

impl DnsOptions {
    /// The usual options: other names are asked of the resolvers in `/etc/resolv.conf`.
    pub fn new(cluster_domain: impl Into<String>, listen: Vec<SocketAddr>, random: Arc<dyn Random>) -> Self {
        Self {
            cluster_domain: cluster_domain.into(),
            listen,
            own: Vec::new(),
            upstreams: Upstreams::ResolvConf("/etc/resolv.conf".into()),
            random,
        }
    }
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
    Dns::bind(options).await?.run(client, shutdown).await
}

/// A DNS server that has its addresses.
pub struct Dns {
    responder: Arc<Responder>,
    sockets: Vec<(SocketAddr, Option<(UdpSocket, TcpListener)>)>,
    random: Arc<dyn Random>,
}

impl Dns {
    /// Takes the addresses, so that whoever starts it learns at once when one is in use. Those that
    /// the machine does not have yet are taken when they appear.
    pub async fn bind(options: DnsOptions) -> Result<Self, DnsError> {
        let DnsOptions { cluster_domain, listen, own, upstreams, random } = options;
        let domain = Name::from_ascii(&cluster_domain).ok().filter(|domain| !domain.is_root());
        let domain = domain.ok_or(DnsError::Domain(cluster_domain))?;
        let mut sockets = Vec::new();
        for address in listen {
            let bound = match take(address).await {
                Ok(both) => Some(both),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    tracing::info!(%address, "waiting for the address to appear before serving DNS on it");
                    None
                }
                Err(source) => return Err(DnsError::Listen { address, source }),
            };
            sockets.push((address, bound));
        }
        let own: Vec<SocketAddr> =
            own.into_iter().chain(sockets.iter().map(|(address, _)| *address)).collect();
        let mut servers: Vec<_> = own.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
        servers.sort_unstable();
        servers.dedup();
        let zone = RwLock::new((Zone::new(&domain, servers), false));
        Ok(Self {
            responder: Arc::new(Responder { zone, upstream: Upstream::new(upstreams, own, random.clone()) }),
            sockets,
            random,
        })
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

    /// Serves what the API server at `client` says, until `shutdown` completes.
    pub async fn run(
        mut self,
        client: Client,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), DnsError> {
        let sockets = std::mem::take(&mut self.sockets);
        let random = self.random.clone();
        let serve = serve(&self.responder, sockets);
        let feed = async {
            let mut signals = std::pin::pin!(all(&client, &random));
            let mut synced = 0;
            while let Some(signal) = signals.next().await {
                match signal {
                    Signal::Change(change) => self.apply(change),
                    Signal::Synced => {
                        synced += 1;
                        if synced == KINDS {
                            self.complete();
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown => Ok(()),
            done = serve => done,
            () = feed => Ok(()),
        }
    }

    /// Serves what was applied, until an address fails; dropping it stops everything it started.
    pub async fn serve(self) -> Result<(), DnsError> {
        serve(&self.responder, self.sockets).await
    }
}

async fn serve(
    responder: &Arc<Responder>,
    sockets: Vec<(SocketAddr, Option<(UdpSocket, TcpListener)>)>,
) -> Result<(), DnsError> {
    let mut tasks = JoinSet::new();
    for (address, bound) in sockets {
        let responder = Arc::clone(responder);
        tasks.spawn(async move {
            let failed = |source| DnsError::Listen { address, source };
            let (udp, tcp) = match bound {
                Some(both) => both,
                None => patiently(address).await.map_err(failed)?,
            };
            let by_udp = serve_udp(Arc::clone(&responder), udp);
            tokio::select! {
                ended = by_udp => ended.map_err(failed),
                () = serve_tcp(responder, tcp) => Ok(()),
            }
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

async fn take(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::bind(address).await?, TcpListener::bind(address).await?))
}

/// Waits for the address to appear.
async fn patiently(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    loop {
        match take(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => sleep(BIND_AGAIN).await,
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
