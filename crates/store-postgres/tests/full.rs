//! No space left at PostgreSQL, for its tables and for its log of writes: the error says so, nothing is half
//! made, nothing acknowledged is lost, and work goes on once there is space. Needs root, to make a small disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{Postgres, config, open, run};
use futures::{StreamExt, TryStreamExt};
use meta::{Random, Revision, Seeded};
use store::{Change, Error, Key, Loaded, Outcome, Store, Write};
use store_postgres::PostgresStore;

/// Enough for what initdb makes, two databases and two segments of the log of writes.
const DISK_MB: u32 = 160;

fn key(name: &str) -> Key {
    Key::parse(&format!("core/configmaps/default/{name}")).unwrap()
}

/// What PostgreSQL cannot make smaller.
fn noise(random: &Seeded) -> String {
    (0..1024).map(|_| random.uuid()).collect()
}

/// Writes one after the other, and what was said to each.
struct Writer<'a> {
    store: &'a PostgresStore,
    random: Seeded,
    tried: u64,
    acknowledged: BTreeMap<u64, (Key, String)>,
}

impl Writer<'_> {
    async fn write(&mut self) -> Result<(), Error> {
        self.tried += 1;
        let (key, value) = (key(&format!("n{}", self.tried)), noise(&self.random));
        let outcome = self.store.commit(vec![Write::create(key.clone(), value.clone())]).await?.remove(0);
        let Outcome::Done(revision) = outcome else { panic!("{outcome:?}") };
        assert!(self.acknowledged.insert(revision.0, (key, value)).is_none(), "{revision:?} was given twice");
        Ok(())
    }

    /// Until one fails.
    async fn until_refused(&mut self) -> Error {
        for _ in 0..1000 {
            if let Err(error) = self.write().await {
                return error;
            }
        }
        panic!("the disk does not get full");
    }

    async fn works(&mut self) {
        for _ in 0..20 {
            self.write().await.unwrap();
        }
    }
}

fn is_told(error: &Error) {
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.starts_with("no space left on the disk of PostgreSQL at 127.0.0.1:"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

async fn objects(store: &PostgresStore) -> (BTreeMap<u64, (Key, String)>, Revision) {
    let (mut objects, mut at) = (BTreeMap::new(), None);
    for item in store.load().try_collect::<Vec<_>>().await.unwrap() {
        match item {
            Loaded::Object(it) => {
                let value = String::from_utf8(it.value.to_vec()).unwrap();
                objects.insert(it.revision.0, (it.key, value));
            }
            Loaded::At(revision) => at = Some(revision),
        }
    }
    (objects, at.unwrap())
}

/// PostgreSQL gives up when it has no space for its log of writes: it ends at once, as after `kill -9`.
async fn make_postgresql_panic(url: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    // Its end is what is waited for.
    let driver = tokio::spawn(async { drop(connection.await) });
    for number in 0..20 {
        // A message, so that there is something in each segment.
        let sql = format!("SELECT pg_logical_emit_message(false, 'n', '{number}'); SELECT pg_switch_wal()");
        if client.batch_execute(&sql).await.is_err() {
            driver.await.unwrap();
            return;
        }
    }
    panic!("there is space for 20 segments on a full disk");
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    let server = Postgres::on_small_disk(DISK_MB);
    let url = server.url(&server.database());
    run(async {
        let patient = |patience| config(&url, None).with_patience(Duration::from_secs(patience));
        let (one, two) = (open(patient(60)).await.unwrap(), open(patient(60)).await.unwrap());
        let hasty = open(patient(1)).await.unwrap();
        let writer = |store, seed| Writer {
            store,
            random: Seeded::new(seed),
            tried: 0,
            acknowledged: BTreeMap::new(),
        };
        let mut following = two.follow(Revision(0));
        let mut writer = writer(&one, 1);
        writer.works().await;

        // No space for the tables.
        tokio::task::block_in_place(|| server.fill_disk());
        is_told(&writer.until_refused().await);
        let small = Write::create(key("half"), "small");
        let large = Write::create(key("whole"), noise(&Seeded::new(2)));
        is_told(&one.commit(vec![small, large]).await.unwrap_err());
        is_told(&two.commit(vec![Write::create(key("other"), noise(&Seeded::new(3)))]).await.unwrap_err());
        let found = objects(&two).await;
        assert_eq!(found, (writer.acknowledged.clone(), Revision(writer.acknowledged.len() as u64)));
        server.free_disk();
        writer.works().await;

        // No space for the log of writes.
        tokio::task::block_in_place(|| server.fill_disk());
        make_postgresql_panic(&url).await;
        // It may be up again for a moment, so every answer may come; it has to be a true one.
        let away = hasty.commit(vec![Write::create(key("away"), "1")]).await;
        server.free_disk();
        tokio::task::block_in_place(|| {
            server.kill();
            server.resume();
        });
        writer.works().await;

        let (found, at) = objects(&two).await;
        assert_eq!(at, Revision(found.len() as u64));
        let mut others = found.clone();
        others.retain(|revision, object| writer.acknowledged.get(revision) != Some(object));
        assert_eq!(found.len() - others.len(), writer.acknowledged.len(), "an acknowledged write is gone");
        let others: Vec<_> = others.into_iter().map(|(at, (key, _))| (Revision(at), key)).collect();
        match (away, others.as_slice()) {
            (Ok(done), [(at, name)]) => {
                assert_eq!((done.as_slice(), name), (&[Outcome::Done(*at)][..], &key("away")));
            }
            (Err(Error::Unknown { .. }), [(_, name)]) => assert_eq!(*name, key("away")),
            (Err(Error::Unknown { .. } | Error::DiskFull { .. } | Error::Backend { .. }), []) => {}
            wrong => panic!("{wrong:?}"),
        }
        for (revision, (key, value)) in found {
            let change = following.next().await.unwrap().unwrap();
            assert_eq!(change, Change { revision: Revision(revision), key, value: Some(value.into()) });
        }
    });
}

#[test]
fn no_tables_are_half_made_on_a_full_disk() {
    let server = Postgres::on_small_disk(DISK_MB);
    let database = server.database();
    let url = server.url(&database);
    let made = "SELECT nspname FROM pg_namespace WHERE nspname = 'keelson'";
    let refused = |part: &str| {
        let fault = run(open(config(&url, None).with_patience(Duration::from_millis(300)))).unwrap_err();
        let message = fault.to_string();
        assert!(message.contains(part), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    };
    // A database that nobody has used yet does not even take a connection.
    server.fill_disk();
    refused("takes no connection: could not write init file (XX000); look at its log, its disk");
    server.free_disk();
    assert_eq!(server.sql(&database, made), Vec::<String>::new());
    // One that somebody has used takes it, and has no space for the tables.
    server.fill_disk();
    refused("No space left on device");
    assert_eq!(server.sql(&database, made), Vec::<String>::new());
    server.free_disk();
    run(async {
        let store = open(config(&url, None)).await.unwrap();
        let done = store.commit(vec![Write::create(key("a"), "1")]).await.unwrap();
        assert_eq!(done, [Outcome::Done(Revision(1))]);
    });
}
