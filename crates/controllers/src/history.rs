//! The versions of a workload's pod template, as ControllerRevisions (upstream
//! `pkg/controller/history`). DaemonSets and StatefulSets keep their history by it.
//!
//! Knows which revision holds the present template and what has to be written for that to be so. What
//! pods carry to say of which revision they are, and which revisions are alive, is the workload's.

use std::sync::Arc;

use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::{Resource, ResourceExt};
use reconcile::{Child, Plan, Precondition, owner_reference};
use serde_json::json;

use crate::hash::{fnv32a, safe_encode};

/// What a revision is made of.
pub(crate) struct Source<'a, K> {
    /// The workload.
    pub(crate) owner: &'a K,
    /// Its present template.
    pub(crate) template: &'a PodTemplateSpec,
    /// The label of a revision that carries its hash.
    pub(crate) label: &'static str,
    /// `status.collisionCount`.
    pub(crate) collisions: Option<i32>,
}

/// The revision of the present template among those there are.
#[derive(Debug)]
pub(crate) struct Present {
    /// As it will stand once `write` is done.
    pub(crate) revision: ControllerRevision,
    /// What has to be written before any pod.
    pub(crate) write: Option<Child>,
    /// The name of the new revision is taken by one with another template.
    pub(crate) collided: bool,
}

impl<K: Resource<DynamicType = ()>> Source<'_, K> {
    /// Finds or makes the revision of the present template; it is numbered above all others. `namesake`
    /// looks up any ControllerRevision of the namespace by name.
    pub(crate) fn resolve(
        &self,
        all: &[Arc<ControllerRevision>],
        namesake: impl Fn(&str) -> Option<Arc<ControllerRevision>>,
    ) -> Present {
        let mut fresh = self.snapshot();
        let is_present = |revision: &&Arc<ControllerRevision>| revision.data == fresh.data;
        let others = all.iter().filter(|revision| !is_present(revision));
        let next = others.map(|revision| revision.revision).max().unwrap_or(0) + 1;
        let equal = all.iter().filter(is_present).max_by_key(|r| (r.revision, r.name_any()));
        match equal {
            // Rolled back to, perhaps: it becomes the newest.
            Some(found) => {
                let mut revision = (**found).clone();
                revision.revision = revision.revision.max(next);
                revision.labels_mut().entry(self.label.to_owned()).or_insert_with(|| found.name_any());
                let write = Child::patch(&**found, &revision);
                Present { revision, write, collided: false }
            }
            None => {
                fresh.revision = next;
                let collided = namesake(&fresh.name_any()).is_some();
                Present { write: Some(Child::create(&fresh)), revision: fresh, collided }
            }
        }
    }

    fn snapshot(&self) -> ControllerRevision {
        let Self { owner, template, label, collisions } = self;
        let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
        let mut template = serde_json::to_value(template).unwrap_or_default();
        if let Some(fields) = template.as_object_mut() {
            fields.insert("$patch".to_owned(), json!("replace"));
        }
        let data = json!({ "spec": { "template": template } });
        let mut text = data.to_string().into_bytes();
        if let Some(collisions) = collisions.filter(|count| *count > 0) {
            text.extend_from_slice(&collisions.to_le_bytes());
        }
        let hash = safe_encode(fnv32a(&text));
        let mut labels = labels.unwrap_or_default();
        labels.insert((*label).to_owned(), hash.clone());
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", owner.name_any())),
                namespace: owner.namespace(),
                labels: Some(labels),
                annotations: owner.meta().annotations.clone(),
                owner_references: Some(vec![owner_reference(*owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data)),
            revision: 0,
        }
    }
}

/// `revisionHistoryLimit`, 10 when unset.
pub(crate) fn limit(given: Option<i32>) -> usize {
    usize::try_from(given.unwrap_or(10)).unwrap_or(0)
}

/// Plans the deletion of the oldest `surplus` of the `dead`.
pub(crate) fn truncate(plan: &mut Plan, mut dead: Vec<&Arc<ControllerRevision>>, surplus: usize) {
    dead.sort_by_key(|revision| revision.revision);
    plan.delete.extend(dead.into_iter().take(surplus).map(|revision| Precondition::of(&**revision)));
}
