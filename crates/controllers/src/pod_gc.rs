//! Removes pods that nobody else will (upstream `pkg/controller/podgc`): on nodes that no longer exist,
//! being deleted without ever having had a node, being deleted on a node that is out of service, and
//! the oldest finished ones when there are too many.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt};
use meta::{ObjectKey, Timestamp};
use parking_lot::Mutex;
use reconcile::{
    Change, Child, Context, Error, Plan, Precondition, Reconciler, Result, Stores, Watches, key_of,
};

use crate::{node, pods, spec::HasSpec};

/// Upstream `--terminated-pod-gc-threshold`.
const TERMINATED_MAX: usize = 12_500;
/// A node has to be missing for so long: it may be registering again (upstream `quarantineTime`).
const QUARANTINE_S: i64 = 40;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The controller.
#[derive(Default)]
pub struct PodGc {
    missing_since: Mutex<HashMap<String, Timestamp>>,
}

/// What one plan looks at.
pub enum World {
    /// One pod.
    Pod {
        /// The pod.
        pod: Arc<Pod>,
        /// How it stands with its node.
        place: Place,
    },
    /// Finished pods beyond the threshold.
    Terminated(Vec<Arc<Pod>>),
}

/// How it stands with a pod's node.
pub enum Place {
    /// It has none.
    Unscheduled,
    /// It is there.
    Present,
    /// It is not ready and marked out of service.
    OutOfService,
    /// It is gone, since then.
    Missing(Timestamp),
}

/// The key of the count of finished pods; no pod has an empty name.
fn terminated_key() -> ObjectKey {
    ObjectKey::new("", "")
}

impl Reconciler for PodGc {
    type World = World;
    const NAME: &'static str = "pod-garbage-collector";

