//! Status of a StatefulSet (upstream `updateStatus`, `completeRollingUpdate`).

use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetStatus},
    core::v1::Pod,
};
use meta::Timestamp;

use super::{World, identity};
use crate::{pods, spec::HasSpec};

/// The status after what was observed.
pub(super) fn calculate(world: &World, now: Timestamp) -> StatefulSetStatus {
    let set = &*world.set;
    let (current, update) = (&world.revisions.current.name, &world.revisions.update.name);
    let min_ready = set.spec().min_ready_seconds.unwrap_or(0);
    let count = |of: &dyn Fn(&Pod) -> bool| {
        i32::try_from(world.pods.mine.iter().filter(|pod| of(pod)).count()).unwrap_or(i32::MAX)
    };
    let running = |pod: &Pod| pods::phase(pod) == "Running";
    let (replicas, ready) = (count(&|_| true), count(&|pod| running(pod) && pods::is_ready(pod)));
    let available = count(&|pod| running(pod) && pods::is_available(pod, min_ready, now));
    let of_revision = |name: &str| count(&|pod| !pods::is_deleting(pod) && identity::revision(pod) == name);
    let (mut on_current, on_update) = (of_revision(current), of_revision(update));
    let mut current = current;
    let wanted = identity::replicas(set);
    let rolling = set.spec().update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete");
    if rolling && on_update == wanted && ready == wanted && replicas == wanted {
        (on_current, current) = (on_update, update);
    }
    let before = set.status.clone().unwrap_or_default();
    StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas,
        ready_replicas: nonzero(ready),
        available_replicas: Some(available),
        current_replicas: nonzero(on_current),
        updated_replicas: nonzero(on_update),
        current_revision: Some(current.clone()),
        update_revision: Some(update.clone()),
        collision_count: Some(before.collision_count.unwrap_or(0)),
        conditions: before.conditions,
    }
}

/// Upstream's `omitempty`.
fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

/// The status that makes the next plan try another name for the new revision.
pub(super) fn collided(set: &StatefulSet) -> StatefulSetStatus {
    let before = set.status.clone().unwrap_or_default();
    StatefulSetStatus {
        collision_count: Some(before.collision_count.unwrap_or(0).saturating_add(1)),
        ..before
    }
}
