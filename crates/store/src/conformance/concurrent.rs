//! Many callers at once.

use std::{collections::BTreeSet, sync::Arc};

use futures::{FutureExt, future::join_all};
use meta::Revision;

use super::{Home, bytes, commit, done, key, load, open};
use crate::{Expect, Outcome, Store, Write};

const WRITERS: usize = 16;

async fn spawn_all<T: Send + 'static>(
    tasks: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = tasks.map(tokio::spawn).collect();
    join_all(tasks).await.into_iter().map(|joined| joined.expect("a task of the case failed")).collect()
}

/// Of many who create the same key one wins, and the others are shown what won.
pub async fn one_creator_wins(home: &dyn Home) {
    let store = open(home).await;
    let outcomes = spawn_all((0..WRITERS).map(|i| {
        let store = store.clone();
        async move { commit(&*store, vec![Write::create(key("a"), i.to_string())]).await.remove(0) }
    }))
    .await;
    let (objects, revision) = load(&*store).await;
    assert_eq!(revision, Revision(1));
    let winner = &objects[0];
    for (i, outcome) in outcomes.iter().enumerate() {
        if winner.value == i.to_string() {
            assert_eq!(*outcome, done(1));
        } else {
            assert_eq!(*outcome, Outcome::Clash(Some(winner.clone())));
        }
    }
}

/// Counters raised by read, compare and write from many tasks end at the number of raises, and the
/// revisions handed out are contiguous.
pub async fn counters_lose_no_update(home: &dyn Home) {
    const RAISES: u64 = 25;
    let store = open(home).await;
    let revisions = spawn_all((0..WRITERS).map(|i| {
        let store = store.clone();
        async move { raise(&*store, &format!("counter{}", i % 4), RAISES).await }
    }))
    .await;
    let (objects, head) = load(&*store).await;
    let total: u64 = objects.iter().map(|o| String::from_utf8_lossy(&o.value).parse::<u64>().unwrap()).sum();
    let expected = RAISES * WRITERS as u64;
    assert_eq!((total, head), (expected, Revision(expected)));
    let all: BTreeSet<u64> = revisions.into_iter().flatten().map(|revision| revision.0).collect();
    assert!(all.into_iter().eq(1..=expected));
}

async fn raise(store: &dyn Store, name: &str, times: u64) -> Vec<Revision> {
    let mut revisions = Vec::new();
    let mut expect = Expect::Absent;
    let mut value = 1;
    while (revisions.len() as u64) < times {
        let write = Write { key: key(name), expect, value: Some(value.to_string().into()) };
        match commit(store, vec![write]).await.remove(0) {
            Outcome::Done(revision) => {
                revisions.push(revision);
                (expect, value) = (Expect::At(revision), value + 1);
            }
            Outcome::Clash(Some(found)) => {
                expect = Expect::At(found.revision);
                value = String::from_utf8_lossy(&found.value).parse::<u64>().unwrap() + 1;
            }
            Outcome::Clash(None) | Outcome::Refused { .. } => panic!("a counter vanished"),
        }
    }
    revisions
}

/// Each batch takes a run of revisions of its own, and no load sees half of one.
pub async fn batches_are_atomic(home: &dyn Home) {
    const PARTS: usize = 7;
    let store = open(home).await;
    let writers = spawn_all((0..WRITERS).map(|writer| {
        let store = store.clone();
        async move {
            for round in 0..10 {
                let part = |part| Write::put(key(&format!("{writer}-{part}")), format!("{round}"));
                let outcomes = commit(&*store, (0..PARTS).map(part).collect()).await;
                let Some(Outcome::Done(first)) = outcomes.first() else { panic!("{outcomes:?}") };
                assert_eq!(outcomes, (0..PARTS as u64).map(|i| done(first.0 + i)).collect::<Vec<_>>());
            }
        }
    }));
    let reader = async {
        for _ in 0..10 {
            let (objects, _) = load(&*store).await;
            for parts in objects.chunk_by(|a, b| writer_of(a.key.name()) == writer_of(b.key.name())) {
                assert_eq!(parts.len(), PARTS);
                assert!(parts.iter().all(|part| part.value == parts[0].value), "half a batch: {parts:?}");
            }
        }
    };
    futures::join!(writers, reader);
}

fn writer_of(name: &str) -> &str {
    name.split_once('-').map_or(name, |(writer, _)| writer)
}

/// A commit whose future is dropped after it began is applied whole or not at all, and holds up
/// nobody.
pub async fn a_dropped_commit_is_whole_or_nothing(home: &dyn Home) {
    let store: Arc<dyn Store> = open(home).await;
    for round in 0..20 {
        let part = |part| Write::put(key(&format!("r{round:02}-{part}")), bytes("x"));
        // Polled once, so that it has begun, then dropped.
        let answered = store.commit((0..5).map(part).collect()).now_or_never();
        assert!(answered.is_none_or(|answer| answer.is_ok()));
    }
    assert!(matches!(commit(&*store, vec![Write::create(key("last"), "")]).await[..], [Outcome::Done(_)]));
    let (objects, head) = load(&*store).await;
    assert_eq!(objects.len() as u64, head.0, "every revision made one object");
    for parts in objects.chunk_by(|a, b| writer_of(a.key.name()) == writer_of(b.key.name())) {
        assert!(parts.len() == 5 || parts[0].key.name() == "last", "half a batch: {parts:?}");
    }
}
