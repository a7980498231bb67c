//! Says in the status of each ValidatingAdmissionPolicy where its expressions do not go with the kinds it matches
//! (upstream `pkg/controller/validatingadmissionpolicystatus`).
//!
//! A policy is looked at once for each of its generations: what is defined later is not seen until it changes, as
//! upstream. Its findings change nothing of what the policy does.

mod check;
#[cfg(test)]
mod tests;
mod types;

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    TypeChecking, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyStatus,
};
use meta::{ObjectKey, Timestamp};
use reconcile::{Context, Plan, Reconciler, Result, Watches};

use self::types::Types;

/// The controller.
pub struct PolicyStatus;

/// What one plan looks at.
pub struct World {
    policy: Arc<ValidatingAdmissionPolicy>,
    types: Types,
}

impl Reconciler for PolicyStatus {
    type World = World;
    const NAME: &'static str = "validatingadmissionpolicy-status";
    /// Checks take time, not waiting.
    const CONCURRENCY: usize = 2;

    fn watches(&self) -> Watches {
        Watches::of::<ValidatingAdmissionPolicy>()
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let policy = cx.stores.ready::<ValidatingAdmissionPolicy>().await.get(key);
        let Some(policy) = policy.filter(|policy| is_due(policy)) else { return Ok(None) };
        let types = types::of(&cx.client, &policy).await?;
        Ok(Some(World { policy, types }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let World { policy, types } = world;
        let mut plan = Plan::default();
        if !is_due(policy) {
            return plan;
        }
        let warnings = check::warnings(policy, types);
        let status = ValidatingAdmissionPolicyStatus {
            observed_generation: policy.metadata.generation,
            type_checking: Some(TypeChecking {
                expression_warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
            }),
            ..policy.status.clone().unwrap_or_default()
        };
        plan.set_status(&**policy, &status);
        plan
    }
}

fn is_due(policy: &ValidatingAdmissionPolicy) -> bool {
    let seen = policy.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
    policy.metadata.generation.unwrap_or(0) > seen && policy.metadata.deletion_timestamp.is_none()
}
