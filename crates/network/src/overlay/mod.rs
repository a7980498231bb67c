//! The pod network between nodes: a VXLAN device on each node, and on it a route, a neighbour and a forwarding entry
//! for each other node.
//!
//! Guarantees: all that is said of a node follows from its Node object (`spec.podCIDR`, InternalIP), so that nodes
//! tell each other nothing; what the kernel holds is compared with that at every change and once a minute, so that
//! what somebody took away comes back; a restart takes up the device as it is, without a moment in which it carries
//! nothing. Other devices and routes are never touched.
//!
//! Packets are neither encrypted nor authenticated, as with every overlay of this kind: the network between the nodes
//! must be one that only they can send into. IPv4 only.

mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, ResourceExt, runtime::watcher};
use meta::{Ipv4Cidr, NotACidr, Random};
use reconcile::events;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use self::plan::{Candidate, Entry, Peer, hardware};
use crate::command::{CommandError, Commands, Route2};

/// The device.
const DEVICE: &str = "keelson-vx";
/// The number of our network on the wire.
const NUMBER: u32 = 42;
/// Where nodes listen for each other's packets (UDP): the port that IANA gave to VXLAN.
const PORT: u16 = 4789;
/// What VXLAN puts around a packet.
const HEADERS: u32 = 50;
/// Changes of Nodes share one look at the kernel.
const SETTLE: Duration = Duration::from_millis(50);
/// How often the kernel is looked at although no Node has changed.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Wait after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// How an overlay runs.
#[derive(Clone, Debug)]
pub struct OverlayOptions {
    /// Name of this node.
    pub node_name: String,
    /// The address by which other nodes reach this one.
    pub address: Ipv4Addr,
    /// The addresses of this node's pods.
    pub pod_cidr: String,
    /// Where `ip` and `bridge` run.
    pub commands: Commands,
}

