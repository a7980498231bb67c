//! What a plan looks at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, Service},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, ResourceExt};
use meta::ObjectKey;
use reconcile::{Context, Kind, Result, controlled_by};

use crate::{
    children::MANAGER,
    component::Component,
    drain::Asked,
    farm::Farm,
    metrics,
    queue::{BuildQueue, QueueName, QueueSource, Snapshot},
    refusals::Refusals,
    status,
    types::{BuildbarnScheduler, StoreStatus},
};

/// Port of BuildQueueState.
const QUEUE_PORT: u16 = 8984;
/// How long all queues of a scheduler may take to be read; a pool of 10,000 pods takes some hundred milliseconds.
const LOOK_MAX: Duration = Duration::from_secs(20);

/// One component, what there is of it, and the farm it belongs to.
pub(crate) struct World<K> {
    pub(crate) object: Arc<K>,
    pub(crate) farm: Farm,
    pub(crate) deployments: Vec<Arc<Deployment>>,
    pub(crate) stateful_set: Option<Arc<StatefulSet>>,
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) config_maps: Vec<Arc<ConfigMap>>,
    pub(crate) ingresses: Vec<Arc<Ingress>>,
    pub(crate) budgets: Vec<Arc<PodDisruptionBudget>>,
    pub(crate) policies: Vec<Arc<NetworkPolicy>>,
    pub(crate) pods: Vec<Arc<Pod>>,
    pub(crate) claims: Vec<Arc<PersistentVolumeClaim>>,
    /// The ConfigMap that the user brings.
    pub(crate) given_config: Option<Arc<ConfigMap>>,
    /// Names that children would have and that belong to somebody else.
    pub(crate) taken: Vec<(Kind, String)>,
    /// Nodes that are being emptied.
    pub(crate) cordoned: BTreeSet<String>,
    /// Where clients reach a port that every node has; frontends only.
    pub(crate) node_address: Option<String>,
    /// The scheduler's queue, and what was seen of it.
    pub(crate) queue: Option<(Arc<dyn BuildQueue>, std::result::Result<Snapshot, String>)>,
    /// How the stores do, where their pods answered.
    pub(crate) stores: Vec<StoreStatus>,
    /// What the API server last refused of the children, if it has not taken them since.
    pub(crate) refused: Option<String>,
    pub(crate) refusals: Arc<Refusals>,
}

pub(crate) async fn observe<K: Component>(
    cx: &Context,
    key: &ObjectKey,
    source: &dyn QueueSource,
    readings: &metrics::Readings,
    refusals: &Arc<Refusals>,
) -> Result<Option<World<K>>> {
    let stores = &cx.stores;
    let Some(object) = stores.ready::<K>().await.get(key) else {
        refusals.forget(key);
        return Ok(None);
    };
    let said = object.status().and_then(status::said_refused);
    let farm = Farm::read(cx, &key.namespace).await;
    let uid = object.meta().uid.clone().unwrap_or_default();
    let near = |name: &str| ObjectKey::new(key.namespace.as_str(), name);
    let config_maps = stores.ready::<ConfigMap>().await;
    let given_config =
        object.common().config_map_name.as_ref().and_then(|name| config_maps.get(&near(name.as_str())));
    let pods: Vec<Arc<Pod>> = match K::APP {
        "worker" | "storage" => stores.ready::<Pod>().await.in_namespace(&key.namespace),
        _ => Vec::new(),
    };
    let pods: Vec<Arc<Pod>> = pods.into_iter().filter(|pod| is_ours::<K, _>(&**pod, &key.name)).collect();
    let claims = match K::APP {
        "storage" => stores.ready::<PersistentVolumeClaim>().await.in_namespace(&key.namespace),
        _ => Vec::new(),
    };
    let sets = stores.ready::<StatefulSet>().await;
    let mut world = World {
        deployments: stores.ready::<Deployment>().await.controlled_by(&uid),
        stateful_set: sets.get(key).filter(|set| controlled_by(&**set, &uid)),
        services: stores.ready::<Service>().await.controlled_by(&uid),
        config_maps: config_maps.controlled_by(&uid),
        ingresses: stores.ready::<Ingress>().await.controlled_by(&uid),
        budgets: stores.ready::<PodDisruptionBudget>().await.controlled_by(&uid),
        policies: stores.ready::<NetworkPolicy>().await.controlled_by(&uid),
        claims: claims.into_iter().filter(|claim| is_ours::<K, _>(&**claim, &key.name)).collect(),
        taken: taken::<K>(cx, key, &uid).await,
        cordoned: if K::APP == "worker" { cordoned(cx).await } else { BTreeSet::new() },
        node_address: if K::APP == "frontend" { node_address(cx).await } else { None },
        queue: None,
        stores: if K::APP == "storage" { readings.read(cx, key, &pods).await } else { Vec::new() },
        pods,
        refused: refusals.of(key, said),
        refusals: Arc::clone(refusals),
        given_config,
        farm,
        object,
    };
    if let Some((scheduler, into)) = world.object.queue(&world.farm) {
        world.queue = look(cx, key, &world.farm, &scheduler, into.as_deref(), source).await;
    }
    Ok(Some(world))
}

