//! A node whose lease and status stand still becomes Unknown; its pods are not ready; taints follow.
//!
//! Times are counted from when this process saw the last sign of life, not from times the node wrote:
//! clocks differ, and after a restart every node gets the whole grace period. While no node at all is
//! ready, nothing is evicted (upstream's full disruption: it is more likely us). Upstream's rate limit
//! for evictions in large partly broken zones is not here yet.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use parking_lot::Mutex;
use reconcile::{Change, Child, Context, Note, Plan, Reconciler, Result, Stores, Watches};

use super::{condition, is_ready, taints};
use crate::{pods, spec::HasSpec};

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Without a sign of life for so long, a node is Unknown.
const GRACE_S: i64 = 40;
/// The same for a node that never said anything (upstream `--node-startup-grace-period`).
const STARTUP_GRACE_S: i64 = 60;

/// The controller.
#[derive(Default)]
pub struct NodeLifecycle {
    /// The last sign of life of each node and when we saw it.
    seen: Mutex<HashMap<String, (SignOfLife, Timestamp)>>,
}

type SignOfLife = (Option<Timestamp>, Option<Timestamp>);

/// What one plan looks at.
pub struct World {
    node: Arc<Node>,
    /// When the last sign of life was seen.
    seen_at: Timestamp,
    /// Whether some node is ready: then this one's trouble is its own.
    any_ready: bool,
    /// Pods on the node that still count as ready; only looked up when it is not.
    ready_pods: Vec<Arc<Pod>>,
}

impl Reconciler for NodeLifecycle {
    type World = World;
    const NAME: &'static str = "node-lifecycle";

    fn watches(&self) -> Watches {
        Watches::of::<Node>().also::<Node>(others).reads::<Pod>().also::<Lease>(|change, _| {
            let lease = change.object().filter(|lease| lease.namespace().as_deref() == Some(LEASE_NAMESPACE));
            lease.map(|lease| ObjectKey::new("", lease.name_any())).into_iter().collect()
        })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let nodes = cx.stores.ready::<Node>().await;
        let Some(node) = nodes.get(key) else {
            self.seen.lock().remove(&key.name);
            return Ok(None);
        };
        let lease = cx.stores.ready::<Lease>().await.get(&ObjectKey::new(LEASE_NAMESPACE, &key.name));
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
        let heartbeat =
            condition(&node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref().map(|t| t.0));
        let now = cx.clock.now();
        let seen_at = {
            let mut seen = self.seen.lock();
            let entry = seen.entry(key.name.clone()).or_insert(((renewed, heartbeat), now));
            if entry.0 != (renewed, heartbeat) {
                *entry = ((renewed, heartbeat), now);
            }
            entry.1
        };
        let any_ready = nodes.all().iter().any(|node| is_ready(node));
        let mut ready_pods = Vec::new();
        if !is_ready(&node) {
            ready_pods = cx.stores.ready::<Pod>().await.all();
            ready_pods.retain(|pod| pod.spec().node_name.as_ref() == Some(&key.name) && pods::is_ready(pod));
        }
        Ok(Some(World { node, seen_at, any_ready, ready_pods }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let node = &*world.node;
        let grace = if condition(node, "Ready").is_some() { GRACE_S } else { STARTUP_GRACE_S };
        let left = world.seen_at.as_second() + grace - now.as_second();
        if left >= 0 {
            plan.recheck(Duration::from_secs(u64::try_from(left + 1).unwrap_or(1)));
        } else {
            silence(&mut plan, node, now);
        }
        // Taints and pods follow the conditions as they stand; the next plan sees those just planned.
        if plan.status.is_empty() {
            let taints = taints::wanted(node, world.any_ready, now);
            let mut wanted = node.clone();
            if wanted.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
                != taints.as_slice()
            {
                wanted.spec.get_or_insert_default().taints = Some(taints);
                plan.change(node, &wanted);
            }
            for pod in &world.ready_pods {
                plan.apply.extend(not_ready(pod, now));
            }
        }
        plan
    }
}

/// A node that changes readiness may change whether others are evicted.
fn others(change: &Change<Node>, stores: &Stores) -> Vec<ObjectKey> {
    let ready = |node: &Option<Arc<Node>>| node.as_ref().is_some_and(|node| is_ready(node));
    if ready(&change.old) == ready(&change.new) {
        return Vec::new();
    }
    let troubled = stores.of::<Node>().all().into_iter().filter(|node| !is_ready(node));
    troubled.map(|node| ObjectKey::new("", node.name_any())).collect()
}

/// Plans the conditions of a node that has fallen silent.
fn silence(plan: &mut Plan, node: &Node, now: Timestamp) {
    let mut status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    let now = Time(pods::whole_second(now));
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                known.status = "Unknown".to_owned();
                known.reason = Some("NodeStatusUnknown".to_owned());
                known.message = Some("Kubelet stopped posting node status.".to_owned());
                known.last_transition_time = Some(now.clone());
            }
            None => conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(now.clone()),
            }),
        }
    }
    let was_ready = is_ready(node);
    plan.set_status(node, &status);
    if was_ready {
        let text = format!("Node {} status is now: NodeNotReady", node.name_any());
        plan.events.push(Note::normal(node, "NodeNotReady", "Monitor", text));
    }
}

/// The pod's Ready condition turned False: its node cannot vouch for it.
fn not_ready(pod: &Pod, now: Timestamp) -> Option<Child> {
    let mut status = pod.status.clone()?;
    for ready in status.conditions.iter_mut().flatten().filter(|condition| condition.type_ == "Ready") {
        ready.status = "False".to_owned();
        ready.last_transition_time = Some(Time(pods::whole_second(now)));
    }
    Child::patch_status(pod, &status)
}
