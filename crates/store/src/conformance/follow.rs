//! Following: no gap, no duplicate, no disorder, and an honest end.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use meta::Revision;

use super::{Home, bytes, commit, fill, key, open};
use crate::{Change, Error, Store, Write};

fn change(revision: u64) -> Change {
    let value = Some(bytes(&revision.to_string()));
    Change { revision: Revision(revision), key: key(&format!("k{}", revision % 10)), value }
}

async fn take(store: &dyn Store, after: u64, count: usize) -> Vec<Change> {
    store.follow(Revision(after)).take(count).try_collect().await.expect("follow")
}

fn is_compacted(item: Option<Result<Change, Error>>, asked: u64, compacted: u64) -> bool {
    matches!(item, Some(Err(Error::Compacted { asked: a, compacted: c })) if (a.0, c.0) == (asked, compacted))
}

/// From every start, exactly what comes after it, deletes included.
pub async fn follow_from_every_revision(home: &dyn Home) {
    let store = open(home).await;
    fill(&*store, 1, 20).await;
    commit(&*store, vec![Write::delete(key("k3"), Revision(13))]).await;
    for after in 0..=20 {
        let mut expected: Vec<Change> = (after + 1..=20).map(change).collect();
        expected.push(Change { revision: Revision(21), key: key("k3"), value: None });
        assert_eq!(take(&*store, after, expected.len()).await, expected, "after {after}");
    }
}

/// The same stream goes from history to what is committed later, without an end in between.
pub async fn follow_goes_on_live(home: &dyn Home) {
    let store = open(home).await;
    fill(&*store, 1, 5).await;
    let mut following = store.follow(Revision(2));
    for revision in 3..=5 {
        assert_eq!(following.next().await.unwrap().unwrap(), change(revision));
    }
    for revision in 6..=40 {
        assert!(following.next().now_or_never().is_none(), "{revision} before it was committed");
        fill(&*store, revision, revision).await;
        assert_eq!(following.next().await.unwrap().unwrap(), change(revision));
    }
    let batch = (41..=300).map(|i| Write::put(key(&format!("k{}", i % 10)), i.to_string())).collect();
    commit(&*store, batch).await;
    let rest: Vec<_> = following.take(260).try_collect().await.unwrap();
    assert_eq!(rest, (41..=300).map(change).collect::<Vec<_>>());
}

/// A start beyond the newest revision delivers nothing until the store gets there.
pub async fn follow_from_the_future_waits(home: &dyn Home) {
    let store = open(home).await;
    fill(&*store, 1, 2).await;
    let mut following = store.follow(Revision(5));
    assert!(following.next().now_or_never().is_none());
    fill(&*store, 3, 6).await;
    assert_eq!(following.next().await.unwrap().unwrap(), change(6));
}

/// Followers that start at any time during concurrent commits see each later change once, in order.
pub async fn followers_see_each_change_once(home: &dyn Home) {
    const WRITERS: u64 = 8;
    const BATCHES: u64 = 40;
    const TOTAL: u64 = WRITERS * BATCHES * 3;
    let store = open(home).await;
    let follow = |after: u64| {
        let store: Arc<dyn Store> = store.clone();
        tokio::spawn(async move {
            let seen = take(&*store, after, usize::try_from(TOTAL - after).unwrap()).await;
            assert!(seen.iter().map(|change| change.revision.0).eq(after + 1..=TOTAL));
            seen
        })
    };
    let mut followers = vec![follow(0)];
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for batch in 0..BATCHES {
                    let write = |i| Write::put(key(&format!("{writer}-{i}")), batch.to_string());
                    commit(&*store, (0..3).map(write).collect()).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
        followers.push(follow(store.head().await.unwrap().revision.0));
    }
    let mut all: Vec<Vec<Change>> = Vec::new();
    for follower in followers {
        all.push(follower.await.unwrap());
    }
    for seen in &all[1..] {
        assert!(all[0].ends_with(seen), "two followers saw different histories");
    }
}

/// A follower from before the kept history is told so, then the stream ends. What it had read ahead
/// it may deliver, but that is bounded: here are 2.4 MB.
pub async fn follow_ends_when_compacted(home: &dyn Home) {
    let value = |revision: u64| Bytes::from(format!("{revision:04096}"));
    let store = open(home).await;
    for revision in 1..=600 {
        commit(&*store, vec![Write::put(key("a"), value(revision))]).await;
    }
    let mut behind = store.follow(Revision(0));
    let mut delivered = 0;
    let end = loop {
        match behind.next().await {
            Some(Ok(Change { revision, key: _, value: found })) => {
                delivered += 1;
                assert_eq!((revision, found), (Revision(delivered), Some(value(delivered))));
            }
            end => break end,
        }
        if delivered == 1 {
            store.compact(Revision(590)).await.unwrap();
        }
    };
    assert!(is_compacted(end, delivered, 590), "after {delivered}");
    assert!(behind.next().await.is_none());
    assert!(is_compacted(store.follow(Revision(589)).next().await, 589, 590));
    let kept: Vec<u64> = take(&*store, 590, 10).await.iter().map(|change| change.revision.0).collect();
    assert_eq!(kept, (591..=600).collect::<Vec<_>>());
}

/// Compaction never goes back, and never beyond what is there.
pub async fn compaction_has_bounds(home: &dyn Home) {
    let store = open(home).await;
    store.compact(Revision(10)).await.unwrap();
    assert_eq!(store.head().await.unwrap().compacted, Revision(0));
    fill(&*store, 1, 20).await;
    for (through, compacted) in [(15, 15), (3, 15), (0, 15), (99, 20)] {
        store.compact(Revision(through)).await.unwrap();
        assert_eq!(store.head().await.unwrap().compacted, Revision(compacted), "through {through}");
    }
    let mut following = store.follow(Revision(20));
    fill(&*store, 21, 21).await;
    assert_eq!(following.next().await.unwrap().unwrap(), change(21));
}

/// A follower that is not read holds up neither commits nor other followers nor the end.
pub async fn a_slow_follower_delays_nobody(home: &dyn Home) {
    let store = open(home).await;
    let mut slow = store.follow(Revision(0));
    assert!(slow.next().now_or_never().is_none());
    fill(&*store, 1, 700).await;
    assert_eq!(take(&*store, 0, 700).await.len(), 700);
    assert_eq!(slow.next().await.unwrap().unwrap(), change(1));
    drop(slow);
    fill(&*store, 701, 701).await;
}

/// History from before reopening and changes from after it make one stream.
pub async fn follow_after_reopening(home: &dyn Home) {
    let store = open(home).await;
    fill(&*store, 1, 300).await;
    drop(store);
    let store = open(home).await;
    let mut following = store.follow(Revision(250));
    for revision in 251..=300 {
        assert_eq!(following.next().await.unwrap().unwrap(), change(revision));
    }
    fill(&*store, 301, 302).await;
    assert_eq!(following.next().await.unwrap().unwrap(), change(301));
    assert_eq!(following.next().await.unwrap().unwrap(), change(302));
}
