//! PodDisruptionBudgets as preemption sees them: how many pods of each may still be taken
//! (upstream `plugins/defaultpreemption`, `filterPodsWithPDBViolation`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{Selector, SelectorExt};
use meta::ObjectKey;

use crate::snapshot::Tenant;

/// The projection of a PodDisruptionBudget.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `status.disruptionsAllowed`.
    pub allowed: i64,
    /// Pods whose disruption is already counted.
    pub disrupted: BTreeSet<String>,
    selector: Option<Selector>,
}

impl Budget {
    /// Projects a wire budget.
    pub fn read(budget: &PodDisruptionBudget) -> Self {
        let metadata = &budget.metadata;
        let status = budget.status.as_ref();
        let selector = budget.spec.as_ref().and_then(|s| s.selector.clone());
        Self {
            key: ObjectKey {
                namespace: metadata.namespace.clone().unwrap_or_default(),
                name: metadata.name.clone().unwrap_or_default(),
            },
            allowed: status.and_then(|s| s.disruptions_allowed).map(Into::into).unwrap_or_default(),
            disrupted: status
                .and_then(|s| s.disrupted_pods.as_ref())
                .map(|pods| pods.keys().cloned().collect())
                .unwrap_or_default(),
            // An absent or empty selector is no reason to spare a pod.
            selector: selector.and_then(|s| Selector::try_from(s).ok()).filter(|s| !s.selects_all()),
        }
    }

    fn protects(&self, tenant: &Tenant) -> bool {
        self.key.namespace == tenant.key.namespace
            && !self.disrupted.contains(&tenant.key.name)
            && self.selector.as_ref().is_some_and(|s| s.matches(&*tenant.labels))
    }
}

/// All budgets.
#[derive(Debug, Default)]
pub struct Budgets(BTreeMap<ObjectKey, Budget>);

impl Budgets {
    /// Adds or changes a budget.
    pub fn set(&mut self, budget: Budget) {
        self.0.insert(budget.key.clone(), budget);
    }

    /// Removes a budget.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.0.remove(key);
    }

    /// Of pods that would be taken in this order, which break a budget.
    pub fn broken_by<'a>(&self, tenants: impl Iterator<Item = &'a Tenant>) -> Vec<bool> {
        let mut left: BTreeMap<&ObjectKey, i64> = BTreeMap::new();
        tenants
            .map(|tenant| {
                let mut broken = false;
                for budget in self.0.values().filter(|b| b.protects(tenant)) {
                    let left = left.entry(&budget.key).or_insert(budget.allowed);
                    *left -= 1;
                    broken |= *left < 0;
                }
                broken
            })
            .collect()
    }
}
