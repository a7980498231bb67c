//! The versions of a StatefulSet's template: the one rolled out and the one being rolled out (upstream
//! `stateful_set_control.go`). Pods carry the name of theirs.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::PodTemplateSpec,
};
use kube::ResourceExt;
use reconcile::{Child, Error, Plan, Result};
use serde_json::Value;

use super::{World, identity};
use crate::{
    history::{self, Present, Source},
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
    /// Finds or makes the revision of the present template among `all`. `namesake` looks up any
    /// ControllerRevision of the namespace by name.
    pub(super) fn resolve(
        set: &StatefulSet,
        all: &[Arc<ControllerRevision>],
        namesake: impl Fn(&str) -> Option<Arc<ControllerRevision>>,
    ) -> Result<Self> {
        let status = set.status.clone().unwrap_or_default();
        let source = Source {
            owner: set,
            template: &set.spec().template,
            label: HASH,
            collisions: status.collision_count,
        };
        let Present { revision: update, write, collided } = source.resolve(all, namesake);
        let current = status.current_revision.and_then(|name| all.iter().find(|r| r.name_any() == name));
        let current = read(set, current.map_or(&update, |current| &**current))?;
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

/// Plans the deletion of the oldest revisions beyond `revisionHistoryLimit` that no pod has. Those that
/// pods have do not count towards the limit.
pub(super) fn truncate(plan: &mut Plan, world: &World) {
    let Revisions { current, update, .. } = &world.revisions;
    let mut live: BTreeSet<&str> = world.pods.mine.iter().map(|pod| identity::revision(pod)).collect();
    live.extend([current.name.as_str(), update.name.as_str()]);
    let is_dead = |revision: &&Arc<ControllerRevision>| !live.contains(revision.name_any().as_str());
    let dead: Vec<_> = world.history.mine.iter().filter(is_dead).collect();
    let surplus = dead.len().saturating_sub(history::limit(world.set.spec().revision_history_limit));
    history::truncate(plan, dead, surplus);
}
