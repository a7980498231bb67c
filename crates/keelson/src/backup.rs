//! `keelson backup`, `restore` and `migrate`: everything that a store holds, as one snapshot at one revision.
//!
//! A backup is whole or not there: it is written beside its name, read back, and then named. A restore reads
//! its file to the end before it touches the store, and fills only an empty one.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt as _;
use meta::{Random, Revision};
use store::{
    Loaded, Store,
    backup::{BackupError, Decoder, Encoder},
};

use crate::{
    cli::{BackupOptions, MigrateOptions, RestoreOptions},
    clock::Dice,
    data_dir::DataDir,
    error::Failure,
    parts,
    place::Place,
    term,
};

fn chance() -> Arc<dyn Random> {
    Arc::new(Dice::new())
}

/// What a file holds.
struct Contents {
    objects: u64,
    revision: Revision,
}

pub(crate) async fn backup(options: BackupOptions) -> Result<(), Failure> {
    let BackupOptions { file, data, store, kubeconfig } = options;
    if file.exists() {
        return Err(Failure::new(format!("{} exists already", file.display())).advise("name a new file"));
    }
    let aside = aside(&file);
    let written = match (&kubeconfig, &store) {
        (Some(kubeconfig), _) => download(kubeconfig, &aside).await,
        (None, Some(store)) => copy(&Place::parse(store)?, &aside).await,
        (None, None) => {
            let data = DataDir::locate(&data)?;
            match data.running() {
                // Its store is in use: it gives the snapshot itself.
                Some(_) => download(&data.kubeconfig(), &aside).await,
                None => copy(&Place::Directory(data.store()), &aside).await,
            }
        }
    };
    let checked = match written {
        Ok(()) => check(aside.clone()).await,
        Err(failure) => Err(failure),
    };
    let named = checked.and_then(|contents| {
        let renamed = fs::rename(&aside, &file).and_then(|()| sync_parent(&file));
        renamed.map(|()| contents).map_err(|error| Failure::of(format!("write {}", file.display()), error))
    });
    if named.is_err() {
        // Half a backup is none.
        drop(fs::remove_file(&aside));
    }
    let Contents { objects, revision } = named?;
    term::line(&format!("{objects} objects at revision {revision} in {}", file.display()));
    term::line("keep it with the authority (the pki directory): a cluster needs both");
    Ok(())
}

pub(crate) async fn restore(options: RestoreOptions) -> Result<(), Failure> {
    let RestoreOptions { file, data, store } = options;
    let place = match &store {
        Some(store) => Place::parse(store)?,
        None => {
            let data = DataDir::locate(&data)?;
            data.prepare()?;
            Place::Directory(data.store())
        }
    };
    let Contents { objects, .. } = check(file.clone()).await?;
    let from = BufReader::new(open(&file)?);
    // It was read to its end just now; what is wrong by now stops the import, which then has no effect.
    let items = Decoder::new(from).map(|item| {
        item.map_err(|error| store::Error::Backend { doing: "read the backup", source: Arc::new(error) })
    });
    let revision = place.import(stream::iter(items).boxed(), &chance()).await?;
    term::line(&format!("{objects} objects at revision {revision} restored into {}", place.shown()));
    Ok(())
}

pub(crate) async fn migrate(options: MigrateOptions) -> Result<(), Failure> {
    let MigrateOptions { from, to } = options;
    let (from, to) = (Place::parse(&from)?, Place::parse(&to)?);
    let random = chance();
    let source = from.open_alone(&random).await?;
    let mut objects: u64 = 0;
    let counted = source.load().inspect_ok(|item| objects += u64::from(matches!(item, Loaded::Object(_))));
    let revision = to.import(counted.boxed(), &random).await?;
    term::line(&format!(
        "{objects} objects at revision {revision} moved from {} to {}",
        from.shown(),
        to.shown()
    ));
    term::line("the old store is as it was: start servers on the new one only");
    Ok(())
}

fn aside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn open(file: &Path) -> Result<File, Failure> {
    File::open(file).map_err(|error| Failure::of(format!("open {}", file.display()), error))
}

/// For its owner only: it holds every Secret.
fn create(file: &Path) -> Result<BufWriter<File>, Failure> {
    let made = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(file);
    made.map(BufWriter::new).map_err(|error| Failure::of(format!("create {}", file.display()), error))
}

fn finish(mut out: BufWriter<File>, file: &Path) -> Result<(), Failure> {
    let synced = out.flush().and_then(|()| out.get_ref().sync_all());
    synced.map_err(|error| Failure::of(format!("write {}", file.display()), error))
}

fn sync_parent(file: &Path) -> std::io::Result<()> {
    match file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// From a store that can be opened beside whoever else uses it.
async fn copy(place: &Place, file: &Path) -> Result<(), Failure> {
    if let Place::Directory(path) = place
        && !path.join("manifest").exists()
    {
        return Err(Failure::new(format!("there is no store in {}", path.display()))
            .advise("name one with --data-dir DIR or --store STORE"));
    }
    let store: Arc<dyn Store> = place.open(&chance()).await?;
    let mut out = create(file)?;
    let (mut encoder, mut items) = (Encoder::default(), store.load());
    while let Some(item) = items.next().await {
        let item = item.map_err(|error| Failure::of(format!("read {}", place.shown()), error))?;
        let written = out.write_all(&encoder.encode(&item));
        written.map_err(|error| Failure::of(format!("write {}", file.display()), error))?;
    }
    finish(out, file)
}

/// From a running API server.
async fn download(kubeconfig: &Path, file: &Path) -> Result<(), Failure> {
    let client = parts::client(kubeconfig).await?;
    let failed = |error: kube::Error| Failure::of("ask the API server for a backup", error);
    let request = http::Request::get(apiserver::http::BACKUP_PATH).body(kube::client::Body::empty());
    let request = request.map_err(|error| Failure::of("ask for a backup", error))?;
    let response = client.send(request).await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(Failure::new(format!("the API server gives no backup: {}", response.status())).advise(
            "it needs a keelson server, and an identity of the group system:masters such as admin.kubeconfig",
        ));
    }
    let mut out = create(file)?;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(failed)?;
        if let Ok(bytes) = frame.into_data() {
            out.write_all(&bytes).map_err(|error| Failure::of(format!("write {}", file.display()), error))?;
        }
    }
    finish(out, file)
}

