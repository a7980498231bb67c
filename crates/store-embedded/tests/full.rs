//! A full disk, on a small file system of its own. Needs root for the mount, and fails without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use futures::TryStreamExt;
use meta::Revision;
use store::{Error, Key, Loaded, Outcome, Result, Store, Write};
use store_embedded::EmbeddedStore;
use tempfile::TempDir;

/// A file system of some megabytes in memory.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Self {
        let at = tempfile::tempdir().unwrap();
        let options = format!("size={megabytes}m,mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "store-test"])
            .arg(at.path())
            .stdin(Stdio::null())
            .output()
            .expect("run mount");
        assert!(
            mounted.status.success(),
            "this test needs root: {}",
            String::from_utf8_lossy(&mounted.stderr)
        );
        Self(at)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "umount");
    }
}

fn run<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(task)
}

fn batch(number: u64) -> Vec<Write> {
    let write = |part| {
        let key = Key::parse(&format!("core/configmaps/default/k{number}-{part}")).unwrap();
        Write::put(key, vec![b'x'; 1000])
    };
    (0..64).map(write).collect()
}

/// Commits batches from `number` on until one fails; gives the number of that one and its error.
async fn fill(store: &EmbeddedStore, mut number: u64) -> (u64, Error) {
    loop {
        match store.commit(batch(number)).await {
            Ok(_) => number += 1,
            Err(error) => return (number, error),
        }
    }
}

async fn count(store: &EmbeddedStore) -> Result<(u64, u64)> {
    let items: Vec<Loaded> = store.load().try_collect().await?;
    Ok((items.len() as u64 - 1, store.head().await?.revision.0))
}

#[test]
fn a_full_disk_refuses_whole_batches_until_there_is_space() {
    let disk = SmallDisk::mount(40);
    let (directory, ballast) = (disk.path().join("store"), disk.path().join("ballast"));
    fs::write(&ballast, vec![1; 4 << 20]).unwrap();
    run(async {
        let store = EmbeddedStore::open(&directory).unwrap();
        let (full, error) = fill(&store, 0).await;
        assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
        assert!(error.to_string().contains("free some space"), "{error}");
        assert!(full > 200, "only {full} batches fit");
        // Nothing half-applied, reads work, and it goes on refusing.
        assert_eq!(count(&store).await.unwrap(), (full * 64, full * 64));
        let again = store.commit(batch(full)).await;
        assert!(matches!(again, Err(Error::DiskFull { .. })), "{again:?}");
        drop(store);

        // It opens on a full disk, for reading.
        let store = EmbeddedStore::open(&directory).unwrap();
        assert_eq!(count(&store).await.unwrap(), (full * 64, full * 64));

        // With space back, the same handle commits on, without a gap.
        fs::remove_file(&ballast).unwrap();
        let outcomes = store.commit(batch(full)).await.unwrap();
        assert_eq!(outcomes.first(), Some(&Outcome::Done(Revision(full * 64 + 1))));
        let (later, error) = fill(&store, full + 1).await;
        assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
        assert!(later > full + 40, "the space that came back was not used");
        drop(store);

        let store = EmbeddedStore::open(&directory).unwrap();
        assert_eq!(count(&store).await.unwrap(), (later * 64, later * 64));
    });
}

/// What fills the disk is garbage of the store itself: compaction gives it back.
#[test]
fn compaction_makes_space() {
    let disk = SmallDisk::mount(96);
    run(async {
        let store = EmbeddedStore::open(disk.path().join("store")).unwrap();
        let rewrite = || (0..).map(|_| batch(0));
        let mut revision = 0;
        for batch in rewrite().take(4000) {
            // 4000 batches are 260 MB, of which 64 KB live.
            store.commit(batch).await.unwrap();
            revision += 64;
            if revision % (64 * 100) == 0 {
                store.compact(Revision(revision - 640)).await.unwrap();
            }
        }
        assert_eq!(count(&store).await.unwrap(), (64, revision));
    });
}
