//! ResourceQuota: publishes what the objects of a namespace take of its quotas (upstream
//! `pkg/controller/resourcequota`). How objects are counted is shared with admission (`kinds::quota`).
//!
//! Admission adds what an object takes before the object is there. A count that is lower than what is
//! published may be such an object on its way, so a quota is only lowered after nobody has added to it for
//! a moment; raising it waits for nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{
        ConfigMap, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, ResourceQuotaStatus,
        Secret, Service,
    },
};
use kinds::quota::{self, Amounts};
use kube::{Resource, ResourceExt, api::ListParams, core::Request};
use meta::{GroupResource, Object, ObjectKey, Timestamp};
use parking_lot::Mutex;
use reconcile::{Change, Context, Error, Kind, Plan, Progress, Reconciler, Result, Stores, Watches, key_of};
use serde_json::Value;
use tokio::sync::watch;

use crate::{discovery::discover, garbage::Graph, pods};

/// How long nobody may have added to a quota before it is lowered: longer than a create takes from
/// admission to the store.
const CALM_MS: i64 = 2_000;
/// Counted anew although nothing was heard (`resource-quota-sync-period`), and, where it counts Events, which
/// nobody watches here, sooner.
const EVERY: Duration = Duration::from_secs(300);
const EVERY_UNWATCHED: Duration = Duration::from_secs(10);

/// The controller. That objects come and go it hears from the watches of the garbage collector, which sees
/// all kinds and keeps next to nothing of their objects; only what matters of a kind beyond that is watched.
#[derive(Default)]
pub struct ResourceQuotas {
    graph: Arc<Graph>,
    /// The version of each quota, and since when it is seen.
    seen: Mutex<HashMap<ObjectKey, (String, Timestamp)>>,
}

/// What one plan looks at.
pub struct World {
    quota: Arc<ResourceQuota>,
    object: Object,
    used: Amounts,
    /// Since when nobody has written the quota.
    since: Timestamp,
    /// It counts a kind whose changes are not heard.
    unwatched: bool,
}

impl ResourceQuotas {
    pub(crate) fn hearing(graph: Arc<Graph>) -> Self {
        Self { graph, ..Self::default() }
    }
}

impl Reconciler for ResourceQuotas {
    type World = World;
    const NAME: &'static str = "resourcequota";

