//! The command line, and `KEELSON_*` variables for every flag.

mod inflight;
mod parts;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{pool::NodePool, security::SecurityOptions};

pub(crate) use inflight::InflightOptions;
pub(crate) use parts::{
    ApiserverOptions, ControllerManagerOptions, NodeOptions, PartOptions, SchedulerOptions, SecureOptions,
};
use parts::{listen, node_name};

/// Each node has a range of pod addresses.
const NODES_MAX: i64 = node::simulated::NODES_MAX as i64;

/// A whole Kubernetes in one program.
#[derive(Debug, Parser)]
#[command(name = "keelson", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// Form of the log on standard error
    #[arg(long, global = true, env = "KEELSON_LOG_FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Least severe messages that are logged
    #[arg(long, global = true, env = "KEELSON_LOG_LEVEL", value_enum, default_value = "warn")]
    pub(crate) log_level: LogLevel,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a cluster in this process and run it until Ctrl-C
    Up(Box<UpOptions>),
    /// Stop what `up` left running: its process, pods, containerd and network rules
    Down(DownOptions),
    /// Run an API server alone; several may share one store in PostgreSQL
    Apiserver(Box<ApiserverOptions>),
    /// Run a scheduler against an API server; of several one works at a time
    Scheduler(SchedulerOptions),
    /// Run a controller manager against an API server; of several one works at a time
    ControllerManager(ControllerManagerOptions),
    /// Run a node against an API server
    Node(NodeOptions),
    /// Write everything that a store holds to a file, while the cluster runs or not
    Backup(BackupOptions),
    /// Fill an empty store from a backup
    Restore(RestoreOptions),
    /// Move everything from one store to an empty other one, revisions kept
    Migrate(MigrateOptions),
    /// Show components, nodes and databases at a glance
    Status(StatusOptions),
    /// Say why a pod went, or does not go, where
    #[command(subcommand)]
    Explain(ExplainCommand),
    /// Show the controllers; pause one, let it go on, or have it look at an object
    Controllers(ControllersOptions),
    /// Look at build farms
    #[command(subcommand)]
    Buildbarn(BuildbarnCommand),
    /// Work with container images on this node
    #[command(subcommand)]
    Image(ImageCommand),
    /// Run operators alone, against any cluster
    Operator(OperatorOptions),
    /// Print the manifests with which operators run on any cluster
    Install(InstallOptions),
    /// Receive inventories from ObsykAgents: the platform's side, for tests and at home
    ObsykPlatform(Box<ObsykPlatformOptions>),
    /// Show the version
    Version(VersionOptions),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for a reader
    Text,
    /// A JSON object per line
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How container runtimes are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuntimeChoice {
    /// containerd where it can run, else simulated; says which and why
    Auto,
    /// A containerd of its own, below the data directory
    Containerd,
    /// Pods that exist in memory only
    Simulated,
}

#[derive(Debug, Args)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Where the API server listens; port 0 takes a free one
    #[arg(long, env = "KEELSON_LISTEN", default_value = "127.0.0.1:6443", value_parser = listen)]
    pub(crate) listen: SocketAddr,
    /// What runs containers
    #[arg(long, env = "KEELSON_RUNTIME", value_enum, default_value = "auto")]
    pub(crate) runtime: RuntimeChoice,
    /// Number of nodes; more than one only with the simulated runtime [default: 1, none beside pools]
    #[arg(long, env = "KEELSON_NODES", value_parser = clap::value_parser!(u32).range(1..=NODES_MAX))]
    pub(crate) nodes: Option<u32>,
    /// Simulated nodes of a kind, may be repeated:
    /// name=NAME,count=N[,cpu=16][,memory=64Gi][,pods=110][,labels=K=V;K=V][,taints=K=V:EFFECT;K:EFFECT]
    #[arg(long = "node-pool", env = "KEELSON_NODE_POOL", value_name = "POOL", value_delimiter = ' ')]
    pub(crate) node_pools: Vec<NodePool>,
    #[command(flatten)]
    pub(crate) machine: MachineOptions,
    /// Nodes on other machines whose credentials to write, as node-NAME.kubeconfig in the data directory
    #[arg(long, env = "KEELSON_NODE", value_name = "NAME,...", value_delimiter = ',', value_parser = node_name)]
    pub(crate) node: Vec<String>,
    /// The scheduler's configuration: a KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1
    #[arg(long, env = "KEELSON_SCHEDULER_CONFIG", value_name = "FILE")]
    pub(crate) scheduler_config: Option<PathBuf>,
    /// Operators to run: all, none, or a list of names
    #[arg(long, env = "KEELSON_OPERATORS", value_delimiter = ',', default_value = "all")]
    pub(crate) operators: Vec<String>,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    #[command(flatten)]
    pub(crate) observe: ObserveOptions,
    #[command(flatten)]
    pub(crate) inflight: InflightOptions,
    #[command(flatten)]
    pub(crate) security: SecurityOptions,
}

