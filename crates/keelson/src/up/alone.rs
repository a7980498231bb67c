//! `keelson node`: a node in a process of its own, against an API server elsewhere.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::Path,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt, api::ListParams};
use meta::Ipv4Cidr;

use super::{
    CLUSTER_CIDR,
    actors::Actors,
    choose::{Runtime, Started},
    machine::{self, Machine},
    nodes,
};
use crate::{
    cli::NodeOptions,
    data_dir::DataDir,
    error::Failure,
    join,
    parts::{self, Part},
    term,
};

/// Runs until told to stop. Containers go on running (ADR 0003); the next start adopts them.
pub(crate) async fn run(options: &NodeOptions, part: Part) -> Result<(), Failure> {
    machine::check(&options.machine)?;
    let runtime = Runtime::choose(options.runtime)?.strictly();
    let data = DataDir::locate(&options.data)?;
    if !runtime.is_real() {
        return work(options, &data, runtime, &part).await;
    }
    prepare(&data)?;
    let worked = work(options, &data, runtime, &part).await;
    // The file only names a process that runs.
    drop(fs::remove_file(data.pid_file()));
    worked
}

async fn work(options: &NodeOptions, data: &DataDir, runtime: Runtime, part: &Part) -> Result<(), Failure> {
    let address = match options.machine.node_ip {
        Some(address) => Some(address),
        None if runtime.is_real() => own_address(&options.part.kubeconfig)?,
        None => None,
    };
    let range = match &options.pod_cidr {
        Some(own) => own.clone(),
        None => match given_range(options, data, address, part).await? {
            Some(given) => given,
            None => return Ok(()),
        },
    };
    let machine = Machine::new(&options.name, &range, address, &options.machine, data)?;
    let mut actors = Actors::new(part.stop.clone());
    let begun = tokio::select! {
        begun = begin(options, &machine, runtime, part, &mut actors) => begun,
        // containerd, if it comes, is adopted by the next start.
        () = part.stop.cancelled() => Ok(()),
    };
    if begun.is_ok() && !part.stop.is_cancelled() {
        term::line(&format!("ready: node {}", machine.name));
        tokio::select! {
            () = part.stop.cancelled() => {}
            () = actors.failed() => {}
        }
    }
    part.stop.cancel();
    let containers = actors.runs_containers();
    let ended = actors.join().await;
    begun.and(ended)?;
    if containers {
        term::line("stopped; containers go on running, `keelson down` stops them");
    }
    Ok(())
}

/// The range that the node's object has, which the controller manager gives it; `None` when told to stop meanwhile.
async fn given_range(
    options: &NodeOptions,
    data: &DataDir,
    address: Option<Ipv4Addr>,
    part: &Part,
) -> Result<Option<String>, Failure> {
    let name = &options.name;
    let host = Arc::new(node::host::System::new(data.node(), data.volumes()));
    let mut agent = node::Options::new(name, host, part.clock.clone(), part.random.clone());
    agent.addresses = address.iter().map(ToString::to_string).collect();
    let waits = || {
        term::note(&format!(
            "waiting for a range of pod addresses for node {name}: the controller manager gives it one, or say --pod-cidr"
        ));
    };
    tokio::select! {
        given = node::pod_cidr(&part.client, &agent, waits) => given.map(Some).map_err(|error| {
            Failure::of(format!("register node {name}"), error)
                .advise("the user of the kubeconfig has to be system:node:NAME in the group system:nodes, NAME being that of --name")
        }),
        () = part.stop.cancelled() => Ok(None),
    }
}

