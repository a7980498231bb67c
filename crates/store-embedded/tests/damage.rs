//! Directories that are not as they were left: each is refused with an error that names the file and
//! says what to do, and is not changed; only what was never acknowledged is cut off.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use futures::TryStreamExt;
use store::{Error, Key, Loaded, Store, Write};
use store_embedded::EmbeddedStore;
use tempfile::TempDir;

const COMMITS: u64 = 20;
const FIRST: &str = "0000000000000001.log";

fn run<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(task)
}

fn key(number: u64) -> Key {
    Key::parse(&format!("core/configmaps/default/k{number}")).unwrap()
}

fn fill(directory: &Path, commits: u64, size: usize) {
    run(async {
        let store = EmbeddedStore::open(directory).unwrap();
        let from = store.head().await.unwrap().revision.0;
        for number in from..from + commits {
            store.commit(vec![Write::put(key(number), vec![b'v'; size])]).await.unwrap();
        }
    });
}

fn count(directory: &Path) -> u64 {
    run(async {
        let store = EmbeddedStore::open(directory).unwrap();
        let items: Vec<Loaded> = store.load().try_collect().await.unwrap();
        items.len() as u64 - 1
    })
}

/// A store of 20 objects of 2,000 bytes, left as a crash leaves it: the manifest is that of an
/// earlier moment.
fn crashed() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 1, 2000);
    let manifest = fs::read(directory.path().join("manifest")).unwrap();
    fill(directory.path(), COMMITS - 1, 2000);
    fs::write(directory.path().join("manifest"), manifest).unwrap();
    directory
}

fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| !path.ends_with("lock")).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Changes a file and gives the error with which the store then refuses to open.
fn refused(directory: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> Error {
    let path = directory.join(file);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    let before = content(directory);
    let error = EmbeddedStore::open(directory).map(drop).expect_err("damage went unnoticed");
    assert_eq!(content(directory), before, "a refused directory was changed");
    error
}

fn check_damaged(error: &Error, file: &str) {
    let Error::Damaged { path, .. } = error else { panic!("{error:?}") };
    assert!(path.ends_with(file), "{error}");
    assert!(error.to_string().contains("backup"), "{error}");
}

#[test]
fn a_changed_byte_anywhere_in_the_log_is_refused() {
    let length = fs::read(crashed().path().join(FIRST)).unwrap().len();
    // Header of the segment, header, key and value of a frame, the last frame, the last byte.
    for at in [0, 9, 17, 31, 32, 36, 40, 45, 50, 70, 500, length / 2, length - 2000, length - 1] {
        let directory = crashed();
        let error = refused(directory.path(), FIRST, |bytes| bytes[at] ^= 0x10);
        check_damaged(&error, FIRST);
    }
}

#[test]
fn an_end_that_was_never_acknowledged_is_cut_off() {
    let whole = fs::read(crashed().path().join(FIRST)).unwrap().len();
    let frame = 2000 + 16 + 14 + "core/configmaps/default/k19".len();
    // The last frame is missing a byte, all but a byte of its header, or half; or its end, or all of
    // it, reached the file's length but not the disk.
    let cut = |to: usize| move |bytes: &mut Vec<u8>| bytes.truncate(to);
    let zero = |from: usize| move |bytes: &mut Vec<u8>| bytes[from..].fill(0);
    type Change = Box<dyn FnOnce(&mut Vec<u8>)>;
    let changes: Vec<Change> = vec![
        Box::new(cut(whole - 1)),
        Box::new(cut(whole - frame + 1)),
        Box::new(cut(whole - frame / 2)),
        Box::new(zero(whole - 600)),
        Box::new(zero(whole - frame)),
    ];
    for change in changes {
        let directory = crashed();
        let path = directory.path().join(FIRST);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        assert_eq!(count(directory.path()), COMMITS - 1);
        fill(directory.path(), 3, 100);
        assert_eq!(count(directory.path()), COMMITS + 2);
    }
}

#[test]
fn an_end_that_was_acknowledged_is_missed() {
    // After a clean stop the manifest knows how long the log was.
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), COMMITS, 100);
    let error = refused(directory.path(), FIRST, |bytes| bytes.truncate(bytes.len() - 20));
    check_damaged(&error, FIRST);
    assert!(error.to_string().contains("shorter"), "{error}");
}

#[test]
fn a_missing_segment_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 40, 1 << 20);
    for file in [FIRST, "0000000000000002.log", "0000000000000003.log"] {
        let path = directory.path().join(file);
        let away = directory.path().join("away");
        fs::rename(&path, &away).unwrap();
        check_damaged(&EmbeddedStore::open(directory.path()).map(drop).unwrap_err(), file);
        fs::rename(&away, &path).unwrap();
    }
    // One in place of another.
    fs::copy(directory.path().join(FIRST), directory.path().join("0000000000000002.log")).unwrap();
    check_damaged(&EmbeddedStore::open(directory.path()).map(drop).unwrap_err(), "0000000000000002.log");
}

#[test]
fn the_manifest_is_checked() {
    let directory = crashed();
    check_damaged(&refused(directory.path(), "manifest", |bytes| bytes.reverse()), "manifest");
    let directory = crashed();
    let last = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() = b' ';
    check_damaged(&refused(directory.path(), "manifest", last), "manifest");
    let directory = crashed();
    check_damaged(&refused(directory.path(), "manifest", Vec::clear), "manifest");
    let directory = crashed();
    fs::remove_file(directory.path().join("manifest")).unwrap();
    check_damaged(&EmbeddedStore::open(directory.path()).map(drop).unwrap_err(), "manifest");
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let directory = crashed();
    let error = refused(directory.path(), "manifest", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap().replace("format 1 ", "format 7 ");
        *bytes = text.into_bytes();
    });
    assert!(matches!(error, Error::NewerFormat { found: 7, supported: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("newer release"), "{error}");
}

#[test]
fn a_second_opening_names_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).unwrap();
    let error = EmbeddedStore::open(directory.path()).map(drop).unwrap_err();
    let Error::Locked { holder, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*holder, format!("pid {}", std::process::id()));
    drop(store);
    EmbeddedStore::open(directory.path()).unwrap();
}

#[test]
fn leftovers_of_a_crash_are_tidied_up() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 40, 1 << 20);
    let names =
        || fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    let before = names().len();
    // A segment that was begun, and an old one whose removal was interrupted.
    let last = names().into_iter().filter_map(|n| n.into_string().ok()).filter(|n| n.ends_with(".log")).max();
    let number: u64 = last.unwrap().trim_end_matches(".log").parse().unwrap();
    let begun = directory.path().join(format!("{:016}.log", number + 1));
    fs::write(&begun, []).unwrap();
    fs::write(directory.path().join("0000000000000000.log"), [7; 100]).unwrap();
    assert_eq!(count(directory.path()), 40);
    assert_eq!(names().len(), before + 1, "the begun segment is reused, the old one is gone");
    fill(directory.path(), 40, 1 << 20);
    assert_eq!(count(directory.path()), 80);
    // But one with content that the manifest does not know is somebody's data.
    let stray = directory.path().join("0000000000000099.log");
    fs::write(&stray, [7; 100]).unwrap();
    check_damaged(&EmbeddedStore::open(directory.path()).map(drop).unwrap_err(), "0000000000000099.log");
}

#[test]
fn the_directory_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a/store");
    fill(&directory, 1, 10);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for path in content(&directory).keys() {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
}
