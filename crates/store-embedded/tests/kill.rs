//! `kill -9` under load. A child process (this binary again) commits and prints what was
//! acknowledged; the parent kills it at a random point, opens what it left, and checks it against an
//! oracle of what was printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use futures::{StreamExt, TryStreamExt};
use meta::{Random, Revision, Seeded};
use store::{Change, Key, Loaded, Outcome, Store, Write};
use store_embedded::EmbeddedStore;

const DIRECTORY: &str = "STORE_KILL_TEST_DIRECTORY";
const ROUNDS: u64 = 20;
const KEYS: u64 = 300;

fn key(number: u64) -> Key {
    Key::parse(&format!("core/configmaps/default/k{number}")).unwrap()
}

/// The write that makes `revision`: decided by the number alone, so that the parent knows it too.
/// Sizes from nothing to 8 KiB; every eleventh deletes what the one before wrote.
fn write(revision: u64) -> Write {
    let random = Seeded::new(revision);
    if revision.is_multiple_of(11) {
        return Write::delete(write(revision - 1).key, Revision(revision - 1));
    }
    let size = usize::try_from(random.below(8192)).unwrap();
    let value = vec![u8::try_from(random.below(255)).unwrap() + 1; size];
    Write::put(key(random.below(KEYS)), value)
}

fn run<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(task)
}

/// Not a test by itself: what the child does when the parent says so by the variable.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    run(async {
        let store = EmbeddedStore::open(Path::new(&directory)).unwrap();
        let mut next = store.head().await.unwrap().revision.0 + 1;
        let mut out = std::io::stdout().lock();
        loop {
            // Batches of 1 to 8, several under way at once.
            let batches: Vec<Vec<Write>> = (0..3)
                .map(|_| {
                    let size = 1 + next % 8;
                    let batch = (next..next + size).map(write).collect();
                    next += size;
                    batch
                })
                .collect();
            for outcomes in futures::future::join_all(batches.into_iter().map(|b| store.commit(b))).await {
                let Some(Outcome::Done(Revision(last))) = outcomes.unwrap().last().cloned() else {
                    panic!("a clash")
                };
                writeln!(out, "done {last}").unwrap();
            }
            if next.is_multiple_of(5) {
                store.compact(Revision(next.saturating_sub(500))).await.unwrap();
            }
        }
    });
}

/// Kills a child after `lines` acknowledgements; gives the newest one that was printed, which may
/// be later.
fn commit_and_kill(directory: &Path, lines: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut acknowledged = 0;
    let mut seen = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // A line that the kill cut short has no number, or a shorter and so smaller one.
        let Ok(line) = line else { break };
        let Some(revision) = line.strip_prefix("done ").and_then(|number| number.parse().ok()) else {
            continue;
        };
        acknowledged = acknowledged.max(revision);
        seen += 1;
        if seen == lines {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success());
    assert!(seen >= lines, "the child ended by itself");
    acknowledged
}

/// The objects after the first `revision` writes.
fn expected(revision: u64) -> BTreeMap<Key, (Vec<u8>, u64)> {
    let mut objects = BTreeMap::new();
    for revision in 1..=revision {
        let Write { key, value, expect: _ } = write(revision);
        match value {
            Some(value) => objects.insert(key, (value.to_vec(), revision)),
            None => objects.remove(&key),
        };
    }
    objects
}

async fn check(directory: &Path, acknowledged: u64) -> u64 {
    let store = EmbeddedStore::open(directory).unwrap();
    let head = store.head().await.unwrap();
    assert!(head.revision.0 >= acknowledged, "{acknowledged} was acknowledged, {} is there", head.revision);
    let mut objects = BTreeMap::new();
    let items: Vec<Loaded> = store.load().try_collect().await.unwrap();
    for item in items {
        match item {
            Loaded::Object(o) => assert!(objects.insert(o.key, (o.value.to_vec(), o.revision.0)).is_none()),
            Loaded::At(revision) => assert_eq!(revision, head.revision),
        }
    }
    assert!(objects == expected(head.revision.0), "the objects at {} are not those written", head.revision);
    let kept = head.revision.0 - head.compacted.0;
    let history = store.follow(head.compacted).take(usize::try_from(kept).unwrap());
    let history: Vec<Change> = history.try_collect().await.unwrap();
    for (change, revision) in history.iter().zip(head.compacted.0 + 1..) {
        let Write { key, value, expect: _ } = write(revision);
        assert!((change.revision.0, &change.key, &change.value) == (revision, &key, &value), "at {revision}");
    }
    head.revision.0
}

#[test]
fn kill_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let random = Seeded::new(20_26);
    let mut last = 0;
    for round in 0..ROUNDS {
        let acknowledged = commit_and_kill(directory.path(), 1 + random.below(400));
        assert!(acknowledged > last, "round {round} committed nothing");
        last = run(check(directory.path(), acknowledged));
    }
}
