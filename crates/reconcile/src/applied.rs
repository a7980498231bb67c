//! What was applied last, so that an unchanged child costs no request.
//!
//! A child is skipped while the body to apply is the one applied last and the live object, seen
//! through its cache, still has the fingerprint it had when the cache first showed that apply. The
//! fingerprint leaves out status, `resourceVersion` and bookkeeping, so that a StatefulSet whose pods
//! come and go is not applied again each time. A kind without a cache is applied each time.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use meta::ObjectKey;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use crate::{Child, Kind};

#[derive(Default)]
pub(crate) struct Applied {
    last: Mutex<HashMap<(Kind, ObjectKey), Mark>>,
}

struct Mark {
    body: u64,
    /// The revision the server answered with.
    revision: u64,
    /// The fingerprint of that revision; known once the cache has shown it.
    live: Option<u64>,
}

impl Applied {
    /// Whether `child` was applied as it is and the live object is still what came of it.
    pub(crate) fn is_current(&self, child: &Child, live: Option<Seen>) -> bool {
        let Some(live) = live else { return false };
        let mut last = self.last.lock();
        let Some(mark) = last.get_mut(&(child.kind.clone(), child.key.clone())) else { return false };
        if mark.live.is_none() && mark.revision == live.revision {
            mark.live = Some(live.fingerprint);
        }
        mark.body == hash(&child.body) && mark.live == Some(live.fingerprint)
    }

    /// Remembers the revision the server answered an apply with.
    pub(crate) fn remember(&self, child: &Child, revision: u64) {
        let mark = Mark { body: hash(&child.body), revision, live: None };
        self.last.lock().insert((child.kind.clone(), child.key.clone()), mark);
    }

    /// Forgets a deleted object.
    pub(crate) fn forget(&self, kind: &Kind, key: &ObjectKey) {
        self.last.lock().remove(&(kind.clone(), key.clone()));
    }
}

/// One object as its cache shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) revision: u64,
    pub(crate) fingerprint: u64,
}

/// A hash of what somebody may have changed in an object, as the typed cache sees it.
pub(crate) fn fingerprint(object: &impl Serialize) -> Option<u64> {
    let mut tree = serde_json::to_value(object).ok()?;
    let root = tree.as_object_mut()?;
    root.remove("status");
    if let Some(metadata) = root.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["resourceVersion", "managedFields", "generation"] {
            metadata.remove(field);
        }
    }
    Some(hash(&tree))
}

/// Maps are ordered by key in serde_json's default form, so equal trees have equal text.
fn hash(tree: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    tree.to_string().hash(&mut hasher);
    hasher.finish()
}
