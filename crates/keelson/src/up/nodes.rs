//! The nodes of `up`: one real, or any number simulated.

use std::sync::Arc;

use meta::{Clock, Random};

use crate::{
    cli::UpOptions,
    data_dir::DataDir,
    error::Failure,
    up::{CLUSTER_DOMAIN, actors::Actors, bootstrap, bridge, choose::Started, server::ApiServer},
};

/// Pod ranges of /24 in the cluster's /16.
const NODES_MAX: u32 = 256;

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
    let cidr = |index: u32| (index < NODES_MAX).then(|| format!("10.42.{index}.0/24"));
    match started {
        Started::Containerd(private) => {
            let name = name(0);
            let host = Arc::new(node::host::System::new(data.node(), data.volumes()));
            let mut agent = node::Options::new(&name, host, clock.clone(), random.clone());
            let address = bridge::GATEWAY.to_string();
            agent.addresses = vec![address.clone()];
            agent.pod_cidr = cidr(0);
            agent.dns.server = Some(bootstrap::DNS_IP.to_owned());
            agent.dns.domain = CLUSTER_DOMAIN.to_owned();
            agent.log_dir = data.node().join("logs");
            agent.clean_local_volumes = true;
            agent.thresholds = options.eviction_hard;
            agent.server = Some(kubelet(server, &name, &address)?);
            let client = server.client(&format!("system:node:{name}"), &["system:nodes", "system:masters"]);
            let (runtime, stopping) = (Arc::new(private.runtime()), actors.token());
            actors.spawn(async move {
                let ran = node::run(client, runtime, agent, stopping).await;
                ran.map_err(|error| Failure::of("run the node agent", error))
            });
            Ok(name)
        }
        Started::Simulated { .. } => {
            for index in 0..options.nodes {
                let name = name(index);
                let host = Arc::new(node::host::Memory::new(measured()));
                let mut agent = node::Options::new(&name, host, clock.clone(), random.clone());
                agent.addresses = vec![format!("10.42.{}.1", index.min(NODES_MAX - 1))];
                agent.pod_cidr = cidr(index);
                let settings = runtime::simulated::Settings { pod_cidr: cidr(index), ..Default::default() };
                let runtime = runtime::simulated::Simulated::new(clock.clone(), settings)
                    .map_err(|error| Failure::of("start the simulated runtime", error))?;
                let client =
                    server.client(&format!("system:node:{name}"), &["system:nodes", "system:masters"]);
                let stopping = actors.token();
                actors.spawn(async move {
                    let ran = node::run(client, Arc::new(runtime), agent, stopping).await;
                    ran.map_err(|error| Failure::of(format!("run the agent of {name}"), error))
                });
            }
            Ok(format!("{} simulated", options.nodes))
        }
    }
}

/// The size of a simulated machine: large enough that pods fit, small enough that many do not.
fn measured() -> node::node::Measured {
    const GIB: u64 = 1 << 30;
    node::node::Measured {
        cpus: 16,
        memory_bytes: 64 * GIB,
        memory_available_bytes: 64 * GIB,
        disk_bytes: 500 * GIB,
        disk_available_bytes: 500 * GIB,
        inodes: 1 << 24,
        inodes_free: 1 << 24,
        pids_max: 1 << 22,
        pids: 1,
        architecture: if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }.to_owned(),
        kernel: "simulated".to_owned(),
        os_image: "simulated".to_owned(),
        ..node::node::Measured::default()
    }
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
