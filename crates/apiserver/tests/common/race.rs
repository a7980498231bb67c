//! Several servers over one store, and the oracle that they are held against: every acknowledged write is
//! there at its revision, revisions are contiguous, every watcher of every server saw each change once and in
//! order, and whoever reads at one server what was acknowledged by another finds it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use apiserver::{
    Cache, Registry,
    rest::{Caller, ListOptions, Parts, Rest, Target},
};
use meta::{Object, ObjectKey, Revision};
use resource::Resource;
use serde_json::json;
use store::Store;
use tokio::task::JoinHandle;

/// One API server: its own cache over the common store.
pub(crate) struct Server {
    pub(crate) rest: Rest,
    pub(crate) maps: Arc<Resource>,
    pub(crate) services: Arc<Resource>,
}

impl Server {
    pub(crate) async fn start(store: Arc<dyn Store>, seed: u64) -> Self {
        let registry = Arc::new(Registry::new());
        registry.install_all(kinds::all(&kinds::Options::default(), &kinds::Acts::default()));
        let cache = Arc::new(Cache::load(&*store, &registry).await.unwrap());
        let (rest, _task) = Rest::start(Parts {
            store,
            cache,
            registry: registry.clone(),
            admission: Vec::new(),
            clock: Arc::new(meta::Fixed::new("2026-01-01T00:00:00Z".parse().unwrap())),
            random: Arc::new(meta::Seeded::new(seed)),
        });
        let kind = |plural| registry.resolve("", "v1", plural).unwrap();
        Self { rest, maps: kind("configmaps"), services: kind("services") }
    }

    pub(crate) async fn create(&self, name: &str, count: u64) -> Result<Revision, meta::Status> {
        let object = Object::from_value(counter(name, count, None)).unwrap();
        let made = self
            .rest
            .create(&caller(), &self.maps, "default", object, apiserver::rest::Duplicates::default())
            .await?;
        Ok(made.entry.revision)
    }

    /// How many objects it knows.
    pub(crate) fn objects(&self) -> usize {
        self.rest.cache().kind(&self.maps.stored_as).snapshot().len()
    }

    /// The newest count and its revision; not older than what was acknowledged anywhere before.
    pub(crate) async fn read(&self, name: &str) -> Result<(u64, Revision), meta::Status> {
        let entry = self.rest.get(&self.maps, &ObjectKey::new("default", name), None).await?;
        Ok((count(&entry), entry.revision))
    }

    /// Sets the count where it still stands at `seen`.
    pub(crate) async fn set(&self, name: &str, count: u64, seen: Revision) -> Result<Revision, meta::Status> {
        let object = Object::from_value(counter(name, count, Some(seen))).unwrap();
        let target = Target { key: ObjectKey::new("default", name), subresource: String::new() };
        let done = self
            .rest
            .update(&caller(), &self.maps, &target, object, apiserver::rest::Duplicates::default())
            .await?;
        Ok(done.entry.revision)
    }

    pub(crate) fn options(from: u64) -> ListOptions {
        ListOptions { watch_from: Some(Revision(from)), ..ListOptions::default() }
    }
}

pub(crate) fn caller() -> Caller {
    Caller { field_manager: "race".to_owned(), ..Caller::default() }
}

fn counter(name: &str, count: u64, seen: Option<Revision>) -> meta::Value {
    let mut object = json!({"metadata": {"name": name}, "data": {"count": count.to_string()}});
    if let Some(seen) = seen {
        object["metadata"]["resourceVersion"] = seen.to_string().into();
    }
    object
}

pub(crate) fn count(entry: &meta::Entry) -> u64 {
    entry.object().unwrap().str(&["data", "count"]).unwrap().parse().unwrap()
}

/// What a watcher saw: revision and count.
type Seen = Vec<(u64, u64)>;

/// Watches from before the first write, at each of the servers in turn: after `each` events it goes to the
/// next one with the last revision it has seen. Ends with the revision in `end`. It watches when this returns.
async fn watcher(
    servers: &[Arc<Server>],
    each: usize,
    mut end: tokio::sync::watch::Receiver<u64>,
) -> JoinHandle<Seen> {
    let servers = servers.to_vec();
    // At 0 there is nothing yet: the present state and what comes then is everything.
    let start = Server::options(0);
    let mut first = Some(servers[0].rest.watch(&servers[0].maps, Some("default"), &start).await.unwrap());
    tokio::spawn(async move {
        let mut seen: Seen = Vec::new();
        for server in servers.iter().cycle() {
            let from = seen.last().map_or(0, |(revision, _)| *revision);
            let mut watch = match first.take() {
                Some(first) => first,
                None => {
                    server.rest.watch(&server.maps, Some("default"), &Server::options(from)).await.unwrap()
                }
            };
            for _ in 0..each {
                let last = seen.last().map_or(0, |(revision, _)| *revision);
                if last >= *end.borrow_and_update() {
                    return seen;
                }
                tokio::select! {
                    event = watch.next() => {
                        let event = event.unwrap().unwrap();
                        seen.push((event.entry.revision.0, count(&event.entry)));
                    }
                    _ = end.changed() => {}
                }
            }
        }
        seen
    })
}

