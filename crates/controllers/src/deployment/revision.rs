//! Versions of the template: the new ReplicaSet, its name and annotations, and the history.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use reconcile::{Child, Plan, Precondition, owner_reference};

use super::{
    World,
    limits::{max_surge, replicas},
    rollout::new_set_size,
    scaling_note,
    sets::{Sets, actual, age, replicas as set_replicas},
    status::Conditions,
};
use crate::hash::{fnv32a, safe_encode};
use crate::spec::HasSpec;

pub(super) const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.daemonset.template.generation",
];
/// Upstream `maxRevHistoryLengthInChars`.
const HISTORY_CHARS_MAX: usize = 2000;

/// The revision annotation as a number.
pub(super) fn set_revision(set: &ReplicaSet) -> Option<i64> {
    set.annotations().get(REVISION)?.parse().ok()
}

/// Equal but for the hash label (upstream `EqualIgnoreHash`).
pub(super) fn same_template(wanted: &PodTemplateSpec, other: Option<&PodTemplateSpec>) -> bool {
    let Some(mut other) = other.cloned() else { return false };
    let mut wanted = wanted.clone();
    for template in [&mut wanted, &mut other] {
        let metadata = template.metadata.get_or_insert_default();
        metadata.labels.get_or_insert_default().remove(HASH_LABEL);
    }
    wanted == other
}

fn hash(deployment: &Deployment) -> String {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let mut text = serde_json::to_vec(&deployment.spec().template).unwrap_or_default();
    if let Some(count) = collisions {
        text.extend_from_slice(&count.to_le_bytes());
    }
    safe_encode(fnv32a(&text))
}

/// The name that a ReplicaSet of the present template would be created under.
pub(super) fn new_set_name(deployment: &Deployment) -> String {
    format!("{}-{}", deployment.name_any(), hash(deployment))
}

/// Brings annotations and `minReadySeconds` of the new ReplicaSet, and the Deployment's revision, up to
/// date. `true` when the ReplicaSet has to be written first.
pub(super) fn sync_existing(
    plan: &mut Plan,
    conditions: &mut Conditions,
    deployment: &Deployment,
    sets: &Sets,
) -> bool {
    let Some(new) = &sets.new else { return false };
    let mut wanted = (**new).clone();
    annotate(deployment, &mut wanted.metadata, sets.max_old_revision() + 1);
    if wanted.spec().min_ready_seconds.unwrap_or(0) != deployment.spec().min_ready_seconds.unwrap_or(0) {
        wanted.spec_mut().min_ready_seconds = deployment.spec().min_ready_seconds;
    }
    if let Some(child) = Child::patch(&**new, &wanted) {
        plan.apply.push(child);
        return true;
    }
    set_deployment_revision(plan, deployment, wanted.annotations().get(REVISION).cloned());
    conditions.found(&new.name_any());
    false
}

fn set_deployment_revision(plan: &mut Plan, deployment: &Deployment, revision: Option<String>) {
    let Some(revision) = revision else { return };
    let mut wanted = deployment.clone();
    wanted.metadata.annotations.get_or_insert_default().insert(REVISION.to_owned(), revision);
    plan.change(deployment, &wanted);
}

/// Creates the ReplicaSet of the present template. When the name is taken by a ReplicaSet that is not
/// it, the hash collides and the next plan tries another.
pub(super) fn create_new(plan: &mut Plan, conditions: &mut Conditions, world: &World, sets: &Sets) {
    let deployment = &*world.deployment;
    if world.namesake.is_some() {
        conditions.collided();
        return;
    }
    let hash = hash(deployment);
    let mut template = deployment.spec().template.clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut selector = deployment.spec().selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash);
    let size = new_set_size(deployment, sets, 0);
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(new_set_name(deployment)),
            namespace: deployment.namespace(),
            labels: template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()),
            owner_references: Some(vec![owner_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(size),
            min_ready_seconds: deployment.spec().min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    let revision = sets.max_old_revision() + 1;
    annotate(deployment, &mut set.metadata, revision);
    annotate_size(deployment, &mut set.metadata);
    plan.apply.push(Child::create(&set));
    if size > 0 {
        plan.events.push(scaling_note(deployment, &set.name_any(), 0, size));
    }
    set_deployment_revision(plan, deployment, Some(revision.to_string()));
    conditions.created(&set.name_any());
}

/// The annotations that say which Deployment size a ReplicaSet was last scaled for.
pub(super) fn annotate_size(deployment: &Deployment, metadata: &mut ObjectMeta) {
    let wanted = replicas(deployment);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(DESIRED.to_owned(), wanted.to_string());
    annotations.insert(MAX.to_owned(), (wanted + max_surge(deployment)).to_string());
}

/// The Deployment size a ReplicaSet was last scaled for.
pub(super) fn desired_then(set: &ReplicaSet) -> Option<i32> {
    set.annotations().get(DESIRED)?.parse().ok()
}

/// The most pods the Deployment could have when the ReplicaSet was last scaled.
pub(super) fn max_then(set: &ReplicaSet) -> Option<i32> {
    set.annotations().get(MAX)?.parse().ok()
}

/// Upstream `SetNewReplicaSetAnnotations`: the Deployment's own annotations, and a revision above all
/// old ones; the revision it had before goes into the history.
fn annotate(deployment: &Deployment, metadata: &mut ObjectMeta, revision: i64) {
    let annotations = metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.annotations() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let before = annotations.get(REVISION).cloned();
    let number = match before.as_deref().unwrap_or("0").parse::<i64>() {
        Ok(number) => number,
        // Somebody wrote a word there; upstream leaves it alone.
        Err(_) => return,
    };
    if number >= revision {
        return;
    }
    annotations.insert(REVISION.to_owned(), revision.to_string());
    if let Some(before) = before {
        remember(annotations, &before);
    }
}

fn remember(annotations: &mut BTreeMap<String, String>, revision: &str) {
    let history = annotations.get(HISTORY).map(String::as_str).unwrap_or_default();
    let mut kept: Vec<&str> = history.split(',').filter(|entry| !entry.is_empty()).collect();
    kept.push(revision);
    while kept.len() > 1 && kept.iter().map(|entry| entry.len() + 1).sum::<usize>() > HISTORY_CHARS_MAX {
        kept.remove(0);
    }
    let joined = kept.join(",");
    annotations.insert(HISTORY.to_owned(), joined);
}

/// Deletes the oldest empty ReplicaSets beyond `revisionHistoryLimit` (10 when unset).
pub(super) fn cleanup(plan: &mut Plan, deployment: &Deployment, sets: &Sets) {
    let limit = usize::try_from(deployment.spec().revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let mut alive: Vec<_> = sets.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    alive.sort_by_key(|set| (set_revision(set).unwrap_or(0), age(set)));
    let surplus = alive.len().saturating_sub(limit);
    for set in alive.into_iter().take(surplus) {
        let observed = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
        let settled = set.metadata.generation.unwrap_or(0) <= observed;
        if settled && set_replicas(set) == 0 && actual(set) == 0 {
            plan.delete.push(Precondition::of(&**set));
        }
    }
}
