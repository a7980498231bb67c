//! The parts of a cluster as processes of their own, each a client of the API server: scheduler, controller
//! manager, node. Of several schedulers or managers the one that holds the Lease works; the others wait for it.

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use apiserver::pki::Authority;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use meta::{Clock, Random};
use reconcile::{LeaseLock, LeaseOptions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::Layer as _;

use crate::{
    accounts::Accounts,
    again::AgainLayer,
    cli::{ControllerManagerOptions, NodeOptions, PartOptions, SchedulerOptions, SecureOptions},
    clock::{Dice, System},
    counters::Counters,
    error::Failure,
    join,
    part_server::{self, Said},
    term, up,
};

/// Between two attempts to reach the API server at the start.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);
/// How long an API server may say nothing, where it is asked or watched: a watch brings a bookmark every minute. Then
/// its connection is given up and another made, as it may have died without a word.
const SILENCE_MAX: std::time::Duration = std::time::Duration::from_secs(75);
/// Where the Leases are.
const NAMESPACE: &str = "kube-system";
/// The Lease of each, and the port at which upstream's serves.
const SCHEDULER: (&str, u16) = ("kube-scheduler", 10259);
const MANAGER: (&str, u16) = ("kube-controller-manager", 10257);

/// What every part has.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) client: Client,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) stop: CancellationToken,
    identity: String,
    /// Whether this process leads now.
    leads: Arc<AtomicBool>,
}

pub(crate) async fn scheduler(options: SchedulerOptions) -> Result<(), Failure> {
    let SchedulerOptions { part, secure, scheduler_config } = options;
    // Read before anything is waited for.
    let scheduler::Configuration { profiles, backoff, leader_elect } =
        up::scheduler_configuration(scheduler_config.as_deref(), &Dice::new())?;
    let elect = leader_elect || scheduler_config.is_none();
    let names: Vec<&str> = profiles.iter().map(|profile| &*profile.name).collect();
    let config = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": election(elect, SCHEDULER.0),
        "podInitialBackoffSeconds": backoff.first.as_secs(),
        "podMaxBackoffSeconds": backoff.longest.as_secs(),
        "profiles": names.iter().map(|name| json!({"schedulerName": name})).collect::<Vec<_>>(),
    });
    run(&part, |part| async move {
        part.shows(&secure, SCHEDULER, ("componentconfig", config), Arc::new(String::new)).await?;
        let schedule = |token: CancellationToken| {
            let instance = format!("default-scheduler-{}", part.identity);
            let options = scheduler::Options {
                profiles: profiles.clone(),
                backoff,
                ..scheduler::Options::new(instance, part.clock.clone(), part.random.clone())
            };
            scheduler::run(part.client.clone(), options, token.cancelled_owned())
        };
        if elect {
            return part.lead(SCHEDULER.0, schedule).await;
        }
        part.leads.store(true, Relaxed);
        term::line("ready: works as kube-scheduler without an election");
        schedule(part.stop.clone()).await;
        Ok(())
    })
    .await
}

