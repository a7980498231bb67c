//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures a Kubernetes API server, or the embedded store alone.
#[derive(Debug, Parser)]
#[command(name = "bench", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// Threads of the generator
    #[arg(long, global = true, default_value_t = 2)]
    pub(crate) threads: usize,
    /// Form of the result
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For a reader
    Table,
    /// For a machine
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure a server: creates, gets, updates, lists, watch deliveries, start, memory
    Server(Box<ServerOptions>),
    /// Measure a control plane: pods until they are bound, a Deployment until it is ready, a namespace until it
    /// is gone
    Scheduler(Box<SchedulerOptions>),
    /// Measure the Buildbarn operator: a farm until it is ready, what many farms cost, workers after their queue
    /// has grown
    Farm(Box<FarmOptions>),
    /// Fill an embedded store in a directory and time how it opens again
    Store(StoreOptions),
}

/// One thing that is measured of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Phase {
    Create,
    Get,
    Update,
    List,
    Watch,
    /// Gets while one client lists everything again and again
    GetBesideLists,
    /// Many watchers with a label selector, each of which wants one event of a hundred
    WatchSelected,
}

/// One thing that is measured of a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Pods of one shape
    Basic,
    /// Pods spread over zones, a skew of 5 at most
    Spread,
    /// Pods in one zone with others like them
    Affinity,
    /// Pods of which a node has one at most; as many as there are nodes
    AntiAffinity,
    /// Pods that take the places of less important ones; as many as there are nodes
    Preemption,
    /// As basic, while nodes and pods come and go
    Churn,
    /// A Deployment of so many pods to ready, and what it costs at rest; wants a cluster whose pods run
    Deployment,
    /// A namespace full of objects to gone; wants controllers
    Namespace,
}

impl Case {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Spread => "spread",
            Self::Affinity => "affinity",
            Self::AntiAffinity => "anti-affinity",
            Self::Preemption => "preemption",
            Self::Churn => "churn",
            Self::Deployment => "deployment",
            Self::Namespace => "namespace",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SchedulerOptions {
    #[command(flatten)]
    pub(crate) target: TargetOptions,
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    /// What to measure, in this order
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "basic,spread,affinity,anti-affinity,preemption,churn"
    )]
    pub(crate) cases: Vec<Case>,
    /// Nodes to make, which nobody keeps alive; 0 where the cluster has its own
    #[arg(long, default_value_t = 5000)]
    pub(crate) nodes: u64,
    /// Pods of a case
    #[arg(long, default_value_t = 10_000)]
    pub(crate) pods: u64,
    /// Objects of the case namespace
    #[arg(long, default_value_t = 10_000)]
    pub(crate) objects: u64,
    /// Connections that requests are spread over
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: usize,
    /// Requests under way at once
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Longest time of a case, in seconds
    #[arg(long, default_value_t = 600)]
    pub(crate) seconds_max: u64,
}

/// One thing that is measured of the Buildbarn operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FarmCase {
    /// A farm of five components with many workers, from its creation until all of it is ready
    Ready,
    /// Many small farms: until all are ready, what they cost at rest, and how long a change of one takes
    Farms,
    /// A queue that grows, until the worker that it asks for runs
    Reaction,
}

