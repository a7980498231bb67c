//! The controller manager: what keeps a cluster as its objects say.
//!
//! One file or folder for each controller, each a [`reconcile::Reconciler`]: `observe` reads, `plan` is
//! pure, the driver acts. [`all`] lists them; [`run`] runs them. Controllers know each other only
//! through the objects they write. Adding one is a file and a line in [`all`].

pub mod accounts;
mod autoscaler;
mod certificates;
mod claims;
mod clusterrole_aggregation;
mod cronjob;
mod daemonset;
mod deployment;
mod desk;
mod discovery;
mod disruption;
mod endpoints;
mod garbage;
mod hash;
mod history;
mod job;
mod legacy_tokens;
mod namespace;
mod node;
mod pod_gc;
mod pods;
mod policy_status;
mod quota;
mod rank;
mod replicaset;
mod root_ca;
mod scale;
mod service_account;
mod service_cidr;
mod spec;
mod statefulset;
mod token_cleaner;
mod tokens;
mod ttl_after_finished;
pub mod volume;

use std::sync::Arc;

use meta::{Clock, Random};
use parking_lot::Mutex;
pub use reconcile::CancellationToken;
use reconcile::{Context, Control, Controller, LeaseLock, LeaseOptions, MetricsSnapshot};

pub use crate::{
    accounts::Accounts,
    autoscaler::HorizontalAutoscalers,
    certificates::{CertificateApprover, CertificateCleaner, CertificateSigner, Signer},
    clusterrole_aggregation::ClusterRoleAggregation,
    cronjob::CronJobs,
    daemonset::DaemonSets,
    deployment::Deployments,
    desk::Desk,
    disruption::DisruptionBudgets,
    endpoints::{EndpointSliceMirroring, EndpointSlices, EndpointsController},
    garbage::GarbageCollector,
    job::{Jobs, OrphanedJobPods},
    legacy_tokens::LegacyTokenCleaner,
    namespace::Namespaces,
    node::{NodeCidrs, NodeIpam, NodeLifecycle, TaintEviction},
    pod_gc::PodGc,
    policy_status::PolicyStatus,
    quota::ResourceQuotas,
    replicaset::{ReplicaSets, ReplicationControllers},
    root_ca::RootCaPublisher,
    service_account::ServiceAccounts,
    service_cidr::ServiceCidrs,
    statefulset::StatefulSets,
    token_cleaner::TokenCleaner,
    tokens::ServiceAccountTokens,
    ttl_after_finished::TtlAfterFinished,
};

/// What the controllers need to be told.
#[derive(Clone)]
pub struct Options {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Chance: jitter and name suffixes.
    pub random: Arc<dyn Random>,
    /// The CA bundle that verifies the API server, in PEM; published in every namespace.
    pub root_ca_pem: String,
    /// Directory on each node below which local volumes are made.
    pub local_path_root: String,
    /// Who we are in the election of a leader; `None` runs without one (the only manager there is).
    pub leader_elect: Option<String>,
    /// Where nodes that come without a range of pod addresses get one; `None` gives none.
    pub node_cidrs: Option<NodeCidrs>,
    /// Who signs certificate requests; `None` leaves approved ones unsigned.
    pub signer: Option<Arc<dyn Signer>>,
    /// Who makes the clients with which each controller acts as a service account of its own; `None` lets all act as
    /// whoever runs them. Caches are read by the latter in any case.
    pub accounts: Option<Arc<dyn Accounts>>,
    /// Filled with the controllers' counters; clone it before [`run`] takes the options.
    pub metrics: Metrics,
}

impl Options {
    /// No certificate to publish, local volumes below `/var/lib/keelson/volumes`, no election.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            clock,
            random,
            root_ca_pem: String::new(),
            local_path_root: "/var/lib/keelson/volumes".to_owned(),
            leader_elect: None,
            node_cidrs: None,
            signer: None,
            accounts: None,
            metrics: Metrics::default(),
        }
    }
}

/// The counters of the controllers that run now. Clones are one.
#[derive(Clone, Default)]
pub struct Metrics {
    controls: Arc<Mutex<Vec<Control>>>,
}

