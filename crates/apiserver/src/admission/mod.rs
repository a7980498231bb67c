//! Admission plugins that hold for every kind. Those of single kinds are in `kinds`; RBAC escalation is in
//! [`crate::auth`].

mod namespace_lifecycle;

use std::sync::Arc;

use resource::Admission;

use crate::{
    auth::{Authorizer, Escalation},
    crd::Definitions,
};

pub use namespace_lifecycle::NamespaceLifecycle;

/// The plugins of this crate in order; those of kinds come after them.
pub fn plugins(authorizer: &Arc<dyn Authorizer>) -> Vec<Arc<dyn Admission>> {
    vec![Arc::new(NamespaceLifecycle), Arc::new(Escalation(authorizer.clone())), Arc::new(Definitions)]
}