    fn watches(&self) -> Watches {
        Watches::of::<ResourceQuota>()
            .also::<Pod>(|change, stores| quotas(change, stores, pod_counts_otherwise(change)))
            .also::<Service>(|change, stores| quotas(change, stores, differs(change, |s| &s.spec)))
            .also::<PersistentVolumeClaim>(|change, stores| {
                quotas(change, stores, differs(change, |c| &c.spec))
            })
            .fed_by({
                let graph = Arc::clone(&self.graph);
                move |stores, enqueue| {
                    let quotas = stores.of::<ResourceQuota>();
                    graph.hear(move |kind, namespace| {
                        let concerned = match namespace {
                            Some(namespace) => quotas.in_namespace(namespace),
                            None => quotas.all(),
                        };
                        let concerned = concerned.iter().filter(|quota| counts(quota, kind));
                        concerned.for_each(|quota| enqueue(key_of(&**quota)));
                    });
                    // Each count is made anew from the API, so nothing has to be heard before the first.
                    watch::Sender::new(Progress { lists_done: 1, ..Progress::default() }).subscribe()
                }
            })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(quota) = cx.stores.ready::<ResourceQuota>().await.get(key) else {
            self.seen.lock().remove(key);
            return Ok(None);
        };
        if quota.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let now = cx.clock.now();
        let version = quota.resource_version().unwrap_or_default();
        let since = {
            let mut seen = self.seen.lock();
            let entry = seen.entry(key.clone()).or_insert_with(|| (version.clone(), now));
            if entry.0 != version {
                *entry = (version, now);
            }
            entry.1
        };
        let object = serde_json::to_value(&*quota).ok().and_then(|value| Object::from_value(value).ok());
        let object = object.unwrap_or_default();
        let names = quota::hard(&object);
        let counted: BTreeSet<GroupResource> = names.keys().filter_map(|name| quota::counts(name)).collect();
        let mut all = Vec::new();
        for resource in &counted {
            all.extend(list(cx, resource, &key.namespace).await?.into_iter().map(|o| (resource.clone(), o)));
        }
        let used = quota::total(&object, all.iter().map(|(resource, object)| (resource, object)), now);
        let unwatched = counted.iter().any(|resource| !is_watched(resource));
        Ok(Some(World { quota, object, used, since, unwatched }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let World { quota, object, used, since, unwatched } = world;
        plan.recheck(if *unwatched { EVERY_UNWATCHED } else { EVERY });
        let published = quota::used(object);
        let lowers = used.iter().any(|(name, amount)| published.get(name).is_some_and(|had| amount < had));
        let calm_ms = now.as_millisecond() - since.as_millisecond();
        if lowers && calm_ms < CALM_MS {
            plan.recheck(Duration::from_millis((CALM_MS - calm_ms).unsigned_abs()));
            return plan;
        }
        let used = serde_json::from_value(quota::to_value(object, used)).ok();
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
        plan.set_status(&**quota, &ResourceQuotaStatus { hard, used });
        plan
    }
}

/// Every object of a kind in the namespace, as the API server has them now; none of a kind it does not serve.
async fn list(cx: &Context, resource: &GroupResource, namespace: &str) -> Result<Vec<Object>> {
    let what = || format!("{resource} of namespace {namespace}");
    let kind = match known(resource) {
        Some(kind) => kind,
        None => {
            let served = discover(&cx.client).await?.resources;
            let of = |kind: &Kind| kind.group == resource.group && kind.plural == resource.resource;
            match served.into_iter().find(|found| of(&found.kind) && found.namespaced && found.can(&["list"]))
            {
                Some(found) => found.kind,
                None => return Ok(Vec::new()),
            }
        }
    };
    let request = Request::new(kind.url(namespace)).list(&ListParams::default());
    let request = request.map_err(|error| Error::Rejected(format!("cannot ask for {}: {error}", what())))?;
    let mut list: Value = cx.client.request(request).await.map_err(Error::read(what()))?;
    let items = list.get_mut("items").map(Value::take);
    let items = items.and_then(|items| match items {
        Value::Array(items) => Some(items),
        _ => None,
    });
    Ok(items.unwrap_or_default().into_iter().filter_map(|item| Object::from_value(item).ok()).collect())
}

/// Kinds that need no discovery.
fn known(resource: &GroupResource) -> Option<Kind> {
    let kinds = [
        Kind::of::<Pod>(),
        Kind::of::<Service>(),
        Kind::of::<PersistentVolumeClaim>(),
        Kind::of::<ConfigMap>(),
        Kind::of::<Secret>(),
        Kind::of::<ReplicationController>(),
        Kind::of::<ResourceQuota>(),
        Kind::of::<Deployment>(),
        Kind::of::<ReplicaSet>(),
        Kind::of::<StatefulSet>(),
        Kind::of::<Job>(),
        Kind::of::<CronJob>(),
    ];
    kinds.into_iter().find(|kind| kind.group == resource.group && kind.plural == resource.resource)
}

/// All but Events are.
fn is_watched(resource: &GroupResource) -> bool {
    resource.resource != "events"
}

/// Whether the quota limits how many objects of a kind there are, or what they take.
fn counts(quota: &ResourceQuota, kind: &Kind) -> bool {
    let names = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
    names
        .filter_map(|(name, _)| quota::counts(name))
        .any(|counted| counted.group == kind.group && counted.resource == kind.plural)
}

fn quotas<K: Resource>(change: &Change<K>, stores: &Stores, counts_otherwise: bool) -> Vec<ObjectKey> {
    let namespace = change.object().and_then(|object| object.namespace()).unwrap_or_default();
    if !counts_otherwise {
        return Vec::new();
    }
    let quotas = stores.of::<ResourceQuota>().in_namespace(&namespace);
    quotas.iter().map(|quota| key_of(&**quota)).collect()
}

fn differs<K, T: PartialEq>(change: &Change<K>, of: impl Fn(&K) -> &T) -> bool {
    change.old.as_deref().map(&of) != change.new.as_deref().map(&of)
}

/// A pod's status matters only where it ends the pod.
fn pod_counts_otherwise(change: &Change<Pod>) -> bool {
    let state = |pod: &Arc<Pod>| (pods::is_terminal(pod), pods::is_deleting(pod));
    change.old.as_ref().map(state) != change.new.as_ref().map(state) || differs(change, |pod| &pod.spec)
}

#[cfg(test)]
mod tests {
    use meta::{Fixed, Seeded};
    use reconcile::{
        CancellationToken, Controller,
        testkit::{Bench, FakeApi},
    };
    use serde_json::json;

    use super::*;

    fn key() -> ObjectKey {
        ObjectKey::new("ns", "q")
    }

    fn bench(hard: &Value) -> Bench<ResourceQuotas> {
        let bench = Bench::new(ResourceQuotas::default());
        bench.api.register(Kind::of::<ResourceQuota>(), true);
        bench.api.register(Kind::of::<ReplicationController>(), true);
        bench.api.put(&json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q", "namespace": "ns" },
            "spec": { "hard": hard },
        }));
        bench
    }

