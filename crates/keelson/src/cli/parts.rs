//! The parts of a cluster as processes of their own.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{ArgAction, Args};

use super::{DataDir, InflightOptions, MachineOptions, ObserveOptions, RuntimeChoice, StoreOptions};
use crate::security::SecurityOptions;

#[derive(Debug, Args)]
pub(crate) struct ApiserverOptions {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Where the API server listens; port 0 takes a free one
    #[arg(long, env = "KEELSON_LISTEN", default_value = "127.0.0.1:6443", value_parser = listen)]
    pub(crate) listen: SocketAddr,
    /// Under what address clients reach it, such as a balancer's HOST:PORT [default: where it listens]
    #[arg(long, env = "KEELSON_ADVERTISE", value_parser = advertise)]
    pub(crate) advertise: Option<(String, u16)>,
    /// Nodes whose credentials to write, as node-NAME.kubeconfig in the data directory
    #[arg(long, env = "KEELSON_NODE", value_name = "NAME,...", value_delimiter = ',', value_parser = node_name)]
    pub(crate) node: Vec<String>,
    /// Seconds between the signal to stop, when /readyz begins to fail, and the end of serving; a second signal
    /// ends at once
    #[arg(long, env = "KEELSON_SHUTDOWN_DELAY_SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3_600))]
    pub(crate) shutdown_delay_seconds: u64,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    #[command(flatten)]
    pub(crate) observe: ObserveOptions,
    #[command(flatten)]
    pub(crate) inflight: InflightOptions,
    #[command(flatten)]
    pub(crate) security: SecurityOptions,
}

/// What every part that is a client of the API server needs.
#[derive(Debug, Args)]
pub(crate) struct PartOptions {
    /// The cluster to work for
    #[arg(long, env = "KEELSON_KUBECONFIG")]
    pub(crate) kubeconfig: PathBuf,
}

/// Where scheduler and controller manager show health, metrics and configuration.
#[derive(Debug, Args)]
pub(crate) struct SecureOptions {
    /// The address at which /healthz, /livez, /readyz, /metrics and /configz are served
    #[arg(long, env = "KEELSON_BIND_ADDRESS", default_value = "127.0.0.1")]
    pub(crate) bind_address: IpAddr,
    /// The port there, by HTTPS; 0 serves nothing [default: 10257 of the controller manager, 10259 of the scheduler,
    /// nothing where that is in use]
    #[arg(long, env = "KEELSON_SECURE_PORT")]
    pub(crate) secure_port: Option<u16>,
    /// The certificate to serve with [default: one that is made for as long as the process runs]
    #[arg(long, env = "KEELSON_TLS_CERT_FILE", value_name = "FILE", requires = "tls_private_key_file")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "KEELSON_TLS_PRIVATE_KEY_FILE", value_name = "FILE", requires = "tls_cert_file")]
    pub(crate) tls_private_key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SchedulerOptions {
    #[command(flatten)]
    pub(crate) part: PartOptions,
    #[command(flatten)]
    pub(crate) secure: SecureOptions,
    /// A KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1; without one, upstream's defaults with
    /// an election
    #[arg(long, env = "KEELSON_SCHEDULER_CONFIG")]
    pub(crate) scheduler_config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ControllerManagerOptions {
    #[command(flatten)]
    pub(crate) part: PartOptions,
    #[command(flatten)]
    pub(crate) secure: SecureOptions,
    /// Directory on each node below which local volumes are made
    #[arg(long, env = "KEELSON_VOLUMES_DIR", default_value = "/var/lib/keelson/volumes")]
    pub(crate) volumes_dir: PathBuf,
    /// The authority that signs approved certificate requests, such as ca.crt of the API servers' --pki-dir
    /// [default: they stay unsigned]
    #[arg(
        long,
        env = "KEELSON_CLUSTER_SIGNING_CERT_FILE",
        value_name = "FILE",
        requires = "cluster_signing_key_file"
    )]
    pub(crate) cluster_signing_cert_file: Option<PathBuf>,
    /// Its key, such as ca.key
    #[arg(
        long,
        env = "KEELSON_CLUSTER_SIGNING_KEY_FILE",
        value_name = "FILE",
        requires = "cluster_signing_cert_file"
    )]
    pub(crate) cluster_signing_key_file: Option<PathBuf>,
    /// Let each controller act as a service account of its own in kube-system, with upstream's role for it, instead
    /// of all as the user of --kubeconfig
    #[arg(long, env = "KEELSON_USE_SERVICE_ACCOUNT_CREDENTIALS")]
    pub(crate) use_service_account_credentials: bool,
    /// Whether nodes that come without a range of pod addresses (`keelson node` without --pod-cidr) are given one
    #[arg(long, env = "KEELSON_ALLOCATE_NODE_CIDRS", default_value_t = true, action = ArgAction::Set)]
    pub(crate) allocate_node_cidrs: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NodeOptions {
    #[command(flatten)]
    pub(crate) part: PartOptions,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// A kubeconfig with a bootstrap token, with which the node asks for its credentials where --kubeconfig is not
    /// there or soon over
    #[arg(long, env = "KEELSON_BOOTSTRAP_KUBECONFIG", value_name = "FILE")]
    pub(crate) bootstrap_kubeconfig: Option<PathBuf>,
    /// The node's name
    #[arg(long, env = "KEELSON_NODE_NAME", value_parser = node_name)]
    pub(crate) name: String,
    /// The addresses of its pods, such as 10.42.7.0/24; no two nodes may share any [default: those that the controller
    /// manager gives it]
    #[arg(long, env = "KEELSON_POD_CIDR", value_parser = pod_cidr)]
    pub(crate) pod_cidr: Option<String>,
    #[command(flatten)]
    pub(crate) machine: MachineOptions,
    /// What runs containers; auto is containerd for root, and simulated for others
    #[arg(long, env = "KEELSON_RUNTIME", value_enum, default_value = "auto")]
    pub(crate) runtime: RuntimeChoice,
}

fn advertise(text: &str) -> Result<(String, u16), String> {
    let wrong = || "want HOST:PORT, such as balancer.example.com:6443".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || host.contains('/') { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

pub(super) fn node_name(text: &str) -> Result<String, String> {
    match meta::names::dns1123_subdomain(text).first() {
        Some(why) => Err(why.clone()),
        None => Ok(text.to_owned()),
    }
}

fn pod_cidr(text: &str) -> Result<String, String> {
    crate::up::first_address(text).map(|_| text.to_owned()).map_err(|failure| failure.to_string())
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "want ADDRESS:PORT with a numeric address, such as 127.0.0.1:6443 or [::]:6443".into())
}
