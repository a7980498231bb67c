//! Load, commit, compact and reopening, one caller at a time.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use meta::Revision;

use super::{Home, bytes, commit, done, fill, key, load, open, stored};
use crate::{BATCH_WRITES_MAX, Error, Expect, Head, KEY_BYTES_MAX, Loaded, Outcome, VALUE_BYTES_MAX, Write};

/// A new store is empty and stands at revision 0.
pub async fn begins_empty(home: &dyn Home) {
    let store = open(home).await;
    assert_eq!(load(&*store).await, (vec![], Revision(0)));
    let Head { revision, epoch, compacted } = store.head().await.unwrap();
    assert_eq!((revision, compacted), (Revision(0), Revision(0)));
    assert!(epoch > 0, "0 is no epoch");
}

/// Create, update, delete and create again, each at the next revision.
pub async fn writes_and_revisions(home: &dyn Home) {
    let store = open(home).await;
    assert_eq!(commit(&*store, vec![Write::create(key("a"), bytes("1"))]).await, [done(1)]);
    assert_eq!(commit(&*store, vec![Write::update(key("a"), Revision(1), bytes("2"))]).await, [done(2)]);
    assert_eq!(load(&*store).await, (vec![stored("a", "2", 2)], Revision(2)));
    assert_eq!(commit(&*store, vec![Write::delete(key("a"), Revision(2))]).await, [done(3)]);
    assert_eq!(load(&*store).await, (vec![], Revision(3)));
    assert_eq!(commit(&*store, vec![Write::create(key("a"), bytes("3"))]).await, [done(4)]);
    assert_eq!(load(&*store).await, (vec![stored("a", "3", 4)], Revision(4)));
    assert_eq!(store.head().await.unwrap().revision, Revision(4));
}

/// Every expectation against every state of a key.
pub async fn expectations(home: &dyn Home) {
    let store = open(home).await;
    let there = stored("there", "v", 1);
    commit(&*store, vec![Write::put(key("there"), bytes("v"))]).await;
    let clash = |name: &str| Outcome::Clash((name == "there").then(|| there.clone()));
    for (name, expect, delete) in [
        ("there", Expect::Absent, false),
        ("there", Expect::Absent, true),
        ("there", Expect::At(Revision(0)), false),
        ("there", Expect::At(Revision(2)), false),
        ("there", Expect::At(Revision(2)), true),
        ("gone", Expect::At(Revision(1)), false),
        ("gone", Expect::At(Revision(1)), true),
        ("gone", Expect::At(Revision(0)), true),
        ("gone", Expect::Any, true),
        ("gone", Expect::Absent, true),
    ] {
        let value = (!delete).then(|| bytes("new"));
        let outcome = commit(&*store, vec![Write { key: key(name), expect, value }]).await;
        assert_eq!(outcome, [clash(name)], "{name} {expect:?} delete={delete}");
        assert_eq!(load(&*store).await, (vec![there.clone()], Revision(1)));
    }
    let delete_any = Write { key: key("there"), expect: Expect::Any, value: None };
    assert_eq!(commit(&*store, vec![delete_any]).await, [done(2)]);
    assert_eq!(load(&*store).await, (vec![], Revision(2)));
}

/// A write in a batch sees the ones before it.
pub async fn a_batch_sees_itself(home: &dyn Home) {
    let store = open(home).await;
    let outcomes = commit(
        &*store,
        vec![
            Write::create(key("a"), bytes("1")),
            Write::create(key("a"), bytes("2")),
            Write::update(key("a"), Revision(1), bytes("3")),
            Write::update(key("a"), Revision(1), bytes("4")),
            Write::delete(key("a"), Revision(2)),
            Write::delete(key("a"), Revision(2)),
            Write::create(key("a"), bytes("5")),
        ],
    )
    .await;
    let clash = |value, revision| Outcome::Clash(Some(stored("a", value, revision)));
    let expected = [done(1), clash("1", 1), done(2), clash("3", 2), done(3), Outcome::Clash(None), done(4)];
    assert_eq!(outcomes, expected);
    assert_eq!(load(&*store).await, (vec![stored("a", "5", 4)], Revision(4)));
}

