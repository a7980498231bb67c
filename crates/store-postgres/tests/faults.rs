//! PostgreSQL and Redis die, restart and are emptied under load. The oracle: what was acknowledged is
//! there at its revision, revisions are contiguous, and every follower of every server saw each change
//! once, in order.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{
    PASSWORD, Postgres, Redis, config, open, postgres,
    redundant::{Cluster, Watched, cut_off},
    run,
    wire::Wire,
};
use futures::{StreamExt, TryStreamExt};
use meta::Revision;
use store::{Change, Error, Expect, Key, Loaded, Outcome, Store, Write};
use store_postgres::{Config, PostgresStore};
use tokio::task::JoinHandle;

fn key(name: &str) -> Key {
    Key::parse(&format!("core/configmaps/default/{name}")).unwrap()
}

/// Two servers on one database, each with writers and a follower.
struct Load {
    stores: Vec<Arc<PostgresStore>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<BTreeMap<u64, (Key, String)>>>,
    followers: Vec<JoinHandle<Vec<Change>>>,
    /// The last revision that there will be; told at the end.
    end: tokio::sync::watch::Sender<u64>,
}

impl Load {
    async fn start(url: &str, redis: Option<&Redis>) -> Self {
        Self::on([config(url, redis), config(url, redis)]).await
    }

    /// Each server with a configuration of its own.
    async fn on(configs: [Config; 2]) -> Self {
        let end = tokio::sync::watch::Sender::new(u64::MAX);
        let mut load = Self {
            stores: Vec::new(),
            stop: Arc::default(),
            acknowledged: Arc::default(),
            writers: Vec::new(),
            followers: Vec::new(),
            end,
        };
        for (server, config) in configs.into_iter().enumerate() {
            let store = Arc::new(open(config).await.unwrap());
            load.stores.push(store.clone());
            load.followers.push(tokio::spawn(follow(store.clone(), load.end.subscribe())));
            for writer in 0..3 {
                let (stop, acknowledged) = (load.stop.clone(), load.acknowledged.clone());
                let name = format!("s{server}w{writer}");
                load.writers.push(tokio::spawn(write(store.clone(), name, stop, acknowledged)));
            }
        }
        load
    }

