//! A node with containers: this machine. What `up`'s own node and `keelson node` have in common.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use kube::Client;
use meta::{Clock, Random};
use network::{Commands, Overlay, OverlayOptions};
use runtime_containerd::{
    Registries,
    private::{Handlers, Private, Settings},
};

use super::{CLUSTER_CIDR, CLUSTER_DOMAIN, actors::Actors, bridge, nodes::first_address};
use crate::{
    cli::{MachineOptions, RegistriesChoice},
    data_dir::DataDir,
    error::Failure,
};

/// Where the kubelet API is, unless it is said, on the address by which other machines reach this one: upstream's port,
/// which firewalls know.
const KUBELET_PORT: u16 = 10250;

/// Which machine this is.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The node's name.
    pub(crate) name: String,
    /// Addresses of its pods.
    pub(crate) pod_cidr: String,
    /// The first of them: the machine on the bridge.
    pub(crate) gateway: Ipv4Addr,
    /// By what address other machines reach this one; `None` where it is alone.
    pub(crate) address: Option<Ipv4Addr>,
    kubelet_port: u16,
    registries: Registries,
    handlers: Handlers,
    collection: node::Collection,
    thresholds: node::pressure::Thresholds,
    pub(crate) data: DataDir,
}

/// Its containers, and its way to the pods of other nodes.
pub(crate) struct Containers {
    pub(crate) private: Arc<Private>,
    pub(crate) overlay: Option<Overlay>,
}

/// The containerd of a data directory. Services and masquerading are the network crate's, by nftables.
pub(crate) fn settings(data: &DataDir) -> Settings {
    Settings { ip_masquerade: false, ..Settings::new(data.containerd()) }
}

/// Refuses what contradicts itself.
pub(crate) fn check(options: &MachineOptions) -> Result<(), Failure> {
    let (high, low) = (options.image_gc_high_threshold, options.image_gc_low_threshold);
    if low > high {
        let what = format!("images cannot be removed from {high} % of the disk down to {low} %");
        return Err(Failure::usage(what).advise("--image-gc-low-threshold is the lower one of the two"));
    }
    let mut handlers = BTreeMap::new();
    for (name, binary) in &options.runtime_handler {
        if let Some(other) = handlers.insert(name, binary).filter(|other| *other != binary) {
            let (one, two) = (other.display(), binary.display());
            return Err(Failure::usage(format!("the runtime handler {name} cannot be both {one} and {two}"))
                .advise("give each --runtime-handler a name of its own"));
        }
    }
    Ok(())
}

impl Machine {
    pub(crate) fn new(
        name: &str,
        pod_cidr: &str,
        address: Option<Ipv4Addr>,
        options: &MachineOptions,
        data: &DataDir,
    ) -> Result<Self, Failure> {
        check(options)?;
        let gateway = first_address(pod_cidr)?;
        let (high_percent, low_percent) = (options.image_gc_high_threshold, options.image_gc_low_threshold);
        let collection = node::Collection { high_percent, low_percent, ..node::Collection::default() };
        let registries = match options.registries {
            RegistriesChoice::On => Registries::On,
            RegistriesChoice::Off => Registries::Off,
        };
        Ok(Self {
            name: name.to_owned(),
            pod_cidr: pod_cidr.to_owned(),
            gateway,
            address,
            // Alone, any will do: the API server is on this machine.
            kubelet_port: options.kubelet_port.unwrap_or(if address.is_some() { KUBELET_PORT } else { 0 }),
            registries,
            handlers: Handlers::Given(options.runtime_handler.iter().cloned().collect()),
            collection,
            thresholds: options.eviction_hard,
            data: data.clone(),
        })
    }

    /// Where its kubelet API is, and what it says of itself.
    pub(crate) fn primary(&self) -> Ipv4Addr {
        self.address.unwrap_or(self.gateway)
    }

    /// For a line about its network.
    pub(crate) fn reached(&self) -> String {
        self.address.map(|address| format!(", other nodes by vxlan from {address}")).unwrap_or_default()
    }

    /// The device to other nodes; `None` where there are none.
    pub(crate) async fn overlay(&self) -> Result<Option<Overlay>, Failure> {
        let Some(address) = self.address else { return Ok(None) };
        let options = OverlayOptions {
            node_name: self.name.clone(),
            address,
            pod_cidr: self.pod_cidr.clone(),
            commands: Commands::default(),
        };
        let prepared = Overlay::prepare(options).await;
        prepared.map(Some).map_err(|error| {
            Failure::of("prepare the pod network between nodes", error)
                .advise("name an address of this machine that the other nodes reach with --node-ip")
        })
    }

