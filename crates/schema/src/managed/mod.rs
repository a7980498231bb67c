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

use meta::{Timestamp, Value};

use crate::{Schema, path::Path};

pub use apply::{Applied, ApplyError, Conflict, apply};
pub use fieldset::{FieldSet, FieldSetError};
pub use update::update;

/// `live` with everything that `config` sets, without any ownership (mutating admission policies). What does
/// not fit the schema is refused, and so is a change of a part that is one value to its schema.
pub fn merge(schema: &Schema, live: &Value, config: &Value) -> Result<Value, String> {
    let (set, root) = (schema.set(), schema.root());
    let mut errors = Vec::new();
    merge::check(set, root, config, &Path::Root, &mut errors);
    if let Some(first) = errors.into_iter().next() {
        return Err(first);
    }
    if let Some(atomic) = merge::atomic(set, root, config, &Path::Root) {
        return Err(format!("may not mutate atomic arrays, maps or structs: .{atomic}"));
    }
    Ok(merge::merge(set, root, Some(live), Some(config)).unwrap_or_else(|| live.clone()))
}

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
