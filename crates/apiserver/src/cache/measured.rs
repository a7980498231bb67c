//! Kinds that are measured instead of stored: their objects are made when somebody reads them, so that they cost nothing
//! while nobody does.

use std::sync::{Arc, Mutex, PoisonError};

use meta::{Entry, Header, Object, Revision};
use tokio::sync::watch;

use super::snapshot::Snapshot;

/// What objects are given to.
pub type Take<'a> = &'a mut dyn FnMut(&Object);

/// Gives the objects of such a kind.
pub trait Measured: Send + Sync {
    /// Another number whenever `each` would give something else. Asked at every read.
    fn version(&self) -> u64;
    /// Gives every object.
    fn each(&self, take: Take<'_>);
}

impl<V, E> Measured for (V, E)
where
    V: Fn() -> u64 + Send + Sync,
    E: Fn(Take<'_>) + Send + Sync,
{
    fn version(&self) -> u64 {
        self.0()
    }

    fn each(&self, take: Take<'_>) {
        self.1(take);
    }
}

/// What a kind's objects are made by.
pub(super) struct Source {
    measured: Arc<dyn Measured>,
    head: watch::Receiver<Revision>,
    /// The version that was made last.
    made: Mutex<Option<u64>>,
}

impl Source {
    pub(super) fn new(measured: Arc<dyn Measured>, head: watch::Receiver<Revision>) -> Self {
        Self { measured, head, made: Mutex::default() }
    }

    /// Shows what there is now, unless it is shown. They are at the revision the cache stands at.
    pub(super) fn refresh(&self, show: impl FnOnce(Snapshot)) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let version = Some(self.measured.version());
        if *made == version {
            return;
        }
        let revision = *self.head.borrow();
        let mut entries = Vec::new();
        self.measured.each(&mut |object| {
            let entry = Entry::encode(object)
                .and_then(|stored| Entry::commit(&stored, Header::of(object, Box::default()), revision));
            match entry {
                Ok(entry) => entries.push(entry),
                Err(error) => tracing::error!(%error, key = %object.key(), "what was measured is no object"),
            }
        });
        show(Snapshot::collect(entries, revision));
        *made = version;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use meta::{GroupResource, ObjectKey};
    use serde_json::json;

    use super::*;
    use crate::{Cache, Registry};

    #[derive(Default)]
    struct Counter {
        version: AtomicU64,
        made: AtomicU64,
    }

    impl Measured for Counter {
        fn version(&self) -> u64 {
            self.version.load(Relaxed)
        }

        fn each(&self, take: Take<'_>) {
            self.made.fetch_add(1, Relaxed);
            for name in 0..self.version() {
                let object = json!({"kind": "M", "metadata": {"name": name.to_string()}});
                take(&Object::from_value(object).unwrap());
            }
        }
    }

    #[tokio::test]
    async fn objects_are_made_for_who_reads_and_once_for_each_change() {
        let cache = Cache::load(&store::Memory::new(), &Arc::new(Registry::new())).await.unwrap();
        let (counter, of) = (Arc::new(Counter::default()), GroupResource::new("g", "ms"));
        cache.measure(&of, counter.clone());
        let kind = cache.kind(&of);
        counter.version.store(2, Relaxed);
        assert_eq!(counter.made.load(Relaxed), 0);
        assert_eq!((kind.snapshot().len(), kind.snapshot().len()), (2, 2));
        assert_eq!(counter.made.load(Relaxed), 1);
        counter.version.store(3, Relaxed);
        assert!(kind.get(&ObjectKey::new("", "2")).is_some());
        assert_eq!(counter.made.load(Relaxed), 2);
    }
}
