//! Servers beside each other on one store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common {
    #[allow(dead_code, reason = "each test file uses its part")]
    pub(crate) mod race;
}

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use apiserver::{
    crd::CustomResources,
    rest::{DeleteOptions, ListOptions},
};
use common::race::{self, Server};
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use meta::{FieldSelector, GroupResource, Object, Revision};
use serde_json::json;
use store::{Change, Error, Head, Loaded, Memory, Outcome, Result, Store, Write, Writers};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn two() -> Vec<Arc<dyn Store>> {
    let store = Memory::shared();
    vec![Arc::new(store.clone()), Arc::new(store)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_race_on_one_object_ten_thousand_times() {
    race::race_on_one_object(two(), 3, 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_hand_out_no_address_twice() {
    race::addresses_do_not_collide(two(), 40).await;
}

/// A store whose stream can be held back, or can lose what was held back.
struct Gated {
    memory: Memory,
    open: watch::Sender<bool>,
    lost: AtomicBool,
}

impl Gated {
    fn over(memory: &Memory) -> Arc<Self> {
        let (memory, open) = (memory.clone(), watch::Sender::new(true));
        Arc::new(Self { memory, open, lost: AtomicBool::new(false) })
    }
}

impl Store for Gated {
    fn writers(&self) -> Writers {
        self.memory.writers()
    }

    fn load(&self) -> BoxStream<'_, Result<Loaded>> {
        self.memory.load()
    }

    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        self.memory.commit(batch)
    }

    fn follow(&self, after: Revision) -> BoxStream<'_, Result<Change>> {
        let gate = self.open.subscribe();
        self.memory
            .follow(after)
            .then(move |change| {
                let mut gate = gate.clone();
                async move {
                    gate.wait_for(|open| *open).await.unwrap();
                    match self.lost.swap(false, Ordering::SeqCst) {
                        true => Err(Error::Compacted { asked: after, compacted: Revision(u64::MAX) }),
                        false => change,
                    }
                }
            })
            .boxed()
    }

    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        self.memory.head()
    }

    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>> {
        self.memory.compact(through)
    }
}

#[tokio::test]
async fn what_another_server_acknowledged_counts_even_where_it_is_not_seen_yet() {
    let memory = Memory::shared();
    let gated = Gated::over(&memory);
    let (here, there) = (Server::start(gated.clone(), 1).await, Server::start(Arc::new(memory), 2).await);
    let here = Arc::new(here);
    gated.open.send_replace(false);
    let made = there.create("a", 1).await.unwrap();
    let key = meta::ObjectKey::new("default", "a");
    let stale = here.rest.get(&here.maps, &key, Some(Revision(0))).await;
    assert_eq!(stale.unwrap_err().code, 404, "the stream is held back");
    // A write that the state seen here would refuse, a read, a list and a create that clashes: all wait.
    let change = tokio::spawn({
        let here = here.clone();
        async move { here.set("a", 2, made).await }
    });
    let create = tokio::spawn({
        let here = here.clone();
        async move { here.create("a", 9).await.unwrap_err().code }
    });
    let mut read = Box::pin(here.read("a"));
    assert!(read.as_mut().now_or_never().is_none());
    let options = race::Server::options(0);
    let options = ListOptions { watch_from: None, ..options };
    let mut list = Box::pin(here.rest.list(&here.maps, None, &options));
    assert!(list.as_mut().now_or_never().is_none());
    gated.open.send_replace(true);
    let changed = change.await.unwrap().unwrap();
    assert!(changed > made);
    assert_eq!(create.await.unwrap(), 409);
    assert!(read.await.unwrap().1 >= made);
    assert_eq!(list.await.unwrap().entries.len(), 1);
    assert_eq!(there.read("a").await.unwrap(), (2, changed));
}

#[tokio::test]
async fn own_writes_are_answered_after_what_came_before_them() {
    let memory = Memory::shared();
    let gated = Gated::over(&memory);
    let (here, there) = (Server::start(gated.clone(), 1).await, Server::start(Arc::new(memory), 2).await);
    let mut watch = here.rest.watch(&here.maps, None, &Server::options(0)).await.unwrap();
    gated.open.send_replace(false);
    there.create("a", 1).await.unwrap();
    let mut own = Box::pin(here.create("b", 2));
    for _ in 0..100 {
        assert!(own.as_mut().now_or_never().is_none(), "answered before it can be seen");
        tokio::task::yield_now().await;
    }
    gated.open.send_replace(true);
    assert_eq!(own.await.unwrap(), Revision(2));
    for expected in [(1, 1), (2, 2)] {
        let event = watch.next().await.unwrap().unwrap();
        assert_eq!((event.entry.revision.0, race::count(&event.entry)), expected);
    }
}