/// Reads a file to its end.
async fn check(file: PathBuf) -> Result<Contents, Failure> {
    let shown = file.display().to_string();
    let from = BufReader::new(open(&file)?);
    let read = move || {
        let mut objects = 0;
        for item in Decoder::new(from) {
            match item? {
                Loaded::Object(_) => objects += 1,
                Loaded::At(revision) => return Ok(Contents { objects, revision }),
            }
        }
        Err(BackupError::Truncated { objects })
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|error| Failure::of(format!("read {shown}"), error))?.map_err(|error| {
        Failure::of(format!("read {shown}"), error).advise("nothing was changed; use another backup")
    })
}

#[cfg(test)]
mod tests {
    use meta::Revision;
    use store::{Key, Write};
    use store_embedded::EmbeddedStore;

    use super::*;

    async fn contents(store: &dyn Store) -> Vec<Loaded> {
        let mut items: Vec<Loaded> = store.load().try_collect().await.unwrap();
        items.sort_by_key(|item| match item {
            Loaded::Object(object) => object.revision,
            Loaded::At(_) => Revision(u64::MAX),
        });
        items
    }

    async fn fill(path: &Path) -> Vec<Loaded> {
        let store = EmbeddedStore::open(path).unwrap();
        for at in 0..40 {
            let key = Key::parse(&format!("core/configmaps/default/c{}", at % 25)).unwrap();
            store.commit(vec![Write::put(key, vec![at; 1000])]).await.unwrap();
        }
        let key = Key::parse("core/configmaps/default/c3").unwrap();
        let gone = Write { key, expect: store::Expect::Any, value: None };
        store.commit(vec![gone]).await.unwrap();
        contents(&store).await
    }

    fn backup_of(data: &Path, file: &Path) -> BackupOptions {
        let store = Some(data.display().to_string());
        let data = crate::cli::DataDir { data_dir: None };
        BackupOptions { file: file.to_owned(), data, store, kubeconfig: None }
    }

    fn restore_to(file: &Path, data: &Path) -> RestoreOptions {
        let data = crate::cli::DataDir { data_dir: Some(data.to_owned()) };
        RestoreOptions { file: file.to_owned(), data, store: None }
    }

    #[tokio::test]
    async fn a_backup_restores_at_its_revisions_and_only_into_what_is_empty() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let before = fill(&at("a/store")).await;
        backup(backup_of(&at("a"), &at("file"))).await.unwrap();
        let again = backup(backup_of(&at("a"), &at("file"))).await;
        assert!(again.unwrap_err().to_string().contains("exists already"));
        restore(restore_to(&at("file"), &at("b"))).await.unwrap();
        let restored = EmbeddedStore::open(at("b/store")).unwrap();
        assert_eq!(contents(&restored).await, before);
        let head = restored.head().await.unwrap();
        assert_eq!((head.revision, head.compacted), (Revision(41), Revision(41)));
        let key = Key::parse("core/configmaps/default/new").unwrap();
        let done = restored.commit(vec![Write::create(key, "x")]).await.unwrap();
        assert_eq!(done, [store::Outcome::Done(Revision(42))]);
        drop(restored);
        // What was written after a restore is there after another start.
        assert_eq!(EmbeddedStore::open(at("b/store")).unwrap().head().await.unwrap().revision, Revision(42));
        let twice = restore(restore_to(&at("file"), &at("b"))).await;
        assert!(twice.unwrap_err().to_string().contains("is not empty"));
    }

    #[tokio::test]
    async fn a_damaged_backup_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fill(&at("a/store")).await;
        backup(backup_of(&at("a"), &at("file"))).await.unwrap();
        let mut bytes = fs::read(at("file")).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(at("damaged"), &bytes).unwrap();
        fs::write(at("short"), &bytes[..middle]).unwrap();
        for (file, expected) in [("damaged", "damaged after"), ("short", "not complete")] {
            let refused = restore(restore_to(&at(file), &at("c"))).await.unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
            assert!(!at("c/store/manifest").exists());
        }
        restore(restore_to(&at("file"), &at("c"))).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_is_in_use_is_not_moved() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let before = fill(&at("a/store")).await;
        let options = |from: &str, to: &str| MigrateOptions {
            from: at(from).display().to_string(),
            to: at(to).display().to_string(),
        };
        let held = EmbeddedStore::open(at("a/store")).unwrap();
        let refused = migrate(options("a", "b")).await.unwrap_err().to_string();
        assert!(refused.contains("in use by another process"), "{refused}");
        drop(held);
        migrate(options("a", "b")).await.unwrap();
        assert_eq!(contents(&EmbeddedStore::open(at("b/store")).unwrap()).await, before);
        let nothing = migrate(options("nowhere", "c")).await.unwrap_err().to_string();
        assert!(nothing.contains("there is no store"), "{nothing}");
    }
}