/// Why the overlay cannot work here at all.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The range of pods is none.
    #[error("the range of this node's pods: {0}")]
    Range(#[from] NotACidr),
    /// The address is not this machine's.
    #[error("no network interface has the address {0}")]
    Address(Ipv4Addr),
    /// iproute2 or the kernel does not do it.
    #[error("cannot make the device {DEVICE}")]
    Device(#[source] CommandError),
}

/// The overlay of one node: the device is there, nobody is reached yet.
#[derive(Debug)]
pub struct Overlay {
    options: OverlayOptions,
    range: Ipv4Cidr,
    mtu: u32,
    nodes: BTreeMap<String, Candidate>,
    listing: BTreeMap<String, Candidate>,
    refused: Vec<String>,
}

impl Overlay {
    /// Makes the device, or takes up the one that is there.
    pub async fn prepare(options: OverlayOptions) -> Result<Self, OverlayError> {
        let range: Ipv4Cidr = options.pod_cidr.parse()?;
        let mut this = Self {
            options,
            range,
            mtu: 0,
            nodes: BTreeMap::new(),
            listing: BTreeMap::new(),
            refused: Vec::new(),
        };
        let links: Vec<Link> = this
            .options
            .commands
            .show(Route2::Ip, &["-4", "address", "show"])
            .await
            .map_err(OverlayError::Device)?;
        let own = links.iter().find(|link| {
            link.ifname != DEVICE
                && link.addr_info.iter().any(|info| info.local == Some(this.options.address))
        });
        let below = own.ok_or(OverlayError::Address(this.options.address))?.mtu;
        this.mtu = below.saturating_sub(HEADERS);
        this.device().await.map_err(OverlayError::Device)?;
        Ok(this)
    }

    /// The longest packet that reaches another node in one piece: what pods' interfaces should allow.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Keeps the device in step with the Nodes until `shutdown` completes. It stays when this ends. `random` spreads
    /// when a broken watch is taken up again.
    pub async fn run(
        mut self,
        client: Client,
        random: Arc<dyn Random>,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut changes =
            std::pin::pin!(events(Api::<Node>::all(client), watcher::Config::default(), random));
        let (mut known, mut done) = (false, BTreeSet::new());
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                () = sleep_until(due), if known => {
                    let wait = match self.step().await {
                        Ok(()) => LOOK_EVERY,
                        Err(error) => {
                            tracing::warn!(error = reconcile::text(&error), "cannot bring the pod network between nodes up to date, trying again");
                            RETRY
                        }
                    };
                    due = Instant::now() + wait;
                }
                Some(event) = changes.next() => {
                    known |= self.take(event);
                    if !known {
                        continue;
                    }
                    // Nodes report every few minutes that they are as they were.
                    let peers = self.peers();
                    if done != peers {
                        due = due.min(Instant::now() + SETTLE);
                        done = peers;
                    }
                }
            }
        }
    }

    /// Takes one event of the watch; whether all Nodes are known by it.
    fn take(&mut self, event: watcher::Event<Node>) -> bool {
        let put = |all: &mut BTreeMap<String, Candidate>, node: &Node| {
            let candidate = Candidate::read(node);
            all.insert(candidate.name.clone(), candidate);
        };
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(node) => put(&mut self.listing, &node),
            watcher::Event::InitDone => {
                self.nodes = std::mem::take(&mut self.listing);
                return true;
            }
            watcher::Event::Apply(node) => put(&mut self.nodes, &node),
            watcher::Event::Delete(node) => {
                self.nodes.remove(&node.name_any());
            }
        }
        false
    }

    fn peers(&mut self) -> BTreeSet<Peer> {
        let (peers, refused) = plan::peers(&self.options.node_name, self.range, self.nodes.values());
        if refused != self.refused {
            for node in &refused {
                tracing::warn!(
                    node,
                    "pods of this node are not reached: its spec.podCIDR has addresses of another node's; give it a range of its own"
                );
            }
            self.refused = refused;
        }
        peers
    }

    /// Looks at the kernel, and changes what is not as it should be.
    async fn step(&mut self) -> Result<(), CommandError> {
        self.device().await?;
        let want = plan::entries(&self.peers());
        let have = self.entries().await?;
        let (gone, new) = plan::plan(&have, &want);
        self.act(&gone, "del").await?;
        self.act(&new, "replace").await
    }

    async fn act(&self, entries: &[&Entry], verb: &str) -> Result<(), CommandError> {
        // Entries of one program are beside each other in either order.
        let (mut at, mut rest) = (Route2::Ip, Vec::new());
        for entry in entries {
            let (program, command) = command(entry, verb);
            if program != at {
                self.options.commands.batch(at, &std::mem::take(&mut rest)).await?;
                at = program;
            }
            rest.push(command);
        }
        self.options.commands.batch(at, &rest).await
    }

    /// Makes the device as it has to be, unless it is.
    async fn device(&self) -> Result<(), CommandError> {
        let commands = &self.options.commands;
        let links: Vec<Link> = commands.show(Route2::Ip, &["-details", "address", "show"]).await?;
        let found = links.iter().find(|link| link.ifname == DEVICE);
        let mut make = Vec::new();
        let address = self.options.address;
        if !found.is_some_and(|link| self.is_ours(link)) {
            if found.is_some() {
                make.push(format!("link del {DEVICE}"));
            }
            make.push(format!(
                "link add {DEVICE} address {} type vxlan id {NUMBER} local {address} dstport {PORT} nolearning",
                hardware(self.range)
            ));
            make.push(format!("address add {}/32 dev {DEVICE}", self.range.network()));
        }
        if !make.is_empty() || found.is_none_or(|link| link.mtu != self.mtu || !link.is_up()) {
            make.push(format!("link set {DEVICE} mtu {} up", self.mtu));
        }
        commands.batch(Route2::Ip, &make).await
    }

    fn is_ours(&self, link: &Link) -> bool {
        let info = link.linkinfo.as_ref().filter(|info| info.info_kind.as_deref() == Some("vxlan"));
        let has =
            |name: &str, value: Value| info.is_some_and(|info| info.info_data.get(name) == Some(&value));
        has("id", NUMBER.into())
            && has("local", self.options.address.to_string().into())
            && has("port", PORT.into())
            && link.address.as_deref() == Some(&hardware(self.range))
            && link.addr_info.iter().any(|info| info.local == Some(self.range.network()))
    }

    /// What the device holds.
    async fn entries(&self) -> Result<BTreeSet<Entry>, CommandError> {
        let commands = &self.options.commands;
        let routes: Vec<Route> = commands.show(Route2::Ip, &["-4", "route", "show", "dev", DEVICE]).await?;
        let neighbours: Vec<Neighbour> =
            commands.show(Route2::Ip, &["-4", "neigh", "show", "dev", DEVICE]).await?;
        let forwards: Vec<Forward> = commands.show(Route2::Bridge, &["fdb", "show", "dev", DEVICE]).await?;
        let routes = routes
            .into_iter()
            .filter_map(|route| Some(Entry::Route { to: route.range()?, via: route.gateway? }));
        let neighbours = neighbours.into_iter().filter_map(|neighbour| {
            let permanent = neighbour.state.iter().any(|state| state == "PERMANENT");
            let hardware = neighbour.lladdr.filter(|_| permanent)?;
            Some(Entry::Neighbour { address: neighbour.dst.parse().ok()?, hardware })
        });
        let forwards = forwards.into_iter().filter_map(|forward| {
            Some(Entry::Forward { at: forward.dst?.parse().ok()?, hardware: forward.mac })
        });
        Ok(routes.chain(neighbours).chain(forwards).collect())
    }
}

