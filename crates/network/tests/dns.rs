//! The DNS server over loopback, with an upstream resolver made by the test.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use network::{Change, Dns, DnsError, DnsOptions, Service, Upstreams};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};

/// Every exchange in these tests takes milliseconds; this only ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A loopback port that is free for UDP and TCP.
async fn free_address() -> SocketAddr {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        if TcpListener::bind(address).await.is_ok() {
            return address;
        }
    }
    panic!("no port is free for both protocols");
}

/// Says that every name has the address 192.0.2.7; first sends an answer nobody asked for.
async fn upstream() -> (SocketAddr, JoinHandle<()>) {
    let address = free_address().await;
    let udp = UdpSocket::bind(address).await.unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let answer = |bytes: &[u8], id_offset: u16| {
        let question = Message::from_vec(bytes).unwrap();
        let mut message = Message::response(question.metadata.id.wrapping_add(id_offset), OpCode::Query);
        message.add_queries(question.queries.iter().cloned());
        let name = question.queries[0].name().clone();
        message.add_answer(Record::from_rdata(name, 60, RData::A(A("192.0.2.7".parse().unwrap()))));
        message.to_vec().unwrap()
    };
    let task = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            tokio::select! {
                received = udp.recv_from(&mut buffer) => {
                    let (length, from) = received.unwrap();
                    udp.send_to(&answer(&buffer[..length], 1), from).await.unwrap();
                    udp.send_to(&answer(&buffer[..length], 0), from).await.unwrap();
                }
                accepted = tcp.accept() => {
                    let (mut stream, _) = accepted.unwrap();
                    let length = stream.read_u16().await.unwrap();
                    let mut question = vec![0; length.into()];
                    stream.read_exact(&mut question).await.unwrap();
                    let bytes = answer(&question, 0);
                    stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
                    stream.write_all(&bytes).await.unwrap();
                }
            }
        }
    });
    (address, task)
}

struct Running {
    address: SocketAddr,
    upstream: JoinHandle<()>,
    task: JoinHandle<Result<(), DnsError>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.upstream.abort();
        self.task.abort();
    }
}

fn options(listen: Vec<SocketAddr>, upstream: SocketAddr) -> DnsOptions {
    let upstreams = Upstreams::Fixed(vec![upstream]);
    DnsOptions { upstreams, ..DnsOptions::new("cluster.local", listen, Arc::new(meta::Seeded::new(1))) }
}

async fn start() -> Running {
    let (upstream_address, upstream) = upstream().await;
    let address = free_address().await;
    let server = Dns::bind(options(vec![address], upstream_address)).await.unwrap();
    for (name, spec) in [
        ("web", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]})),
        ("out", json!({"type": "ExternalName", "externalName": "example.org"})),
    ] {
        let wire = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
        server.apply(Change::Service(Box::new(Service::read(&serde_json::from_value(wire).unwrap()))));
    }
    server.complete();
    let task = tokio::spawn(server.serve());
    Running { address, upstream, task }
}

fn question(name: &str) -> Message {
    let mut message = Message::new(4242, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

async fn by_udp(address: SocketAddr, name: &str) -> Message {
    let ask = async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(address).await.unwrap();
        let mut buffer = [0; 4096];
        loop {
            // Refused until the server has bound its socket.
            let sent = socket.send(&question(name).to_vec().unwrap()).await;
            if let (Ok(_), Ok(length)) = (sent, socket.recv(&mut buffer).await) {
                return Message::from_vec(&buffer[..length]).unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ask).await.unwrap()
}

async fn by_tcp(address: SocketAddr, names: &[&str]) -> Vec<Message> {
    let ask = async {
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let mut answers = Vec::new();
        for name in names {
            let bytes = question(name).to_vec().unwrap();
            stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut answer).await.unwrap();
            answers.push(Message::from_vec(&answer).unwrap());
        }
        answers
    };
    timeout(PATIENCE, ask).await.unwrap()
}

fn texts(message: &Message) -> Vec<String> {
    assert_eq!(message.metadata.id, 4242);
    message.answers.iter().map(|r| r.data.to_string()).collect()
}

#[tokio::test]
async fn answers_by_udp_and_tcp() {
    let dns = start().await;
    assert_eq!(texts(&by_udp(dns.address, "web.ns.svc.cluster.local.").await), ["10.96.0.1"]);
    let answers = by_tcp(dns.address, &["web.ns.svc.cluster.local.", "nope.ns.svc.cluster.local."]).await;
    assert_eq!(texts(&answers[0]), ["10.96.0.1"]);
    assert_eq!(answers[1].metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn passes_other_names_on() {
    let dns = start().await;
    // The upstream's first answer has a wrong identifier, and is not taken.
    assert_eq!(texts(&by_udp(dns.address, "Example.org.").await), ["192.0.2.7"]);
    assert_eq!(texts(&by_tcp(dns.address, &["example.org."]).await[0]), ["192.0.2.7"]);
    let joined = by_udp(dns.address, "out.ns.svc.cluster.local.").await;
    assert_eq!(texts(&joined), ["example.org.", "192.0.2.7"]);
}

#[tokio::test]
async fn says_which_address_is_taken() {
    let (address, _task) = upstream().await;
    let error = Dns::bind(options(vec![address], address)).await.err().unwrap();
    assert_eq!(error.to_string(), format!("cannot listen for DNS on {address}"));
    let unnamed = DnsOptions { cluster_domain: ".".into(), ..options(Vec::new(), address) };
    assert!(matches!(Dns::bind(unnamed).await, Err(DnsError::Domain(_))));
}
