//! Read-your-writes: what a key's caches must show before it is planned again.

use std::{sync::Arc, time::Duration};

use meta::ObjectKey;

use crate::{Kind, Progress, Stores, stores::Cache};

/// How long a cache may lag. Upstream's controllers give up on their expectations after 5 minutes
/// (`controller_utils.go`, `ExpectationsTimeout`); so do we, and count it.
pub(crate) const STALE_MAX: Duration = Duration::from_secs(300);

/// One write that a cache has to show.
pub(crate) struct Expectation {
    cache: Arc<dyn Cache>,
    /// Lists begun when the write was made: a list begun after it shows it too.
    lists_begun: u64,
    what: What,
}

enum What {
    Revision(u64),
    Gone { key: ObjectKey, uid: String },
}

impl Expectation {
    /// The cache of `kind` (if one is open) reaches `revision`.
    pub(crate) fn revision(stores: &Stores, kind: &Kind, revision: u64) -> Option<Self> {
        Self::of(stores, kind, What::Revision(revision))
    }

    /// The cache of `kind` (if one is open) shows the object gone, replaced or being deleted.
    pub(crate) fn gone(stores: &Stores, kind: &Kind, key: &ObjectKey, uid: &str) -> Option<Self> {
        Self::of(stores, kind, What::Gone { key: key.clone(), uid: uid.to_owned() })
    }

    fn of(stores: &Stores, kind: &Kind, what: What) -> Option<Self> {
        let cache = stores.find(kind)?;
        let lists_begun = cache.progress().borrow().lists_begun;
        Some(Self { cache, lists_begun, what })
    }

    fn is_met(&self, progress: Progress) -> bool {
        let relisted = progress.lists_done > self.lists_begun;
        relisted
            || match &self.what {
                What::Revision(revision) => progress.revision >= *revision,
                What::Gone { key, uid } => {
                    self.cache.life(key).is_none_or(|(live, deleting)| deleting || live != *uid)
                }
            }
    }

    async fn met(&self) {
        let mut progress = self.cache.progress();
        // Fails only when the cache is gone, and we hold it.
        let _closed = progress.wait_for(|progress| self.is_met(*progress)).await;
    }
}

/// Waits until all are met; `false` if that took longer than [`STALE_MAX`].
pub(crate) async fn all_met(expectations: &[Expectation]) -> bool {
    let all = async {
        for expectation in expectations {
            expectation.met().await;
        }
    };
    tokio::time::timeout(STALE_MAX, all).await.is_ok()
}
