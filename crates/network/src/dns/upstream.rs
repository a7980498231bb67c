//! Everything that is not a name of this cluster: asked of the machine's own resolvers.
//!
//! Guarantees: never asks itself; at most [`ASKING_MAX`] questions are under way, more are refused at
//! once; each is answered or given up within [`ANSWER_MAX`]; an answer is taken only from the server
//! that was asked, on a port of its own, with the identifier and question that were sent.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_proto::op::Message;
use meta::Random;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::{Instant, timeout},
};

/// Questions under way at a time (CoreDNS' usual `max_concurrent`).
const ASKING_MAX: usize = 1000;
/// How long one resolver may take before the next is asked.
const TRY_MAX: Duration = Duration::from_secs(2);
/// How long a client waits at most: below the 5 s after which resolvers in pods ask again.
const ANSWER_MAX: Duration = Duration::from_millis(4500);
/// How long a list of resolvers is believed before the file is read again.
const REREAD: Duration = Duration::from_secs(30);
/// The largest DNS message.
const MESSAGE_MAX: usize = 65_535;

/// Where the resolvers come from.
#[derive(Clone, Debug)]
pub enum Upstreams {
    /// `nameserver` lines of a file such as `/etc/resolv.conf`, read again as it changes.
    ResolvConf(PathBuf),
    /// These.
    Fixed(Vec<SocketAddr>),
}

/// How a client's question came, which is how it is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Why nobody answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("no resolver to ask: {0}")]
    Nobody(String),
    #[error("{ASKING_MAX} questions are under way already")]
    Busy,
    #[error("no resolver answered")]
    Silent,
}

/// Asks the resolvers.
pub(crate) struct Upstream {
    from: Upstreams,
    own: Vec<SocketAddr>,
    random: Arc<dyn Random>,
    asking: Semaphore,
    known: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl Upstream {
    /// `own` are addresses of this server, which are never asked.
    pub(crate) fn new(from: Upstreams, own: Vec<SocketAddr>, random: Arc<dyn Random>) -> Self {
        Self { from, own, random, asking: Semaphore::new(ASKING_MAX), known: Mutex::new(None) }
    }

    /// Passes a question on as it is and gives the answer as it is, with the client's identifier.
    pub(crate) async fn ask(&self, question: &[u8], by: Transport) -> Result<Vec<u8>, UpstreamError> {
        let _place = self.asking.try_acquire().map_err(|_| UpstreamError::Busy)?;
        let servers = self.servers()?;
        let deadline = Instant::now() + ANSWER_MAX;
        // Twice around: a lost packet is more likely than a dead resolver.
        for server in servers.iter().chain(&servers) {
            let left = deadline.saturating_duration_since(Instant::now()).min(TRY_MAX);
            if left.is_zero() {
                break;
            }
            match timeout(left, self.exchange(question, *server, by)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "resolver failed"),
                Err(_) => tracing::debug!(%server, "resolver is silent"),
            }
        }
        Err(UpstreamError::Silent)
    }

    async fn exchange(&self, question: &[u8], server: SocketAddr, by: Transport) -> io::Result<Vec<u8>> {
        let id = u16::try_from(self.random.below(0x1_0000)).unwrap_or_default().to_be_bytes();
        let mut sent = question.to_vec();
        let own_id = swap_id(&mut sent, id).ok_or(io::ErrorKind::InvalidInput)?;
        let mut answer = match by {
            Transport::Udp => exchange_udp(&sent, server).await?,
            Transport::Tcp => exchange_tcp(&sent, server).await?,
        };
        swap_id(&mut answer, own_id).ok_or(io::ErrorKind::InvalidData)?;
        Ok(answer)
    }

    fn servers(&self) -> Result<Vec<SocketAddr>, UpstreamError> {
        let path = match &self.from {
            Upstreams::Fixed(servers) => return self.without_own(servers.clone(), "none is configured"),
            Upstreams::ResolvConf(path) => path,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read_at, servers)) = known.as_ref()
            && read_at.elapsed() < REREAD
        {
            return Ok(servers.clone());
        }
        let text = fs::read_to_string(path)
            .map_err(|error| UpstreamError::Nobody(format!("cannot read {}: {error}", path.display())))?;
        let why = format!("{} names no resolver but this server", path.display());
        let servers = self.without_own(nameservers(&text), &why)?;
        *known = Some((Instant::now(), servers.clone()));
        Ok(servers)
    }

    fn without_own(&self, mut servers: Vec<SocketAddr>, why: &str) -> Result<Vec<SocketAddr>, UpstreamError> {
        servers.retain(|server| {
            !self.own.iter().any(|own| {
                own.port() == server.port()
                    && (own.ip() == server.ip() || (own.ip().is_unspecified() && server.ip().is_loopback()))
            })
        });
        if servers.is_empty() { Err(UpstreamError::Nobody(why.to_owned())) } else { Ok(servers) }
    }
}

async fn exchange_udp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server.ip() {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        if answers(question, answer) {
            return Ok(answer.to_vec());
        }
    }
}

async fn exchange_tcp(question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, question).await?;
    let answer = read_framed(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if answers(question, &answer) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Whether the message answers the question, and no other.
fn answers(question: &[u8], answer: &[u8]) -> bool {
    match (Message::from_vec(question), Message::from_vec(answer)) {
        (Ok(question), Ok(answer)) => {
            answer.metadata.id == question.metadata.id
                && answer.metadata.message_type == hickory_proto::op::MessageType::Response
                // Some resolvers leave the question out of an error.
                && (answer.queries.is_empty() || answer.queries == question.queries)
        }
        _ => false,
    }
}

/// Puts an identifier in, gives the one that was there.
fn swap_id(message: &mut [u8], id: [u8; 2]) -> Option<[u8; 2]> {
    let place = message.first_chunk_mut::<2>()?;
    Some(std::mem::replace(place, id))
}

/// Reads one message of a TCP stream; `None` at its end.
pub(crate) async fn read_framed(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes one message to a TCP stream.
pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    stream.write_all(&framed).await
}

/// The `nameserver` lines of resolv.conf(5); the resolver library reads the first three.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    const COUNT_MAX: usize = 3;
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        // An IPv6 address may carry a zone, which an upstream on a link needs and few have.
        address.split('%').next()?.parse::<IpAddr>().ok()
    });
    addresses.take(COUNT_MAX).map(|ip| SocketAddr::new(ip, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.2\n nameserver\tfe80::1%eth0 # x\nnameserver nonsense\nnameserver 127.0.0.53\nnameserver 8.8.8.8\n";
        let got: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(got, ["10.0.0.2:53", "[fe80::1]:53", "127.0.0.53:53"]);
    }

    #[test]
    fn never_asks_itself() {
        let with = |own: &[&str], servers: &[&str]| -> Vec<String> {
            let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
            let random = Arc::new(meta::Seeded::new(1));
            let upstream = Upstream::new(Upstreams::Fixed(parse(servers)), parse(own), random);
            upstream.servers().map(|s| s.iter().map(ToString::to_string).collect()).unwrap_or_default()
        };
        assert_eq!(with(&["10.96.0.10:53"], &["10.96.0.10:53", "1.1.1.1:53"]), ["1.1.1.1:53"]);
        assert_eq!(with(&["127.0.0.1:5353"], &["127.0.0.1:53"]), ["127.0.0.1:53"]);
        assert!(with(&["0.0.0.0:53"], &["127.0.0.53:53"]).is_empty());
        assert!(with(&[], &[]).is_empty());
    }
}
