//! The service proxy: keeps one nftables table in step with services and endpoints.
//!
//! Guarantees: one transaction for each batch of changes, naming only what changed; the first one
//! replaces whatever an earlier run left, without a moment in which nothing is served; after a failure
//! the whole table is written again. The table outlives the proxy, so services go on working while
//! keelson restarts; [`remove`] takes it away. Other tables are never touched.
//!
//! Not supported: IPv6 services, `healthCheckNodePort`, topology hints.

mod base;
mod host;
mod plan;
mod ruleset;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use kube::Client;
use meta::{ObjectKey, Random};
use tokio::time::{Instant, sleep_until};

use self::{
    base::{Base, base, unbase},
    plan::is_cidr,
};
pub use self::{
    plan::{Fragment, Front, Place, Table, plan},
    ruleset::{Flush, Ruleset, Update},
};
use crate::{
    command::{CommandError, Commands},
    services::Services,
    watches::{KINDS, Signal, all},
};

/// The least time between two transactions: bursts of changes share one.
const INTERVAL: Duration = Duration::from_millis(20);
/// Changes taken up before a transaction.
const BATCH_MAX: usize = 1024;
/// How long a chain out of use is kept: the kernel lets go of the map elements that led to it some
/// time after the transaction.
const STALE_FOR: Duration = Duration::from_secs(1);
/// Wait after the first failed transaction; doubles up to the next.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How a proxy runs.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Name of this node, for `Local` traffic policies.
    pub node_name: String,
    /// Addresses of pods on all nodes, such as `10.244.0.0/16`: traffic from there to anywhere else
    /// is masqueraded.
    pub cluster_cidr: String,
    /// Ranges of node addresses on which node ports are served; empty is all.
    pub node_port_addresses: Vec<String>,
    /// Serve node ports on 127.0.0.1, too. Sets `route_localnet`, and drops packets with loopback
    /// addresses that come from elsewhere.
    pub localhost_node_ports: bool,
    /// Turn on the kernel's forwarding switches at the start.
    pub prepare_host: bool,
    /// Where `nft` and `conntrack` run.
    pub commands: Commands,
}

impl ProxyOptions {
    /// The usual options.
    pub fn new(node_name: impl Into<String>, cluster_cidr: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            cluster_cidr: cluster_cidr.into(),
            node_port_addresses: Vec::new(),
            localhost_node_ports: false,
            prepare_host: true,
            commands: Commands::default(),
        }
    }
}

