//! Which volume suits a claim (upstream `volume.FindMatchingVolume`). Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{
        Node, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use super::quantity::thousandths;
use crate::spec::HasSpec;

/// Name of the claim's or volume's class; the old annotation goes before the field.
fn class_of<'a>(annotations: &'a BTreeMap<String, String>, field: Option<&'a String>) -> &'a str {
    let annotated = annotations.get("volume.beta.kubernetes.io/storage-class");
    annotated.or(field).map_or("", String::as_str)
}

/// The class a claim asks for; empty for none.
pub(super) fn claim_class(claim: &PersistentVolumeClaim) -> &str {
    class_of(claim.annotations(), claim.spec().storage_class_name.as_ref())
}

/// The class of a volume; empty for none.
pub(super) fn volume_class(volume: &PersistentVolume) -> &str {
    class_of(volume.annotations(), volume.spec().storage_class_name.as_ref())
}

/// What the claim asks for.
pub(super) fn requested(claim: &PersistentVolumeClaim) -> Option<&Quantity> {
    claim.spec().resources.as_ref()?.requests.as_ref()?.get("storage")
}

fn capacity(volume: &PersistentVolume) -> Option<u128> {
    thousandths(volume.spec().capacity.as_ref()?.get("storage")?)
}

/// The phase, or empty.
pub(super) fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether the volume refers to this claim: by UID, or by name alone where an administrator wrote the
/// reference.
pub(super) fn refers_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    volume.spec().claim_ref.as_ref().is_some_and(|reference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && reference
                .uid
                .as_ref()
                .is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    })
}

/// Why a volume cannot be given to a claim that names it; `None` when it can (upstream
/// `checkVolumeSatisfyClaim`).
pub(super) fn unfit(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    let name = volume.name_any();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    if capacity(volume) < requested(claim).and_then(thousandths) {
        return Some(format!("requested PV {name} is too small"));
    }
    if volume_class(volume) != claim_class(claim) {
        return Some(format!("storageClassName of PV {name} does not match"));
    }
    if mode(&volume.spec().volume_mode) != mode(&claim.spec().volume_mode) {
        return Some(format!("volumeMode of PV {name} does not match"));
    }
    let has = |wanted: &String| volume.spec().access_modes.iter().flatten().any(|mode| mode == wanted);
    if !claim.spec().access_modes.iter().flatten().all(has) {
        return Some(format!("accessModes of PV {name} do not match"));
    }
    None
}

/// The volume to give to a claim: one that refers to it already, else the smallest free one that fits;
/// only the former while `delayed` (binding waits for a consumer). With `node`, one usable there.
pub(super) fn find<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
    delayed: bool,
    node: Option<&Node>,
) -> Option<&'a Arc<PersistentVolume>> {
    let usable = |volume: &&Arc<PersistentVolume>| {
        volume.metadata.deletion_timestamp.is_none() && unfit(volume, claim).is_none()
    };
    let prebound = volumes.iter().filter(usable).find(|volume| refers_to(volume, claim));
    if prebound.is_some() || delayed {
        return prebound;
    }
    let selector = claim.spec().selector.clone().map(Selector::try_from).transpose().ok()?;
    let free = volumes.iter().filter(usable).filter(|volume| {
        phase(volume) == "Available"
            && volume.spec().claim_ref.is_none()
            && selector.as_ref().is_none_or(|selector| selector.matches(volume.labels()))
            && node.is_none_or(|node| is_reachable(volume, node))
    });
    free.min_by_key(|volume| (capacity(volume), volume.name_any()))
}

/// Whether the volume's node affinity admits the node.
pub(super) fn is_reachable(volume: &PersistentVolume, node: &Node) -> bool {
    let required = volume.spec().node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| admits(term, node)))
}

fn admits(term: &NodeSelectorTerm, node: &Node) -> bool {
    let (labels, fields) = (term.match_expressions.iter().flatten(), term.match_fields.iter().flatten());
    let name = node.name_any();
    let empty = term.match_expressions.is_none() && term.match_fields.is_none();
    !empty
        && labels.into_iter().all(|need| meets(need, node.labels().get(&need.key).map(String::as_str)))
        && fields.into_iter().all(|need| need.key == "metadata.name" && meets(need, Some(&name)))
}

fn meets(need: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = |value: &str| need.values.iter().flatten().any(|wanted| wanted == value);
    let compare = |of: fn(&i64, &i64) -> bool| {
        let wanted = need.values.iter().flatten().next().and_then(|text| text.parse::<i64>().ok());
        value.and_then(|text| text.parse().ok()).zip(wanted).is_some_and(|(is, wanted)| of(&is, &wanted))
    };
    match need.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}
