//! A cluster: its parts, and how they are started, broken and mended.

use std::{sync::Arc, time::Duration};

use kube::core::ApiResource;
use meta::{Clock, Random, Seeded, Timestamp};
use node::{simulated::Machine, usage::Board};
use resource::User;
use runtime::simulated::Simulated;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    clock::{Skewed, Virtual},
    link::{Faults, Gate, Link},
    slow::Slow,
    truth::Truth,
};

/// 2026-01-01T00:00:00Z.
const START_S: i64 = 1_767_225_600;
/// What is published as the authority of a server that has no certificate.
const ROOT_CA: &str = "-----BEGIN CERTIFICATE-----\nsimulated\n-----END CERTIFICATE-----\n";
/// How long the API server may take to carry out its first request after a start.
const READY_MAX: Duration = Duration::from_secs(60);
/// Passes every authorization.
const MASTERS: &str = "system:masters";

/// What cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be read.
    #[error("load the store: {0}")]
    Load(String),
    /// An object that every cluster begins with was refused.
    #[error("bootstrap {0}")]
    Bootstrap(String),
    /// A simulated runtime could not be made.
    #[error("start the simulated runtime: {0}")]
    Runtime(#[from] runtime::Error),
    /// The cluster never came to rest.
    #[error("the cluster was still busy after {after:?} of its time, with {with}")]
    Busy {
        /// How long it was given.
        after: Duration,
        /// What was written last.
        with: String,
    },
}

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// All chance comes from it.
    pub seed: u64,
    /// The nodes.
    pub nodes: Vec<Machine>,
    /// The time at which it begins.
    pub start: Timestamp,
}

impl Settings {
    /// `nodes` nodes of 16 CPUs and 64 GiB, beginning with the year 2026.
    pub fn new(seed: u64, nodes: u32) -> Self {
        let machine = |index| Machine::new(format!("node-{index}"), index);
        let start = Timestamp::from_second(START_S).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { seed, nodes: (0..nodes).map(machine).collect(), start }
    }
}

/// One of the programs beside the API server.
pub struct Part {
    /// What it is called in reports.
    pub name: String,
    /// What goes wrong between it and the API server.
    pub faults: Arc<Faults>,
    /// What it thinks the time is.
    pub clock: Arc<Skewed>,
    random: Arc<dyn Random>,
    link: Link,
    board: Arc<Board>,
    role: Role,
    running: Option<(JoinHandle<()>, CancellationToken)>,
}

enum Role {
    Controllers,
    Scheduler,
    Node(Box<(Machine, Simulated)>),
}

/// A cluster in this process. Dropping it ends it at once.
pub struct Cluster {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    store: Slow,
    gate: Arc<Gate>,
    board: Arc<Board>,
    api: Option<Api>,
    /// Controller manager, scheduler, then the nodes.
    pub parts: Vec<Part>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for part in &mut self.parts {
            part.crash();
        }
    }
}

