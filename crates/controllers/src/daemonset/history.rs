//! The versions of a DaemonSet's template, as ControllerRevisions (upstream `daemon/update.go`). A
//! revision's label `controller-revision-hash` is what its pods carry.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet},
        core::v1::Pod,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::ResourceExt;
use reconcile::{Child, Plan, Precondition, owner_reference};
use serde_json::json;

use super::placement::HASH;
use crate::{
    hash::{fnv32a, safe_encode},
    spec::HasSpec,
};

/// The present version and those before it.
pub(super) struct History {
    /// What pods of the present version carry.
    pub(super) hash: String,
    old: Vec<Arc<ControllerRevision>>,
    write: Option<Child>,
    /// The name of the new revision is taken by one with another template.
    pub(super) collided: bool,
}

impl History {
    /// Finds or makes the revision of the present template among `all`.
    pub(super) fn resolve(
        set: &DaemonSet,
        all: &[Arc<ControllerRevision>],
        namesake: impl Fn(&str) -> Option<Arc<ControllerRevision>>,
    ) -> Self {
        let mut fresh = snapshot(set);
        let (mut current, old): (Vec<_>, Vec<_>) =
            all.iter().cloned().partition(|revision| revision.data == fresh.data);
        current.sort_by_key(|revision| revision.revision);
        let newest = old.iter().map(|revision| revision.revision).max().unwrap_or(0) + 1;
        let hash_of = |r: &ControllerRevision| r.labels().get(HASH).cloned().unwrap_or_else(|| r.name_any());
        match current.pop() {
            Some(revision) => {
                let mut wanted = (*revision).clone();
                wanted.revision = wanted.revision.max(newest);
                wanted.labels_mut().entry(HASH.to_owned()).or_insert_with(|| revision.name_any());
                let write = Child::patch(&*revision, &wanted);
                Self { hash: hash_of(&wanted), old, write, collided: false }
            }
            None => {
                fresh.revision = newest;
                let collided = namesake(&fresh.name_any()).is_some();
                Self { hash: hash_of(&fresh), old, write: Some(Child::create(&fresh)), collided }
            }
        }
    }

    /// Plans what has to be written before any pod.
    pub(super) fn write(&self, plan: &mut Plan) {
        plan.apply.extend(self.write.clone());
    }

    /// Plans the deletion of the oldest revisions beyond `revisionHistoryLimit` that no pod has.
    pub(super) fn truncate(&self, plan: &mut Plan, set: &DaemonSet, pods: &[Arc<Pod>]) {
        let live: BTreeSet<&String> = pods.iter().filter_map(|pod| pod.labels().get(HASH)).collect();
        let limit = usize::try_from(set.spec().revision_history_limit.unwrap_or(10)).unwrap_or(0);
        let mut dead: Vec<_> = self.old.iter().collect();
        let surplus = dead.len().saturating_sub(limit);
        dead.retain(|revision| revision.labels().get(HASH).is_none_or(|hash| !live.contains(hash)));
        dead.sort_by_key(|revision| revision.revision);
        plan.delete.extend(dead.into_iter().take(surplus).map(|revision| Precondition::of(&**revision)));
    }
}

fn snapshot(set: &DaemonSet) -> ControllerRevision {
    let mut template = serde_json::to_value(&set.spec().template).unwrap_or_default();
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    let data = json!({ "spec": { "template": template } });
    let mut text = data.to_string().into_bytes();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    if collisions > 0 {
        text.extend_from_slice(&collisions.to_le_bytes());
    }
    let hash = safe_encode(fnv32a(&text));
    let labels = set.spec().template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
    let mut labels = labels.unwrap_or_default();
    labels.insert(HASH.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", set.name_any())),
            namespace: set.namespace(),
            labels: Some(labels),
            annotations: set.metadata.annotations.clone(),
            owner_references: Some(vec![owner_reference(set)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: 0,
    }
}
