//! `keelson up`: a whole cluster in this process.
//!
//! Starts in the order of dependence and stops in the reverse one: actors first, so that their last writes
//! are answered, then the server, then the store. Containers are not stopped (ADR 0003).

mod actors;
mod alone;
mod background;
mod bootstrap;
mod bridge;
mod choose;
mod components;
mod control;
mod machine;
mod nodes;
mod operators;
mod scheduling;
mod server;
mod stand;
mod usage;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use meta::{Clock, Random};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::UpOptions,
    clock::{Dice, System},
    data_dir::DataDir,
    error::Failure,
    pool, signals,
    term::{self, Steps},
    up::{
        actors::{Actors, MASTERS},
        bootstrap::Addresses,
        choose::{Runtime, Started},
        machine::Machine,
        server::ApiServer,
        stand::Stand,
    },
};

pub(crate) use actors::Signer;
pub(crate) use alone::run as node;
pub(crate) use machine::settings;
pub(crate) use nodes::{cidrs as node_cidrs, first_address};
pub(crate) use scheduling::configuration as scheduler_configuration;
pub(crate) use stand::apiserver;

/// Pod addresses of the real node's cluster; simulated nodes have a range of their own.
pub(crate) const CLUSTER_CIDR: &str = "10.42.0.0/16";
/// Name of the cluster's DNS domain.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

pub(crate) async fn up(options: UpOptions) -> Result<(), Failure> {
    until_stopped(|stop| async move { run(&options, &stop).await }).await
}

/// Runs with a token that the first SIGINT or SIGTERM cancels.
pub(crate) async fn until_stopped<F: Future<Output = Result<(), Failure>>>(
    work: impl FnOnce(CancellationToken) -> F,
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let _signals = signals::stop_on_signal(stop.clone())?;
    work(stop).await
}

