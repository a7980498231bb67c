//! What the five verbs speak in.

use std::sync::Arc;

use bytes::Bytes;
use meta::Revision;

use crate::Key;

/// Most writes in one batch. Far above what is collected during one disk sync; bounds what one
/// batch costs in memory.
pub const BATCH_WRITES_MAX: usize = 8192;

/// Most bytes of keys and values in one batch.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// Most bytes in one value. The API server refuses larger request bodies long before (upstream's
/// limit is 3 MiB), so that hitting this is a defect above.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Most bytes in one key. Kubernetes' own limits on names end far below.
pub const KEY_BYTES_MAX: usize = 4096;

/// One object as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it is kept.
    pub key: Key,
    /// The bytes that were written.
    pub value: Bytes,
    /// The revision that wrote them.
    pub revision: Revision,
}

/// Who may change what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Only who has it open: the outcomes of its own commits are all that happens.
    One,
    /// Others as well.
    Many,
}

/// What must be true of a key for a write to it to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is there.
    Absent,
    /// What is there was written by this very revision.
    At(Revision),
    /// Whatever is there. A delete still needs something to delete.
    Any,
}

/// One conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub key: Key,
    /// On what condition.
    pub expect: Expect,
    /// The new bytes; `None` deletes. Deleting what is not there is always a [`Outcome::Clash`].
    pub value: Option<Bytes>,
}

impl Write {
    /// Writes a new object; clashes when the key is taken.
    pub fn create(key: Key, value: impl Into<Bytes>) -> Self {
        Self { key, expect: Expect::Absent, value: Some(value.into()) }
    }

    /// Replaces what `revision` wrote.
    pub fn update(key: Key, revision: Revision, value: impl Into<Bytes>) -> Self {
        Self { key, expect: Expect::At(revision), value: Some(value.into()) }
    }

    /// Deletes what `revision` wrote.
    pub fn delete(key: Key, revision: Revision) -> Self {
        Self { key, expect: Expect::At(revision), value: None }
    }

    /// Writes whatever is there.
    pub fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Self { key, expect: Expect::Any, value: Some(value.into()) }
    }
}

/// What became of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied, durable, and given this revision.
    Done(Revision),
    /// Not applied, no revision taken: this is what is there instead of what was expected.
    Clash(Option<Stored>),
    /// Not applied, no revision taken: it cannot be stored, or what is there cannot be read, at this time. Of layers in
    /// front of a store only.
    Refused {
        /// Why, for whoever asked.
        why: Arc<str>,
    },
}

/// One applied write, as followers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision it was given.
    pub revision: Revision,
    /// Where.
    pub key: Key,
    /// The bytes written; `None` for a delete.
    pub value: Option<Bytes>,
}

/// One item of [`crate::Store::load`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// An object.
    Object(Stored),
    /// The end: all objects were given, and this is the revision they stand at.
    At(Revision),
}

/// Where a store stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The newest revision; 0 before the first write.
    pub revision: Revision,
    /// Grows whenever a writer takes the store over from another. A backend with several writers
    /// refuses the commits of the deposed one by it.
    pub epoch: u64,
    /// The oldest revision that [`crate::Store::follow`] can start after.
    pub compacted: Revision,
}
