//! The life of a volume after, and without, its claim (upstream `pv_controller.go`, `syncVolume`).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus};
use kube::{Api, ResourceExt};
use meta::{ObjectKey, Timestamp};
use reconcile::{
    Change, Context, Error, Note, Plan, Precondition, Reconciler, Result, Stores, Watches, key_of,
};

use super::{BOUND_BY_CONTROLLER, PROVISIONED_BY, PROVISIONER, matching::phase};
use crate::{pods::whole_second, spec::HasSpec};

/// The controller.
pub struct VolumeBinder;

/// What one plan looks at.
pub struct World {
    volume: Arc<PersistentVolume>,
    /// The claim the volume refers to, if it is that very claim.
    claim: Option<Arc<PersistentVolumeClaim>>,
}

impl Reconciler for VolumeBinder {
    type World = World;
    const NAME: &'static str = "persistentvolume-reclaimer";

    fn watches(&self) -> Watches {
        Watches::of::<PersistentVolume>().also::<PersistentVolumeClaim>(volumes_of_claim)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(volume) = cx.stores.ready::<PersistentVolume>().await.get(key) else { return Ok(None) };
        let Some(reference) = volume.spec().claim_ref.clone() else {
            return Ok(Some(World { volume, claim: None }));
        };
        let (namespace, name) = (reference.namespace.unwrap_or_default(), reference.name.unwrap_or_default());
        let cached = cx.stores.ready::<PersistentVolumeClaim>().await.get(&ObjectKey::new(&namespace, &name));
        let is_it = |claim: &PersistentVolumeClaim| claim.metadata.uid == reference.uid;
        let mut claim = cached.filter(|claim| is_it(claim));
        if claim.is_none() && reference.uid.as_ref().is_some_and(|uid| !uid.is_empty()) {
            // A cache that lags must not cost anybody their data.
            let api = Api::<PersistentVolumeClaim>::namespaced(cx.client.clone(), &namespace);
            let what = format!("persistentvolumeclaim {namespace}/{name}");
            claim = api.get_opt(&name).await.map_err(Error::read(what))?.filter(is_it).map(Arc::new);
        }
        Ok(Some(World { volume, claim }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let World { volume, claim } = world;
        let reference = volume.spec().claim_ref.as_ref();
        let promised =
            reference.and_then(|reference| reference.uid.as_ref()).is_some_and(|uid| !uid.is_empty());
        match claim {
            None if !promised => set_phase(&mut plan, volume, "Available", None, now),
            None => release(&mut plan, volume, now),
            Some(claim) => match claim.spec().volume_name.as_deref().filter(|name| !name.is_empty()) {
                // The claim's own plan completes the binding.
                None => {}
                Some(name) if name == volume.name_any() => set_phase(&mut plan, volume, "Bound", None, now),
                Some(_) => give_up(&mut plan, volume, now),
            },
        }
        plan
    }
}

fn volumes_of_claim(change: &Change<PersistentVolumeClaim>, stores: &Stores) -> Vec<ObjectKey> {
    let Some(claim) = change.object() else { return Vec::new() };
    let volumes = stores.of::<PersistentVolume>().all();
    let refers = |volume: &&Arc<PersistentVolume>| {
        let reference = volume.spec().claim_ref.as_ref();
        reference.is_some_and(|r| r.name == claim.metadata.name && r.namespace == claim.metadata.namespace)
    };
    volumes.iter().filter(refers).map(|volume| key_of(&**volume)).collect()
}

fn set_phase(plan: &mut Plan, volume: &PersistentVolume, to: &str, message: Option<String>, now: Timestamp) {
    if phase(volume) == to && volume.status.as_ref().is_some_and(|status| status.message == message) {
        return;
    }
    let before = volume.status.clone().unwrap_or_default();
    let status = PersistentVolumeStatus {
        phase: Some(to.to_owned()),
        message,
        reason: None,
        last_phase_transition_time: if phase(volume) == to {
            before.last_phase_transition_time
        } else {
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(whole_second(now)))
        },
    };
    plan.set_status(volume, &status);
}

/// The claim is gone: the reclaim policy decides.
fn release(plan: &mut Plan, volume: &PersistentVolume, now: Timestamp) {
    let policy = volume.spec().persistent_volume_reclaim_policy.as_deref().unwrap_or("Retain");
    let provisioner = volume.annotations().get(PROVISIONED_BY).map(String::as_str);
    let failure = match (policy, provisioner) {
        ("Delete", None) => Some("no provisioner made this volume, so nobody can delete it; set its reclaim policy to Retain or delete it by hand".to_owned()),
        ("Recycle", _) => Some("the reclaim policy Recycle is not supported; use Delete or Retain".to_owned()),
        _ => None,
    };
    if let Some(message) = failure {
        if phase(volume) != "Failed" {
            plan.events.push(Note::warning(volume, "VolumeFailedDelete", "Reclaim", message.clone()));
        }
        return set_phase(plan, volume, "Failed", Some(message), now);
    }
    if phase(volume) != "Released" {
        return set_phase(plan, volume, "Released", None, now);
    }
    // Another provisioner deletes its own volumes when they are Released.
    let ours = policy == "Delete" && provisioner == Some(PROVISIONER);
    if ours && volume.metadata.deletion_timestamp.is_none() {
        plan.delete.push(Precondition::of(volume));
    }
}

/// The claim took another volume: a provisioned one is not needed any more, a chosen one is free again,
/// one that an administrator meant for the claim goes on meaning it.
fn give_up(plan: &mut Plan, volume: &PersistentVolume, now: Timestamp) {
    let deletes = volume.spec().persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    if volume.annotations().contains_key(PROVISIONED_BY) && deletes {
        return release(plan, volume, now);
    }
    let mut free = volume.clone();
    if volume.annotations().contains_key(BOUND_BY_CONTROLLER) {
        free.spec_mut().claim_ref = None;
        free.annotations_mut().remove(BOUND_BY_CONTROLLER);
    } else if let Some(reference) = &mut free.spec_mut().claim_ref {
        reference.uid = None;
        reference.resource_version = None;
    }
    plan.change(volume, &free);
    set_phase(plan, volume, "Available", None, now);
}