/// Asks the scheduler. That it does not answer is part of the world.
async fn look(
    cx: &Context,
    key: &ObjectKey,
    farm: &Farm,
    scheduler: &str,
    into: Option<&[QueueName]>,
    source: &dyn QueueSource,
) -> Option<(Arc<dyn BuildQueue>, std::result::Result<Snapshot, String>)> {
    let object = farm.schedulers.iter().find(|object| object.name_any() == scheduler)?;
    let address = address(cx, key, object).await?;
    let queue = source.open(&address);
    let seen = Snapshot::take_within(&*queue, into, LOOK_MAX).await.map_err(|error| error.to_string());
    Some((queue, seen))
}

/// Where the queue is: as the user says, or the Service's address. The program that runs the operator need not know
/// the cluster's names.
async fn address(cx: &Context, key: &ObjectKey, scheduler: &BuildbarnScheduler) -> Option<String> {
    if let Some(given) = &scheduler.spec.build_queue_state {
        return Some(given.address.clone());
    }
    let service = cx
        .stores
        .ready::<Service>()
        .await
        .get(&ObjectKey::new(key.namespace.as_str(), scheduler.name_any()))?;
    let ip = service.spec.as_ref()?.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
    Some(if ip.contains(':') { format!("[{ip}]:{QUEUE_PORT}") } else { format!("{ip}:{QUEUE_PORT}") })
}

pub(crate) fn is_ours<K: Component, R: ResourceExt>(object: &R, name: &str) -> bool {
    let labels = object.labels();
    let is = |key: &str, value: &str| labels.get(key).is_some_and(|label| label == value);
    is("app", K::APP) && is("component", name) && is("app.kubernetes.io/managed-by", MANAGER)
}

async fn cordoned(cx: &Context) -> BTreeSet<String> {
    let nodes = cx.stores.ready::<Node>().await.all();
    let emptied = |node: &&Arc<Node>| node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    nodes.iter().filter(emptied).map(|node| node.name_any()).collect()
}

/// The address of the first node by name that is ready and has one.
async fn node_address(cx: &Context) -> Option<String> {
    cx.stores.ready::<Node>().await.all().iter().find_map(|node| address_of(node))
}

/// Where a node is reached while it is ready: from outside, if it says so.
pub(crate) fn address_of(node: &Node) -> Option<String> {
    let status = node.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    let of = |kind: &str| status.addresses.iter().flatten().find(|address| address.type_ == kind);
    of("ExternalIP").or_else(|| of("InternalIP")).map(|found| found.address.clone())
}

/// Objects of others with names that our children would have.
async fn taken<K: Component>(cx: &Context, key: &ObjectKey, uid: &str) -> Vec<(Kind, String)> {
    let mut taken = Vec::new();
    let headless = format!("{}-headless", key.name);
    macro_rules! look {
        ($($kind:ty),*) => {$(
            let store = cx.stores.ready::<$kind>().await;
            for name in [&key.name, &headless] {
                let found = store.get(&ObjectKey::new(key.namespace.as_str(), name.as_str()));
                if found.is_some_and(|found| !controlled_by(&*found, uid)) {
                    taken.push((Kind::of::<$kind>(), name.clone()));
                }
            }
        )*};
    }
    look!(Deployment, StatefulSet, Service, Ingress, PodDisruptionBudget, NetworkPolicy);
    taken
}

impl<K: Component> World<K> {
    pub(crate) fn name(&self) -> String {
        self.object.meta().name.clone().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> String {
        self.object.meta().namespace.clone().unwrap_or_default()
    }

    pub(crate) fn common(&self) -> &crate::types::Common {
        self.object.common()
    }

    /// The status there is.
    pub(crate) fn before(&self) -> crate::types::Status {
        self.object.status().cloned().unwrap_or_default()
    }

    /// What was seen of the queue.
    pub(crate) fn seen(&self) -> Option<&Snapshot> {
        self.queue.as_ref().and_then(|(_, seen)| seen.as_ref().ok())
    }

    /// What each Deployment of a pool was asked for, by its template's hash.
    pub(crate) fn asked(&self) -> BTreeMap<String, Asked> {
        let asked = |deployment: &Arc<Deployment>| {
            let spec = deployment.spec.as_ref()?;
            let labels = spec.selector.match_labels.as_ref()?;
            let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let stuck = conditions.into_iter().any(|c| c.type_ == "ReplicaFailure" && c.status == "True");
            let asked = Asked { replicas: spec.replicas.unwrap_or(1), stuck };
            Some((labels.get(crate::plan::TEMPLATE)?.clone(), asked))
        };
        self.deployments.iter().filter(|d| d.meta().deletion_timestamp.is_none()).filter_map(asked).collect()
    }
}
