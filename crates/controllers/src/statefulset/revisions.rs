//! The history of the template, as ControllerRevisions (upstream `pkg/controller/history`).

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::ResourceExt;
use reconcile::{Child, Error, Plan, Precondition, Result, owner_reference};
use serde_json::{Value, json};

use super::{World, identity};
use crate::{
    hash::{fnv32a, safe_encode},
    spec::HasSpec,
};

const HASH: &str = "controller.kubernetes.io/hash";

/// One version of the template.
#[derive(Debug)]
pub(super) struct Revision {
    pub(super) name: String,
    pub(super) template: PodTemplateSpec,
}

/// The two versions that matter, and what has to be written for them to exist.
#[derive(Debug)]
pub(super) struct Revisions {
    pub(super) current: Revision,
    pub(super) update: Revision,
    write: Option<Child>,
    collided: bool,
}

impl Revisions {
    /// Finds or makes the revision of the present template among `history`. `namesake` looks up any
    /// ControllerRevision of the namespace by name.
    pub(super) fn resolve(
        set: &StatefulSet,
        history: &[Arc<ControllerRevision>],
        namesake: impl Fn(&str) -> Option<Arc<ControllerRevision>>,
    ) -> Result<Self> {
        let mut history: Vec<&ControllerRevision> = history.iter().map(|revision| &**revision).collect();
        history.sort_by_key(|revision| (revision.revision, revision.name_any()));
        let next = history.last().map_or(1, |last| last.revision + 1);
        let fresh = new_revision(set, next);
        let equal = history.iter().rev().find(|revision| revision.data == fresh.data);
        let (mut write, mut collided) = (None, false);
        let update = match equal {
            // Rolled back to: it becomes the newest.
            Some(revision) if revision.revision + 1 != next => {
                let mut renewed = (*revision).clone();
                renewed.revision = next;
                write = Child::patch(*revision, &renewed);
                renewed
            }
            Some(revision) => (*revision).clone(),
            None => {
                collided = namesake(&fresh.name_any()).is_some();
                write = Some(Child::create(&fresh));
                fresh
            }
        };
        let status = set.status.clone().unwrap_or_default();
        let current =
            status.current_revision.and_then(|name| history.iter().find(|r| r.name_any() == name).copied());
        let current = read(set, current.unwrap_or(&update))?;
        Ok(Self { current, update: read(set, &update)?, write, collided })
    }

    /// Plans what has to be written first. `false` when the name of the new revision is taken and the
    /// next plan has to try another.
    pub(super) fn write(&self, plan: &mut Plan) -> bool {
        if !self.collided {
            plan.apply.extend(self.write.clone());
        }
        !self.collided
    }
}

fn new_revision(set: &StatefulSet, number: i64) -> ControllerRevision {
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
        revision: number,
    }
}

/// The template that a revision holds.
fn read(set: &StatefulSet, revision: &ControllerRevision) -> Result<Revision> {
    let name = revision.name_any();
    let damaged = |why: &str| {
        let text = format!("controller revision {name} of stateful set {} {why}; delete it", set.name_any());
        Error::Rejected(text)
    };
    let mut template = revision.data.as_ref().and_then(|data| data.0.pointer("/spec/template")).cloned();
    if let Some(fields) = template.as_mut().and_then(Value::as_object_mut) {
        fields.remove("$patch");
    }
    let template = template.ok_or_else(|| damaged("holds no template"))?;
    let template =
        serde_json::from_value(template).map_err(|error| damaged(&format!("cannot be read: {error}")))?;
    Ok(Revision { name, template })
}

/// Deletes the oldest revisions beyond `revisionHistoryLimit` (10 when unset) that no pod has.
pub(super) fn truncate(plan: &mut Plan, world: &World) {
    let Revisions { current, update, .. } = &world.revisions;
    let mut live: BTreeSet<&str> = world.pods.mine.iter().map(|pod| identity::revision(pod)).collect();
    live.extend([current.name.as_str(), update.name.as_str()]);
    let mut dead: Vec<_> =
        world.history.mine.iter().filter(|r| !live.contains(r.name_any().as_str())).collect();
    dead.sort_by_key(|revision| revision.revision);
    let limit = usize::try_from(world.set.spec().revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let surplus = dead.len().saturating_sub(limit);
    plan.delete.extend(dead.into_iter().take(surplus).map(|revision| Precondition::of(&**revision)));
}
