//! The tasks of a cluster: each is started here, ends when the cluster stops, and is joined.

use std::{future::Future, sync::Arc};

use kube::Client;
use meta::{Clock, Random};
use reconcile::{LeaseLock, LeaseOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    data_dir::DataDir,
    error::Failure,
    parts,
    up::{
        choose::Started,
        components::{Alive, Check},
        machine::Containers,
        server::ApiServer,
    },
};

/// Group that passes every authorization, for components whose bootstrap role is wider than any list.
pub(crate) const MASTERS: &str = "system:masters";

/// See [`Actors::election`].
struct Election {
    name: &'static str,
    lock: Option<LeaseLock>,
    stop: CancellationToken,
}

impl Election {
    /// Works while elected. A process that lost its Lease ends, as upstream's do: another works by then.
    async fn hold<F: Future<Output = ()>>(
        self,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Result<(), Failure> {
        let Some(lock) = self.lock else {
            work(self.stop).await;
            return Ok(());
        };
        if lock.lead(&self.stop, work).await {
            return Ok(());
        }
        Err(Failure::new(format!("the Lease of {} was lost to another process", self.name))
            .advise("start again: it then waits for its turn"))
    }
}

/// The cluster's authority, for the controller that signs requests. Its key stays in this process.
pub(crate) struct Signer(pub(crate) Arc<apiserver::pki::Authority>);

impl controllers::Signer for Signer {
    fn sign(
        &self,
        request: &csr::Request,
        usages: &[String],
        seconds: Option<i64>,
        now: meta::Timestamp,
    ) -> Result<String, String> {
        self.0.sign(request, usages, seconds, now).map_err(|error| error.to_string())
    }
}

/// Running components.
pub(crate) struct Actors {
    tasks: JoinSet<Result<(), Failure>>,
    stop: CancellationToken,
    broken: CancellationToken,
    started: Option<Started>,
}

impl Actors {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), stop, broken: CancellationToken::new(), started: None }
    }

    /// Runs a task that ends by itself when the cluster stops. Its failure, or its panic, stops the cluster: nobody else
    /// does its work.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = Result<(), Failure>> + Send + 'static) {
        let broken = self.broken.clone().drop_guard();
        self.tasks.spawn(async move {
            let ended = task.await;
            if ended.is_ok() {
                broken.disarm();
            }
            ended
        });
    }

    /// A future that ends when the cluster stops.
    pub(crate) fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.stop.clone().cancelled_owned()
    }

    pub(crate) fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Keeps the runtime until everything has ended, and watches over it.
    pub(crate) fn keep(&mut self, started: Started) {
        if let Started::Containerd(containers) = &started {
            let (private, stopping) = (containers.private.clone(), self.stopping());
            self.spawn(async move {
                tokio::select! {
                    () = private.supervise() => {}
                    () = stopping => {}
                }
                Ok(())
            });
        }
        self.started = Some(started);
    }

    /// The agent of a node with these containers.
    pub(crate) fn node(&mut self, name: &str, client: Client, containers: &Containers, agent: node::Options) {
        let (name, stopping) = (name.to_owned(), self.token());
        let runtime = Arc::new(containers.private.runtime());
        self.spawn(async move {
            let doing = format!("run the agent of {name}");
            match node::run(client, runtime, agent, stopping).await {
                Ok(()) => Ok(()),
                Err(error @ node::RunError::Server(_)) => {
                    Err(Failure::of(doing, error).advise("--kubelet-port says where its kubelet API is"))
                }
                Err(error @ node::RunError::Task(_)) => Err(Failure::of(doing, error)),
            }
        });
    }

    /// The controller manager and the operators: one set of caches for all. Returns what answers for them, and what tells
    /// whether they run.
    #[allow(clippy::too_many_arguments, reason = "the parts of one start; one call site")]
    pub(crate) fn controllers(
        &mut self,
        server: &ApiServer,
        data: &DataDir,
        operators: Vec<reconcile::Controller>,
        node_cidrs: Option<controllers::NodeCidrs>,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
    ) -> (controllers::Desk, Check) {
        let client = server.client("system:kube-controller-manager", &[MASTERS]);
        let options = controllers::Options {
            root_ca_pem: server.pki.ca_pem().to_owned(),
            signer: Some(Arc::new(Signer(server.pki.authority()))),
            local_path_root: data.volumes().display().to_string(),
            node_cidrs,
            ..controllers::Options::new(clock.clone(), random.clone())
        };
        let mut all = controllers::all(&options);
        server.counters.lock().add(&all);
        all.extend(operators);
        let context = reconcile::Context::new(client, clock.clone(), random.clone());
        let desk = controllers::Desk::new(all.iter().map(reconcile::Controller::control).collect());
        let election = self.election(server, "kube-controller-manager", clock, random);
        let (alive, check) = Alive::new();
        let working = election.hold(move |token| async move {
            reconcile::run(all, context.clone(), token).await;
            context.stores.shutdown().await;
        });
        self.spawn(async move {
            let _alive = alive;
            working.await
        });
        (desk, check)
    }

    /// The scheduler. Returns what answers for it.
    pub(crate) fn scheduler(
        &mut self,
        server: &ApiServer,
        placing: scheduler::Configuration,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
    ) -> scheduler::Desk {
        let client = server.client("system:kube-scheduler", &[MASTERS]);
        let scheduler::Configuration { profiles, backoff, leader_elect } = placing;
        let (desk, asks) = scheduler::desk(client.clone());
        // Beside others on the same store, one has to be elected in any case.
        let identity = (leader_elect || server.shared).then(|| parts::identity(&**random));
        let options = scheduler::Options {
            profiles,
            backoff,
            leader_elect: identity,
            asks: Some(asks),
            ..scheduler::Options::new("default-scheduler-keelson", clock.clone(), random.clone())
        };
        let stopping = self.stopping();
        self.spawn(async move {
            scheduler::run(client, options, stopping).await;
            Ok(())
        });
        desk
    }

    /// Who acts alone: without others on the same store, this process; else whoever holds the Lease.
    fn election(
        &self,
        server: &ApiServer,
        name: &'static str,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
    ) -> Election {
        let lock = server.shared.then(|| {
            let client = server.client(&format!("system:{name}"), &[MASTERS]);
            let options = LeaseOptions::new("kube-system", name, parts::identity(&**random));
            LeaseLock::new(client, clock.clone(), options)
        });
        Election { name, lock, stop: self.token() }
    }

    /// Whether containers go on running when the program ends.
    pub(crate) fn runs_containers(&self) -> bool {
        self.started.as_ref().is_some_and(Started::is_real)
    }

    /// Waits until a component has failed.
    pub(crate) async fn failed(&self) {
        self.broken.cancelled().await;
    }

    /// Waits for all; the first failure is the answer.
    pub(crate) async fn join(mut self) -> Result<(), Failure> {
        let mut first = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended =
                ended.unwrap_or_else(|error| Err(Failure::of("a component ended unexpectedly", error)));
            if first.is_ok() {
                first = ended;
            }
        }
        drop(self.started);
        first
    }
}
