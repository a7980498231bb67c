//! The versions of a DaemonSet's template (upstream `daemon/update.go`). A revision's label
//! `controller-revision-hash` is what its pods carry.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet},
    core::v1::Pod,
};
use kube::ResourceExt;
use reconcile::Plan;

use super::placement::HASH;
use crate::{
    history::{self, Present, Source},
    spec::HasSpec,
};

/// The present version and those before it.
pub(super) struct History {
    /// What pods of the present version carry.
    pub(super) hash: String,
    /// The present version.
    pub(super) present: Present,
    old: Vec<Arc<ControllerRevision>>,
}

impl History {
    /// Finds or makes the revision of the present template among `all`.
    pub(super) fn resolve(
        set: &DaemonSet,
        all: &[Arc<ControllerRevision>],
        namesake: impl Fn(&str) -> Option<Arc<ControllerRevision>>,
    ) -> Self {
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let source = Source { owner: set, template: &set.spec().template, label: HASH, collisions };
        let present = source.resolve(all, namesake);
        let old = all.iter().filter(|revision| revision.data != present.revision.data).cloned().collect();
        let hash = present.revision.labels().get(HASH).cloned().unwrap_or_default();
        Self { hash, present, old }
    }

    /// Plans the deletion of the oldest revisions beyond `revisionHistoryLimit` that no pod has. Those
    /// that pods have count towards the limit.
    pub(super) fn truncate(&self, plan: &mut Plan, set: &DaemonSet, pods: &[Arc<Pod>]) {
        let live: BTreeSet<&String> = pods.iter().filter_map(|pod| pod.labels().get(HASH)).collect();
        let is_dead = |revision: &&Arc<ControllerRevision>| {
            revision.labels().get(HASH).is_none_or(|hash| !live.contains(hash))
        };
        let surplus = self.old.len().saturating_sub(history::limit(set.spec().revision_history_limit));
        history::truncate(plan, self.old.iter().filter(is_dead).collect(), surplus);
    }
}