    fn put_pod(bench: &Bench<ResourceQuotas>, namespace: &str, name: &str) {
        bench.api.put(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
            "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "500m" } } }] },
        }));
    }

    fn used(bench: &Bench<ResourceQuotas>) -> Value {
        bench.api.get(&Kind::of::<ResourceQuota>(), &key()).unwrap()["status"]["used"].clone()
    }

    #[tokio::test]
    async fn what_objects_take_is_published() {
        let bench =
            bench(&json!({ "pods": "5", "requests.cpu": "4", "count/secrets": "3", "configmaps": "1" }));
        put_pod(&bench, "ns", "a");
        put_pod(&bench, "ns", "b");
        put_pod(&bench, "elsewhere", "c");
        bench.api.put(
            &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s", "namespace": "ns" } }),
        );
        bench.settle(&key()).await;
        assert_eq!(
            used(&bench),
            json!({ "pods": "2", "requests.cpu": "1", "count/secrets": "1", "configmaps": "0" })
        );
    }

    #[tokio::test]
    async fn a_quota_is_lowered_only_when_nobody_adds_to_it() {
        let bench = bench(&json!({ "pods": "5" }));
        put_pod(&bench, "ns", "a");
        bench.settle(&key()).await;
        bench.advance(10);
        let charged = json!({ "status": { "used": { "pods": "2" } } });
        bench.api.patch(&Kind::of::<ResourceQuota>(), &key(), "status", &charged);
        let waits = bench.plan(&key()).await.unwrap();
        assert_eq!((waits.status.len(), waits.recheck_after), (0, Some(Duration::from_secs(2))));
        put_pod(&bench, "ns", "b");
        bench.settle(&key()).await;
        assert_eq!(used(&bench), json!({ "pods": "2" }), "it was on its way");
        bench.api.delete(&Kind::of::<Pod>(), &ObjectKey::new("ns", "b"));
        bench.advance(3);
        bench.settle(&key()).await;
        assert_eq!(used(&bench), json!({ "pods": "1" }));
    }

    #[tokio::test(start_paused = true)]
    async fn objects_of_every_kind_are_heard_of() {
        let clock = Arc::new(Fixed::new(Timestamp::UNIX_EPOCH));
        let api = FakeApi::new(clock.clone(), Arc::new(Seeded::new(1)));
        api.register(Kind::of::<ResourceQuota>(), true);
        api.register(Kind::new("example.com", "v1", "Widget", "widgets"), true);
        api.put(&json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q", "namespace": "ns" },
            "spec": { "hard": { "count/widgets.example.com": "3" } },
        }));
        let cx = Context::new(api.client(), clock, Arc::new(Seeded::new(2)));
        let graph = Arc::new(Graph::default());
        let (feed, stop) = (Arc::clone(&graph), CancellationToken::new());
        let watches =
            Controller::custom("monitors", move |cx, stop| crate::garbage::monitors(feed, cx, stop));
        let quotas = Controller::new(ResourceQuotas::hearing(graph));
        let run = tokio::spawn(reconcile::run(vec![watches, quotas], cx, stop.clone()));
        let used = async || {
            tokio::time::sleep(Duration::from_secs(5)).await;
            api.get(&Kind::of::<ResourceQuota>(), &key()).unwrap()["status"]["used"].clone()
        };
        assert_eq!(used().await, json!({ "count/widgets.example.com": "0" }));
        api.put(&json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": "w", "namespace": "ns" } }));
        assert_eq!(used().await, json!({ "count/widgets.example.com": "1" }));
        stop.cancel();
        run.await.unwrap();
    }
}