/// Why the proxy cannot work here at all.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// An option is not an IPv4 range.
    #[error("{option} {value:?} is not an IPv4 range such as 10.244.0.0/16")]
    Range {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
    },
    /// The kernel's switches cannot be set.
    #[error("cannot turn on IP forwarding; the service proxy needs to run as root")]
    Host(#[source] io::Error),
    /// nftables does not work here.
    #[error("cannot write the nftables table of the service proxy")]
    Nftables(#[source] CommandError),
}

/// Runs the proxy until `shutdown` completes. `random` spreads when broken watches are taken up again. Errors only when it cannot work here at all; later
/// failures are logged and tried again.
pub async fn run_proxy(
    client: Client,
    options: ProxyOptions,
    random: Arc<dyn Random>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ProxyError> {
    let mut proxy = Proxy::new(options)?;
    let mut shutdown = std::pin::pin!(shutdown);
    let mut signals = std::pin::pin!(all(&client, &random));
    let mut synced = 0;
    let mut first = true;
    loop {
        let ready = synced == KINDS;
        tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            () = sleep_until(proxy.due()), if ready && proxy.has_work() => {
                match proxy.write().await {
                    Err(error) if first => return Err(ProxyError::Nftables(error)),
                    Err(_) | Ok(()) => first = false,
                }
            }
            Some(signal) = signals.next(), if proxy.dirty.len() < BATCH_MAX => match signal {
                Signal::Change(change) => proxy.dirty.extend(proxy.services.apply(change)),
                Signal::Synced => synced += 1,
            },
        }
    }
}

/// Takes the proxy's table away; services stop being served by this node. Connections under way go on
/// as long as the kernel tracks them.
pub async fn remove() -> Result<(), CommandError> {
    remove_with(&Commands::default()).await
}

/// [`remove`], by these commands.
pub async fn remove_with(commands: &Commands) -> Result<(), CommandError> {
    commands.nft(&unbase()).await
}

/// The proxy between a change and the kernel.
#[derive(Debug)]
pub struct Proxy {
    options: ProxyOptions,
    place: Place,
    services: Services,
    ruleset: Ruleset,
    dirty: BTreeSet<ObjectKey>,
    /// The kernel does not hold what the ruleset says; nothing short of a rewrite helps.
    unknown: bool,
    stale_chains: BTreeMap<String, Instant>,
    stale_sets: BTreeMap<String, Instant>,
    next: Instant,
    failures: u32,
    no_conntrack: bool,
}

impl Proxy {
    /// A proxy that has not written anything; checks the options and prepares the host.
    pub fn new(options: ProxyOptions) -> Result<Self, ProxyError> {
        for (option, value) in [("cluster CIDR", &options.cluster_cidr)]
            .into_iter()
            .chain(options.node_port_addresses.iter().map(|range| ("node port address range", range)))
        {
            if !is_cidr(value) {
                return Err(ProxyError::Range { option, value: value.clone() });
            }
        }
        let filtered = if options.prepare_host {
            host::prepare(options.localhost_node_ports).map_err(ProxyError::Host)?
        } else {
            true
        };
        let place = Place {
            node: options.node_name.clone(),
            cluster_cidr: options.cluster_cidr.clone(),
            masquerade_all: !filtered,
        };
        Ok(Self {
            options,
            place,
            services: Services::default(),
            ruleset: Ruleset::default(),
            dirty: BTreeSet::new(),
            unknown: true,
            stale_chains: BTreeMap::new(),
            stale_sets: BTreeMap::new(),
            next: Instant::now(),
            failures: 0,
            no_conntrack: false,
        })
    }

    /// Takes note of a change; [`Proxy::write`] carries it out.
    pub fn apply(&mut self, change: crate::services::Change) {
        self.dirty.extend(self.services.apply(change));
    }

    /// Brings the kernel up to date in one transaction.
    pub async fn write(&mut self) -> Result<(), CommandError> {
        for key in std::mem::take(&mut self.dirty) {
            let service = self.services.get(&key);
            let fragment = service.map(|s| plan(s, self.services.endpoints(&key), &self.place));
            self.ruleset.replace(&key, fragment);
        }
        let update = if self.unknown {
            let ProxyOptions { cluster_cidr, localhost_node_ports, node_port_addresses, .. } = &self.options;
            self.ruleset.rewrite(&base(&Base {
                cluster_cidr,
                localhost_node_ports: *localhost_node_ports,
                node_port_addresses,
            }))
        } else {
            self.ruleset.update()
        };
        if !update.script.is_empty()
            && let Err(error) = self.options.commands.nft(&update.script).await
        {
            self.failed(&error);
            return Err(error);
        }
        if self.unknown {
            self.stale_chains.clear();
            self.stale_sets.clear();
            tracing::info!(services = self.ruleset.services(), "service proxy is ready");
        }
        self.unknown = false;
        self.failures = 0;
        let now = Instant::now();
        self.next = now + INTERVAL;
        self.stale_chains.extend(update.stale_chains.into_iter().map(|name| (name, now)));
        self.stale_sets.extend(update.stale_sets.into_iter().map(|name| (name, now)));
        self.sweep(now).await;
        for flush in update.flushes {
            self.flush(flush).await;
        }
        Ok(())
    }

    fn failed(&mut self, error: &CommandError) {
        // The transaction did nothing, or its end was not seen; either way only a rewrite is safe.
        self.unknown = true;
        self.failures = self.failures.saturating_add(1);
        let wait = RETRY_FIRST.saturating_mul(1 << self.failures.saturating_sub(1).min(5)).min(RETRY_MAX);
        self.next = Instant::now() + wait;
        tracing::error!(%error, ?wait, "nftables transaction failed, the table will be written anew");
    }

    fn has_work(&self) -> bool {
        self.unknown || !self.dirty.is_empty() || !self.stale_chains.is_empty() || !self.stale_sets.is_empty()
    }

    fn due(&self) -> Instant {
        if self.unknown || !self.dirty.is_empty() {
            return self.next;
        }
        let stale = self.stale_chains.values().chain(self.stale_sets.values()).min();
        stale.map_or(self.next, |since| (*since + STALE_FOR).max(self.next))
    }

    /// Deletes chains and sets that have been out of use long enough.
    async fn sweep(&mut self, now: Instant) {
        let ruleset = &self.ruleset;
        let take = |stale: &mut BTreeMap<String, Instant>| -> BTreeSet<String> {
            stale.retain(|name, _| !ruleset.uses(name));
            let old = stale.iter().filter(|(_, since)| now >= **since + STALE_FOR);
            old.map(|(name, _)| name.clone()).collect()
        };
        let (chains, sets) = (take(&mut self.stale_chains), take(&mut self.stale_sets));
        if chains.is_empty() && sets.is_empty() {
            return;
        }
        // Empty chains do no harm; if the kernel still holds them they are tried again later.
        let done = self.options.commands.nft(&ruleset::delete(&chains, &sets)).await;
        for (stale, names) in [(&mut self.stale_chains, chains), (&mut self.stale_sets, sets)] {
            for name in names {
                match &done {
                    Ok(()) => {
                        stale.remove(&name);
                    }
                    Err(_) => {
                        stale.insert(name, now + RETRY_MAX);
                    }
                }
            }
        }
        if let Err(error) = done {
            tracing::debug!(%error, "chains out of use could not be deleted yet");
        }
    }

    /// Makes the kernel forget UDP connections that lead nowhere: UDP has no end of its own, so a
    /// client that keeps sending would keep the endpoint it first got.
    async fn flush(&mut self, flush: Flush) {
        if self.no_conntrack {
            return;
        }
        let mut arguments = vec!["-D".to_owned(), "-p".into(), "udp".into()];
        match flush.front {
            Front::Address(ip, port) => {
                arguments.extend(["--orig-dst".into(), ip.to_string(), "--dport".into(), port.to_string()]);
            }
            Front::NodePort(port) => arguments.extend(["--dport".into(), port.to_string()]),
        }
        if let Some(endpoint) = flush.endpoint {
            arguments.extend(["--dst-nat".into(), endpoint.to_string()]);
        }
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match self.options.commands.conntrack(&words).await {
            Ok(()) => {}
            Err(error @ CommandError::Missing { .. }) => {
                self.no_conntrack = true;
                tracing::warn!(%error, "UDP clients may keep sending to endpoints that are gone");
            }
            Err(error) => tracing::warn!(%error, ?flush, "forgetting UDP connections failed"),
        }
    }
}