async fn run(options: &UpOptions, stop: &CancellationToken) -> Result<(), Failure> {
    let data = DataDir::locate(&options.data)?;
    data.prepare()?;
    operators::check(&options.operators)?;
    pool::check(options.own_nodes(), &options.node_pools).map_err(Failure::usage)?;
    options.security.check()?;
    let seats = options.inflight.seats()?;
    if let Some(pid) = data.running() {
        let what =
            format!("a cluster runs in {} already: process {}", data.path().display(), pid.as_raw_nonzero());
        return Err(Failure::new(what).advise("`keelson status` shows it, `keelson down` stops it; another needs another --data-dir and --listen"));
    }
    let clock: Arc<dyn Clock> = Arc::new(System);
    let random: Arc<dyn Random> = Arc::new(Dice::new());
    term::line(&format!("{} {}", term::bold("keelson"), env!("CARGO_PKG_VERSION")));
    let placing = scheduling::configuration(options.scheduler_config.as_deref(), &*random)?;
    let mut steps = Steps::begin();

    let runtime = Runtime::of(options)?;
    let machine = nodes::machine(options, &data)?;
    let own = [machine.gateway, machine.primary()];
    let extra = if runtime.is_real() { own.iter().map(ToString::to_string).collect() } else { Vec::new() };
    // containerd takes the longest; it starts beside everything else.
    let starting = tokio::spawn(runtime.clone().start(machine.clone()));
    let stand = Stand::of(&options.store, seats, &data, options.listen, None, extra)?;
    let stand = stand.traced(&options.observe)?;
    let security = &options.security;
    let mut server = ApiServer::start(&data, &stand, security, &clock, &random, &mut steps).await?;
    let pid = std::process::id().to_string();
    fs::write(data.pid_file(), pid).map_err(|error| Failure::of("write the pid file", error))?;

    let mut actors = Actors::new(stop.clone());
    let started = start(
        options,
        &data,
        &machine,
        &mut server,
        placing,
        starting,
        &mut actors,
        stop,
        &clock,
        &random,
        &mut steps,
    )
    .await;
    if started.is_ok() && !stop.is_cancelled() {
        announce(&data, &server, &steps);
        tokio::select! {
            () = stop.cancelled() => {}
            () = actors.failed() => stop.cancel(),
            () = server.broken() => stop.cancel(),
        }
    }
    let broken = server.is_broken();
    stop.cancel();
    let containers = actors.runs_containers();
    let ended = actors.join().await;
    server.stop().await;
    // The file only names a process that runs.
    drop(fs::remove_file(data.pid_file()));
    started.and(broken).and(ended)?;
    let left = if containers { "; containers go on running, `keelson down` stops them" } else { "" };
    term::line(&format!("stopped{left}"));
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "the parts of one start; one call site")]
async fn start(
    options: &UpOptions,
    data: &DataDir,
    machine: &Machine,
    server: &mut ApiServer,
    placing: scheduler::Configuration,
    starting: tokio::task::JoinHandle<Result<choose::Started, Failure>>,
    actors: &mut Actors,
    stop: &CancellationToken,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
    steps: &mut Steps,
) -> Result<(), Failure> {
    steps.start("runtime");
    let mut started = tokio::select! {
        started = starting => started.map_err(|error| Failure::of("start the runtime", error))??,
        // containerd, if it comes, is adopted by the next start.
        () = stop.cancelled() => return Ok(()),
    };
    steps.done(&started.describe());
    let addresses = match &mut started {
        Started::Simulated { .. } => Addresses::default(),
        Started::Containerd(containers) => {
            steps.start("network");
            let client = server.client("system:kube-proxy", &[MASTERS]);
            let overlay = containers.overlay.take();
            machine.network(actors, &client, overlay, random).await?;
            let (host, port) = (IpAddr::V4(machine.gateway), server.address.port());
            let listening = server.address.ip();
            if !listening.is_unspecified() && listening != host {
                server.listen(SocketAddr::new(host, port)).await?;
            }
            steps.done(&format!("services by nftables, dns on {host}{}", machine.reached()));
            let reached = |port| Some(SocketAddr::new(host, port));
            Addresses { api: reached(port), dns: reached(bridge::DNS_PORT) }
        }
    };
    bootstrap::services(&server.rest, addresses).await?;
    bootstrap::objects(&server.rest, bootstrap::nodes()).await?;
    server.write_node_kubeconfigs(&options.node, data)?;
    steps.start("nodes");
    let (board, asking) = usage::show(server, stop.clone());
    actors.spawn(async move {
        asking.await;
        Ok(())
    });
    let names = nodes::start(options, machine, &board, server, &started, actors, clock, random)?;
    steps.done(&names);
    steps.start("operators");
    let client = server.client("system:apiserver", &["system:masters"]);
    let chosen = operators::install(&client, &options.operators).await?;
    let names: Vec<_> = chosen.iter().map(|operator| operator.name).collect();
    let controllers = {
        let mut counters = server.counters.lock();
        // One that ran before this, here or by a Lease, leads no more.
        let fence = crate::operator::number(clock.now().as_second(), 0);
        chosen.iter().flat_map(|operator| counters.count((operator.start)(fence))).collect()
    };
    steps.done(if names.is_empty() { "none".to_owned() } else { names.join(", ") }.as_str());
    steps.start("controllers");
    // Simulated nodes come with their ranges, and so may Nodes that somebody makes beside them by hand.
    let node_cidrs = if started.is_real() { Some(nodes::cidrs()?) } else { None };
    let (all, controllers) = actors.controllers(server, data, controllers, node_cidrs, clock, random);
    let desk = actors.scheduler(server, placing, clock, random);
    let control = control::start(server, data, desk, all, stop.clone()).await?;
    components::show(&server.rest, control.scheduler, controllers);
    let answering = control.task;
    actors.spawn(async move {
        answering.await;
        Ok(())
    });
    steps.done(&format!("controller manager and scheduler, gRPC on {}", control.address));
    actors.keep(started);
    Ok(())
}

fn announce(data: &DataDir, server: &ApiServer, steps: &Steps) {
    let kubeconfig = data.kubeconfig();
    term::line(&format!("\n  export KUBECONFIG={}", kubeconfig.display()));
    term::line("  kubectl get nodes\n");
    term::line(&format!("ready in {} ms: https://{}", steps.elapsed_ms(), server.address));
}
