//! Admission plugins that hold for every kind: webhooks, policies, namespaces that are there. Those of single
//! kinds are in `kinds`; RBAC escalation is in [`crate::auth`].

mod compiled;
mod matching;
mod mutating;
mod namespace_lifecycle;
mod policy;
mod request;
mod review;
#[cfg(test)]
mod tests;
mod webhooks;

use std::sync::Arc;

use resource::Admission;

use crate::{
    Registry,
    auth::{Authorizer, CertificateApproval, CertificateSigning, CertificateSubjectRestriction, Escalation},
    crd::Definitions,
    webhook::Webhooks,
};

use mutating::Mutating;
use policy::{Policies, ValidatingAdmissionPolicy};
use request::Ground;
use webhooks::{Caller, ValidatingAdmissionWebhook};

pub use namespace_lifecycle::NamespaceLifecycle;

/// All plugins in order: what this crate has before those of `kinds`, and after them whoever the
/// configuration names. Quota is the last of all, in a step of its own ([`resource::Admission::charge`]).
pub fn chain(
    authorizer: &Arc<dyn Authorizer>,
    registry: &Arc<Registry>,
    client: &Webhooks,
    kinds: Vec<Arc<dyn Admission>>,
) -> Vec<Arc<dyn Admission>> {
    let ground = Ground { registry: registry.clone(), authorizer: authorizer.clone() };
    let mut chain = plugins(authorizer);
    chain.extend(kinds);
    chain.push(Arc::new(Mutating {
        policies: Policies::new(ground.clone(), true),
        webhooks: Caller::new(ground.clone(), client.clone(), true),
    }));
    chain.push(Arc::new(ValidatingAdmissionPolicy(Policies::new(ground.clone(), false))));
    chain.push(Arc::new(ValidatingAdmissionWebhook(Caller::new(ground, client.clone(), false))));
    chain
}

/// The plugins of this crate that ask nobody.
pub fn plugins(authorizer: &Arc<dyn Authorizer>) -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(NamespaceLifecycle),
        Arc::new(Escalation(authorizer.clone())),
        Arc::new(CertificateApproval(authorizer.clone())),
        Arc::new(CertificateSigning(authorizer.clone())),
        Arc::new(CertificateSubjectRestriction),
        Arc::new(Definitions),
    ]
}
