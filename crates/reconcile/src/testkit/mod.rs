//! For the tests of controllers and operators: an in-memory API ([`FakeApi`]), a bench that runs one
//! reconciler against it step by step ([`Bench`]), and YAML fixtures.
//!
//! The fake is an effect fake: stateful and faithful about resource versions, preconditions,
//! generations, finalizers, subresources and watches. Where it is simpler than a real API server:
//! - no defaulting, validation, admission, authorization; any kind is accepted once it is registered;
//! - server-side apply knows no schema: maps merge, every list is atomic, applies never conflict, and
//!   a field is removed when its manager stops applying it, whoever else may have set it;
//! - strategic merge patch is refused; lists are not paged; watches never expire and send no bookmarks;
//! - it has no controllers of its own: nothing is collected, scheduled or run unless a test does it.

#![allow(clippy::indexing_slicing, reason = "test kit: a body of another shape is a bug of the test")]

mod fake_api;
mod objects;
mod rig;

pub use fake_api::FakeApi;
pub use objects::Objects;
pub use rig::{Bench, yaml, yaml_documents};
