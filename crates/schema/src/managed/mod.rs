//! Server-side apply and `metadata.managedFields`, as upstream's `structured-merge-diff` and
//! `apimachinery/pkg/util/managedfields` do it. Pure: the clock's reading is passed in.
//!
//! Every version of a kind is taken to have the same field paths: entries of another version are compared
//! without conversion. A list or map that changed between atomic and granular since an entry was written is
//! not reconciled; the next write of its owner does that.

mod apply;
mod entries;
mod fieldset;
mod merge;
mod own;
mod update;
mod view;

#[cfg(test)]
mod tests;

use meta::Timestamp;

pub use apply::{Applied, ApplyError, Conflict, apply};
pub use fieldset::{FieldSet, FieldSetError};
pub use update::update;

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Field manager; not empty.
    pub manager: &'a str,
    /// `apiVersion` the request was made in.
    pub api_version: &'a str,
    /// Subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Top-level fields that this request cannot change and therefore never owns: `status` for the object
    /// itself where it has a status subresource, `spec` for that subresource (upstream `GetResetFields`).
    pub reset: &'a [&'a str],
    /// Time of the write.
    pub now: Timestamp,
}