/// A batch of nothing but clashes leaves the revision where it was.
pub async fn clashes_take_no_revision(home: &dyn Home) {
    let store = open(home).await;
    fill(&*store, 1, 3).await;
    let outcomes = commit(
        &*store,
        vec![Write::create(key("k1"), bytes("x")), Write::update(key("k2"), Revision(1), bytes("x"))],
    )
    .await;
    let expected = [Outcome::Clash(Some(stored("k1", "1", 1))), Outcome::Clash(Some(stored("k2", "2", 2)))];
    assert_eq!(outcomes, expected);
    assert_eq!(store.head().await.unwrap().revision, Revision(3));
    fill(&*store, 4, 4).await;
}

/// Values are bytes: empty, binary and large ones come back as they were, by load, clash and follow.
pub async fn values_come_back_exactly(home: &dyn Home) {
    let values = [
        Bytes::new(),
        Bytes::from_static(b"\0\xff\xfe\n\r\0"),
        Bytes::from((0..=255).cycle().take(3 << 20).collect::<Vec<u8>>()),
    ];
    let store = open(home).await;
    let writes = values.iter().enumerate().map(|(i, v)| Write::create(key(&i.to_string()), v.clone()));
    commit(&*store, writes.collect()).await;
    let (objects, _) = load(&*store).await;
    let changes: Vec<_> = store.follow(Revision(0)).take(values.len()).try_collect().await.unwrap();
    for (i, value) in values.iter().enumerate() {
        assert!(objects[i].value == value && changes[i].value.as_ref() == Some(value), "value {i}");
        match commit(&*store, vec![Write::create(key(&i.to_string()), "")]).await.as_slice() {
            [Outcome::Clash(Some(found))] => assert!(found.value == value, "value {i} in a clash"),
            other => panic!("{other:?}"),
        }
    }
}

/// No writes, no outcomes, no revision.
pub async fn an_empty_batch_is_nothing(home: &dyn Home) {
    let store = open(home).await;
    assert_eq!(commit(&*store, vec![]).await, []);
    assert_eq!(store.head().await.unwrap().revision, Revision(0));
}

/// A batch beyond a bound is refused with nothing of it applied, and the store works on.
pub async fn too_large_is_refused_whole(home: &dyn Home) {
    let store = open(home).await;
    let huge = vec![
        Write::create(key("small"), bytes("x")),
        Write::create(key("huge"), Bytes::from(vec![0; VALUE_BYTES_MAX + 1])),
    ];
    let many = (0..=BATCH_WRITES_MAX).map(|i| Write::create(key(&i.to_string()), "")).collect();
    let long = vec![Write::create(key(&"k".repeat(KEY_BYTES_MAX)), bytes("x"))];
    for batch in [huge, many, long] {
        let refused = store.commit(batch).await;
        assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
        assert_eq!(load(&*store).await, (vec![], Revision(0)));
    }
    let most = (0..BATCH_WRITES_MAX).map(|i| Write::create(key(&i.to_string()), "")).collect();
    assert_eq!(commit(&*store, most).await.last(), Some(&done(BATCH_WRITES_MAX as u64)));
}

/// The revision comes once, last, also when the newest change was a delete.
pub async fn load_ends_with_its_revision(home: &dyn Home) {
    let store = open(home).await;
    fill(&*store, 1, 25).await;
    commit(&*store, vec![Write::delete(key("k5"), Revision(25))]).await;
    let items: Vec<Loaded> = store.load().try_collect().await.unwrap();
    assert_eq!(items.len(), 10);
    assert_eq!(items.last(), Some(&Loaded::At(Revision(26))));
    assert_eq!(items.iter().filter(|item| matches!(item, Loaded::At(_))).count(), 1);
}