/// Where images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RegistriesChoice {
    /// From registries, as DATA_DIR/containerd/certs.d says of them
    On,
    /// Only those that `keelson image load` loaded; imagePullPolicy Always takes what is there
    Off,
}

/// Of a node with containers.
#[derive(Debug, Args)]
pub(crate) struct MachineOptions {
    /// From how much of the disk in use, in percent, images that no container has are removed; none are with 100, and with
    /// --registries off
    #[arg(long, env = "KEELSON_IMAGE_GC_HIGH_THRESHOLD", value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(..=100))]
    pub(crate) image_gc_high_threshold: u8,
    /// Down to how much
    #[arg(long, env = "KEELSON_IMAGE_GC_LOW_THRESHOLD", value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(..=100))]
    pub(crate) image_gc_low_threshold: u8,
    /// Whether images that are not here are fetched
    #[arg(long, env = "KEELSON_REGISTRIES", value_enum, default_value = "on")]
    pub(crate) registries: RegistriesChoice,
    /// By what address nodes on other machines reach this one [default: of `up` none, with --node the one of --listen; of
    /// `node` the one from which it reaches the API server, none where that is loopback]
    #[arg(long, env = "KEELSON_NODE_IP", value_name = "ADDRESS")]
    pub(crate) node_ip: Option<Ipv4Addr>,
    /// Where the API server reaches its kubelet API [default: 10250; a free port where no other machine reaches it]
    #[arg(long, env = "KEELSON_KUBELET_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) kubelet_port: Option<u16>,
    /// What must be left of memory, disk, inodes and process ids; below it the node takes no more pods
    #[arg(long, env = "KEELSON_EVICTION_HARD", value_name = "SIGNAL<VALUE,...", default_value = "")]
    pub(crate) eviction_hard: node::pressure::Thresholds,
    /// What runs the pods of a RuntimeClass with this handler: an OCI runtime with runc's command line, such as
    /// gvisor=/usr/bin/runsc; may be given several times. `runc` is there anyway, `crun` where it is installed
    #[arg(long, env = "KEELSON_RUNTIME_HANDLER", value_name = "NAME=BINARY", value_delimiter = ',', value_parser = runtime_handler)]
    pub(crate) runtime_handler: Vec<(String, PathBuf)>,
}

/// The name is what a RuntimeClass can have as its handler.
fn runtime_handler(text: &str) -> Result<(String, PathBuf), String> {
    let (name, binary) =
        text.split_once('=').ok_or("want NAME=BINARY, such as gvisor=/usr/bin/runsc".to_owned())?;
    if let Some(why) = meta::names::dns1123_label(name).first() {
        return Err(format!("no RuntimeClass can have the handler {name:?}: {why}"));
    }
    let binary = PathBuf::from(binary);
    match binary.is_absolute() && binary.is_file() {
        true => Ok((name.to_owned(), binary)),
        false => Err(format!("{} is no program; name one by its whole path", binary.display())),
    }
}