impl FarmCase {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Farms => "farms",
            Self::Reaction => "reaction",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct FarmOptions {
    #[command(flatten)]
    pub(crate) target: TargetOptions,
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    /// Start the operator with this shell command once the cluster is ready, stop it at the end; its memory and
    /// processor time are its own then. Without it one must run in the cluster
    #[arg(long)]
    pub(crate) operator: Option<String>,
    /// Where the operator serves its metrics, which count reconciliations
    #[arg(long)]
    pub(crate) operator_metrics: Option<String>,
    /// What to measure, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ready,farms,reaction")]
    pub(crate) cases: Vec<FarmCase>,
    /// Workers of the case ready
    #[arg(long, default_value_t = 1000)]
    pub(crate) workers: u64,
    /// Farms of the case farms
    #[arg(long, default_value_t = 50)]
    pub(crate) farms: u64,
    /// Changes of the case farms, one after the other
    #[arg(long, default_value_t = 200)]
    pub(crate) changes: u64,
    /// How often the queue grows in the case reaction
    #[arg(long, default_value_t = 20)]
    pub(crate) rounds: u64,
    /// Longest time of a case, in seconds
    #[arg(long, default_value_t = 600)]
    pub(crate) seconds_max: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ServerOptions {
    #[command(flatten)]
    pub(crate) target: TargetOptions,
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    /// What to measure, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_value = "get,update,list,watch,create")]
    pub(crate) phases: Vec<Phase>,
    /// Connections that requests are spread over
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: usize,
    /// Requests under way at once
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Lists under way at once; one answer is several megabytes
    #[arg(long, default_value_t = 8)]
    pub(crate) lists_in_flight: usize,
    /// Objects that are read, updated, listed and watched
    #[arg(long, default_value_t = 5000)]
    pub(crate) objects: usize,
    /// Size of an object as it is sent, in bytes
    #[arg(long, default_value_t = 1024)]
    pub(crate) object_bytes: usize,
    /// Longest time of a phase, in seconds
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Most requests of a phase
    #[arg(long, default_value_t = 500_000)]
    pub(crate) requests_max: u64,
    /// Watchers, each with a connection of its own
    #[arg(long, default_value_t = 100)]
    pub(crate) watchers: usize,
    /// Updates that the watchers are to see
    #[arg(long, default_value_t = 5000)]
    pub(crate) watch_updates: u64,
    /// Watchers of the phase watch-selected, 200 to a connection
    #[arg(long, default_value_t = 10_000)]
    pub(crate) selecting_watchers: usize,
    /// After the last update, a watcher that is given nothing for so many seconds has been forgotten
    #[arg(long, default_value_t = 10)]
    pub(crate) watch_silence_seconds: u64,
    /// Leave the objects and namespaces that were made
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Where the server is and how to be let in.
#[derive(Clone, Debug, Args)]
pub(crate) struct TargetOptions {
    /// A kubeconfig; its current context is used
    #[arg(long, env = "KUBECONFIG", required_unless_present = "server")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The server, such as https://127.0.0.1:6443, instead of the kubeconfig's
    #[arg(long)]
    pub(crate) server: Option<String>,
    /// Certificates of those who may vouch for the server (PEM)
    #[arg(long)]
    pub(crate) certificate_authority: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, requires = "client_key")]
    pub(crate) client_certificate: Option<PathBuf>,
    /// Key of the client certificate (PEM)
    #[arg(long, requires = "client_certificate")]
    pub(crate) client_key: Option<PathBuf>,
    /// Bearer token
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Believe whatever certificate the server shows
    #[arg(long)]
    pub(crate) insecure_skip_tls_verify: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProcessOptions {
    /// Start the server with this shell command, time it until /readyz answers, stop it at the end
    #[arg(long)]
    pub(crate) spawn: Option<String>,
    /// How long the started server may take, in seconds
    #[arg(long, default_value_t = 60)]
    pub(crate) ready_seconds: u64,
    /// Measure the memory of these processes (with their children); a started server is included
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    /// Seconds to wait before the memory of the idle server is read; its processor time is that of the
    /// second half of them
    #[arg(long, default_value_t = 3)]
    pub(crate) idle_seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct StoreOptions {
    /// Directory for the store; must not hold one
    #[arg(long)]
    pub(crate) directory: PathBuf,
    /// Objects to write
    #[arg(long, default_value_t = 200_000)]
    pub(crate) objects: usize,
    /// Size of a value in bytes
    #[arg(long, default_value_t = 1024)]
    pub(crate) object_bytes: usize,
    /// Writes in a batch
    #[arg(long, default_value_t = 64)]
    pub(crate) batch: usize,
    /// Batches under way at once
    #[arg(long, default_value_t = 1)]
    pub(crate) in_flight: usize,
    /// Leave the store
    #[arg(long)]
    pub(crate) keep: bool,
}