pub(crate) async fn controller_manager(options: ControllerManagerOptions) -> Result<(), Failure> {
    let ControllerManagerOptions {
        part,
        secure,
        volumes_dir,
        cluster_signing_cert_file,
        cluster_signing_key_file,
        use_service_account_credentials,
        allocate_node_cidrs,
    } = options;
    let node_cidrs = if allocate_node_cidrs { Some(up::node_cidrs()?) } else { None };
    let root_ca_pem = authority(&part.kubeconfig)?;
    let config = json!({
        "Generic": {"LeaderElection": election(true, MANAGER.0)},
        "KubeCloudShared": {
            "AllocateNodeCIDRs": allocate_node_cidrs,
            "UseServiceAccountCredentials": use_service_account_credentials,
        },
        "CSRSigningController": {
            "ClusterSigningCertFile": cluster_signing_cert_file,
            "ClusterSigningKeyFile": cluster_signing_key_file,
        },
    });
    let signer = match (cluster_signing_cert_file, cluster_signing_key_file) {
        (Some(certificate), Some(key)) => Some(signer(&certificate, &key)?),
        _ => None,
    };
    let kubeconfig = part.kubeconfig.clone();
    run(&part, |part| async move {
        let counted = controllers::Metrics::default();
        let shown = counted.clone();
        let metrics = Arc::new(move || Counters::of(shown.controls()).text());
        part.shows(&secure, MANAGER, ("kubecontrollermanager.config.k8s.io", config), metrics).await?;
        let accounts: Option<Arc<dyn controllers::Accounts>> = if use_service_account_credentials {
            Some(Arc::new(Accounts::at(&kubeconfig, part.client.clone(), part.clock.clone()).await?))
        } else {
            None
        };
        part.lead(MANAGER.0, |token| {
            let options = controllers::Options {
                root_ca_pem: root_ca_pem.clone(),
                local_path_root: volumes_dir.display().to_string(),
                signer: signer.clone(),
                accounts: accounts.clone(),
                node_cidrs: node_cidrs.clone(),
                metrics: counted.clone(),
                ..controllers::Options::new(part.clock.clone(), part.random.clone())
            };
            let client = part.client.clone();
            async move {
                // Without an election of its own: this one holds the same Lease.
                controllers::run(client, options, token).await;
            }
        })
        .await
    })
    .await
}

pub(crate) async fn node(options: NodeOptions) -> Result<(), Failure> {
    up::until_stopped(|stop| async move {
        let (part, name) = (&options.part, &options.name);
        if let Some(bootstrap) = &options.bootstrap_kubeconfig
            && !join::credentials(name, &part.kubeconfig, bootstrap, &System, &stop).await?
        {
            return Ok(());
        }
        run_until(part, stop, |part| up::node(&options, part)).await
    })
    .await
}

/// The authority that signs certificate requests, from its files.
fn signer(certificate: &Path, key: &Path) -> Result<Arc<dyn controllers::Signer>, Failure> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| Failure::of(format!("read {}", path.display()), error))
    };
    let authority = Authority::from_pem(&read(certificate)?, &read(key)?);
    let authority = authority.map_err(|error| {
        let doing = format!("read the authority in {} and {}", certificate.display(), key.display());
        Failure::of(doing, error).advise("name ca.crt and ca.key of the API servers' --pki-dir")
    })?;
    Ok(Arc::new(up::Signer(Arc::new(authority))))
}

/// Connects, works until the program is told to stop, and says so.
async fn run<F: Future<Output = Result<(), Failure>>>(
    options: &PartOptions,
    work: impl FnOnce(Part) -> F,
) -> Result<(), Failure> {
    up::until_stopped(|stop| run_until(options, stop, work)).await
}

async fn run_until<F: Future<Output = Result<(), Failure>>>(
    options: &PartOptions,
    stop: CancellationToken,
    work: impl FnOnce(Part) -> F,
) -> Result<(), Failure> {
    let client = client(&options.kubeconfig).await?;
    let (clock, random): (Arc<dyn Clock>, Arc<dyn Random>) = (Arc::new(System), Arc::new(Dice::new()));
    if !reach(&client, &options.kubeconfig, &stop).await? {
        return Ok(());
    }
    let identity = identity(&*random);
    work(Part { client, clock, random, stop, identity, leads: Arc::default() }).await
}

/// What `/configz` says of the election.
fn election(elect: bool, lease: &str) -> Value {
    json!({"leaderElect": elect, "resourceLock": "leases", "resourceName": lease, "resourceNamespace": NAMESPACE})
}