/// Everybody raises one counter until it was tried `tries` times; then the oracle.
pub(crate) async fn race_on_one_object(stores: Vec<Arc<dyn Store>>, writers: usize, tries: u64) {
    let mut servers = Vec::new();
    for (seed, store) in stores.iter().enumerate() {
        servers.push(Arc::new(Server::start(store.clone(), seed as u64 + 1).await));
    }
    let end = tokio::sync::watch::Sender::new(u64::MAX);
    let mut watchers = vec![watcher(&servers, 37, end.subscribe()).await];
    for server in &servers {
        watchers.push(watcher(std::slice::from_ref(server), usize::MAX, end.subscribe()).await);
    }
    servers[0].create("one", 0).await.unwrap();
    let (tried, clashes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        for _ in 0..writers {
            let (server, other) = (server.clone(), servers[(at + 1) % servers.len()].clone());
            let (tried, clashes) = (tried.clone(), clashes.clone());
            tasks.push(tokio::spawn(async move {
                let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
                let (mut value, mut seen) = server.read("one").await.unwrap();
                while tried.fetch_add(1, Ordering::Relaxed) < tries {
                    match server.set("one", value + 1, seen).await {
                        Ok(revision) => {
                            (value, seen) = (value + 1, revision);
                            acknowledged.insert(revision.0, value);
                            if acknowledged.len().is_multiple_of(16) {
                                let (_, found) = other.read("one").await.unwrap();
                                assert!(
                                    found >= revision,
                                    "the other server does not show {revision}: {found}"
                                );
                            }
                        }
                        Err(status) => {
                            assert_eq!(status.code, 409, "{status:?}");
                            clashes.fetch_add(1, Ordering::Relaxed);
                            (value, seen) = server.read("one").await.unwrap();
                        }
                    }
                }
                acknowledged
            }));
        }
    }
    let mut acknowledged = BTreeMap::new();
    for task in tasks {
        for (revision, value) in task.await.unwrap() {
            assert!(acknowledged.insert(revision, value).is_none(), "revision {revision} was given twice");
        }
    }
    assert!(clashes.load(Ordering::Relaxed) > 0, "the servers never met");
    let head = stores[0].head().await.unwrap().revision.0;
    assert_eq!(acknowledged.len() as u64 + 1, head, "a revision that nobody was told of");
    end.send_replace(head);
    acknowledged.insert(1, 0);
    let expected: Seen = acknowledged.into_iter().collect();
    assert!(expected.iter().map(|(revision, _)| *revision).eq(1..=head), "a gap");
    assert!(expected.iter().map(|(_, value)| *value).eq(0..head), "a lost update");
    for watcher in watchers {
        let seen = watcher.await.unwrap();
        assert!(seen == expected, "a watcher saw {} events, {} happened", seen.len(), expected.len());
    }
    for server in &servers {
        assert_eq!(server.read("one").await.unwrap(), (head - 1, Revision(head)));
    }
}

/// All servers make Services with addresses and node ports at once: none is given twice.
pub(crate) async fn addresses_do_not_collide(stores: Vec<Arc<dyn Store>>, each: usize) {
    let mut tasks = Vec::new();
    for (at, store) in stores.iter().enumerate() {
        // The same seed: every server would choose the same.
        let server = Arc::new(Server::start(store.clone(), 7).await);
        for number in 0..each {
            let server = server.clone();
            tasks.push(tokio::spawn(async move {
                let service = json!({"metadata": {"name": format!("s{at}-{number}")},
                    "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
                let object = Object::from_value(service).unwrap();
                let made = server
                    .rest
                    .create(
                        &caller(),
                        &server.services,
                        "default",
                        object,
                        apiserver::rest::Duplicates::default(),
                    )
                    .await;
                let object = made.unwrap().entry.object().unwrap();
                let port = object.list(&["spec", "ports"])[0]["nodePort"].as_u64().unwrap();
                (object.str(&["spec", "clusterIP"]).unwrap().to_owned(), port)
            }));
        }
    }
    let (mut addresses, mut ports) = (Vec::new(), Vec::new());
    for task in tasks {
        let (address, port) = task.await.unwrap();
        addresses.push(address);
        ports.push(port);
    }
    addresses.sort();
    ports.sort_unstable();
    let count = addresses.len();
    addresses.dedup();
    ports.dedup();
    assert_eq!((addresses.len(), ports.len()), (count, count));
}

/// Creates at the first server at a rate, watched at the second; how long after its answer each was seen there,
/// sorted. What was seen before the answer counts as nothing.
pub(crate) async fn lag(stores: Vec<Arc<dyn Store>>, rate: u64, time: Duration) -> Vec<Duration> {
    let first = Arc::new(Server::start(stores[0].clone(), 1).await);
    let second = Server::start(stores[1].clone(), 2).await;
    let name = format!("lag{}", stores[0].head().await.unwrap().revision);
    let mut watch = second.rest.watch(&second.maps, None, &Server::options(0)).await.unwrap();
    let wanted = rate * time.as_secs();
    let prefix = name.clone();
    let watcher = tokio::spawn(async move {
        let mut seen: BTreeMap<u64, Instant> = BTreeMap::new();
        while (seen.len() as u64) < wanted {
            let event = watch.next().await.unwrap().unwrap();
            if event.entry.header.key.name.starts_with(&prefix) {
                seen.insert(event.entry.revision.0, Instant::now());
            }
        }
        seen
    });
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
    let mut writers = Vec::new();
    for number in 0..wanted {
        tick.tick().await;
        let (server, name) = (first.clone(), format!("{name}-{number}"));
        writers.push(tokio::spawn(async move {
            let revision = server.create(&name, number).await.unwrap();
            (revision.0, Instant::now())
        }));
    }
    let seen = watcher.await.unwrap();
    let mut lags = Vec::new();
    for writer in writers {
        let (revision, answered) = writer.await.unwrap();
        lags.push(seen[&revision].saturating_duration_since(answered));
    }
    lags.sort();
    lags
}
