//! A Kubernetes cluster inside a test: API server, controllers, garbage collection, scheduler and nodes on
//! which pods "run", in the test's own process and in virtual time.
//!
//! ```
//! # use k8s_openapi::api::apps::v1::Deployment;
//! #[tokio::test(start_paused = true)]
//! # async fn hidden() {}
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn main() -> Result<(), keelson_test::Error> {
//!     let cluster = keelson_test::Cluster::start().await?;
//!     cluster.apply("
//!         apiVersion: apps/v1
//!         kind: Deployment
//!         metadata: {name: web, namespace: default}
//!         spec:
//!           replicas: 3
//!           selector: {matchLabels: {app: web}}
//!           template:
//!             metadata: {labels: {app: web}}
//!             spec: {containers: [{name: web, image: nginx}]}
//!     ").await?;
//!     cluster.settle().await?;
//!     let deployments: kube::Api<Deployment> = kube::Api::default_namespaced(cluster.client());
//!     let web = deployments.get("web").await?;
//!     assert_eq!(web.status.and_then(|status| status.ready_replicas), Some(3));
//!     Ok(())
//! }
//! ```
//!
//! The test's runtime must be one thread with time paused, as `#[tokio::test(start_paused = true)]` makes
//! it: then waiting costs nothing, an hour of back-off passes at once, and tests do not flake on slow
//! machines. An operator under test is a task that gets [`Cluster::client`]. What pods do (start slowly,
//! fail, become unready) their annotations say: see `docs/simulation.md`. What a network and crashes do,
//! [`Cluster::part`] does.

use std::{fmt::Debug, time::Duration};

use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::Value;
use tokio::time::Instant;

pub use meta::{Clock, Timestamp};
pub use node::simulated::Machine;
pub use sim::{Faults, Part, Rates, Skewed};

/// Rest is when nothing has been written for so long: longer than the longest pause of a loop that has
/// something to do and does not fail.
const QUIET: Duration = Duration::from_secs(20);
/// What is not at rest, or not as asked for, after so long never will be.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Between two looks at a condition: at first, and after a while.
const POLL: Duration = Duration::from_millis(50);
const POLL_MAX: Duration = Duration::from_secs(5);

/// What a test cluster cannot do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started, or did not come to rest.
    #[error(transparent)]
    Cluster(#[from] sim::Error),
    /// A text is not YAML.
    #[error("read the manifest: {0}")]
    Yaml(String),
    /// A manifest lacks `apiVersion`, `kind` or a name, or its kind is not served.
    #[error("apply {what}: {why}")]
    Manifest {
        /// Which one.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The API refused something.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// A condition never came true.
    #[error("{what}: still not so after {after:?}; last: {last}")]
    Never {
        /// What was waited for.
        what: String,
        /// How long, in the cluster's time.
        after: Duration,
        /// What was the case instead.
        last: String,
    },
}

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub struct Builder {
    seed: u64,
    nodes: Vec<Machine>,
    start: Option<Timestamp>,
}

impl Builder {
    /// So many nodes of 16 CPUs and 64 GiB.
    #[must_use]
    pub fn nodes(mut self, count: u32) -> Self {
        self.nodes = sim::Settings::new(0, count).nodes;
        self
    }

    /// One more node, as described. Its index must be its own.
    #[must_use]
    pub fn node(mut self, machine: Machine) -> Self {
        self.nodes.push(machine);
        self
    }

    /// Names, jitter and ties come from it; 1 when not given.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The time at which the cluster begins; the beginning of 2026 when not given.
    #[must_use]
    pub fn begins(mut self, at: Timestamp) -> Self {
        self.start = Some(at);
        self
    }

    /// Starts it. The API answers at once; nodes become ready within a second of the cluster's time.
    pub async fn start(self) -> Result<Cluster, Error> {
        let Self { seed, nodes, start } = self;
        let mut settings = sim::Settings { nodes, ..sim::Settings::new(seed, 0) };
        settings.start = start.unwrap_or(settings.start);
        Ok(Cluster { inner: sim::Cluster::start(&settings).await? })
    }
}

/// A running cluster. Dropping it ends it.
pub struct Cluster {
    inner: sim::Cluster,
}

impl Cluster {
    /// A cluster with one node.
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// A cluster to be described; begins with one node.
    pub fn builder() -> Builder {
        Builder { seed: 1, nodes: sim::Settings::new(0, 1).nodes, start: None }
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        self.inner.client()
    }

    /// A client that acts as this user: `system:serviceaccount:NAMESPACE:NAME` shows whether an operator's
    /// RBAC rules suffice.
    pub fn client_of(&self, user: &str, groups: &[&str]) -> Client {
        self.inner.client_of(user, groups)
    }

    /// The time in the cluster.
    pub fn now(&self) -> Timestamp {
        self.inner.clock().now()
    }

    /// Lets so much time pass.
    pub async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }

    /// Waits until nothing but heartbeats has been written for 20 seconds.
    pub async fn settle(&self) -> Result<(), Error> {
        Ok(self.inner.settle(QUIET, WAIT_MAX).await?)
    }

    /// Waits until `ask` answers `Ok`, and gives what it answered. An hour of the cluster's time at most;
    /// then the last `Err` is in the error.
    pub async fn eventually<T, E: Debug>(
        &self,
        what: &str,
        mut ask: impl AsyncFnMut() -> Result<T, E>,
    ) -> Result<T, Error> {
        let (begun, mut pause) = (Instant::now(), POLL);
        loop {
            match ask().await {
                Ok(value) => return Ok(value),
                Err(last) if begun.elapsed() >= WAIT_MAX => {
                    let (what, last) = (what.to_owned(), format!("{last:?}"));
                    return Err(Error::Never { what, after: WAIT_MAX, last });
                }
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause + pause / 4).min(POLL_MAX);
                }
            }
        }
    }

    /// Applies every document of a YAML text (`---` between them), server-side and by force. A custom
    /// resource may follow its definition.
    pub async fn apply(&self, yaml: &str) -> Result<(), Error> {
        for document in documents(yaml) {
            let object: Value = serde_saphyr::from_str(&document).map_err(|e| Error::Yaml(e.to_string()))?;
            if !object.is_null() {
                self.apply_value(&object).await?;
            }
        }
        Ok(())
    }

    /// Applies one object, server-side and by force.
    pub async fn apply_value(&self, object: &Value) -> Result<(), Error> {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let fail = |why: &str| Error::Manifest { what: format!("{kind} {name:?}"), why: why.to_owned() };
        if version.is_empty() || kind.is_empty() || name.is_empty() {
            return Err(fail("it needs apiVersion, kind and metadata.name"));
        }
        let (group, short) = version.split_once('/').unwrap_or(("", version));
        // A definition that was applied a moment ago is served soon.
        let mut served = self.inner.resource(group, short, kind);
        for _ in 0..200 {
            if served.is_some() {
                break;
            }
            tokio::time::sleep(POLL).await;
            served = self.inner.resource(group, short, kind);
        }
        let (resource, namespaced) = served
            .ok_or_else(|| fail(&format!("{version} {kind} is not served; apply its definition first")))?;
        let namespace = match text("/metadata/namespace") {
            "" => "default",
            given => given,
        };
        let api: Api<DynamicObject> = if namespaced {
            Api::namespaced_with(self.client(), namespace, &resource)
        } else {
            Api::all_with(self.client(), &resource)
        };
        let params = PatchParams::apply("keelson-test").force();
        api.patch(name, &params, &Patch::Apply(object)).await?;
        Ok(())
    }

    /// A part by its name: `controllers`, `scheduler`, or a node's. Break it by its link, its clock, or by
    /// crashing it.
    pub fn part(&mut self, name: &str) -> Option<&mut Part> {
        self.inner.parts.iter_mut().find(|part| part.name == name)
    }

    /// Ends every fault and starts whatever is down.
    pub async fn mend(&mut self) -> Result<(), Error> {
        Ok(self.inner.mend().await?)
    }

    /// Sentences about what is not as the objects say, in a cluster that is at rest: empty when every
    /// workload has its pods, every Service its endpoints, and nothing is left over.
    pub fn violations(&self) -> Vec<String> {
        self.inner.truth().map(|truth| sim::violations(&truth, self.now())).unwrap_or_default()
    }
}

/// The documents of a YAML text.
fn documents(yaml: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in yaml.lines() {
        if line.trim_end() == "---" {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    documents.retain(|document| !document.trim().is_empty());
    documents
}
