//! Admission plugins that hold for every kind. Those of single kinds are in `kinds`; RBAC escalation is in
//! [`crate::auth`].

mod namespace_lifecycle;

pub use namespace_lifecycle::NamespaceLifecycle;
