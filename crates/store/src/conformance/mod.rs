//! One suite for every implementation of the contract, the memory reference first.
//!
//! A backend implements [`Home`] and begins its test file with `store::store_conformance!(home)`,
//! where `home` is an expression that makes a new, empty place for each test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code that other crates' tests run: it fails by panicking"
)]

mod concurrent;
mod contract;
mod follow;
mod model;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{TryStreamExt, future::BoxFuture};
use meta::{GroupResource, ObjectKey, Revision};

pub use concurrent::*;
pub use contract::*;
pub use follow::*;
pub use model::model;

use crate::{Key, Loaded, Outcome, Result, Store, Stored, Write};

/// A place where one store lives. Dropping it removes the store.
pub trait Home: Send + Sync {
    /// Opens the store. Called again after every earlier handle was dropped, it finds everything that
    /// was acknowledged.
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Store>>>;
}

/// A test that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(120);

/// Runs one case on a runtime of its own, and fails instead of hanging.
pub fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the test");
    runtime.block_on(async { tokio::time::timeout(HANG, case).await.expect("the case hangs") });
}

/// Runs the whole suite: a `#[test]` for each case.
#[macro_export]
macro_rules! store_conformance {
    ($home:expr) => {
        $crate::store_conformance!(@cases $home;
            begins_empty, writes_and_revisions, expectations, a_batch_sees_itself, clashes_take_no_revision,
            values_come_back_exactly, an_empty_batch_is_nothing, too_large_is_refused_whole,
            load_ends_with_its_revision, load_is_one_snapshot, reopening_finds_everything,
            reopening_after_compaction, compaction_keeps_objects, one_creator_wins,
            counters_lose_no_update, batches_are_atomic, a_dropped_commit_is_whole_or_nothing,
            follow_from_every_revision, follow_goes_on_live, follow_from_the_future_waits,
            followers_see_each_change_once, follow_ends_when_compacted, compaction_has_bounds,
            a_slow_follower_delays_nobody, follow_after_reopening,
        );

        #[test]
        fn model() {
            $crate::conformance::model(|| $home);
        }
    };
    (@cases $home:expr; $($case:ident),* $(,)?) => {
        $(#[test]
        fn $case() {
            let home = $home;
            $crate::conformance::run($crate::conformance::$case(&home));
        })*
    };
}

fn key(name: &str) -> Key {
    Key::new(&GroupResource::new("", "configmaps"), &ObjectKey::new("default", name)).expect("a valid key")
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn stored(name: &str, value: &str, revision: u64) -> Stored {
    Stored { key: key(name), value: bytes(value), revision: Revision(revision) }
}

fn done(revision: u64) -> Outcome {
    Outcome::Done(Revision(revision))
}

async fn open(home: &dyn Home) -> Arc<dyn Store> {
    home.open().await.expect("open the store")
}

async fn commit(store: &dyn Store, batch: Vec<Write>) -> Vec<Outcome> {
    store.commit(batch).await.expect("commit")
}

/// Commits one write for each of `first..=last`, as revisions of the same numbers, to the keys
/// `k0 ..= k9` in turn.
async fn fill(store: &dyn Store, first: u64, last: u64) {
    for revision in first..=last {
        let write = Write::put(key(&format!("k{}", revision % 10)), bytes(&revision.to_string()));
        assert_eq!(commit(store, vec![write]).await, [done(revision)]);
    }
}

/// All objects by key, and the revision they stand at.
async fn load(store: &dyn Store) -> (Vec<Stored>, Revision) {
    let mut items: Vec<Loaded> = store.load().try_collect().await.expect("load");
    let Some(Loaded::At(revision)) = items.pop() else { panic!("a load must end with its revision") };
    let mut objects: Vec<Stored> = items
        .into_iter()
        .map(|item| match item {
            Loaded::Object(object) => object,
            Loaded::At(at) => panic!("revision {at} in the middle of a load"),
        })
        .collect();
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    (objects, revision)
}
