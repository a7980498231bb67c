//! What the agent of one node is given.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Taint;
use meta::{Clock, Random};

use crate::{Collection, Host, dns::ClusterDns, pressure::Thresholds, server::ServerOptions, usage::Board};

/// Most pods of a node (upstream's default).
pub const MAX_PODS: u32 = 110;

/// Settings of one node.
#[derive(Clone)]
pub struct Options {
    /// Node name.
    pub name: String,
    /// Addresses of the node, the primary first.
    pub addresses: Vec<String>,
    /// Pod address range to register with; `None` when the controller manager gives it out.
    pub pod_cidr: Option<String>,
    /// Cluster DNS.
    pub dns: ClusterDns,
    /// Where log files of pods go, such as `ROOT/logs`. Only passed to the runtime.
    pub log_dir: PathBuf,
    /// Clean up released volumes of this node (PersistentVolumes with [`crate::LOCAL_PATH_FINALIZER`]).
    pub clean_local_volumes: bool,
    /// A client that may change PersistentVolumes, for that clean-up; `None` uses the node's own.
    pub local_volumes: Option<kube::Client>,
    /// The machine.
    pub host: Arc<dyn Host>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// Jitter and event names.
    pub random: Arc<dyn Random>,
    /// Most pods.
    pub max_pods: u32,
    /// Labels to register with, besides the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Taints to register with.
    pub taints: Vec<Taint>,
    /// What must be left of the machine's resources.
    pub thresholds: Thresholds,
    /// When images that nobody uses are removed; `None` keeps all, as where none can be fetched again.
    pub image_collection: Option<Collection>,
    /// The kubelet API; `None` opens no port.
    pub server: Option<ServerOptions>,
    /// Whether containers are told about Services by environment variables.
    pub service_env: bool,
    /// Whether pods are put below `/kubepods` by quality of service; needs cgroups to be writable.
    pub pod_cgroups: bool,
    /// Whether Events about pods are written; a simulation of thousands of pods may do without.
    pub record_events: bool,
    /// Where reports of what pods use go; `None` measures nothing.
    pub usage: Option<Arc<Board>>,
    /// How often the Lease is renewed and the machine is measured.
    pub heartbeat: Duration,
    /// Whether the Lease is renewed at a fixed second of the heartbeat's period instead of at a random
    /// moment, so that the server commits those of many nodes in one process together.
    pub renew_together: bool,
    /// How often every pod is looked at although nothing was heard.
    pub relist: Duration,
}

impl Options {
    /// Usual settings for a node called `name`.
    pub fn new(name: &str, host: Arc<dyn Host>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            name: name.to_owned(),
            addresses: Vec::new(),
            pod_cidr: None,
            dns: ClusterDns { server: None, domain: "cluster.local".to_owned() },
            log_dir: PathBuf::from("/var/log/pods"),
            clean_local_volumes: false,
            local_volumes: None,
            host,
            clock,
            random,
            max_pods: MAX_PODS,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            thresholds: Thresholds::default(),
            image_collection: None,
            server: None,
            service_env: true,
            pod_cgroups: false,
            record_events: true,
            usage: None,
            heartbeat: Duration::from_secs(10),
            renew_together: false,
            relist: Duration::from_secs(60),
        }
    }
}
