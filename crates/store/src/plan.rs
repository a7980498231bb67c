//! Decides a batch: which writes are applied, at which revisions, and what the others clash with.
//! Pure, so that every backend which checks expectations itself decides alike.

use std::collections::HashMap;

use meta::Revision;

use crate::{
    BATCH_BYTES_MAX, BATCH_WRITES_MAX, Change, Error, Expect, KEY_BYTES_MAX, Key, Outcome, Result, Stored,
    VALUE_BYTES_MAX, Write,
};

/// What is stored now, before the batch.
pub trait Current {
    /// The revision that wrote what is at the key; `None` when nothing is. Called for every write.
    fn revision(&self, key: &Key) -> Result<Option<Revision>>;

    /// What is at the key. Called for a clash only.
    fn stored(&self, key: &Key) -> Result<Option<Stored>>;
}

/// A decided batch. Writing `changes` makes `outcomes` true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One for each write, in order.
    pub outcomes: Vec<Outcome>,
    /// The applied writes, at contiguous revisions from the one after the head.
    pub changes: Vec<Change>,
}

/// Decides `batch` against `current`, whose newest revision is `head`. Refuses a batch beyond the
/// contract's bounds.
pub fn plan(batch: Vec<Write>, head: Revision, current: &impl Current) -> Result<Plan> {
    check_size(&batch)?;
    let mut outcomes = Vec::with_capacity(batch.len());
    let mut changes: Vec<Change> = Vec::with_capacity(batch.len());
    // Index into `changes` of the newest change of each key that this batch has changed.
    let mut changed: HashMap<Key, usize> = HashMap::new();
    let mut next = head.0;
    for Write { key, expect, value } in batch {
        let earlier = changed.get(&key).and_then(|at| changes.get(*at));
        let revision = match earlier {
            Some(change) => change.value.as_ref().map(|_| change.revision),
            None => current.revision(&key)?,
        };
        if !admits(expect, revision, value.is_none()) {
            outcomes.push(Outcome::Clash(match earlier {
                Some(change) => stored_by(change),
                None => current.stored(&key)?,
            }));
            continue;
        }
        next += 1;
        changed.insert(key.clone(), changes.len());
        changes.push(Change { revision: Revision(next), key, value });
        outcomes.push(Outcome::Done(Revision(next)));
    }
    Ok(Plan { outcomes, changes })
}

fn admits(expect: Expect, found: Option<Revision>, delete: bool) -> bool {
    match (expect, found) {
        (Expect::Absent | Expect::Any, None) => !delete,
        (Expect::Absent, Some(_)) | (Expect::At(_), None) => false,
        (Expect::At(expected), Some(found)) => expected == found,
        (Expect::Any, Some(_)) => true,
    }
}

fn stored_by(change: &Change) -> Option<Stored> {
    let value = change.value.clone()?;
    Some(Stored { key: change.key.clone(), value, revision: change.revision })
}

/// Refuses a batch beyond the contract's bounds. [`plan`] does so itself; for a backend that decides
/// elsewhere.
pub fn check_size(batch: &[Write]) -> Result<()> {
    let refuse = |what: String, size, limit| Err(Error::TooLarge { what, size, limit });
    if batch.len() > BATCH_WRITES_MAX {
        return refuse("number of writes in a batch".into(), batch.len(), BATCH_WRITES_MAX);
    }
    let mut total = 0;
    for Write { key, value, expect: _ } in batch {
        let size = value.as_ref().map_or(0, bytes::Bytes::len);
        if size > VALUE_BYTES_MAX {
            return refuse(format!("value of {key} in bytes"), size, VALUE_BYTES_MAX);
        }
        if key.as_str().len() > KEY_BYTES_MAX {
            return refuse(format!("key {key} in bytes"), key.as_str().len(), KEY_BYTES_MAX);
        }
        total += size + key.as_str().len();
    }
    if total > BATCH_BYTES_MAX {
        return refuse("batch in bytes".into(), total, BATCH_BYTES_MAX);
    }
    Ok(())
}
