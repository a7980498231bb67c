//! Names and ordinals, and a pod made to bear them.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Pod, PodTemplateSpec},
};
use kube::ResourceExt;
use reconcile::owner_reference;

use super::storage;
use crate::{pods, spec::HasSpec};

pub(super) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
pub(super) const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
pub(super) const REVISION: &str = "controller-revision-hash";

/// `spec.replicas`, 1 when unset.
pub(super) fn replicas(set: &StatefulSet) -> i32 {
    set.spec().replicas.unwrap_or(1).max(0)
}

/// The first ordinal.
pub(super) fn start(set: &StatefulSet) -> i32 {
    set.spec().ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
}

/// The ordinals the set wants.
pub(super) fn wanted(set: &StatefulSet) -> std::ops::Range<i32> {
    start(set)..start(set).saturating_add(replicas(set))
}

/// The name of the pod with this ordinal.
pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name_any())
}

/// The ordinal in a pod's name; `None` when the name is not one of this set.
pub(super) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let (parent, digits) = name.rsplit_once('-')?;
    let canonical = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (parent == set.name_any() && canonical).then(|| digits.parse().ok())?
}

/// The revision a pod was made from.
pub(super) fn revision(pod: &Pod) -> &str {
    pod.labels().get(REVISION).map_or("", String::as_str)
}

/// A new pod of the set from `template`, which is revision `revision`.
pub(super) fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = pods::from_template(template, set.namespace(), owner_reference(set));
    let name = pod_name(set, ordinal);
    set_labels(&mut pod, &name, ordinal);
    pod.labels_mut().insert(REVISION.to_owned(), revision.to_owned());
    let spec = pod.spec_mut();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec().service_name.clone().filter(|service| !service.is_empty());
    storage::mount_claims(set, spec, ordinal);
    pod.metadata.name = Some(name);
    pod
}

fn set_labels(pod: &mut Pod, name: &str, ordinal: i32) {
    let labels = pod.labels_mut();
    labels.insert(POD_NAME.to_owned(), name.to_owned());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
}

/// The pod with the identity labels it should have.
pub(super) fn with_identity(pod: &Pod, ordinal: i32) -> Pod {
    let mut wanted = pod.clone();
    set_labels(&mut wanted, &pod.name_any(), ordinal);
    wanted
}