impl Part {
    /// Shows health, metrics and configuration until the part ends.
    async fn shows(
        &self,
        options: &SecureOptions,
        (lease, port): (&'static str, u16),
        config: (&'static str, Value),
        metrics: Arc<dyn Fn() -> String + Send + Sync>,
    ) -> Result<(), Failure> {
        let said = Said { lease, config, metrics, leads: self.leads.clone() };
        part_server::start(options, port, self.client.clone(), &*self.clock, said, self.stop.clone()).await
    }

    /// Works while this process holds the Lease; stands again when it lost it.
    async fn lead<F: Future<Output = ()>>(
        &self,
        name: &str,
        work: impl Fn(CancellationToken) -> F,
    ) -> Result<(), Failure> {
        term::line(&format!("ready: {} stands for {name}", self.identity));
        while !self.stop.is_cancelled() {
            let options = LeaseOptions::new(NAMESPACE, name, &self.identity);
            let lock = LeaseLock::new(self.client.clone(), self.clock.clone(), options);
            let leading = |token| {
                term::line(&format!("leading: {} works as {name}", self.identity));
                self.leads.store(true, Relaxed);
                work(token)
            };
            let kept = lock.lead(&self.stop, leading).await;
            self.leads.store(false, Relaxed);
            if !kept {
                term::line(&format!("lost: {} does not work as {name} any more", self.identity));
            }
        }
        Ok(())
    }
}

/// Who stands for a Lease: the machine, and something that no other process has.
pub(crate) fn identity(random: &dyn Random) -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    format!("{host}_{}", random.uuid())
}

/// A client for the cluster of a kubeconfig.
pub(crate) async fn client(path: &Path) -> Result<Client, Failure> {
    let config = config(path).await?;
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| Failure::of("connect to the cluster", error))?;
    let sending = tower::service_fn(move |request| {
        let client = client.clone();
        async move { client.send(request).await }
    });
    Ok(Client::new(AgainLayer::new(Arc::new(Dice::new())).layer(sending), namespace))
}

/// How the cluster of a kubeconfig is reached, by its user.
pub(crate) async fn config(path: &Path) -> Result<Config, Failure> {
    let failed = |error: kube::config::KubeconfigError| {
        Failure::of(format!("read {}", path.display()), error)
            .advise("name a kubeconfig; an API server writes admin.kubeconfig into its data directory")
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?;
    config.read_timeout = Some(SILENCE_MAX);
    config.reset_reader_on_write = true;
    Ok(config)
}

/// Waits for the API server, which may be started after this; false when told to stop meanwhile.
pub(crate) async fn reach(client: &Client, path: &Path, stop: &CancellationToken) -> Result<bool, Failure> {
    let mut said = false;
    loop {
        let asked = tokio::select! {
            asked = client.apiserver_version() => asked,
            () = stop.cancelled() => return Ok(false),
        };
        let error = match asked {
            Ok(_) => return Ok(true),
            Err(error @ (kube::Error::Api(_) | kube::Error::Auth(_))) => {
                return Err(Failure::of(format!("ask the cluster of {}", path.display()), error)
                    .advise("is it the cluster that this kubeconfig is for?"));
            }
            Err(error) => error,
        };
        if !std::mem::replace(&mut said, true) {
            term::note(
                &Failure::of(format!("waiting for the cluster of {}", path.display()), error).to_string(),
            );
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = stop.cancelled() => return Ok(false),
        }
    }
}

/// The cluster that a kubeconfig's context names.
pub(crate) fn cluster(path: &Path) -> Result<kube::config::Cluster, Failure> {
    let kubeconfig = Kubeconfig::read_from(path)
        .map_err(|error| Failure::of(format!("read {}", path.display()), error))?;
    let current = kubeconfig.current_context.unwrap_or_default();
    let context = kubeconfig.contexts.into_iter().find(|context| context.name == current);
    let name = context.and_then(|context| context.context).map(|context| context.cluster).unwrap_or_default();
    let cluster = kubeconfig.clusters.into_iter().find(|cluster| cluster.name == name);
    cluster.and_then(|cluster| cluster.cluster).ok_or_else(|| {
        Failure::new(format!("{} has no cluster {name:?}, which its context names", path.display()))
    })
}

/// The authority that a kubeconfig trusts, in PEM.
pub(crate) fn authority(path: &Path) -> Result<String, Failure> {
    let reading = || format!("read the authority in {}", path.display());
    let cluster = cluster(path)?;
    let text = match (cluster.certificate_authority_data, cluster.certificate_authority) {
        (Some(data), _) => STANDARD.decode(data).map_err(|error| Failure::of(reading(), error))?,
        (None, Some(file)) => {
            std::fs::read(&file).map_err(|error| Failure::of(format!("read {file}"), error))?
        }
        (None, None) => return Ok(String::new()),
    };
    String::from_utf8(text).map_err(|error| Failure::of(reading(), error))
}
