//! The designs of the five kinds.

mod browser;
mod client;
mod frontend;
mod scheduler;
mod storage;
mod worker;

use kube::{Resource, ResourceExt};
use reconcile::owner_reference;
use serde_json::Value;

use crate::{
    children::{self, Base, Container, Pod},
    component::Component,
    config::{self, File, Files, Place},
    farm::Farm,
    observe::World,
    types::{BuildbarnBrowser, Reference, Topology},
    verdict::{Verdict, Wrong},
};

/// Whose children are built.
pub(crate) fn base<'a, K: Component>(
    world: &'a World<K>,
    name: &'a str,
    namespace: &'a str,
    instance: Option<&'a str>,
) -> Base<'a> {
    Base {
        app: K::APP,
        name,
        namespace,
        owner: owner_reference(&*world.object),
        instance,
        common: world.common(),
    }
}

/// The storage that a component reads and writes, as its status says it is.
pub(crate) struct Held {
    storage: String,
    topology: Topology,
    tree_bytes: i64,
    message_bytes: i64,
    stores: Vec<String>,
}

impl Held {
    pub(crate) fn find(farm: &Farm, by: Option<&Reference>) -> Result<Self, Verdict> {
        let storage = farm.storage(by)?;
        let name = storage.name_any();
        let status = storage.status.clone().unwrap_or_default();
        let topology = status.topology.filter(|topology| !topology.shards.is_empty()).ok_or_else(|| {
            Verdict::not(
                "WaitingForStorage",
                format!("waiting for BuildbarnStorage {name:?} to say what its shards are"),
            )
        })?;
        Ok(Self {
            storage: name,
            topology,
            tree_bytes: storage.spec.maximum_total_tree_size_bytes.unwrap_or(64 << 20),
            message_bytes: storage.spec.maximum_message_size_bytes.unwrap_or(2 << 20),
            stores: status.geometry.into_keys().collect(),
        })
    }

    pub(crate) fn place<'a>(&'a self, namespace: &'a str) -> Place<'a> {
        Place { storage: &self.storage, namespace, topology: &self.topology, tree_bytes: self.tree_bytes }
    }

    pub(crate) fn has(&self, store: &str) -> bool {
        self.stores.iter().any(|known| known == store)
    }

    /// A store that an option needs.
    pub(crate) fn need(&self, field: &str, store: &str, wrong: &mut Wrong) {
        if !self.has(store) {
            wrong.add(
                field,
                format!(
                    "needs the {} of BuildbarnStorage {:?}: set its spec.{store}.enabled to true",
                    store.to_uppercase(),
                    self.storage
                ),
            );
        }
    }

    pub(crate) fn map(&self) -> String {
        config::map_name(&self.topology)
    }
}

/// Where links lead.
pub(crate) fn browser_url(
    farm: &Farm,
    given: Option<&String>,
    by: Option<&Reference>,
) -> Result<Option<String>, Verdict> {
    if let Some(given) = given {
        return Ok(Some(given.clone()));
    }
    let Some(browser) = farm.browser(by)? else { return Ok(None) };
    Ok(url(browser))
}

fn url(browser: &BuildbarnBrowser) -> Option<String> {
    let spec = &browser.spec;
    let secure = spec.ingress.as_ref().is_some_and(|ingress| ingress.tls_secret_name.is_some());
    let host =
        spec.ingress.as_ref().map(|ingress| ingress.host.clone()).or_else(|| spec.ingress_host.clone())?;
    let path = spec.route_prefix.clone().unwrap_or_else(|| "/".to_owned());
    Some(format!("{}://{host}{path}", if secure { "https" } else { "http" }))
}

/// Where the configuration of a component comes from.
pub(crate) enum Source {
    Generated(Files),
    Given { name: String, hash: String },
}

impl Source {
    /// Renders the files, or finds the ConfigMap that the user brings.
    pub(crate) fn find<K: Component>(
        world: &World<K>,
        files: impl FnOnce() -> Result<Vec<File>, Verdict>,
    ) -> Result<Self, Verdict> {
        let Some(name) = world.common().config_map_name.clone() else {
            let files = config::render(files()?, world.common());
            return files
                .map(Self::Generated)
                .map_err(|wrong| Verdict::not("InvalidConfiguration", wrong.0.join("; ")));
        };
        let Some(given) = &world.given_config else {
            let message = format!(
                "spec.configMapName: there is no ConfigMap {name:?} in this namespace: create it, or remove the field to \
                 have the configuration generated"
            );
            return Err(Verdict::not("ConfigMapNotFound", message));
        };
        let hash = config::hash(&given.data.clone().unwrap_or_default());
        Ok(Self::Given { name, hash })
    }

    pub(crate) fn is_given(&self) -> bool {
        matches!(self, Self::Given { .. })
    }

    fn reference(&self, component: &str) -> (String, String) {
        match self {
            Self::Generated(files) => (children::config_map_name(component, files), files.hash.clone()),
            Self::Given { name, hash } => (name.clone(), hash.clone()),
        }
    }

    pub(crate) fn into_files(self) -> Option<Files> {
        match self {
            Self::Generated(files) => Some(files),
            Self::Given { .. } => None,
        }
    }
}

/// What a simple component's pod has besides its container.
pub(crate) struct Parts {
    pub(crate) init: Vec<Value>,
    pub(crate) mounts: Vec<Value>,
    pub(crate) volumes: Vec<Value>,
    pub(crate) grace_seconds: i64,
}

/// The pod of a component with one container and no need of root.
pub(crate) fn simple_pod(
    base: &Base<'_>,
    source: &Source,
    (container, image, file): (&str, &str, &str),
    ports: &[(&str, u16)],
    parts: Parts,
) -> Value {
    let Parts { init, mounts, volumes, grace_seconds } = parts;
    let (config_map, config_hash) = source.reference(base.name);
    // Whether the user's own configuration serves `/-/healthy`, nobody knows.
    let probes = if source.is_given() { Value::Null } else { children::probes(9980, true) };
    let container = children::container(
        base,
        Container {
            name: container,
            image,
            file: file.to_owned(),
            ports,
            env: Vec::new(),
            mounts,
            probes,
            unprivileged: true,
        },
    );
    children::template(
        base,
        Pod {
            config_map,
            config_hash,
            init,
            containers: vec![container],
            volumes,
            unprivileged: true,
            grace_seconds,
        },
    )
}

/// A condition of the queue, for those that ask it.
pub(crate) fn queue_condition<K: Component>(
    world: &World<K>,
) -> Option<(&'static str, bool, &'static str, String)> {
    let (_, seen) = world.queue.as_ref()?;
    Some(match seen {
        Ok(_) => ("QueueReachable", true, "Answered", "the scheduler tells of its queues".to_owned()),
        Err(why) => (
            "QueueReachable",
            false,
            "NoAnswer",
            format!(
                "the scheduler does not tell of its queues, so that nothing is scaled down or replaced: {why}"
            ),
        ),
    })
}

/// The type of a Service.
pub(crate) fn service_type<'a>(given: Option<&'a String>, otherwise: &'a str, wrong: &mut Wrong) -> &'a str {
    let kind = given.map_or(otherwise, String::as_str);
    if !["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind) {
        wrong.add("spec.serviceType", format!("must be ClusterIP, NodePort or LoadBalancer, is {kind:?}"));
    }
    kind
}

/// Kind and name, as messages have them.
pub(crate) fn title<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{} {:?}", K::kind(&()), object.meta().name.clone().unwrap_or_default())
}
