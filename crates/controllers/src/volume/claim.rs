//! Binds claims to volumes (upstream `pv_controller.go`, `syncClaim`).
//!
//! Binding writes the volume's reference first and the claim last, so that a volume is never promised
//! to two claims; a crash in between leaves a volume that refers to its claim, which is found again.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{
        Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeStatus,
    },
    storage::v1::StorageClass,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{Change, Context, Note, Plan, Reconciler, Result, Stores, Watches, key_of, reference_to};

use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, STORAGE_PROVISIONER, STORAGE_PROVISIONER_BETA,
    matching::{self, claim_class, refers_to, unfit, volume_class},
};
use crate::spec::HasSpec;

/// The controller.
pub struct ClaimBinder;

/// What one plan looks at.
pub struct World {
    claim: Arc<PersistentVolumeClaim>,
    volumes: Vec<Arc<PersistentVolume>>,
    class: Option<Arc<StorageClass>>,
    /// The node the scheduler chose for the first consumer.
    node: Option<Arc<Node>>,
}

impl Reconciler for ClaimBinder {
    type World = World;
    const NAME: &'static str = "persistentvolume-binder";
    /// One at a time: two claims must not choose the same volume.
    const CONCURRENCY: usize = 1;

    fn watches(&self) -> Watches {
        Watches::of::<PersistentVolumeClaim>()
            .also::<PersistentVolume>(claims_of_volume)
            .also::<StorageClass>(|change, stores| {
                let name = change.object().map(|class| class.name_any()).unwrap_or_default();
                pending(stores, &name)
            })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(claim) = cx.stores.ready::<PersistentVolumeClaim>().await.get(key) else { return Ok(None) };
        let volumes = cx.stores.ready::<PersistentVolume>().await.all();
        let classes = cx.stores.ready::<StorageClass>().await;
        let class = classes.get(&ObjectKey::new("", claim_class(&claim)));
        let node = match claim.annotations().get(SELECTED_NODE) {
            Some(name) => cx.stores.ready::<Node>().await.get(&ObjectKey::new("", name)),
            None => None,
        };
        Ok(Some(World { claim, volumes, class, node }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let claim = &*world.claim;
        let named = claim.spec().volume_name.as_deref().filter(|name| !name.is_empty());
        let volume = named.and_then(|name| world.volumes.iter().find(|volume| volume.name_any() == name));
        if claim.annotations().contains_key(BIND_COMPLETED) {
            keep(&mut plan, claim, named, volume);
        } else if let Some(name) = named {
            take_named(&mut plan, claim, name, volume);
        } else if claim.metadata.deletion_timestamp.is_none() {
            choose(&mut plan, world);
        }
        plan
    }
}

/// A volume leads to the claim it refers to; a free one to the claims that may want it.
fn claims_of_volume(change: &Change<PersistentVolume>, stores: &Stores) -> Vec<ObjectKey> {
    let referred = change.versions().filter_map(|volume| {
        let reference = volume.spec().claim_ref.as_ref()?;
        Some(ObjectKey::new(reference.namespace.clone()?, reference.name.clone()?))
    });
    let mut keys: Vec<ObjectKey> = referred.collect();
    if let Some(free) = change.new.as_ref().filter(|volume| volume.spec().claim_ref.is_none()) {
        keys.extend(pending(stores, volume_class(free)));
    }
    keys
}

/// Claims of a class that have no volume.
fn pending(stores: &Stores, class: &str) -> Vec<ObjectKey> {
    let claims = stores.of::<PersistentVolumeClaim>().all();
    let waits = |claim: &&Arc<PersistentVolumeClaim>| {
        claim.spec().volume_name.as_deref().is_none_or(str::is_empty) && claim_class(claim) == class
    };
    claims.iter().filter(waits).map(|claim| key_of(&**claim)).collect()
}

/// A claim that was bound stays so, or is lost.
fn keep(
    plan: &mut Plan,
    claim: &PersistentVolumeClaim,
    named: Option<&str>,
    volume: Option<&Arc<PersistentVolume>>,
) {
    match (named, volume) {
        (Some(_), Some(volume)) if volume.spec().claim_ref.is_none() || refers_to(volume, claim) => {
            bind(plan, claim, volume);
        }
        (Some(name), Some(_)) => {
            let text =
                format!("Two claims are bound to the same volume, this one is bound incorrectly: {name}");
            lose(plan, claim, "ClaimMisbound", &text);
        }
        (_, None) | (None, Some(_)) => {
            lose(
                plan,
                claim,
                "ClaimLost",
                "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
            );
        }
    }
}

fn lose(plan: &mut Plan, claim: &PersistentVolumeClaim, reason: &str, message: &str) {
    if phase(claim) != "Lost" {
        plan.events.push(Note::warning(claim, reason, "Bind", message));
        let status = claim.status.clone().unwrap_or_default();
        plan.set_status(claim, &PersistentVolumeClaimStatus { phase: Some("Lost".to_owned()), ..status });
    }
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// A claim that names its volume gets that one or waits for it.
fn take_named(
    plan: &mut Plan,
    claim: &PersistentVolumeClaim,
    name: &str,
    volume: Option<&Arc<PersistentVolume>>,
) {
    let Some(volume) = volume else {
        return wait(plan, claim, "FailedBinding", &format!("volume \"{name}\" does not exist yet"));
    };
    if refers_to(volume, claim) {
        return bind(plan, claim, volume);
    }
    if volume.spec().claim_ref.is_some() {
        let text = format!("volume \"{name}\" already bound to a different claim.");
        return wait(plan, claim, "FailedBinding", &text);
    }
    match unfit(volume, claim) {
        Some(why) => {
            wait(plan, claim, "VolumeMismatch", &format!("Cannot bind to requested volume \"{name}\": {why}"))
        }
        None => bind(plan, claim, volume),
    }
}

/// Pending, and why.
fn wait(plan: &mut Plan, claim: &PersistentVolumeClaim, reason: &str, message: &str) {
    set_pending(plan, claim);
    // Said when the claim becomes pending; upstream says it again every 15 s.
    if !plan.status.is_empty() {
        let note = if reason == "WaitForFirstConsumer" { Note::normal } else { Note::warning };
        plan.events.push(note(claim, reason, "Bind", message.to_owned()));
    }
}

fn set_pending(plan: &mut Plan, claim: &PersistentVolumeClaim) {
    let status = claim.status.clone().unwrap_or_default();
    plan.set_status(claim, &PersistentVolumeClaimStatus { phase: Some("Pending".to_owned()), ..status });
}

fn choose(plan: &mut Plan, world: &World) {
    let claim = &*world.claim;
    let waits = world.class.as_ref().and_then(|class| class.volume_binding_mode.as_deref())
        == Some("WaitForFirstConsumer");
    let delayed = waits && !claim.annotations().contains_key(SELECTED_NODE);
    if let Some(volume) = matching::find(claim, &world.volumes, delayed, world.node.as_deref()) {
        return bind(plan, claim, volume);
    }
    if delayed {
        let text = "waiting for first consumer to be created before binding";
        return wait(plan, claim, "WaitForFirstConsumer", text);
    }
    let name = claim_class(claim);
    match &world.class {
        Some(class) if class.provisioner != "kubernetes.io/no-provisioner" => {
            ask_provisioner(plan, claim, &class.provisioner)
        }
        Some(_) => wait(
            plan,
            claim,
            "FailedBinding",
            "no persistent volumes available for this claim and its storage class does not provision any",
        ),
        None if name.is_empty() => {
            wait(
                plan,
                claim,
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set",
            );
        }
        None => wait(
            plan,
            claim,
            "ProvisioningFailed",
            &format!("storageclass.storage.k8s.io \"{name}\" not found"),
        ),
    }
}

/// Tells the provisioner by annotation, as upstream tells external ones.
fn ask_provisioner(plan: &mut Plan, claim: &PersistentVolumeClaim, provisioner: &str) {
    set_pending(plan, claim);
    let mut wanted = claim.clone();
    for annotation in [STORAGE_PROVISIONER, STORAGE_PROVISIONER_BETA] {
        wanted.annotations_mut().insert(annotation.to_owned(), provisioner.to_owned());
    }
    plan.change(claim, &wanted);
}

/// Writes both sides of a binding; nothing where it is complete.
fn bind(plan: &mut Plan, claim: &PersistentVolumeClaim, volume: &PersistentVolume) {
    let mut bound = volume.clone();
    let by_us = volume.spec().claim_ref.is_none();
    let complete =
        volume.spec().claim_ref.as_ref().is_some_and(|reference| reference.uid == claim.metadata.uid);
    if !complete {
        bound.spec_mut().claim_ref = Some(reference_to(claim));
        if by_us {
            bound.annotations_mut().insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
    }
    plan.change(volume, &bound);
    let mut taken = claim.clone();
    if claim.spec().volume_name.as_deref().is_none_or(str::is_empty) {
        taken.spec_mut().volume_name = volume.metadata.name.clone();
        taken.annotations_mut().insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    taken.annotations_mut().insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
    plan.change(claim, &taken);
    let before = volume.status.clone().unwrap_or_default();
    let status =
        PersistentVolumeStatus { phase: Some("Bound".to_owned()), message: None, reason: None, ..before };
    plan.set_status(volume, &status);
    let before = claim.status.clone().unwrap_or_default();
    let status = PersistentVolumeClaimStatus {
        phase: Some("Bound".to_owned()),
        access_modes: volume.spec().access_modes.clone(),
        // Set once: a later difference is an expansion, and that is not ours.
        capacity: before.capacity.clone().or_else(|| volume.spec().capacity.clone()),
        ..before
    };
    plan.set_status(claim, &status);
}
