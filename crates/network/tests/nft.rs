//! The proxy on a real kernel: a node, two pods and an outside client, each a network namespace made
//! and removed by the test. Needs root, `nft`, `conntrack` and `ip`.
//!
//! Servers and clients are this program, started again inside a namespace (see [`role`]).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code"
)]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use network::{Change, Commands, Proxy, ProxyOptions, Service, Slice};
use serde_json::{Value, json};

const ROLE: &str = "NETWORK_TEST_ROLE";

/// What this program does when it is started again: serves its name and the client's address, or
/// tells what it is told.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let say = |text: &str| {
        println!("\n{text}");
        std::io::stdout().flush().unwrap();
    };
    match words[0] {
        "serve" => {
            let tcp = TcpListener::bind(("0.0.0.0", 8080)).unwrap();
            let udp = UdpSocket::bind(("0.0.0.0", 8080)).unwrap();
            let name = words[1].to_owned();
            let udp_name = name.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(format!("{udp_name} {}", from.ip()).as_bytes(), from);
                }
            });
            say("ready");
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip();
                let _ = stream.write_all(format!("{name} {peer}").as_bytes());
            }
        }
        "connect" => {
            let to: SocketAddr = words[1].parse().unwrap();
            let times: usize = words[2].parse().unwrap();
            for _ in 0..times {
                match TcpStream::connect_timeout(&to, Duration::from_secs(1)) {
                    Ok(mut stream) => {
                        let mut text = String::new();
                        stream.read_to_string(&mut text).unwrap();
                        say(&format!("> {text}"));
                    }
                    Err(error) => say(&format!("> {:?}", error.kind())),
                }
            }
        }
        "udp" => {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            for line in std::io::stdin().lines() {
                let to: SocketAddr = line.unwrap().parse().unwrap();
                let _ = socket.send_to(b"?", to);
                let mut buffer = [0; 64];
                match socket.recv(&mut buffer) {
                    Ok(n) => say(&format!("> {}", String::from_utf8_lossy(&buffer[..n]))),
                    Err(error) => say(&format!("> {:?}", error.kind())),
                }
            }
        }
        other => panic!("no role {other}"),
    }
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap_or_else(|error| {
        let package = match program {
            "nft" => "nftables",
            "ip" => "iproute2",
            other => other,
        };
        panic!("{program}: {error}; install the package {package}")
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {errors} (these tests run as root)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A program in a namespace, ended with its handle.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    stdin: Option<ChildStdin>,
}

impl Running {
    fn start(namespace: &str, role: &str) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "role", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stdin = child.stdin.take();
        Self { child, lines, stdin }
    }

    /// The next line that begins so, without its beginning.
    fn expect(&mut self, beginning: &str) -> String {
        loop {
            let line = self.lines.next().expect("program ended early").unwrap();
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim().to_owned();
            }
        }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.expect(">")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node with pods `one` (10.244.1.2) and `two` (10.244.2.2), and a `client` (10.1.0.2) outside.
struct Cluster {
    prefix: String,
    servers: Vec<Running>,
}

impl Cluster {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("kn{}x{count}", std::process::id());
        let mut cluster = Self { prefix, servers: Vec::new() };
        let node = cluster.name("node");
        run("ip", &format!("netns add {node}"));
        run("ip", &format!("-n {node} link set lo up"));
        run("ip", &format!("netns exec {node} sysctl -qw net.ipv4.ip_forward=1"));
        for (peer, net) in [("client", "10.1.0"), ("one", "10.244.1"), ("two", "10.244.2")] {
            let name = cluster.name(peer);
            run("ip", &format!("netns add {name}"));
            run("ip", &format!("-n {name} link set lo up"));
            run("ip", &format!("-n {node} link add {peer} type veth peer name eth0 netns {name}"));
            run("ip", &format!("-n {node} addr add {net}.1/24 dev {peer}"));
            run("ip", &format!("-n {node} link set {peer} up"));
            run("ip", &format!("-n {name} addr add {net}.2/24 dev eth0"));
            run("ip", &format!("-n {name} link set eth0 up"));
            run("ip", &format!("-n {name} route add default via {net}.1"));
        }
        run("ip", &format!("-n {node} route add default via 10.1.0.2"));
        for peer in ["one", "two", "client"] {
            let mut server = Running::start(&cluster.name(peer), &format!("serve {peer}"));
            server.expect("ready");
            cluster.servers.push(server);
        }
        cluster
    }

    fn name(&self, peer: &str) -> String {
        format!("{}-{peer}", self.prefix)
    }

    fn options(&self) -> ProxyOptions {
        let mut options = ProxyOptions::new("node", "10.244.0.0/16");
        options.prepare_host = false;
        options.commands = Commands::behind(&["ip", "netns", "exec", &self.name("node")]);
        options
    }

    fn proxy(&self) -> Proxy {
        Proxy::new(self.options()).unwrap()
    }

    /// What a client in a namespace gets from so many connections.
    fn connect(&self, from: &str, to: &str, times: usize) -> Vec<String> {
        let mut client = Running::start(&self.name(from), &format!("connect {to} {times}"));
        (0..times).map(|_| client.expect(">")).collect()
    }

    fn names(&self, from: &str, to: &str) -> BTreeSet<String> {
        // Twenty connections miss one of two endpoints once in half a million runs.
        let name = |answer: String| answer.split(' ').next().unwrap_or_default().to_owned();
        self.connect(from, to, 20).into_iter().map(name).collect()
    }

    fn nft(&self, arguments: &str) -> String {
        run("ip", &format!("netns exec {} nft {arguments}", self.name("node")))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.servers.clear();
        for peer in ["node", "client", "one", "two"] {
            let _ = Command::new("ip").args(["netns", "del", &self.name(peer)]).status();
        }
    }
}

