//! Figures, not a test of right or wrong: `cargo test -p store-postgres --test rates -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Postgres, Redis, config, open, run};
use futures::{StreamExt, TryStreamExt};
use meta::Revision;
use store::{Key, Outcome, Store, Write};

const FOR: Duration = Duration::from_secs(4);

fn key(name: &str) -> Key {
    Key::parse(&format!("core/configmaps/default/{name}")).unwrap()
}

fn at(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1000.0
}

/// `callers` tasks on one server create objects of 1 KiB, at most `rate` a second together; another
/// server follows.
async fn measure(url: &str, redis: Option<&Redis>, callers: usize, rate: Option<u64>) {
    let writing = Arc::new(open(config(url, redis)).await.unwrap());
    let other = open(config(url, redis)).await.unwrap();
    let from = other.head().await.unwrap().revision;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let store = writing.clone();
            tokio::spawn(async move {
                let (mut spans, mut done) = (Vec::new(), Vec::new());
                let every = rate.map(|rate| Duration::from_secs(1) * callers as u32 / rate as u32);
                for number in 0_u32.. {
                    if let Some(every) = every {
                        let phase = every * caller as u32 / callers as u32;
                        tokio::time::sleep_until((begun + phase + every * number).into()).await;
                    }
                    if begun.elapsed() > FOR {
                        break;
                    }
                    let name = format!("c{caller}-{number}-{}", begun.elapsed().as_nanos());
                    let sent = Instant::now();
                    let outcomes =
                        store.commit(vec![Write::create(key(&name), vec![b'x'; 1024])]).await.unwrap();
                    let Outcome::Done(revision) = outcomes[0] else { panic!("{outcomes:?}") };
                    spans.push(sent.elapsed());
                    done.push((revision.0, Instant::now()));
                }
                (spans, done)
            })
        })
        .collect();
    let (end, mut ended) = tokio::sync::oneshot::channel::<u64>();
    let following = async {
        let (mut seen, mut stream, mut last) = (HashMap::new(), other.follow(from), u64::MAX);
        loop {
            tokio::select! {
                change = stream.next() => {
                    let revision = change.unwrap().unwrap().revision.0;
                    seen.insert(revision, Instant::now());
                    if revision >= last { return seen; }
                }
                told = &mut ended, if last == u64::MAX => {
                    last = told.unwrap();
                    if seen.contains_key(&last) { return seen; }
                }
            }
        }
    };
    let writes = async {
        let (mut spans, mut done) = (Vec::new(), Vec::new());
        for task in tasks {
            let (more, committed) = task.await.unwrap();
            spans.extend(more);
            done.extend(committed);
        }
        end.send(done.iter().map(|(revision, _)| *revision).max().unwrap()).unwrap();
        (spans, done)
    };
    let (seen, (mut spans, done)) = futures::join!(following, writes);
    let mut lags: Vec<Duration> =
        done.iter().map(|(revision, at)| seen[revision].saturating_duration_since(*at)).collect();
    spans.sort();
    lags.sort();
    let (own, far) = (writing.statistics(), other.statistics());
    println!(
        "{:6} {callers:3} callers: {:6.0} creates/s, p50 {:.2} ms, p99 {:.2} ms; {:.1} a batch; lag to another server \
         p50 {:.2} ms, p99 {:.2} ms; it read {} by Redis, {} from the log",
        if redis.is_some() { "redis" } else { "notify" },
        spans.len() as f64 / FOR.as_secs_f64(),
        at(&spans, 50),
        at(&spans, 99),
        spans.len() as f64 / own.batches as f64,
        at(&lags, 50),
        at(&lags, 99),
        far.bus,
        far.log
    );
}

#[test]
#[ignore = "figures, for the ADR"]
fn rates() {
    let server = Postgres::start(false);
    let redis = Redis::start();
    run(async {
        for redis in [None, Some(&redis)] {
            let url = tokio::task::block_in_place(|| server.url(&server.database()));
            for (callers, rate) in [(1, None), (16, None), (128, None), (64, Some(1000))] {
                measure(&url, redis, callers, rate).await;
            }
        }
        let url = tokio::task::block_in_place(|| server.url(&server.database()));
        let store = open(config(&url, None)).await.unwrap();
        for part in 0..50 {
            let batch = (0..2000).map(|n| Write::create(key(&format!("{part}-{n}")), vec![b'x'; 1024]));
            store.commit(batch.collect()).await.unwrap();
        }
        let begun = Instant::now();
        let store = open(config(&url, None)).await.unwrap();
        let opened = begun.elapsed();
        let loaded = store.load().try_fold(0, |n, _| async move { Ok(n + 1) }).await.unwrap();
        println!("open {opened:?}, load of {} objects of 1 KiB {:?}", loaded - 1, begun.elapsed() - opened);
        let begun = Instant::now();
        store.compact(Revision(100_000)).await.unwrap();
        println!("compaction of 100000 changes {:?}", begun.elapsed());
    });
}