/// Separate streams of chance, so that one part's rolls do not move another's.
fn stream(seed: u64, at: u64) -> Arc<dyn Random> {
    Arc::new(Seeded::new(seed ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

impl Cluster {
    /// Starts everything. Must be called within a tokio runtime whose time is paused.
    pub async fn start(settings: &Settings) -> Result<Self, Error> {
        let clock: Arc<dyn Clock> = Arc::new(Virtual::new(settings.start));
        let random = stream(settings.seed, 1);
        let store = Slow::new(stream(settings.seed, 2));
        let gate = Arc::new(Gate::default());
        let board = Arc::new(Board::default());
        let mut cluster = Self { clock, random, store, gate, board, api: None, parts: Vec::new() };
        cluster.start_api().await?;
        let mut roles = vec![Role::Controllers, Role::Scheduler];
        for machine in &settings.nodes {
            let runtime = machine.runtime(cluster.clock.clone())?;
            roles.push(Role::Node(Box::new((machine.clone(), runtime))));
        }
        for (role, at) in roles.into_iter().zip(3..) {
            let mut part = cluster.part(role, stream(settings.seed, at));
            part.start();
            cluster.parts.push(part);
        }
        Ok(cluster)
    }

    fn part(&self, role: Role, random: Arc<dyn Random>) -> Part {
        let (name, user, groups) = match &role {
            // With their own rights and no more, as each controller has.
            Role::Controllers => {
                ("controllers".to_owned(), "system:kube-controller-manager".to_owned(), vec![])
            }
            Role::Scheduler => ("scheduler".to_owned(), "system:kube-scheduler".to_owned(), vec![MASTERS]),
            Role::Node(node) => {
                let groups = vec!["system:nodes", MASTERS];
                (node.0.name.clone(), format!("system:node:{}", node.0.name), groups)
            }
        };
        let link = self.link(&user, &groups, random.clone());
        let clock = Arc::new(Skewed::new(self.clock.clone()));
        let board = self.board.clone();
        Part { name, faults: link.faults.clone(), clock, random, link, board, role, running: None }
    }

    fn link(&self, user: &str, groups: &[&str], random: Arc<dyn Random>) -> Link {
        let groups = groups.iter().chain(&["system:authenticated"]).map(ToString::to_string).collect();
        let user = User { name: user.to_owned(), groups, ..User::default() };
        Link { gate: self.gate.clone(), user, faults: Arc::new(Faults::new(random)) }
    }

    /// A client of an administrator, on a link that never fails while the API server runs.
    pub fn client(&self) -> kube::Client {
        self.link("admin", &[MASTERS], self.random.clone()).client()
    }

    /// A client that acts as `user` in `groups`: what a ServiceAccount or a person may do.
    pub fn client_of(&self, user: &str, groups: &[&str]) -> kube::Client {
        self.link(user, groups, self.random.clone()).client()
    }

    /// The time in the cluster.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Whether the API server runs.
    pub fn serves(&self) -> bool {
        self.api.is_some()
    }

    /// Ends the API server at once: requests under way get no answer.
    pub fn crash_api(&mut self) {
        self.gate.shut();
        self.api = None;
    }

    /// Starts the API server from what the store has, unless it runs.
    pub async fn start_api(&mut self) -> Result<(), Error> {
        if self.api.is_some() {
            return Ok(());
        }
        let store = Arc::new(self.store.clone());
        let starting = Api::start(store, self.clock.clone(), self.random.clone(), self.board.clone());
        let api = tokio::time::timeout(READY_MAX, starting).await;
        let late = |_| Error::Busy { after: READY_MAX, with: "the start of the API server".to_owned() };
        let api = api.map_err(late)??;
        self.gate.open(api.server.clone(), api.dead.clone());
        self.api = Some(api);
        Ok(())
    }

    /// From now on a commit takes up to so long.
    pub fn slow_store(&self, commit_ms_max: u64) {
        self.store.set(commit_ms_max);
    }

    /// The committed state; `None` while the API server is down.
    pub fn truth(&self) -> Option<Truth> {
        self.api.as_ref().map(|api| Truth::new(api.rest.clone()))
    }

    /// How the newest API server names a kind, and whether it is namespaced; `None` while it is down or
    /// does not serve it.
    pub fn resource(&self, group: &str, version: &str, kind: &str) -> Option<(ApiResource, bool)> {
        let served = self.api.as_ref()?.rest.registry().by_kind(group, version, kind)?;
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: served.api_version(),
            kind: kind.to_owned(),
            plural: served.plural.to_string(),
        };
        Some((resource, served.scope == resource::Scope::Namespaced))
    }

    /// Ends every fault: parts that are down start, links and the store work, clocks agree.
    pub async fn mend(&mut self) -> Result<(), Error> {
        self.slow_store(0);
        self.start_api().await?;
        for part in &mut self.parts {
            part.faults.partition(false);
            part.faults.set(crate::Rates::default());
            part.clock.set(0);
            part.start();
        }
        Ok(())
    }

    /// Lets time pass until nothing but heartbeats has been written for `quiet`; gives up after `limit`.
    pub async fn settle(&self, quiet: Duration, limit: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        let stamps = || self.truth().map(|truth| truth.stamps()).unwrap_or_default();
        let (mut last, mut since, mut with) = (stamps(), begun, String::new());
        while since.elapsed() < quiet {
            if begun.elapsed() > limit {
                return Err(Error::Busy { after: limit, with });
            }
            tokio::time::sleep((quiet / 20).max(Duration::from_millis(1))).await;
            let now = stamps();
            if now != last {
                let moved = now.iter().filter(|(kind, stamp)| last.get(kind) != Some(stamp));
                with = moved.map(|(kind, _)| kind.to_string()).collect::<Vec<_>>().join(", ");
                (last, since) = (now, Instant::now());
            }
        }
        Ok(())
    }
}

impl Part {
    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it is a node.
    pub fn is_node(&self) -> bool {
        matches!(self.role, Role::Node(_))
    }

    /// Ends it at once, as a power cut would. A node's containers go on running.
    pub fn crash(&mut self) {
        if let Some((task, _)) = self.running.take() {
            task.abort();
        }
    }

    /// Starts it, unless it runs.
    pub fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        let stop = CancellationToken::new();
        let (link, client, stopping) = (self.link.clone(), self.link.client(), stop.clone());
        let (clock, random): (Arc<dyn Clock>, _) = (self.clock.clone(), self.random.clone());
        let task = match &self.role {
            Role::Controllers => tokio::spawn(async move {
                let mut options = controllers::Options::new(clock, random);
                options.root_ca_pem = ROOT_CA.to_owned();
                options.accounts = Some(Arc::new(link));
                controllers::run(client, options, stopping).await;
            }),
            Role::Scheduler => tokio::spawn(async move {
                let options = scheduler::Options::new("sim", clock, random);
                scheduler::run(client, options, stopping.cancelled_owned()).await;
            }),
            Role::Node(node) => {
                let (machine, runtime) = &**node;
                let mut agent = machine.agent(clock, random);
                agent.usage = Some(self.board.clone());
                let runtime = Arc::new(runtime.clone());
                tokio::spawn(async move {
                    if let Err(error) = node::run(client, runtime, agent, stopping).await {
                        tracing::error!(%error, "a node agent ended");
                    }
                })
            }
        };
        self.running = Some((task, stop));
    }
}
