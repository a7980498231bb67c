//! The ReplicaSets of one Deployment, split into the new one and the old ones.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;
use meta::Timestamp;

use super::revision::{same_template, set_revision};
use crate::spec::HasSpec;

/// New and old ReplicaSets, all oldest first.
pub(super) struct Sets {
    /// The one with the Deployment's template; the oldest if there are several (upstream
    /// `FindNewReplicaSet`).
    pub(super) new: Option<Arc<ReplicaSet>>,
    /// All others.
    pub(super) old: Vec<Arc<ReplicaSet>>,
}

/// `spec.replicas`, 1 when unset.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec().replicas.unwrap_or(1)
}

/// `status.availableReplicas`.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// `status.replicas`: pods that exist.
pub(super) fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// Orders by creation, then name.
pub(super) fn age(set: &ReplicaSet) -> (Timestamp, String) {
    let created = set.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
    (created, set.name_any())
}

impl Sets {
    pub(super) fn of(deployment: &Deployment, mine: &[Arc<ReplicaSet>]) -> Self {
        let mut all = mine.to_vec();
        all.sort_by_key(|set| age(set));
        let is_new =
            |set: &Arc<ReplicaSet>| same_template(&deployment.spec().template, set.spec().template.as_ref());
        let new = all.iter().position(is_new).map(|at| all.remove(at));
        Self { new, old: all }
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> + Clone {
        self.old.iter().chain(self.new.iter())
    }

    /// The old ones that want pods.
    pub(super) fn active_old(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().filter(|set| replicas(set) > 0)
    }

    /// The pods all of them want together.
    pub(super) fn total(&self) -> i32 {
        self.all().map(|set| replicas(set)).sum()
    }

    /// The highest revision among the old ones; 0 when none has any.
    pub(super) fn max_old_revision(&self) -> i64 {
        self.old.iter().filter_map(|set| set_revision(set)).max().unwrap_or(0)
    }
}
