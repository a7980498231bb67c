//! Several processes of one cluster on a PostgreSQL and a Redis that the tests start.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod accounts;
mod balancer;
mod cut;
mod kill;
mod measure;
mod part;
mod parts;
#[path = "../../../apiserver/tests/common/race.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod race;
#[path = "../../../store-postgres/tests/common/mod.rs"]
mod servers;
mod shown;
mod stores;

use std::{future::Future, sync::Arc, time::Duration};

use servers::{config, open, postgres, redis};
use store::Store;

/// Runs a future to its end; machines are shared, so the bound is no measure of speed.
fn run<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(600), task).await.expect("the test hangs")
    })
}

async fn two(url: &str, redis: Option<&servers::Redis>) -> Vec<Arc<dyn Store>> {
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..2 {
        stores.push(Arc::new(open(config(url, redis)).await.unwrap()));
    }
    stores
}

#[test]
fn two_servers_race_on_one_object_in_postgresql_ten_thousand_times() {
    let url = postgres().url(&postgres().database());
    run(async { race::race_on_one_object(two(&url, None).await, 3, 10_000).await });
}

#[test]
fn two_servers_race_on_one_object_while_redis_carries_the_events() {
    let url = postgres().url(&postgres().database());
    run(async { race::race_on_one_object(two(&url, Some(redis())).await, 3, 1_000).await });
}

#[test]
fn two_servers_on_postgresql_hand_out_no_address_twice() {
    let url = postgres().url(&postgres().database());
    run(async { race::addresses_do_not_collide(two(&url, None).await, 25).await });
}