fn service(spec: Value) -> Change {
    let wire = json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec});
    Change::Service(Box::new(Service::read(&serde_json::from_value(wire).unwrap())))
}

fn web(more: Value) -> Change {
    let mut spec = json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    service(spec)
}

fn endpoints(pods: &[&str]) -> Change {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|pod| {
            let ip = if *pod == "one" { "10.244.1.2" } else { "10.244.2.2" };
            json!({"addresses": [ip], "nodeName": "node"})
        })
        .collect();
    let wire = json!({
        "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"port": 8080}, {"name": "u", "port": 8080, "protocol": "UDP"}]
    });
    Change::Slice(Box::new(Slice::read(&serde_json::from_value(wire).unwrap())))
}

async fn apply(proxy: &mut Proxy, changes: impl IntoIterator<Item = Change>) {
    for change in changes {
        proxy.apply(change);
    }
    proxy.write().await.unwrap();
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

const VIP: &str = "10.96.0.10:80";

#[tokio::test]
async fn cluster_ips_reach_their_endpoints_and_refuse_without() {
    let cluster = Cluster::new();
    let mut proxy = cluster.proxy();
    apply(&mut proxy, [web(json!({})), endpoints(&["one", "two"])]).await;
    assert_eq!(cluster.names("one", VIP), set(&["one", "two"]));
    assert_eq!(cluster.names("node", VIP), set(&["one", "two"]), "from the host itself");
    // Between pods the client is seen as it is; a pod that reaches itself is masqueraded.
    let seen: BTreeSet<String> = cluster.connect("one", VIP, 20).into_iter().collect();
    assert_eq!(seen, set(&["one 10.244.1.1", "two 10.244.1.2"]));
    apply(&mut proxy, [endpoints(&["two"])]).await;
    assert_eq!(cluster.names("one", VIP), set(&["two"]));
    apply(&mut proxy, [endpoints(&[])]).await;
    for from in ["one", "node"] {
        assert_eq!(cluster.connect(from, VIP, 1), ["ConnectionRefused"], "{from}");
    }
    apply(&mut proxy, [endpoints(&["one"])]).await;
    assert_eq!(cluster.names("two", VIP), set(&["one"]));
    assert_eq!(cluster.connect("two", "10.96.0.10:81", 1), ["ConnectionRefused"], "a port nobody knows");
    assert_eq!(cluster.connect("node", "10.96.0.10:81", 1), ["ConnectionRefused"], "a port nobody knows");
}

#[tokio::test]
async fn affinity_keeps_a_client_with_its_endpoint() {
    let cluster = Cluster::new();
    let mut proxy = cluster.proxy();
    apply(&mut proxy, [web(json!({"sessionAffinity": "ClientIP"})), endpoints(&["one", "two"])]).await;
    assert_eq!(cluster.names("node", VIP).len(), 1);
    // Without affinity again, and with the sets gone.
    apply(&mut proxy, [web(json!({}))]).await;
    assert_eq!(cluster.names("node", VIP), set(&["one", "two"]));
}

#[tokio::test]
async fn node_ports_follow_their_policy() {
    let cluster = Cluster::new();
    let mut proxy = cluster.proxy();
    let ports = json!({"ports": [{"port": 80, "nodePort": 30080}]});
    apply(&mut proxy, [web(ports.clone()), endpoints(&["one"])]).await;
    assert_eq!(cluster.connect("client", "10.1.0.1:30080", 1), ["one 10.244.1.1"]);
    assert_eq!(cluster.connect("two", "10.1.0.1:30080", 1), ["one 10.244.1.1"]);
    assert_eq!(cluster.connect("node", "10.1.0.1:30080", 1), ["one 10.244.1.1"]);
    assert_eq!(cluster.connect("node", "127.0.0.1:30080", 1), ["ConnectionRefused"]);
    let mut local = ports;
    local["externalTrafficPolicy"] = "Local".into();
    apply(&mut proxy, [web(local)]).await;
    assert_eq!(cluster.connect("client", "10.1.0.1:30080", 1), ["one 10.1.0.2"], "client address kept");
    apply(&mut proxy, [endpoints(&[])]).await;
    assert_eq!(cluster.connect("client", "10.1.0.1:30080", 1), ["ConnectionRefused"]);
}

#[tokio::test]
async fn node_ports_on_localhost_when_asked_for() {
    let cluster = Cluster::new();
    let node = cluster.name("node");
    run("ip", &format!("netns exec {node} sysctl -qw net.ipv4.conf.all.route_localnet=1"));
    let mut options = cluster.options();
    options.localhost_node_ports = true;
    let mut proxy = Proxy::new(options).unwrap();
    apply(&mut proxy, [web(json!({"ports": [{"port": 80, "nodePort": 30080}]})), endpoints(&["one"])]).await;
    assert_eq!(cluster.connect("node", "127.0.0.1:30080", 1), ["one 10.244.1.1"]);
    assert_eq!(cluster.connect("client", "10.1.0.1:30080", 1), ["one 10.244.1.1"]);
}

#[tokio::test]
async fn external_addresses_and_source_ranges() {
    let cluster = Cluster::new();
    let mut proxy = cluster.proxy();
    let balanced = |ranges: Value| {
        let wire = json!({"metadata": {"namespace": "default", "name": "web"},
            "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}], "externalIPs": ["192.0.2.1"], "loadBalancerSourceRanges": ranges},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}}});
        Change::Service(Box::new(Service::read(&serde_json::from_value(wire).unwrap())))
    };
    apply(&mut proxy, [balanced(json!([])), endpoints(&["one"])]).await;
    assert_eq!(cluster.connect("client", "192.0.2.1:80", 1), ["one 10.244.1.1"]);
    assert_eq!(cluster.connect("client", "192.0.2.2:80", 1), ["one 10.244.1.1"]);
    apply(&mut proxy, [balanced(json!(["203.0.113.0/24", "203.0.0.0/16"]))]).await;
    assert_eq!(cluster.connect("client", "192.0.2.2:80", 1), ["TimedOut"]);
    assert_eq!(cluster.connect("client", "192.0.2.1:80", 1), ["one 10.244.1.1"]);
    apply(&mut proxy, [balanced(json!(["203.0.113.0/24", "10.1.0.0/16"]))]).await;
    assert_eq!(cluster.connect("client", "192.0.2.2:80", 1), ["one 10.244.1.1"]);
}

#[tokio::test]
async fn udp_clients_move_on_when_their_endpoint_goes() {
    let cluster = Cluster::new();
    let mut proxy = cluster.proxy();
    let dns =
        || web(json!({"clusterIP": "10.96.0.11", "ports": [{"name": "u", "port": 53, "protocol": "UDP"}]}));
    apply(&mut proxy, [dns(), endpoints(&["one"])]).await;
    let mut session = Running::start(&cluster.name("two"), "udp");
    assert_eq!(session.ask("10.96.0.11:53"), "one 10.244.2.2");
    apply(&mut proxy, [endpoints(&["two"])]).await;
    assert_eq!(session.ask("10.96.0.11:53"), "two 10.244.2.1");
}

#[tokio::test]
async fn pods_leave_the_cluster_as_their_node() {
    let cluster = Cluster::new();
    let mut proxy = cluster.proxy();
    apply(&mut proxy, []).await;
    assert_eq!(cluster.connect("one", "10.1.0.2:8080", 1), ["client 10.1.0.1"]);
    assert_eq!(cluster.connect("one", "10.244.2.2:8080", 1), ["two 10.244.1.2"]);
}

#[tokio::test]
async fn a_new_start_takes_over_and_the_end_leaves_nothing_of_ours() {
    let cluster = Cluster::new();
    cluster.nft("add table ip other");
    let mut proxy = cluster.proxy();
    apply(&mut proxy, [web(json!({})), endpoints(&["one"])]).await;
    drop(proxy);
    assert_eq!(cluster.names("two", VIP), set(&["one"]), "outlives the proxy");
    let mut next = cluster.proxy();
    apply(&mut next, [web(json!({})), endpoints(&["two"])]).await;
    assert_eq!(cluster.names("one", VIP), set(&["two"]));
    assert!(!cluster.nft("list table ip keelson").contains("10.244.1.2"));
    // Somebody deletes our table: the next transaction fails, the one after writes it anew.
    cluster.nft("delete table ip keelson");
    next.apply(endpoints(&["one", "two"]));
    next.write().await.unwrap_err();
    next.write().await.unwrap();
    assert_eq!(cluster.names("one", VIP), set(&["one", "two"]));
    let commands = cluster.options().commands;
    network::remove_with(&commands).await.unwrap();
    network::remove_with(&commands).await.unwrap();
    assert_eq!(cluster.nft("list tables").trim(), "table ip other");
}

#[tokio::test]
async fn what_is_out_of_use_is_deleted() {
    let cluster = Cluster::new();
    let mut proxy = cluster.proxy();
    let sticky = json!({"sessionAffinity": "ClientIP", "ports": [{"port": 80, "nodePort": 30080}]});
    apply(&mut proxy, [web(sticky), endpoints(&["one", "two"])]).await;
    let key = meta::ObjectKey::new("default", "web");
    apply(&mut proxy, [Change::ServiceGone(key)]).await;
    assert_eq!(cluster.connect("one", VIP, 1), ["TimedOut"]);
    // The kernel lets go after a second; each round takes some milliseconds.
    for round in 0.. {
        proxy.write().await.unwrap();
        let table = cluster.nft("list table ip keelson");
        if !table.contains("default/web") {
            break;
        }
        assert!(round < 2000, "still there: {table}");
    }
}

#[test]
fn options_must_be_ranges() {
    for bad in ["10.244.0.0", "10.244.0.0/33", "fd00::/64", "10.0.0.0/8; drop"] {
        let error =
            Proxy::new(ProxyOptions { prepare_host: false, ..ProxyOptions::new("n", bad) }).unwrap_err();
        assert!(error.to_string().contains("is not an IPv4 range"), "{error}");
    }
}