impl Metrics {
    /// One entry for each controller; none before the controllers run.
    pub fn snapshot(&self) -> Vec<MetricsSnapshot> {
        self.controls.lock().iter().map(Control::metrics).collect()
    }

    /// The handles of the controllers that run now; none before they do.
    pub fn controls(&self) -> Vec<Control> {
        self.controls.lock().clone()
    }

    fn follow(&self, controllers: &[Controller]) {
        *self.controls.lock() = controllers.iter().map(Controller::control).collect();
    }
}

/// Every controller.
pub fn all(options: &Options) -> Vec<Controller> {
    let graph = Arc::new(garbage::Graph::default());
    let (feed, heard) = (Arc::clone(&graph), Arc::clone(&graph));
    let mut all = vec![
        Controller::new(CertificateApprover),
        Controller::new(CertificateCleaner),
        Controller::new(ClusterRoleAggregation),
        Controller::new(CronJobs::default()),
        Controller::new(DaemonSets::default()),
        Controller::new(Deployments),
        Controller::new(DisruptionBudgets),
        Controller::new(EndpointSliceMirroring),
        Controller::new(EndpointSlices),
        Controller::new(EndpointsController),
        Controller::custom("garbage-collector-monitors", move |cx, stop| garbage::monitors(feed, cx, stop)),
        Controller::new(GarbageCollector { graph }),
        Controller::new(HorizontalAutoscalers::default()),
        Controller::new(Jobs::default()),
        Controller::new(OrphanedJobPods),
        Controller::new(LegacyTokenCleaner),
        Controller::new(volume::LocalPathProvisioner { root: options.local_path_root.clone() }),
        Controller::new(Namespaces),
        Controller::new(NodeLifecycle::default()),
        Controller::new(volume::AttributesClassProtection),
        Controller::new(volume::ClaimBinder),
        Controller::new(volume::ClaimProtection),
        Controller::new(volume::EphemeralVolumes),
        Controller::new(volume::VolumeBinder),
        Controller::new(volume::VolumeExpander),
        Controller::new(volume::VolumeProtection),
        Controller::new(PodGc::default()),
        Controller::new(PolicyStatus),
        Controller::new(ReplicaSets::default()),
        Controller::new(ReplicationControllers::default()),
        Controller::new(ResourceQuotas::hearing(heard)),
        Controller::new(RootCaPublisher { root_ca_pem: options.root_ca_pem.clone() }),
        Controller::new(ServiceAccounts),
        Controller::new(ServiceAccountTokens { root_ca_pem: options.root_ca_pem.clone() }),
        Controller::new(ServiceCidrs),
        Controller::new(StatefulSets),
        Controller::new(TaintEviction::default()),
        Controller::new(TokenCleaner),
        Controller::new(TtlAfterFinished),
    ];
    let sign = |signer: &Arc<dyn Signer>| Controller::new(CertificateSigner { signer: Arc::clone(signer) });
    all.extend(options.signer.as_ref().map(sign));
    all.extend(options.node_cidrs.clone().map(|cidrs| Controller::new(NodeIpam::new(cidrs))));
    let Some(accounts) = &options.accounts else { return all };
    let acting = |controller: Controller| match accounts::account(controller.name()) {
        Some(account) => controller.acting_as(accounts.client(account)),
        None => controller,
    };
    all.into_iter().map(acting).collect()
}

/// Runs [`all`] until `stop` is cancelled; with an election, while this process leads. Caches are opened
/// here and closed before it returns. Returns `false` when leadership was lost: whoever called exits or
/// calls again.
pub async fn run(client: kube::Client, options: Options, stop: CancellationToken) -> bool {
    let lead = |stop: CancellationToken| async {
        let cx = Context::new(client.clone(), Arc::clone(&options.clock), Arc::clone(&options.random));
        let controllers = all(&options);
        options.metrics.follow(&controllers);
        reconcile::run(controllers, cx.clone(), stop).await;
        cx.stores.shutdown().await;
    };
    match &options.leader_elect {
        None => {
            lead(stop).await;
            true
        }
        Some(identity) => {
            let lease = LeaseOptions::new("kube-system", "kube-controller-manager", identity);
            LeaseLock::new(client.clone(), Arc::clone(&options.clock), lease).lead(&stop, lead).await
        }
    }
}

#[cfg(test)]
mod tests;
