//! Measurements, not tests: `docs/benchmarks.md` says how to run them. PostgreSQL syncs what it acknowledges, as the
//! embedded store does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{future::BoxFuture, stream::BoxStream};
use meta::Revision;
use store::{Change, Head, Loaded, Outcome, Result, Store, Write, Writers};
use store_embedded::EmbeddedStore;

use crate::{
    race, run,
    servers::{Postgres, config, open, redis},
    two,
};

/// How long creates are counted.
const FOR: Duration = Duration::from_secs(5);
/// Objects of which the start of a server is measured.
const MANY: u64 = 100_000;

/// A store that counts the batches that it is given.
struct Counted {
    store: Arc<dyn Store>,
    batches: AtomicU64,
}

impl Store for Counted {
    fn writers(&self) -> Writers {
        self.store.writers()
    }

    fn load(&self) -> BoxStream<'_, Result<Loaded>> {
        self.store.load()
    }

    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.store.commit(batch)
    }

    fn follow(&self, after: Revision) -> BoxStream<'_, Result<Change>> {
        self.store.follow(after)
    }

    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        self.store.head()
    }

    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>> {
        self.store.compact(through)
    }
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// Creates through an API server by so many callers at a time, each after the answer to its last.
async fn creates(name: &str, store: Arc<dyn Store>, callers: usize) {
    let counted = Arc::new(Counted { store, batches: AtomicU64::new(0) });
    let server = Arc::new(race::Server::start(counted.clone(), callers as u64).await);
    let before = counted.batches.load(Ordering::Relaxed);
    let begun = Instant::now();
    let callers_at_work: Vec<_> = (0..callers)
        .map(|caller| {
            let server = server.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                while begun.elapsed() < FOR {
                    let sent = Instant::now();
                    server.create(&format!("c{callers}-{caller}-{}", took.len()), 0).await.unwrap();
                    took.push(sent.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for caller in callers_at_work {
        took.extend(caller.await.unwrap());
    }
    let rate = took.len() as f64 / begun.elapsed().as_secs_f64();
    let batch = took.len() as f64 / (counted.batches.load(Ordering::Relaxed) - before) as f64;
    took.sort();
    println!(
        "{name}, {callers} callers: {rate:.0} creates/s, p50 {:?}, p99 {:?}, {batch:.1} a batch",
        at(&took, 0.5),
        at(&took, 0.99)
    );
}

#[test]
#[ignore = "a measurement"]
fn creates_beside_the_embedded_store() {
    let postgres = Postgres::start(false);
    let directory = tempfile::tempdir().unwrap();
    for callers in [1, 16, 128] {
        let path = directory.path().join(callers.to_string());
        run(async { creates("embedded", Arc::new(EmbeddedStore::open(path).unwrap()), callers).await });
        for (name, redis) in [("postgres with notify", None), ("postgres with redis", Some(redis()))] {
            let url = postgres.url(&postgres.database());
            run(async { creates(name, Arc::new(open(config(&url, redis)).await.unwrap()), callers).await });
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn start_of_a_server_with_many_objects() {
    let postgres = Postgres::start(false);
    let directory = tempfile::tempdir().unwrap();
    let url = postgres.url(&postgres.database());
    let path = directory.path().join("store");
    let embedded = || EmbeddedStore::open(path.clone()).unwrap();
    run(async {
        let in_postgres = async || Arc::new(open(config(&url, None)).await.unwrap());
        for (name, store) in
            [("embedded", Arc::new(embedded()) as Arc<dyn Store>), ("postgres", in_postgres().await)]
        {
            let server = Arc::new(race::Server::start(store, 1).await);
            let callers: Vec<_> = (0..256)
                .map(|caller| {
                    let server = server.clone();
                    tokio::spawn(async move {
                        for number in (caller..MANY).step_by(256) {
                            server.create(&format!("many-{number}"), number).await.unwrap();
                        }
                    })
                })
                .collect();
            for caller in callers {
                caller.await.unwrap();
            }
            println!("{name}: made {MANY} objects");
        }
        // A store of a directory is one process's; the server above lets go of it when its last task ends.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        let server = race::Server::start(Arc::new(embedded()), 2).await;
        println!("embedded: a server with {} objects starts in {:?}", server.objects(), begun.elapsed());
        let begun = Instant::now();
        let server = race::Server::start(in_postgres().await, 2).await;
        println!("postgres: a server with {} objects starts in {:?}", server.objects(), begun.elapsed());
    });
}

#[test]
#[ignore = "a measurement"]
fn lag_to_a_watcher_of_another_server() {
    let postgres = Postgres::start(false);
    let url = postgres.url(&postgres.database());
    for (name, redis) in [("notify", None), ("redis", Some(redis()))] {
        let url = url.clone();
        let lags =
            run(async move { race::lag(two(&url, redis).await, 1_000, Duration::from_secs(10)).await });
        println!("{name}: {} writes, lag p50 {:?}, p99 {:?}", lags.len(), at(&lags, 0.5), at(&lags, 0.99));
    }
}
