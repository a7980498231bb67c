//! The nodes of `up`: one real, or any number simulated.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use controllers::NodeCidrs;
use meta::{Clock, Ipv4Cidr, Random};
use node::{simulated::Machine as Simulated, usage::Board};

use crate::{
    cli::UpOptions,
    data_dir::DataDir,
    error::Failure,
    pool,
    up::{CLUSTER_CIDR, actors::Actors, bootstrap, choose::Started, machine::Machine, server::ApiServer},
};

/// The pod addresses of the real node: a /24 of the cluster's /16.
const REAL_CIDR: &str = "10.42.0.0/24";

/// What is given to nodes that come without a range: the first machine of `up`, in whose store they may be, has its own.
pub(crate) fn cidrs() -> Result<NodeCidrs, Failure> {
    let read = |text: &str| {
        text.parse().map_err(|error| Failure::of("read the addresses of the cluster's pods", error))
    };
    Ok(NodeCidrs { cluster: read(CLUSTER_CIDR)?, reserved: vec![read(REAL_CIDR)?] })
}

/// The name of a node.
pub(crate) fn name(index: u32) -> String {
    format!("node-{index}")
}

/// This machine as a node of `up`.
pub(crate) fn machine(options: &UpOptions, data: &DataDir) -> Result<Machine, Failure> {
    // Without other nodes to come, nothing of the pod network is open to other machines.
    let listens = match options.listen.ip() {
        IpAddr::V4(address)
            if !options.node.is_empty() && !address.is_loopback() && !address.is_unspecified() =>
        {
            Some(address)
        }
        _ => None,
    };
    Machine::new(&name(0), REAL_CIDR, options.machine.node_ip.or(listens), &options.machine, data)
}

/// Starts the agents; says what there is now.
#[allow(clippy::too_many_arguments, reason = "the parts of one start; one call site")]
pub(crate) fn start(
    options: &UpOptions,
    machine: &Machine,
    board: &Arc<Board>,
    server: &ApiServer,
    started: &Started,
    actors: &mut Actors,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<String, Failure> {
    match started {
        Started::Containerd(containers) => {
            let mut agent = machine.agent(bootstrap::DNS_IP, clock, random);
            agent.server = Some(kubelet(server, machine)?);
            agent.usage = Some(board.clone());
            agent.local_volumes = Some(server.client(bootstrap::LOCAL_VOLUMES, &[]));
            let client = server.client(&format!("system:node:{}", machine.name), &["system:nodes"]);
            actors.node(&machine.name, client, containers, agent);
            Ok(machine.name.clone())
        }
        Started::Simulated { .. } => {
            let machines = pool::machines(options.own_nodes(), &options.node_pools);
            let count = machines.len();
            for machine in machines {
                simulate(&machine, board, server, actors, clock, random)?;
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
    let own = first_address(pod_cidr)?.to_string();
    let mut agent = Simulated::new(name, 0).agent(clock.clone(), random.clone());
    agent.addresses = vec![own];
    agent.pod_cidr = Some(pod_cidr.to_owned());
    let settings = runtime::simulated::Settings { pod_cidr: Some(pod_cidr.to_owned()), ..Default::default() };
    let runtime = runtime::simulated::Simulated::new(clock.clone(), settings)
        .map_err(|error| Failure::of("start the simulated runtime", error))?;
    Ok((agent, runtime))
}

/// The first address of a range that something can have.
pub(crate) fn first_address(cidr: &str) -> Result<Ipv4Addr, Failure> {
    let first = || {
        let range: Ipv4Cidr = cidr.parse().ok()?;
        // Said by its network, so that nobody takes an address in it for the node's.
        (range.to_string() == cidr).then(|| range.first())?
    };
    first().ok_or_else(|| {
        Failure::usage(format!("{cidr:?} is no range of pod addresses"))
            .advise("say one such as 10.42.7.0/24")
    })
}

fn simulate(
    machine: &Simulated,
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

fn kubelet(server: &ApiServer, machine: &Machine) -> Result<node::ServerOptions, Failure> {
    let names = [machine.name.clone(), machine.primary().to_string(), "127.0.0.1".to_owned()];
    let pair = server
        .pki
        .node(&machine.name, &names)
        .map_err(|error| Failure::of("make the node's certificate", error))?;
    Ok(machine.kubelet(pair.cert_pem, pair.key_pem, server.pki.ca_pem().to_owned()))
}
