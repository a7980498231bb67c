//! The contract's suite on the embedded store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::sync::Arc;

use futures::{FutureExt, future, future::BoxFuture};
use store::{Result, Store, conformance::Home};
use store_embedded::EmbeddedStore;
use tempfile::TempDir;

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Home for Directory {
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Store>>> {
        let opened = EmbeddedStore::open(self.0.path()).map(|store| Arc::new(store) as Arc<dyn Store>);
        future::ready(opened).boxed()
    }
}

store::store_conformance!(Directory::new());