#[derive(Debug, Default, Args)]
pub(crate) struct StoreOptions {
    /// Where objects are kept: postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE, or a data directory
    /// [default: the data directory]
    #[arg(long, env = "KEELSON_STORE", hide_env_values = true, value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// What carries events between servers on PostgreSQL: redis://HOST[:PORT],
    /// redis+sentinel://SENTINEL[:PORT],.../MASTER or redis+cluster://HOST[:PORT],...; with rediss for TLS
    /// [default: LISTEN/NOTIFY]
    #[arg(long, env = "KEELSON_EVENTS", hide_env_values = true, value_name = "URL")]
    pub(crate) events: Option<String>,
    /// The authority and the token key, the same for all API servers of a cluster [default: DATA_DIR/pki]
    #[arg(long, env = "KEELSON_PKI_DIR")]
    pub(crate) pki_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ObserveOptions {
    /// Which requests are traced and who is told: a TracingConfiguration of apiserver.config.k8s.io
    /// [default: none]
    #[arg(long, env = "KEELSON_TRACING_CONFIG_FILE", value_name = "FILE")]
    pub(crate) tracing_config_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BackupOptions {
    /// The file to write; must not exist
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// A store in PostgreSQL, or a data directory of another place [default: the data directory]
    #[arg(long, env = "KEELSON_STORE", hide_env_values = true, value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// The running cluster to back up through its API server
    #[arg(long, env = "KEELSON_KUBECONFIG", conflicts_with = "store")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreOptions {
    /// The file that `backup` wrote
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// The empty store: in PostgreSQL, or a data directory [default: the data directory]
    #[arg(long, env = "KEELSON_STORE", hide_env_values = true, value_name = "STORE")]
    pub(crate) store: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MigrateOptions {
    /// What to move: postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE, or a data directory
    #[arg(long, value_name = "STORE")]
    pub(crate) from: String,
    /// Where to: the same, and empty
    #[arg(long, value_name = "STORE")]
    pub(crate) to: String,
}

impl UpOptions {
    /// Nodes beside the pools.
    pub(crate) fn own_nodes(&self) -> u32 {
        self.nodes.unwrap_or(u32::from(self.node_pools.is_empty()))
    }

    /// All nodes.
    pub(crate) fn node_count(&self) -> u64 {
        let pools: u64 = self.node_pools.iter().map(|pool| u64::from(pool.count)).sum();
        pools + u64::from(self.own_nodes())
    }
}

#[derive(Debug, Args)]
pub(crate) struct DataDir {
    /// Where the cluster lives [default: /var/lib/keelson as root, else $XDG_STATE_HOME/keelson]
    #[arg(long, global = true, env = "KEELSON_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DownOptions {
    #[command(flatten)]
    pub(crate) data: DataDir,
}

#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Another cluster than the one in the data directory
    #[arg(long, env = "KEELSON_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// json or yaml for machines
    #[arg(long, short, env = "KEELSON_OUTPUT", value_enum)]
    pub(crate) output: Option<Output>,
}

/// How to reach the scheduler and the controller manager.
#[derive(Debug, Args)]
pub(crate) struct ReachOptions {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Whose credentials to use [default: admin.kubeconfig of the data directory]
    #[arg(long, global = true, env = "KEELSON_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Where they answer over gRPC [default: rpc.address of the data directory]
    #[arg(long, global = true, env = "KEELSON_RPC", value_name = "ADDRESS:PORT", value_parser = listen)]
    pub(crate) rpc: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExplainCommand {
    /// Every filter and score of every node for a pod
    Pod(ExplainPodOptions),
}

#[derive(Debug, Args)]
pub(crate) struct ExplainPodOptions {
    /// The pod
    pub(crate) name: String,
    /// Its namespace
    #[arg(long, short, env = "KEELSON_NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
    /// Show every node
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) reach: ReachOptions,
    /// json or yaml for machines
    #[arg(long, short, env = "KEELSON_OUTPUT", value_enum)]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, Args)]
pub(crate) struct ControllersOptions {
    #[command(subcommand)]
    pub(crate) command: Option<ControllersCommand>,
    #[command(flatten)]
    pub(crate) reach: ReachOptions,
    /// json or yaml for machines
    #[arg(long, short, global = true, env = "KEELSON_OUTPUT", value_enum)]
    pub(crate) output: Option<Output>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ControllersCommand {
    /// Show which objects wait for a controller, or for any
    Queues {
        /// One controller
        controller: Option<String>,
        /// Objects shown of each; 0 is 100
        #[arg(long, default_value_t = 0)]
        limit: u32,
    },
    /// Hold a controller's queue until it is resumed
    Pause {
        /// The controller
        controller: String,
    },
    /// Let a paused controller go on
    Resume {
        /// The controller
        controller: String,
    },
    /// Have a controller look at an object now
    Trigger {
        /// The controller
        controller: String,
        /// The object
        name: String,
        /// Its namespace; none for objects without one
        #[arg(long, short)]
        namespace: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildbarnCommand {
    /// Show the farms: components, pools and their queues, shards, where clients connect
    Status(BuildbarnStatusOptions),
}

#[derive(Debug, Args)]
pub(crate) struct BuildbarnStatusOptions {
    /// The farm of one namespace [default: every farm]
    #[arg(long, short, env = "KEELSON_NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: StatusOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Load images from tar archives (OCI layout or `docker save`) into the node's containerd
    Load {
        #[command(flatten)]
        data: DataDir,
        /// The archives
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OperatorOptions {
    /// all, or a list of names
    #[arg(required = true, value_delimiter = ',')]
    pub(crate) names: Vec<String>,
    /// The cluster [default: the one that this runs in]
    #[arg(long, env = "KEELSON_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Namespace of the Lease by which one replica leads
    #[arg(long, env = "KEELSON_NAMESPACE", default_value = "keelson-system")]
    pub(crate) namespace: String,
    /// Name of this replica in the Lease [default: one by chance]
    #[arg(long, env = "KEELSON_IDENTITY")]
    pub(crate) identity: Option<String>,
    /// Where health and metrics are; port 0 takes a free one
    #[arg(long, env = "KEELSON_HEALTH", default_value = "127.0.0.1:8081", value_parser = listen)]
    pub(crate) health: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct InstallOptions {
    /// all, or a list of names
    #[arg(long, env = "KEELSON_OPERATOR", required = true, value_delimiter = ',', num_args = 1..)]
    pub(crate) operator: Vec<String>,
    /// Namespace to run in
    #[arg(long, env = "KEELSON_NAMESPACE", default_value = "keelson-system")]
    pub(crate) namespace: String,
    /// Image with keelson as its entry point
    #[arg(long, env = "KEELSON_IMAGE", default_value = concat!("keelson:", env!("CARGO_PKG_VERSION")))]
    pub(crate) image: String,
    /// Replicas; one leads
    #[arg(long, env = "KEELSON_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub(crate) replicas: u32,
}

/// What a snapshot means for objects that it does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Snapshots {
    /// They are gone
    Replace,
    /// They stay
    Merge,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ObsykPlatformOptions {
    /// Where the inventory and the clients are kept [default: keelson-obsyk-platform beside the data
    /// directory of `keelson up`]
    #[arg(long, global = true, env = "KEELSON_OBSYK_PLATFORM_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where agents are answered; port 0 takes a free one
    #[arg(long, env = "KEELSON_LISTEN", default_value = "127.0.0.1:8443", value_parser = listen)]
    pub(crate) listen: SocketAddr,
    /// Where the page and the JSON API are; on loopback only
    #[arg(long, env = "KEELSON_PAGE", default_value = "127.0.0.1:8444", value_parser = listen)]
    pub(crate) page: SocketAddr,
    /// The URL that agents write, audience of their assertions [default: https://LISTEN]
    #[arg(long, env = "KEELSON_URL")]
    pub(crate) url: Option<String>,
    /// Certificate chain in PEM [default: one of an own authority, pki/ca.crt]
    #[arg(long, env = "KEELSON_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key in PEM
    #[arg(long, env = "KEELSON_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
    /// One more DNS name or address in the own certificate
    #[arg(long, env = "KEELSON_TLS_NAME", value_delimiter = ',')]
    pub(crate) tls_name: Vec<String>,
    /// No TLS; on loopback only
    #[arg(long, env = "KEELSON_PLAIN_HTTP")]
    pub(crate) plain_http: bool,
    /// Life of an access token
    #[arg(long, env = "KEELSON_TOKEN_SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(i64).range(1..=86_400))]
    pub(crate) token_seconds: i64,
    /// Speak the original contract only
    #[arg(long, env = "KEELSON_NO_BATCH")]
    pub(crate) no_batch: bool,
    /// What a snapshot means for objects that it does not name
    #[arg(long, env = "KEELSON_SNAPSHOTS", value_enum, default_value = "replace")]
    pub(crate) snapshots: Snapshots,
    /// Largest body in MiB
    #[arg(long, env = "KEELSON_MAX_BODY_MIB", default_value_t = 256, value_parser = mebibytes)]
    pub(crate) max_body_mib: usize,
    /// Go wrong on purpose: PATH:FAULT%PERCENT, such as events:503%10; may be given several times
    #[arg(long, env = "KEELSON_FAULT", value_delimiter = ',')]
    pub(crate) fault: Vec<String>,
    /// Where the chance of faults begins, for the same faults again
    #[arg(long, env = "KEELSON_FAULT_SEED")]
    pub(crate) fault_seed: Option<u64>,
    #[command(subcommand)]
    pub(crate) command: Option<ObsykPlatformCommand>,
}

fn mebibytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size @ 1..=4096) => Ok(size),
        _ => Err("want 1 to 4096".into()),
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ObsykPlatformCommand {
    /// Make a client, or give it another key, and print the Secret for its ObsykAgent
    Register {
        /// What the client calls itself
        client_id: String,
        /// Its public key (P-256, PEM) instead of a new pair
        #[arg(long)]
        public_key: Option<PathBuf>,
        /// Namespace of the Secret
        #[arg(long, default_value = "default")]
        namespace: String,
        /// Name of the Secret
        #[arg(long, default_value = "obsyk-credentials")]
        secret: String,
    },
    /// Take a client's rights away, at once
    Revoke {
        /// The client
        client_id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct VersionOptions {
    /// json or yaml for machines
    #[arg(long, short, env = "KEELSON_OUTPUT", value_enum)]
    pub(crate) output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Json,
    Yaml,
}