    /// Until this many more writes are acknowledged.
    async fn more(&self, writes: u64) {
        let from = self.acknowledged.load(Ordering::Relaxed);
        while self.acknowledged.load(Ordering::Relaxed) < from + writes {
            assert!(!self.writers.iter().all(JoinHandle::is_finished), "all writers failed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the load and holds the oracle against what is there; the stores, for more questions.
    async fn check(self) -> Vec<Arc<PostgresStore>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut acknowledged = BTreeMap::new();
        for writer in self.writers {
            for (revision, write) in writer.await.unwrap() {
                assert!(
                    acknowledged.insert(revision, write).is_none(),
                    "revision {revision} was given twice"
                );
            }
        }
        let head = self.stores[0].head().await.unwrap().revision;
        self.end.send_replace(head.0);
        let mut histories = Vec::new();
        for follower in self.followers {
            histories.push(follower.await.unwrap());
        }
        let history = &histories[0];
        assert!(history.iter().map(|change| change.revision.0).eq(1..=head.0), "a gap, or disorder");
        assert!(histories[1] == *history, "two followers saw different histories");
        for (revision, (key, value)) in &acknowledged {
            let Change { key: found, value: content, .. } = &history[usize::try_from(*revision).unwrap() - 1];
            assert_eq!((found, content.as_deref()), (key, Some(value.as_bytes())), "at {revision}");
        }
        let mut objects = BTreeMap::new();
        for Change { revision, key, value } in history {
            objects.insert(key.clone(), (*revision, value.clone().unwrap()));
        }
        let loaded: Vec<Loaded> = self.stores[1].load().try_collect().await.unwrap();
        assert_eq!(loaded.len(), objects.len() + 1);
        for item in loaded {
            match item {
                Loaded::Object(object) => assert_eq!(objects[&object.key], (object.revision, object.value)),
                Loaded::At(at) => assert_eq!(at, head),
            }
        }
        self.stores
    }
}

/// Writes until told to stop; what was acknowledged, by revision. Every value is used once, so a write
/// that was applied twice would show.
async fn write(
    store: Arc<PostgresStore>,
    name: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> BTreeMap<u64, (Key, String)> {
    let mut done = BTreeMap::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let parts = [
            (key(&format!("{name}-{}", number % 7)), format!("{name} {number}a")),
            (key("shared"), format!("{name} {number}b")),
        ];
        let batch = parts.iter().map(|(key, value)| Write::put(key.clone(), value.clone()));
        match store.commit(batch.collect()).await {
            Ok(outcomes) => {
                for (outcome, part) in outcomes.into_iter().zip(parts) {
                    let Outcome::Done(revision) = outcome else { panic!("{outcome:?}") };
                    done.insert(revision.0, part);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => panic!("PostgreSQL came back in time, yet: {error}"),
        }
    }
    done
}

async fn follow(store: Arc<PostgresStore>, mut end: tokio::sync::watch::Receiver<u64>) -> Vec<Change> {
    let mut seen: Vec<Change> = Vec::new();
    let mut following = store.follow(Revision(0));
    loop {
        let last = seen.last().map_or(0, |change| change.revision.0);
        if last >= *end.borrow_and_update() {
            return seen;
        }
        tokio::select! {
            change = following.next() => seen.push(change.unwrap().unwrap()),
            _ = end.changed() => {}
        }
    }
}

/// `kill -9` of PostgreSQL, three times, under load.
#[test]
fn postgresql_is_killed_under_load() {
    let server = Postgres::start(false);
    let url = server.url(&server.database());
    run(async {
        let load = Load::start(&url, None).await;
        for _ in 0..3 {
            load.more(150).await;
            tokio::task::block_in_place(|| {
                server.kill();
                server.resume();
            });
        }
        load.more(150).await;
        let stores = load.check().await;
        let resolved: u64 = stores.iter().map(|store| store.statistics().resolved).sum();
        assert!(resolved > 0, "no commit was under way at any of the kills");
    });
}

/// Every connection is cut again and again: commits under way are found, and applied once.
#[test]
fn connections_are_cut_under_load() {
    let database = postgres().database();
    let url = postgres().url(&database);
    run(async {
        let load = Load::start(&url, None).await;
        for _ in 0..12 {
            load.more(40).await;
            tokio::task::block_in_place(|| {
                postgres().sql(
                    &database,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE application_name = 'keelson' AND datname = current_database()",
                )
            });
        }
        let stores = load.check().await;
        let resolved: u64 = stores.iter().map(|store| store.statistics().resolved).sum();
        assert!(resolved > 0, "no commit was under way at any of the cuts");
    });
}

/// Redis is emptied, killed and comes back with nothing, under load; and it did carry events.
#[test]
fn redis_is_emptied_and_killed_under_load() {
    let (redis, database) = (Redis::start(), postgres().database());
    let url = postgres().url(&database);
    run(async {
        let load = Load::start(&url, Some(&redis)).await;
        load.more(300).await;
        let carried =
            |stores: &[Arc<PostgresStore>]| -> u64 { stores.iter().map(|s| s.statistics().bus).sum() };
        let before = carried(&load.stores);
        assert!(before > 0, "nothing came by Redis");
        for _ in 0..3 {
            tokio::task::block_in_place(|| redis.command(&["FLUSHALL"]));
            load.more(150).await;
        }
        tokio::task::block_in_place(|| redis.kill());
        load.more(150).await;
        tokio::task::block_in_place(|| redis.resume());
        let down = carried(&load.stores);
        while carried(&load.stores) <= down {
            load.more(20).await;
        }
        load.check().await;
    });
}

/// The network between each pair is interrupted in turn, held and cut: one server and PostgreSQL, one server
/// and Redis, everybody and PostgreSQL.
#[test]
fn the_network_between_each_pair_is_interrupted_under_load() {
    let (redis, database) = (Redis::start(), postgres().database());
    run(async {
        let mut wires = Vec::new();
        let mut configs = Vec::new();
        for _ in 0..2 {
            let (truth, events) = (Wire::to(postgres().port).await, Wire::to(redis.port).await);
            let url =
                postgres().url(&database).replace(&postgres().port.to_string(), &truth.port.to_string());
            let events_url = redis.url().replace(&redis.port.to_string(), &events.port.to_string());
            let config = Config::parse(&format!("{url}?statementTimeout=1")).unwrap();
            configs.push(config.with_events(&events_url).unwrap().with_patience(Duration::from_secs(100)));
            wires.push((truth, events));
        }
        let configs = configs.try_into().unwrap_or_else(|_| panic!("two configurations"));
        let load = Load::on(configs).await;
        load.more(100).await;
        for (truth, events) in &wires {
            // The other server goes on meanwhile, and this one where only its Redis is away.
            for wire in [truth, events] {
                wire.hold();
                load.more(60).await;
                wire.mend();
                load.more(60).await;
                wire.cut();
                load.more(60).await;
                wire.mend();
                load.more(60).await;
            }
        }
        wires.iter().for_each(|(truth, _)| truth.cut());
        wires.iter().for_each(|(truth, _)| truth.mend());
        load.more(60).await;
        load.check().await;
    });
}

/// A stream that was trimmed past a reader that was held: what is missing comes from the log.
#[test]
fn the_stream_is_trimmed_past_a_reader() {
    let (redis, database) = (Redis::start(), postgres().database());
    let url = postgres().url(&database);
    run(async {
        let wire = Wire::to(redis.port).await;
        let apart = redis.url().replace(&redis.port.to_string(), &wire.port.to_string());
        let reader = Config::parse(&url).unwrap().with_events(&apart).unwrap();
        let load = Load::on([config(&url, Some(&redis)), reader]).await;
        load.more(100).await;
        wire.hold();
        load.more(200).await;
        tokio::task::block_in_place(|| {
            let streams = redis.ask(&["KEYS", "keelson:*"]);
            assert!(!streams.is_empty(), "nothing was published");
            streams.iter().for_each(|stream| redis.command(&["XTRIM", stream, "MAXLEN", "1"]));
        });
        wire.mend();
        load.more(200).await;
        load.check().await;
    });
}

/// A failover that loses the tail: Redis comes back with less than it had, and goes on from there.
#[test]
fn redis_loses_its_tail_under_load() {
    let (redis, database) = (Redis::start(), postgres().database());
    let url = postgres().url(&database);
    run(async {
        let load = Load::start(&url, Some(&redis)).await;
        load.more(150).await;
        let stream = tokio::task::block_in_place(|| redis.ask(&["KEYS", "keelson:*"])).remove(0);
        let kept = tokio::task::block_in_place(|| redis.dump(&stream));
        load.more(150).await;
        // As the replica that had only got so far would have it.
        tokio::task::block_in_place(|| redis.restore(&stream, &kept));
        load.more(150).await;
        load.check().await;
    });
}

/// A master dies with a tail that its replica, which takes over, does not have; `promote` is what it takes. The
/// first comes back as whatever it is then.
async fn fail_over(load: &Load, master: &Redis, replica: &Redis, promote: impl Fn()) {
    let carried = || -> u64 { load.stores.iter().map(|store| store.statistics().bus).sum() };
    let got = |of: &Redis, field: &str| -> u64 {
        let info = of.ask(&["INFO", "replication"]).concat();
        info.lines().find_map(|line| line.strip_prefix(field)).unwrap().parse().unwrap()
    };
    load.more(150).await;
    assert!(carried() > 0, "nothing came by Redis");
    tokio::task::block_in_place(|| cut_off(master, replica));
    load.more(150).await;
    tokio::task::block_in_place(|| {
        let (all, some) = (got(master, "master_repl_offset:"), got(replica, "slave_repl_offset:"));
        assert!(all > some, "no tail is lost");
        master.kill();
        promote();
    });
    // By what has taken over.
    let before = carried();
    while carried() <= before {
        load.more(20).await;
    }
    tokio::task::block_in_place(|| master.resume());
    load.more(150).await;
}

/// A Sentinel finds the master gone and makes one of its replica, which lacks the tail.
#[test]
fn a_sentinel_fails_over_and_the_tail_is_lost_under_load() {
    let (watched, database) = (Watched::start(), postgres().database());
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), PASSWORD).unwrap();
    let config = || Config::parse(&postgres().url(&database)).unwrap();
    run(async {
        let of = || config().with_events(&watched.url(secret.path())).unwrap();
        let load = Load::on([of(), of()]).await;
        fail_over(&load, &watched.master, &watched.replica, || {}).await;
        load.check().await;
    });
}

/// A Cluster whose master of our stream is gone; its replica, which lacks the tail, takes over. The other half of
/// the keys is none of ours.
#[test]
fn a_cluster_fails_over_and_the_tail_is_lost_under_load() {
    let (cluster, database) = (Cluster::start(), postgres().database());
    run(async {
        let of = || Config::parse(&postgres().url(&database)).unwrap().with_events(&cluster.url()).unwrap();
        let load = Load::on([of(), of()]).await;
        load.more(50).await;
        let ours = tokio::task::block_in_place(|| {
            let has = |pair: &&(Redis, Redis)| !pair.0.ask(&["KEYS", "keelson:*"]).is_empty();
            cluster.pairs.iter().find(has).unwrap()
        });
        let promote = || ours.1.command(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
        fail_over(&load, &ours.0, &ours.1, promote).await;
        load.check().await;
    });
}

/// Two servers race for one object with expectations, ten thousand times: no update is lost.
#[test]
fn two_servers_race_on_one_object() {
    const RAISES: u64 = 5000;
    let database = postgres().database();
    let url = postgres().url(&database);
    run(async {
        let mut tasks = Vec::new();
        for _ in 0..2 {
            let store = open(config(&url, None)).await.unwrap();
            tasks.push(tokio::spawn(async move {
                let (mut raised, mut clashes) = (0, 0);
                let (mut expect, mut value) = (Expect::Absent, 1);
                while raised < RAISES {
                    let write = Write { key: key("one"), expect, value: Some(value.to_string().into()) };
                    match store.commit(vec![write]).await.unwrap().remove(0) {
                        Outcome::Done(revision) => {
                            raised += 1;
                            (expect, value) = (Expect::At(revision), value + 1);
                        }
                        Outcome::Clash(found) => {
                            clashes += 1;
                            let found = found.unwrap();
                            expect = Expect::At(found.revision);
                            value = std::str::from_utf8(&found.value).unwrap().parse::<u64>().unwrap() + 1;
                        }
                        Outcome::Refused { why } => panic!("{why}"),
                    }
                }
                clashes
            }));
        }
        let mut clashes = 0;
        for task in tasks {
            clashes += task.await.unwrap();
        }
        assert!(clashes > 0, "the two never met");
    });
    let value = postgres().sql(&database, "SELECT convert_from(value, 'UTF8') FROM keelson.objects");
    assert_eq!(value, [(2 * RAISES).to_string()]);
    assert_eq!(postgres().sql(&database, "SELECT revision FROM keelson.head"), [(2 * RAISES).to_string()]);
}

/// A server whose batch waits at PostgreSQL while another takes over writes nothing more, and its
/// followers are told.
#[test]
fn a_deposed_server_writes_nothing() {
    let database = postgres().database();
    let url = postgres().url(&database);
    run(async {
        let old = Arc::new(open(config(&url, None)).await.unwrap());
        old.commit(vec![Write::create(key("a"), "old")]).await.unwrap();
        let following = tokio::spawn({
            let old = old.clone();
            async move { old.follow(Revision(1)).next().await }
        });
        // Another one raises the epoch in a transaction that the old one's batch has to wait for.
        let (blocker, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        blocker.batch_execute("BEGIN; SELECT FROM keelson.head FOR UPDATE").await.unwrap();
        let late = tokio::spawn({
            let old = old.clone();
            async move { old.commit(vec![Write::put(key("a"), "late")]).await }
        });
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                       AND datname = current_database() AND query LIKE '%commit_batch%'";
        while blocker.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
        blocker.batch_execute("UPDATE keelson.head SET epoch = epoch + 1; COMMIT").await.unwrap();
        let refused = late.await.unwrap();
        assert!(matches!(refused, Err(Error::Deposed { epoch: 2 })), "{refused:?}");
        assert!(matches!(following.await.unwrap(), Some(Err(Error::Deposed { epoch: 2 }))));
        let again = old.commit(vec![Write::put(key("b"), "late")]).await;
        assert!(matches!(again, Err(Error::Deposed { .. })), "{again:?}");
        // One that is opened after that takes over and goes on.
        let new = open(config(&url, None)).await.unwrap();
        assert_eq!(new.take_over().await.unwrap(), 3);
        let done = new.commit(vec![Write::put(key("a"), "new")]).await.unwrap();
        assert_eq!(done, [Outcome::Done(Revision(2))]);
        drop(blocker);
        driver.await.unwrap().unwrap();
    });
}

/// PostgreSQL that went back, as after a failover to a standby that lacks the end, is not followed.
#[test]
fn a_database_that_went_back_is_noticed() {
    let database = postgres().database();
    let url = postgres().url(&database);
    run(async {
        let store = open(config(&url, None)).await.unwrap();
        for _ in 0..5 {
            store.commit(vec![Write::put(key("a"), "x")]).await.unwrap();
        }
        tokio::task::block_in_place(|| {
            postgres().sql(
                &database,
                "DELETE FROM keelson.log WHERE revision > 3; UPDATE keelson.head SET revision = 3",
            )
        });
        let told = store.follow(Revision(5)).next().await;
        assert!(matches!(told, Some(Err(Error::Stopped { .. }))), "{told:?}");
        assert!(matches!(store.commit(vec![Write::put(key("a"), "y")]).await, Err(Error::Stopped { .. })));
    });
}
