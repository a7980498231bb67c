//! Frees pods from the tracking finalizer when no Job will count them any more: their Job is gone or
//! finished, or nobody controls them (upstream `syncOrphanPod`). Without this a deleted Job's pods would
//! never go.

use std::sync::Arc;

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Api, ResourceExt};
use meta::{ObjectKey, Timestamp};
use reconcile::{Change, Context, Error, Plan, Reconciler, Result, Stores, Watches, controller_of, key_of};

use super::{
    finish::is_finished,
    is_ours,
    tally::{is_tracked, untracked},
};

/// The controller.
pub struct OrphanedJobPods;

/// A pod whose finalizer nobody needs.
pub struct World {
    pod: Arc<Pod>,
}

impl Reconciler for OrphanedJobPods {
    type World = World;
    const NAME: &'static str = "job-orphaned-pods";

    fn watches(&self) -> Watches {
        Watches::default()
            .also::<Pod>(|change, _| {
                let tracked = change.new.as_ref().filter(|pod| is_tracked(pod));
                tracked.map(|pod| key_of(&**pod)).into_iter().collect()
            })
            .also::<Job>(pods_of_ended)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let jobs = cx.stores.ready::<Job>().await;
        let pod = cx.stores.ready::<Pod>().await.get(key).filter(|pod| is_tracked(pod));
        let Some(pod) = pod else { return Ok(None) };
        let Some(owner) = controller_of(&*pod) else { return Ok(Some(World { pod })) };
        if owner.kind != "Job" || !owner.api_version.starts_with("batch/") {
            return Ok(None);
        }
        let needed = |job: &Job| {
            job.metadata.uid.as_deref() == Some(&owner.uid) && (!is_ours(job) || !is_finished(job))
        };
        let cached = jobs.get(&ObjectKey::new(&key.namespace, &owner.name));
        if let Some(job) = cached.filter(|job| job.metadata.uid.as_deref() == Some(&owner.uid)) {
            return Ok((!needed(&job)).then_some(World { pod }));
        }
        // The cache may not show a Job that has just been made.
        let live = Api::<Job>::namespaced(cx.client.clone(), &key.namespace).get_opt(&owner.name).await;
        let live = live.map_err(Error::read(format!("job {}/{}", key.namespace, owner.name)))?;
        Ok((!live.is_some_and(|job| needed(&job))).then_some(World { pod }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        plan.change(&*world.pod, &untracked(&world.pod));
        plan
    }
}

fn pods_of_ended(change: &Change<Job>, stores: &Stores) -> Vec<ObjectKey> {
    let ended = change.new.as_ref().is_none_or(|job| is_finished(job));
    let uid = change.object().filter(|_| ended).and_then(|job| job.uid());
    let pods = uid.map(|uid| stores.of::<Pod>().controlled_by(&uid)).unwrap_or_default();
    pods.iter().filter(|pod| is_tracked(pod)).map(|pod| key_of(&**pod)).collect()
}