fn command(entry: &Entry, verb: &str) -> (Route2, String) {
    match entry {
        Entry::Route { to, via } => (Route2::Ip, format!("route {verb} {to} via {via} dev {DEVICE} onlink")),
        Entry::Neighbour { address, hardware } => {
            let lasting = if verb == "del" { "" } else { " nud permanent" };
            (Route2::Ip, format!("neigh {verb} {address} lladdr {hardware} dev {DEVICE}{lasting}"))
        }
        Entry::Forward { hardware, at } => {
            (Route2::Bridge, format!("fdb {verb} {hardware} dev {DEVICE} dst {at}"))
        }
    }
}

/// Takes the device away, and with it all that it holds.
pub async fn remove_overlay(commands: &Commands) -> Result<(), CommandError> {
    let links: Vec<Link> = commands.show(Route2::Ip, &["address", "show"]).await?;
    let there = links.iter().any(|link| link.ifname == DEVICE);
    commands
        .batch(Route2::Ip, &there.then(|| format!("link del {DEVICE}")).into_iter().collect::<Vec<_>>())
        .await
}

/// What `ip -json address show` says of a device, as far as it is of interest.
#[derive(Debug, Deserialize)]
struct Link {
    // Devices that are being made or taken away are empty objects.
    #[serde(default)]
    ifname: String,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    flags: Vec<String>,
    address: Option<String>,
    #[serde(default)]
    addr_info: Vec<Address>,
    linkinfo: Option<LinkInfo>,
}

impl Link {
    fn is_up(&self) -> bool {
        self.flags.iter().any(|flag| flag == "UP")
    }
}

#[derive(Debug, Deserialize)]
struct Address {
    #[serde(default, deserialize_with = "ipv4")]
    local: Option<Ipv4Addr>,
}

#[derive(Debug, Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
    /// Of every kind of device something else.
    #[serde(default)]
    info_data: Value,
}

#[derive(Debug, Deserialize)]
struct Route {
    dst: String,
    #[serde(default, deserialize_with = "ipv4")]
    gateway: Option<Ipv4Addr>,
}

impl Route {
    /// A range of one address is printed without its length.
    fn range(&self) -> Option<Ipv4Cidr> {
        self.dst.parse().or_else(|_| format!("{}/32", self.dst).parse()).ok()
    }
}

#[derive(Debug, Deserialize)]
struct Neighbour {
    dst: String,
    lladdr: Option<String>,
    #[serde(default)]
    state: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Forward {
    mac: String,
    dst: Option<String>,
}

/// Addresses of other families are none.
fn ipv4<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Addr>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_str().and_then(|text| text.parse().ok()))
}
