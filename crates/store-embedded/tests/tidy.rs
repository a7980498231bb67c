//! Old segments are copied and removed while the store works: no object, delete or kept change may
//! be lost or come back by it, whenever the store is opened again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use meta::Revision;
use store::{Change, Key, Loaded, Outcome, Store, Write};
use store_embedded::EmbeddedStore;

const KIB: usize = 1024;

type Objects = BTreeMap<Key, (Bytes, u64)>;

fn run<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(task)
}

fn key(name: &str) -> Key {
    Key::parse(&format!("core/configmaps/default/{name}")).unwrap()
}

/// A store and what must be in it.
struct Checked {
    store: EmbeddedStore,
    objects: Objects,
    revision: u64,
}

impl Checked {
    fn open(directory: &Path) -> Self {
        Self { store: EmbeddedStore::open(directory).unwrap(), objects: Objects::new(), revision: 0 }
    }

    async fn commit(&mut self, writes: Vec<Write>) {
        for Write { key, value, expect: _ } in &writes {
            self.revision += 1;
            match value {
                Some(value) => self.objects.insert(key.clone(), (value.clone(), self.revision)),
                None => self.objects.remove(key),
            };
        }
        let outcomes = self.store.commit(writes).await.unwrap();
        assert_eq!(outcomes.last(), Some(&Outcome::Done(Revision(self.revision))));
    }

    /// 64 KiB that the next call replaces.
    async fn churn(&mut self, round: usize) {
        let value = vec![b'0' + u8::try_from(round % 10).unwrap(); 8 * KIB];
        self.commit((0..8).map(|i| Write::put(key(&format!("hot{i}")), value.clone())).collect()).await;
    }

    async fn check(&self) {
        let mut found = Objects::new();
        let items: Vec<Loaded> = self.store.load().try_collect().await.unwrap();
        for item in items {
            match item {
                Loaded::Object(o) => assert!(found.insert(o.key, (o.value, o.revision.0)).is_none()),
                Loaded::At(at) => assert_eq!(at.0, self.revision),
            }
        }
        assert!(found == self.objects, "objects differ at {}", self.revision);
        let head = self.store.head().await.unwrap();
        let kept = usize::try_from(head.revision.0 - head.compacted.0).unwrap();
        let history: Vec<Change> = self.store.follow(head.compacted).take(kept).try_collect().await.unwrap();
        assert!(history.iter().map(|change| change.revision.0).eq(head.compacted.0 + 1..=self.revision));
        let clash = self.store.commit(vec![Write::create(key("cold1"), "")]).await.unwrap();
        let Outcome::Clash(Some(cold)) = &clash[0] else { panic!("{clash:?}") };
        assert_eq!((cold.value.clone(), cold.revision.0), self.objects[&key("cold1")]);
    }

    fn reopen(self, directory: &Path) -> Self {
        let Self { store, objects, revision } = self;
        drop(store);
        Self { store: EmbeddedStore::open(directory).unwrap(), objects, revision }
    }
}

fn segments(directory: &Path) -> Vec<u64> {
    let names =
        std::fs::read_dir(directory).unwrap().filter_map(|e| e.unwrap().file_name().into_string().ok());
    let mut all: Vec<u64> = names.filter_map(|n| n.strip_suffix(".log")?.parse().ok()).collect();
    all.sort_unstable();
    all
}

#[test]
fn cold_objects_and_deletes_survive_the_removal_of_their_segments() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    run(async {
        let mut checked = Checked::open(at);
        // 4 MB that are never touched again, 1 MB that is deleted later, in the first segment.
        let put = |name: String| Write::put(key(&name), name.clone().repeat(KIB / name.len()));
        checked.commit((0..4000).map(|i| put(format!("cold{i}"))).collect()).await;
        checked.commit((0..1000).map(|i| put(format!("gone{i}"))).collect()).await;
        let mut deleted = 0;
        let mut oldest = Vec::new();
        for round in 0..2400 {
            checked.churn(round).await;
            if round % 4 == 0 && deleted < 500 {
                let write =
                    Write { key: key(&format!("gone{deleted}")), expect: store::Expect::Any, value: None };
                checked.commit(vec![write]).await;
                deleted += 1;
            }
            if round % 200 == 199 {
                checked.store.compact(Revision(checked.revision - 100)).await.unwrap();
                checked.check().await;
                oldest.push(segments(at)[0]);
            }
            if round % 600 == 599 {
                checked = checked.reopen(at);
                checked.check().await;
            }
        }
        // 150 MB were written: the log wrapped around several times, cold objects moving along.
        assert!(oldest.windows(2).all(|pair| pair[0] <= pair[1]), "{oldest:?}");
        assert!(*oldest.last().unwrap() >= 4, "no segment was ever removed: {oldest:?}");
        let bytes: u64 =
            segments(at).iter().map(|n| at.join(format!("{n:016}.log")).metadata().unwrap().len()).sum();
        assert!(bytes < 64 << 20, "{bytes} bytes for 5 MB of objects");
        checked.reopen(at).check().await;
    });
}

#[test]
fn readers_go_on_while_segments_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let mut checked = Checked::open(directory.path());
        checked.commit((0..2000).map(|i| Write::put(key(&format!("cold{i}")), vec![7; KIB])).collect()).await;
        for round in 0..300 {
            checked.churn(round).await;
        }
        let Checked { store, objects, mut revision } = checked;
        let (at, oldest) = (revision, segments(directory.path())[0]);
        // Reading has begun, so the moment is fixed; then everything that is read from is replaced.
        let mut loading = store.load();
        let first = loading.next().await.unwrap().unwrap();
        for round in 0..900 {
            let value = vec![b'a' + u8::try_from(round % 10).unwrap(); 8 * KIB];
            let write = |i| Write::put(key(&format!("hot{i}")), value.clone());
            store.commit((0..8).map(write).collect()).await.unwrap();
            revision += 8;
            if round % 100 == 99 {
                store.compact(Revision(revision)).await.unwrap();
            }
        }
        assert!(segments(directory.path())[0] > oldest, "no segment was removed meanwhile");
        let mut found = Objects::new();
        let rest: Vec<Loaded> = loading.try_collect().await.unwrap();
        for item in std::iter::once(first).chain(rest) {
            match item {
                Loaded::Object(o) => drop(found.insert(o.key, (o.value, o.revision.0))),
                Loaded::At(revision) => assert_eq!(revision.0, at),
            }
        }
        assert!(found == objects, "the load does not show the moment it began");
    });
}