    fn watches(&self) -> Watches {
        Watches::of::<Pod>()
            .also::<Pod>(|change, stores| {
                let finished = change.new.as_ref().is_some_and(|pod| pods::is_terminal(pod));
                let many = stores.of::<Pod>().len() > TERMINATED_MAX;
                (finished && many).then(terminated_key).into_iter().collect()
            })
            .also::<Node>(pods_of_node)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let store = cx.stores.ready::<Pod>().await;
        if *key == terminated_key() {
            let mut finished = store.all();
            finished.retain(|pod| pods::is_terminal(pod) && !pods::is_deleting(pod));
            finished.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
            finished.truncate(finished.len().saturating_sub(TERMINATED_MAX));
            return Ok(Some(World::Terminated(finished)));
        }
        let Some(pod) = store.get(key) else { return Ok(None) };
        let Some(name) = pod.spec().node_name.clone().filter(|name| !name.is_empty()) else {
            return Ok(Some(World::Pod { pod, place: Place::Unscheduled }));
        };
        let place = match cx.stores.ready::<Node>().await.get(&ObjectKey::new("", &name)) {
            Some(node) => {
                self.missing_since.lock().remove(&name);
                let tainted = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
                let marked = tainted.into_iter().any(|taint| taint.key == OUT_OF_SERVICE);
                if marked && !node::is_ready(&node) { Place::OutOfService } else { Place::Present }
            }
            None => self.missing(cx, name).await?,
        };
        Ok(Some(World::Pod { pod, place }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        match world {
            World::Terminated(finished) => {
                for pod in finished {
                    remove(&mut plan, pod, None, now);
                }
            }
            World::Pod { pod, place: Place::Unscheduled | Place::OutOfService } if pods::is_deleting(pod) => {
                remove(&mut plan, pod, None, now);
            }
            World::Pod { pod: _, place: Place::Unscheduled | Place::OutOfService | Place::Present } => {}
            World::Pod { pod, place: Place::Missing(since) } => {
                let left = since.as_second() + QUARANTINE_S - now.as_second();
                if left > 0 {
                    plan.recheck(Duration::from_secs(u64::try_from(left).unwrap_or(1)));
                } else {
                    remove(&mut plan, pod, Some("PodGC: node no longer exists"), now);
                }
            }
        }
        plan
    }
}

impl PodGc {
    async fn missing(&self, cx: &Context, name: String) -> Result<Place> {
        let live = Api::<Node>::all(cx.client.clone()).get_opt(&name).await;
        if live.map_err(Error::read(format!("node {name}")))?.is_some() {
            return Ok(Place::Present);
        }
        let mut missing = self.missing_since.lock();
        Ok(Place::Missing(*missing.entry(name).or_insert_with(|| cx.clock.now())))
    }
}

/// A node that goes, or is marked, concerns its pods.
fn pods_of_node(change: &Change<Node>, stores: &Stores) -> Vec<ObjectKey> {
    let marked = |node: &Node| {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
    };
    let concerns = match (&change.old, &change.new) {
        (_, None) => true,
        (_, Some(node)) => marked(node),
    };
    let Some(name) = change.object().filter(|_| concerns).map(|node| node.name_any()) else {
        return Vec::new();
    };
    let all = stores.of::<Pod>().all();
    all.iter().filter(|pod| pod.spec().node_name.as_ref() == Some(&name)).map(|pod| key_of(&**pod)).collect()
}

/// Marks a pod that has not finished as Failed (its kubelet never will) and deletes it without grace.
fn remove(plan: &mut Plan, pod: &Pod, disruption: Option<&str>, now: Timestamp) {
    if !pods::is_terminal(pod) {
        let mut status = pod.status.clone().unwrap_or_default();
        status.phase = Some("Failed".to_owned());
        if let Some(message) = disruption {
            node::disrupt(&mut status.conditions, "DeletionByPodGC", message, now);
        }
        plan.apply.extend(Child::patch_status(pod, &status));
    }
    plan.delete.push(Precondition { grace_period_seconds: Some(0), ..Precondition::of(pod) });
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn orphans_go_after_the_quarantine_and_not_before() {
        let bench = Bench::new(PodGc::default());
        let key = ObjectKey::new("ns", "p");
        bench.api.put(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "namespace": "ns" }, "spec": { "nodeName": "n1", "containers": [] }, "status": { "phase": "Running" } }));
        let plan = bench.plan(&key).await.unwrap();
        assert_eq!(plan.recheck_after, Some(Duration::from_secs(40)));
        bench.advance(30);
        bench.api.put(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } }));
        assert!(bench.plan(&key).await.unwrap().is_empty(), "the node came back");
        bench.api.delete(&Kind::of::<Node>(), &ObjectKey::new("", "n1"));
        bench.settle(&key).await;
        bench.advance(41);
        insta::assert_yaml_snapshot!(bench.plan(&key).await.unwrap(), { ".**.uid" => "[uid]" });
        bench.settle(&key).await;
        assert_eq!(bench.api.get(&Kind::of::<Pod>(), &key), None);
    }

    #[tokio::test]
    async fn a_terminating_pod_without_a_node_or_on_one_out_of_service_goes() {
        let bench = Bench::new(PodGc::default());
        let pod = |name: &str, node: &str| {
            json!({ "apiVersion": "v1", "kind": "Pod", "spec": { "nodeName": node, "containers": [] },
                "metadata": { "name": name, "namespace": "ns", "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30 } })
        };
        bench.api.put(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" }, "spec": { "taints": [{ "key": OUT_OF_SERVICE, "effect": "NoExecute" }] } }));
        bench.api.put(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n2" } }));
        for (name, node, stays) in [("none", "", false), ("out", "n1", false), ("fine", "n2", true)] {
            bench.api.put(&pod(name, node));
            let key = ObjectKey::new("ns", name);
            bench.settle(&key).await;
            assert_eq!(bench.api.get(&Kind::of::<Pod>(), &key).is_some(), stays, "{name}");
        }
    }
}