    /// Starts or adopts containerd. Pods' interfaces are made for what passes the device to other nodes.
    pub(crate) async fn containerd(&self, overlay: Option<Overlay>) -> Result<Containers, runtime::Error> {
        let (mtu, registries) = (overlay.as_ref().map(Overlay::mtu), self.registries);
        let settings = Settings { mtu, registries, handlers: self.handlers.clone(), ..settings(&self.data) };
        let private = Private::start(settings).await?;
        Ok(Containers { private: Arc::new(private), overlay })
    }

    /// The agent's options, without what differs.
    pub(crate) fn agent(
        &self,
        dns: Ipv4Addr,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
    ) -> node::Options {
        let host = Arc::new(node::host::System::new(self.data.node(), self.data.volumes()));
        let mut agent = node::Options::new(&self.name, host, clock.clone(), random.clone());
        agent.addresses = vec![self.primary().to_string()];
        agent.pod_cidr = Some(self.pod_cidr.clone());
        agent.dns.server = Some(dns.to_string());
        agent.dns.domain = CLUSTER_DOMAIN.to_owned();
        agent.log_dir = self.data.node().join("logs");
        agent.clean_local_volumes = true;
        agent.thresholds = self.thresholds;
        // What was loaded by hand could not be had again.
        agent.image_collection = (self.registries == Registries::On).then_some(self.collection);
        agent
    }

    /// How the kubelet API is served with this certificate, to the API servers of this authority.
    pub(crate) fn kubelet(
        &self,
        certificate_pem: String,
        key_pem: String,
        client_ca_pem: String,
    ) -> node::ServerOptions {
        node::ServerOptions {
            listen: SocketAddr::new(self.primary().into(), self.kubelet_port),
            certificate_pem,
            key_pem,
            client_ca_pem,
            users: vec!["kube-apiserver-kubelet-client".to_owned()],
        }
    }

    /// Bridge, service proxy, cluster DNS on the bridge and the way to other nodes' pods, with the rights of `client`.
    pub(crate) async fn network(
        &self,
        actors: &mut Actors,
        client: &Client,
        overlay: Option<Overlay>,
        random: &Arc<dyn Random>,
    ) -> Result<(), Failure> {
        bridge::make(self.gateway, &self.pod_cidr).await?;
        let mut options = network::ProxyOptions::new(&self.name, CLUSTER_CIDR);
        options.localhost_node_ports = true;
        let (proxy, random_too, stopping) = (client.clone(), random.clone(), actors.stopping());
        actors.spawn(async move {
            let ran = network::run_proxy(proxy, options, random_too, stopping).await;
            ran.map_err(|error| Failure::of("serve Services", error))
        });
        let address = SocketAddr::new(IpAddr::V4(self.gateway), bridge::DNS_PORT);
        let options = network::DnsOptions::new(CLUSTER_DOMAIN, vec![address], random.clone());
        let dns = network::Dns::bind(options)
            .await
            .map_err(|error| Failure::of(format!("serve dns on {address}"), error))?;
        let (of_dns, stopping) = (client.clone(), actors.stopping());
        actors.spawn(async move {
            let ran = dns.run(of_dns, stopping).await;
            ran.map_err(|error| Failure::of("serve dns", error))
        });
        if let Some(overlay) = overlay {
            let (client, random, stopping) = (client.clone(), random.clone(), actors.stopping());
            actors.spawn(async move {
                overlay.run(client, random, stopping).await;
                Ok(())
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        machine: MachineOptions,
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (words, expected) in [
            ("", Ok(())),
            ("--runtime-handler own=/bin/sh --runtime-handler other=/bin/sh", Ok(())),
            ("--runtime-handler own=/bin/sh,own=/bin/sh", Ok(())),
            ("--runtime-handler own", Err("want NAME=BINARY")),
            ("--runtime-handler Own=/bin/sh", Err("no RuntimeClass can have the handler \"Own\"")),
            ("--runtime-handler own=sh", Err("sh is no program; name one by its whole path")),
            ("--runtime-handler own=/no/such", Err("/no/such is no program")),
            (
                "--runtime-handler own=/bin/sh --runtime-handler own=/bin/cat",
                Err("the runtime handler own cannot be both /bin/sh and /bin/cat"),
            ),
            ("--kubelet-port 0", Err("0 is not in 1..=65535")),
            ("--image-gc-high-threshold 50", Err("from 50 % of the disk down to 80 %")),
        ] {
            let line = Line::try_parse_from(["node"].into_iter().chain(words.split_whitespace()));
            let got = line
                .map_err(|error| error.to_string())
                .and_then(|line| check(&line.machine).map_err(|failure| failure.to_string()));
            match (got, expected) {
                (Ok(()), Ok(())) => {}
                (Err(said), Err(says)) if said.contains(says) => {}
                (got, expected) => panic!("{words}: {got:?}, not {expected:?}"),
            }
        }
    }
}
