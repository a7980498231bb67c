//! The contract's suite on a real PostgreSQL, woken by notifications and by a real Redis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use store::{Result, Store, conformance::Home};

/// A database of the shared server.
struct Database {
    name: String,
    with_redis: bool,
}

impl Database {
    fn new(with_redis: bool) -> Self {
        Self { name: common::postgres().database(), with_redis }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        common::postgres().hand_back(std::mem::take(&mut self.name));
    }
}

impl Home for Database {
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Store>>> {
        async {
            let url = common::postgres().url(&self.name);
            let redis = self.with_redis.then(common::redis);
            let opened = common::open(common::config(&url, redis)).await;
            Ok(Arc::new(opened?) as Arc<dyn Store>)
        }
        .boxed()
    }
}

mod notify {
    use super::Database;

    store::store_conformance!(Database::new(false));
}

mod redis_streams {
    use super::Database;

    store::store_conformance!(Database::new(true));
}
