//! The nodes of `up`: one real, or any number simulated.

use std::sync::Arc;

use apiserver::rest::Rest;
use meta::{Clock, GroupResource, Random};
use node::{
    simulated::Machine,
    usage::{Board, SAMPLE_EVERY},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::UpOptions,
    data_dir::DataDir,
    error::Failure,
    pool,
    up::{CLUSTER_DOMAIN, actors::Actors, bootstrap, bridge, choose::Started, server::ApiServer},
};

/// The pod addresses of the real node: a /24 of the cluster's /16.
const REAL_CIDR: &str = "10.42.0.0/24";

/// The name of a node.
pub(crate) fn name(index: u32) -> String {
    format!("node-{index}")
}

/// Starts the agents; says what there is now.
pub(crate) fn start(
    options: &UpOptions,
    data: &DataDir,
    server: &ApiServer,
    started: &Started,
    actors: &mut Actors,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<String, Failure> {
    let board = Arc::new(Board::default());
    actors.spawn(show_usage(server.rest.clone(), board.clone(), actors.token()));
    match started {
        Started::Containerd(private) => {
            let name = name(0);
            let host = Arc::new(node::host::System::new(data.node(), data.volumes()));
            let mut agent = node::Options::new(&name, host, clock.clone(), random.clone());
            let address = bridge::GATEWAY.to_string();
            agent.addresses = vec![address.clone()];
            agent.pod_cidr = Some(REAL_CIDR.to_owned());
            agent.dns.server = Some(bootstrap::DNS_IP.to_owned());
            agent.dns.domain = CLUSTER_DOMAIN.to_owned();
            agent.log_dir = data.node().join("logs");
            agent.clean_local_volumes = true;
            agent.thresholds = options.eviction_hard;
            agent.server = Some(kubelet(server, &name, &address)?);
            agent.usage = Some(board);
            agent.local_volumes = Some(server.client(bootstrap::LOCAL_VOLUMES, &[]));
            let client = server.client(&format!("system:node:{name}"), &["system:nodes"]);
            let (runtime, stopping) = (Arc::new(private.runtime()), actors.token());
            actors.spawn(async move {
                let ran = node::run(client, runtime, agent, stopping).await;
                ran.map_err(|error| Failure::of("run the node agent", error))
            });
            Ok(name)
        }
        Started::Simulated { .. } => {
            let machines = pool::machines(options.own_nodes(), &options.node_pools);
            let count = machines.len();
            for machine in machines {
                simulate(&machine, &board, server, actors, clock, random)?;
            }
            Ok(format!("{count} simulated"))
        }
    }
}

/// An agent whose pods exist in memory only, with addresses of `pod_cidr`, of which the first is its own.
pub(crate) fn simulated(
    name: &str,
    pod_cidr: &str,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<(node::Options, runtime::simulated::Simulated), Failure> {
    let own = first_address(pod_cidr).ok_or_else(|| {
        Failure::usage(format!("{pod_cidr:?} is no range of addresses"))
            .advise("say one such as 10.42.7.0/24")
    })?;
    let mut agent = Machine::new(name, 0).agent(clock.clone(), random.clone());
    agent.addresses = vec![own];
    agent.pod_cidr = Some(pod_cidr.to_owned());
    let settings = runtime::simulated::Settings { pod_cidr: Some(pod_cidr.to_owned()), ..Default::default() };
    let runtime = runtime::simulated::Simulated::new(clock.clone(), settings)
        .map_err(|error| Failure::of("start the simulated runtime", error))?;
    Ok((agent, runtime))
}

/// The first address of a range that something can have; `None` where the text is no range.
pub(crate) fn first_address(cidr: &str) -> Option<String> {
    let (base, length) = cidr.split_once('/')?;
    let (base, length): (std::net::Ipv4Addr, u32) = (base.parse().ok()?, length.parse().ok()?);
    let first = u32::from(base).checked_add(1)?;
    (8..=29).contains(&length).then(|| std::net::Ipv4Addr::from(first).to_string())
}

fn simulate(
    machine: &Machine,
    board: &Arc<Board>,
    server: &ApiServer,
    actors: &mut Actors,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<(), Failure> {
    let name = machine.name.clone();
    let mut agent = machine.agent(clock.clone(), random.clone());
    agent.usage = Some(board.clone());
    agent.local_volumes = Some(server.client(bootstrap::LOCAL_VOLUMES, &[]));
    let runtime =
        machine.runtime(clock.clone()).map_err(|error| Failure::of("start the simulated runtime", error))?;
    let client = server.client(&format!("system:node:{name}"), &["system:nodes"]);
    let stopping = actors.token();
    actors.spawn(async move {
        let ran = node::run(client, Arc::new(runtime), agent, stopping).await;
        ran.map_err(|error| Failure::of(format!("run the agent of {name}"), error))
    });
    Ok(())
}

/// Serves what the nodes report as the metrics API, until the cluster stops.
async fn show_usage(rest: Rest, board: Arc<Board>, stop: CancellationToken) -> Result<(), Failure> {
    while !stop.is_cancelled() {
        let (nodes, pods) = board.objects(rest.clock().now());
        for (plural, objects) in [("nodes", nodes), ("pods", pods)] {
            let kind = GroupResource::new("metrics.k8s.io", plural);
            let shown = rest.cache().show(&kind, &objects);
            shown.map_err(|error| Failure::of("show what nodes use", error))?;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
        }
    }
    Ok(())
}

fn kubelet(server: &ApiServer, name: &str, address: &str) -> Result<node::ServerOptions, Failure> {
    let pair = server
        .pki
        .node(name, &[name.to_owned(), address.to_owned(), "127.0.0.1".to_owned()])
        .map_err(|error| Failure::of("make the node's certificate", error))?;
    Ok(node::ServerOptions {
        listen: format!("{address}:0")
            .parse()
            .map_err(|error| Failure::of("read the node's address", error))?,
        certificate_pem: pair.cert_pem,
        key_pem: pair.key_pem,
        client_ca_pem: server.pki.ca_pem().to_owned(),
        users: vec!["kube-apiserver-kubelet-client".to_owned()],
    })
}
