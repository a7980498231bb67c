//! Deletes pods that do not tolerate a NoExecute taint of their node, at once or when the time they
//! tolerate it for is over. The time counts from the taint's `timeAdded`, so a restart of this program
//! neither shortens nor lengthens it; where a taint has none, as those of users, from when it was first seen.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, Pod, PodCondition, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use parking_lot::Mutex;
use reconcile::{
    Change, Child, Context, Note, Plan, Precondition, Reconciler, Result, Stores, Watches, key_of,
};

use crate::{pods, spec::HasSpec};

/// The controller.
#[derive(Default)]
pub struct TaintEviction {
    /// Since when each pod has stood on a node with such taints. Users' taints carry no time; as upstream, the
    /// wait begins anew when the controllers do.
    since: Mutex<HashMap<ObjectKey, Timestamp>>,
}

/// What one plan looks at.
pub struct World {
    pod: Arc<Pod>,
    /// The node's NoExecute taints.
    taints: Vec<Taint>,
    /// Since when the pod bears taints that do not say when they were added.
    since: Timestamp,
}

impl Reconciler for TaintEviction {
    type World = World;
    const NAME: &'static str = "taint-eviction";

    fn watches(&self) -> Watches {
        Watches::of::<Pod>().also::<Node>(pods_of_tainted)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let (pods, nodes) = (cx.stores.ready::<Pod>().await, cx.stores.ready::<Node>().await);
        let mut since = self.since.lock();
        let borne = pods.get(key).filter(|pod| pods::is_active(pod)).and_then(|pod| {
            let node = nodes.get(&ObjectKey::new("", pod.spec().node_name.as_ref()?))?;
            let taints = no_execute(&node);
            (!taints.is_empty()).then_some((pod, taints))
        });
        let Some((pod, taints)) = borne else {
            since.remove(key);
            return Ok(None);
        };
        let since = *since.entry(key.clone()).or_insert_with(|| cx.clock.now());
        Ok(Some(World { pod, taints, since }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let pod = &*world.pod;
        let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
        match eviction_time(&world.taints, tolerations, world.since, now) {
            None => {}
            Some(at) if at > now => {
                let left = at.as_second().saturating_sub(now.as_second()).max(1);
                plan.recheck(Duration::from_secs(u64::try_from(left).unwrap_or(1)));
            }
            Some(_) => {
                plan.apply.extend(disrupted(
                    pod,
                    "DeletionByTaintManager",
                    "Taint manager: deleting due to NoExecute taint",
                    now,
                ));
                plan.delete.push(Precondition::of(pod));
                let text = format!("Marking for deletion Pod {}", key_of(pod));
                plan.events.push(Note::normal(pod, "TaintManagerEviction", "Evict", text));
            }
        }
        plan
    }
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

/// The pods of a node whose NoExecute taints changed.
fn pods_of_tainted(change: &Change<Node>, stores: &Stores) -> Vec<ObjectKey> {
    let taints = |node: &Option<Arc<Node>>| node.as_ref().map(|node| no_execute(node)).unwrap_or_default();
    let Some(node) = change.new.as_ref().filter(|_| taints(&change.old) != taints(&change.new)) else {
        return Vec::new();
    };
    let (name, all) = (node.name_any(), stores.of::<Pod>().all());
    let on_node = all.iter().filter(|pod| pod.spec().node_name.as_ref() == Some(&name));
    on_node.map(|pod| key_of(&**pod)).collect()
}

/// When the pod has to go: `None` for never, `now` (or earlier) for at once. `untimed` is when a taint without a
/// time was first borne.
pub(super) fn eviction_time(
    taints: &[Taint],
    tolerations: &[Toleration],
    untimed: Timestamp,
    now: Timestamp,
) -> Option<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        let mut matching = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if matching.peek().is_none() {
            return Some(now);
        }
        let since = taint.time_added.as_ref().map_or(untimed, |time| time.0).as_second();
        for seconds in matching.filter_map(|toleration| toleration.toleration_seconds) {
            let at = Timestamp::from_second(since.saturating_add(seconds.max(0))).unwrap_or(Timestamp::MAX);
            earliest = Some(earliest.map_or(at, |other| other.min(at)));
        }
    }
    earliest
}

/// Whether a toleration makes a pod bear a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let unset = |field: &Option<String>| field.as_deref().is_none_or(str::is_empty);
    let effect = unset(&toleration.effect) || toleration.effect.as_ref() == Some(&taint.effect);
    let key = unset(&toleration.key) || toleration.key.as_ref() == Some(&taint.key);
    let value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            !unset(&toleration.key)
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    };
    effect && key && value
}

/// The pod's status with condition DisruptionTarget; `None` where it says so already.
pub(crate) fn disrupted(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Option<Child> {
    let mut status = pod.status.clone().unwrap_or_default();
    disrupt(&mut status.conditions, reason, message, now);
    Child::patch_status(pod, &status)
}

/// Puts condition DisruptionTarget into the list.
pub(crate) fn disrupt(
    conditions: &mut Option<Vec<PodCondition>>,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let list = conditions.get_or_insert_default();
    if list.iter().any(|c| c.type_ == "DisruptionTarget" && c.status == "True") {
        return;
    }
    list.retain(|condition| condition.type_ != "DisruptionTarget");
    list.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(pods::whole_second(now))),
        ..PodCondition::default()
    });
}
