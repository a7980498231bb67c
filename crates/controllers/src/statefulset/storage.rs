//! The claims of the members: made from the templates, owned as the retention policy says.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodSpec, Volume},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::ResourceExt;
use reconcile::{Child, owner_reference};

use super::{World, identity};
use crate::spec::HasSpec;

/// Name of the claim that a template makes for an ordinal.
fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name_any(), set.name_any())
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec().volume_claim_templates.as_deref().unwrap_or_default()
}

/// The names of all claims of the wanted ordinals and of the pods there are.
pub(super) fn claim_names(set: &StatefulSet, pods: &[Arc<Pod>]) -> BTreeSet<String> {
    let present = pods.iter().filter_map(|pod| identity::ordinal(set, pod));
    let ordinals: BTreeSet<i32> = identity::wanted(set).chain(present).collect();
    ordinals.into_iter().flat_map(|at| templates(set).iter().map(move |t| claim_name(set, t, at))).collect()
}

/// Whether a claim has a name that a template of the set makes for some ordinal.
pub(super) fn is_claim_of(set: &StatefulSet, name: &str) -> bool {
    let stem = name.rsplit_once('-').map_or("", |(stem, _)| stem);
    templates(set).iter().any(|template| stem == format!("{}-{}", template.name_any(), set.name_any()))
}

/// Puts the claims of `ordinal` in front of the volumes, in place of any with their names.
pub(super) fn mount_claims(set: &StatefulSet, spec: &mut PodSpec, ordinal: i32) {
    if templates(set).is_empty() {
        return;
    }
    let mut volumes: Vec<Volume> = templates(set)
        .iter()
        .map(|template| Volume {
            name: template.name_any(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, template, ordinal),
                read_only: Some(false),
            }),
            ..Volume::default()
        })
        .collect();
    let own = spec.volumes.take().unwrap_or_default();
    volumes
        .extend(own.into_iter().filter(|volume| !templates(set).iter().any(|t| t.name_any() == volume.name)));
    spec.volumes = Some(volumes);
}

/// Whether a claim of this ordinal cannot be used now: it is being deleted, or it belongs to a pod of
/// the same name that is gone, and will be collected (upstream `PodClaimIsStale`).
pub(super) fn is_stale(world: &World, ordinal: i32) -> bool {
    let set = &*world.set;
    let name = identity::pod_name(set, ordinal);
    templates(set).iter().filter_map(|t| world.storage.get(&claim_name(set, t, ordinal))).any(|claim| {
        let of_dead_pod = |owner: &OwnerReference| {
            let live = world.pods.mine.iter().any(|pod| pod.uid().as_deref() == Some(&owner.uid));
            owner.kind == "Pod" && owner.api_version == "v1" && owner.name == name && !live
        };
        claim.metadata.deletion_timestamp.is_some() || claim.owner_references().iter().any(of_dead_pod)
    })
}

/// The claims of this ordinal that are not there yet.
pub(super) fn missing(world: &World, ordinal: i32) -> Vec<Child> {
    let set = &*world.set;
    let absent = templates(set).iter().filter(|t| !world.storage.contains_key(&claim_name(set, t, ordinal)));
    let make = |template: &PersistentVolumeClaim| {
        let mut claim = PersistentVolumeClaim {
            metadata: template.metadata.clone(),
            spec: template.spec.clone(),
            status: None,
        };
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace = set.namespace();
        claim.metadata.creation_timestamp = None;
        claim.labels_mut().extend(set.spec().selector.match_labels.clone().unwrap_or_default());
        if policy(set).deleted {
            claim.owner_references_mut().push(owner_reference(set));
        }
        Child::create(&claim).announced_to(set)
    };
    absent.map(make).collect()
}

/// Which events delete claims.
struct Policy {
    scaled: bool,
    deleted: bool,
}

fn policy(set: &StatefulSet) -> Policy {
    let policy = set.spec().persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    Policy {
        scaled: policy.when_scaled.as_deref() == Some("Delete"),
        deleted: policy.when_deleted.as_deref() == Some("Delete"),
    }
}

/// Changes of owner that the retention policy asks for on the claims of `pod` (upstream
/// `isClaimOwnerUpToDate` and `updateClaimOwnerRefForSetAndPod`): the set owns a claim that goes with
/// it, the pod one that goes with scaling down. Claims that somebody else controls, or that name an
/// earlier set or pod, are left alone.
pub(super) fn owner_changes(world: &World, pod: &Pod, ordinal: i32) -> Vec<Child> {
    let set = &*world.set;
    let policy = policy(set);
    let condemned = !identity::wanted(set).contains(&ordinal);
    let owner = match (policy.scaled && condemned, policy.deleted) {
        (true, _) => Some(owner_reference(pod)),
        (false, true) => Some(owner_reference(set)),
        (false, false) => None,
    };
    let claims = templates(set).iter().filter_map(|t| world.storage.get(&claim_name(set, t, ordinal)));
    claims.filter_map(|claim| owner_change(set, pod, claim, owner.as_ref())).collect()
}

fn owner_change(
    set: &StatefulSet,
    pod: &Pod,
    claim: &PersistentVolumeClaim,
    owner: Option<&OwnerReference>,
) -> Option<Child> {
    let ours = [owner_reference(set), owner_reference(pod)];
    let names_ours = |r: &OwnerReference| {
        ours.iter().any(|o| o.api_version == r.api_version && o.kind == r.kind && o.name == r.name)
    };
    let is_ours = |r: &OwnerReference| ours.iter().any(|o| o.uid == r.uid);
    let refs = claim.owner_references();
    let stale = refs.iter().any(|r| names_ours(r) && !is_ours(r));
    let foreign = refs.iter().any(|r| r.controller == Some(true) && !is_ours(r));
    if stale || (foreign && !refs.iter().any(is_ours)) {
        return None;
    }
    let mut wanted = claim.clone();
    let list = wanted.owner_references_mut();
    list.retain(|r| !is_ours(r));
    if !foreign {
        list.extend(owner.cloned());
    }
    let unchanged = list.as_slice() == refs;
    if unchanged { None } else { Child::patch(claim, &wanted) }
}