/// A load that is read slowly shows one moment, whatever is committed meanwhile.
pub async fn load_is_one_snapshot(home: &dyn Home) {
    let store = open(home).await;
    let batch = |round: u64| -> Vec<_> {
        (0..2000).map(|i| Write::put(key(&format!("{i:04}")), round.to_string())).collect()
    };
    commit(&*store, batch(1)).await;
    let mut loading = store.load();
    let first = loading.next().await.unwrap().unwrap();
    commit(&*store, batch(2)).await;
    store.compact(Revision(3000)).await.unwrap();
    let mut rest: Vec<Loaded> = loading.try_collect().await.unwrap();
    rest.push(first);
    let revisions: Vec<u64> =
        rest.iter().filter_map(|i| if let Loaded::At(r) = i { Some(r.0) } else { None }).collect();
    let [at @ (2000 | 4000)] = revisions[..] else { panic!("{revisions:?}") };
    let expected = if at == 2000 { "1" } else { "2" };
    assert_eq!(rest.len(), 2001);
    for item in rest {
        if let Loaded::Object(object) = item {
            assert_eq!(object.value, expected, "{} in a load at {at}", object.key);
        }
    }
}

/// Objects, revision and history are there after reopening, and the counter goes on.
pub async fn reopening_finds_everything(home: &dyn Home) {
    let store = open(home).await;
    fill(&*store, 1, 25).await;
    commit(&*store, vec![Write::delete(key("k5"), Revision(25))]).await;
    let (before, head) = (load(&*store).await, store.head().await.unwrap());
    drop(store);

    let store = open(home).await;
    assert_eq!(load(&*store).await, before);
    let Head { revision, epoch, compacted } = store.head().await.unwrap();
    assert_eq!((revision, compacted), (head.revision, head.compacted));
    assert!(epoch >= head.epoch);
    let stale = commit(&*store, vec![Write::update(key("k4"), Revision(14), bytes("x"))]).await;
    assert_eq!(stale, [Outcome::Clash(Some(stored("k4", "24", 24)))]);
    fill(&*store, 27, 30).await;
    drop(store);

    let store = open(home).await;
    assert_eq!(store.head().await.unwrap().revision, Revision(30));
    assert_eq!(load(&*store).await.0.len(), 9);
}

/// What was compacted stays compacted, what was kept stays kept.
pub async fn reopening_after_compaction(home: &dyn Home) {
    let store = open(home).await;
    fill(&*store, 1, 40).await;
    commit(&*store, vec![Write::delete(key("k0"), Revision(40))]).await;
    store.compact(Revision(35)).await.unwrap();
    let before = load(&*store).await;
    drop(store);

    let store = open(home).await;
    assert_eq!(load(&*store).await, before);
    assert_eq!(store.head().await.unwrap().compacted, Revision(35));
    assert!(matches!(store.follow(Revision(34)).next().await, Some(Err(Error::Compacted { .. }))));
    let kept: Vec<_> = store.follow(Revision(35)).take(6).try_collect().await.unwrap();
    assert_eq!(kept.iter().map(|change| change.revision.0).collect::<Vec<_>>(), [36, 37, 38, 39, 40, 41]);
    fill(&*store, 42, 42).await;
    store.compact(Revision(42)).await.unwrap();
    drop(store);

    let store = open(home).await;
    assert_eq!(store.head().await.unwrap().revision, Revision(42));
    fill(&*store, 43, 43).await;
}

/// Compaction takes history, never objects: also those written long before.
pub async fn compaction_keeps_objects(home: &dyn Home) {
    let store = open(home).await;
    commit(&*store, vec![Write::create(key("old"), bytes("v"))]).await;
    fill(&*store, 2, 30).await;
    let before = load(&*store).await;
    for through in [10, 29, 30] {
        store.compact(Revision(through)).await.unwrap();
        assert_eq!(load(&*store).await, before, "after compaction through {through}");
    }
    let outcome = commit(&*store, vec![Write::update(key("old"), Revision(1), bytes("w"))]).await;
    assert_eq!(outcome, [done(31)]);
}