#[tokio::test]
async fn a_server_that_lost_history_loads_anew_and_has_watchers_list_again() {
    let memory = Memory::shared();
    let gated = Gated::over(&memory);
    let there = Server::start(Arc::new(memory.clone()), 2).await;
    let first = there.create("a", 1).await.unwrap();
    let here = Server::start(gated.clone(), 1).await;
    let mut watch = here.rest.watch(&here.maps, None, &Server::options(first.0)).await.unwrap();
    gated.lost.store(true, Ordering::SeqCst);
    there.set("a", 2, first).await.unwrap();
    let last = there.create("b", 3).await.unwrap();
    let told = watch.next().await.unwrap().unwrap_err();
    assert_eq!((told.code, told.reason), (410, Some(meta::Reason::Expired)));
    assert_eq!(here.read("a").await.unwrap().0, 2);
    assert_eq!(here.read("b").await.unwrap(), (3, last));
    let again = here.rest.watch(&here.maps, None, &Server::options(first.0)).await;
    assert_eq!(again.err().map(|status| status.code), Some(410));
    // From where the list stands it goes on.
    let mut watch = here.rest.watch(&here.maps, None, &Server::options(last.0)).await.unwrap();
    let next = here.create("c", 4).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().entry.revision, next);
}

/// A definition that one server is given is served, and given up, by both: at once, whatever either has written of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_custom_kind_is_served_by_both() {
    let memory = Memory::shared();
    let (one, two) =
        (Server::start(Arc::new(memory.clone()), 1).await, Server::start(Arc::new(memory), 2).await);
    let stop = CancellationToken::new();
    let loops = [&one, &two]
        .map(|server| tokio::spawn(CustomResources::install_stored(&server.rest).run(stop.clone())));
    let definitions =
        one.rest.registry().resolve("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
    let definition = json!({"metadata": {"name": "toys.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "toys", "kind": "Toy"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
            {"type": "object", "properties": {"colour": {"type": "string"}}}},
            "selectableFields": [{"jsonPath": ".colour"}]}]}});
    let definition = Object::from_value(definition).unwrap();
    one.rest
        .create(&race::caller(), &definitions, "", definition, apiserver::rest::Duplicates::default())
        .await
        .unwrap();
    let served = |server: &Server| server.rest.registry().resolve("example.com", "v1", "toys");
    for server in [&one, &two] {
        server.rest.registry().changes().wait_for(|_| served(server).is_some()).await.unwrap();
    }
    let toy = Object::from_value(json!({"metadata": {"name": "car"}, "colour": "red"})).unwrap();
    one.rest
        .create(
            &race::caller(),
            &served(&one).unwrap(),
            "default",
            toy,
            apiserver::rest::Duplicates::default(),
        )
        .await
        .unwrap();
    let fields = Some(FieldSelector::parse("colour=red").unwrap());
    let options = ListOptions { fields, ..ListOptions::default() };
    let listed = two.rest.list(&served(&two).unwrap(), None, &options).await.unwrap();
    assert_eq!(
        listed.entries.len(),
        1,
        "found at the other server by a field that only the definition names"
    );
    let key = meta::ObjectKey::new("", "toys.example.com");
    two.rest.delete(&race::caller(), &definitions, &key, &DeleteOptions::default()).await.unwrap();
    for server in [&one, &two] {
        server.rest.registry().changes().wait_for(|_| served(server).is_none()).await.unwrap();
        let toys = server.rest.cache().kind(&GroupResource::new("example.com", "toys"));
        let gone = async {
            while !toys.snapshot().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.unwrap();
    }
    stop.cancel();
    for one in loops {
        one.await.unwrap();
    }
}

/// A store that another one took over from.
#[tokio::test]
async fn a_deposed_server_says_so() {
    struct Deposed(Memory);
    impl Store for Deposed {
        fn writers(&self) -> Writers {
            Writers::Many
        }
        fn load(&self) -> BoxStream<'_, Result<Loaded>> {
            self.0.load()
        }
        fn commit(&self, _: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
            std::future::ready(Err(Error::Deposed { epoch: 2 })).boxed()
        }
        fn follow(&self, _: Revision) -> BoxStream<'_, Result<Change>> {
            stream::iter([Err(Error::Deposed { epoch: 2 })]).boxed()
        }
        fn head(&self) -> BoxFuture<'_, Result<Head>> {
            std::future::ready(Err(Error::Deposed { epoch: 2 })).boxed()
        }
        fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>> {
            self.0.compact(through)
        }
    }
    let server = Server::start(Arc::new(Deposed(Memory::shared())), 1).await;
    let mut broken = server.rest.broken();
    let why = broken.wait_for(Option::is_some).await.unwrap().clone();
    assert!(why.unwrap().contains("this one must stop"));
    assert_eq!(server.create("a", 1).await.unwrap_err().code, 503);
    assert_eq!(server.read("a").await.unwrap_err().code, 503, "what it shows may be old");
}