/// Refuses a range of pod addresses that the cluster does not route, or that another node has.
async fn check_range(machine: &Machine, client: &kube::Client) -> Result<(), Failure> {
    let (own, all): (Ipv4Cidr, Ipv4Cidr) = match (machine.pod_cidr.parse(), CLUSTER_CIDR.parse()) {
        (Ok(own), Ok(all)) => (own, all),
        (Err(error), _) | (_, Err(error)) => {
            return Err(Failure::of("read the range of pod addresses", error));
        }
    };
    if !all.contains(&own) {
        return Err(Failure::usage(format!(
            "{own} is not within {all}, the addresses of the cluster's pods"
        ))
        .advise("say --pod-cidr with a range of that, which no other node has"));
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await;
    let nodes = nodes.map_err(|error| Failure::of("read the ranges of other nodes", error))?;
    for node in nodes.items {
        let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()?.parse::<Ipv4Cidr>().ok());
        let Some(range) = range else { continue };
        if node.name_any() == machine.name {
            // A Node keeps the range that it has.
            if range != own {
                return Err(Failure::usage(format!("node {} has {range}, not {own}", machine.name)).advise(
                    format!("say --pod-cidr {range} or leave it out; for another one, delete the node first"),
                ));
            }
        } else if range.overlaps(&own) {
            return Err(Failure::usage(format!(
                "{own} has addresses of {range}, which node {} has",
                node.name_any()
            ))
            .advise(format!(
                "say --pod-cidr with another range of {all}, or delete that node if it is gone for good"
            )));
        }
    }
    Ok(())
}

/// Takes the data directory, which one process at a time has.
fn prepare(data: &DataDir) -> Result<(), Failure> {
    data.prepare()?;
    if let Some(pid) = data.running() {
        let what = format!(
            "a node or cluster runs in {} already: process {}",
            data.path().display(),
            pid.as_raw_nonzero()
        );
        return Err(Failure::new(what)
            .advise("`keelson down` stops it; another needs another --data-dir, and another machine"));
    }
    let pid = std::process::id().to_string();
    fs::write(data.pid_file(), pid).map_err(|error| Failure::of("write the pid file", error))
}

async fn begin(
    options: &NodeOptions,
    machine: &Machine,
    runtime: Runtime,
    part: &Part,
    actors: &mut Actors,
) -> Result<(), Failure> {
    let Part { clock, random, stop, .. } = part;
    let client = part.client.clone();
    if runtime.is_real() {
        check_range(machine, &client).await?;
    }
    let mut started = runtime.start(machine.clone()).await?;
    term::note(&started.describe());
    match &mut started {
        Started::Simulated { .. } => {
            let (agent, runtime) = nodes::simulated(&machine.name, &machine.pod_cidr, clock, random)?;
            let (name, stopping) = (machine.name.clone(), actors.token());
            actors.spawn(async move {
                let ran = node::run(client, Arc::new(runtime), agent, stopping).await;
                ran.map_err(|error| Failure::of(format!("run the agent of {name}"), error))
            });
        }
        Started::Containerd(containers) => {
            let kubeconfig = &options.part.kubeconfig;
            let pki = machine.data.pki();
            let serving =
                join::serving(&machine.name, kubeconfig, &pki, client.clone(), &**clock, stop).await?;
            let Some(pair) = serving else { return Ok(()) };
            machine.network(actors, &client, containers.overlay.take(), random).await?;
            // Its own DNS, which is nearer than the Service's and there when other nodes are not.
            let mut agent = machine.agent(machine.gateway, clock, random);
            let authority = parts::authority(kubeconfig)?;
            agent.server = Some(machine.kubelet(pair.cert_pem, pair.key_pem, authority));
            actors.node(&machine.name, client, containers, agent);
        }
    }
    actors.keep(started);
    Ok(())
}

/// The address from which this machine reaches the API server; `None` where that is on this machine.
fn own_address(kubeconfig: &Path) -> Result<Option<Ipv4Addr>, Failure> {
    let server = parts::cluster(kubeconfig)?.server.unwrap_or_default();
    let find = || {
        let uri: http::Uri = server.parse().ok()?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        // Nothing is sent: the kernel only says which way it would go.
        socket.connect((uri.host()?, uri.port_u16().unwrap_or(443))).ok()?;
        match socket.local_addr().ok()?.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    };
    let found = find().ok_or_else(|| {
        Failure::new(format!("no IPv4 address of this machine leads to {server}"))
            .advise("say by which address other nodes reach this one: --node-ip ADDRESS")
    })?;
    Ok((!found.is_loopback()).then_some(found))
}
