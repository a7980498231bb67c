//! However many requests come at once, what is stored never exceeds a quota.

use std::sync::Arc;

use meta::{GroupResource, ObjectKey, Value};
use resource::{Resource, View as _};
use serde_json::json;

use super::*;
use crate::{Cache, Registry, rest::Parts};

struct Server {
    rest: Rest,
}

impl Server {
    async fn start() -> Self {
        let store = store::Memory::new();
        let registry = Arc::new(Registry::new());
        registry.install_all(kinds::all(&kinds::Options::default(), &kinds::Acts::default()));
        let cache = Arc::new(Cache::load(&store, &registry).await.unwrap());
        let (rest, _task) = Rest::start(Parts {
            store: Arc::new(store),
            cache,
            registry,
            admission: kinds::admission(),
            clock: Arc::new(meta::Fixed::new("2026-01-01T00:00:00Z".parse().unwrap())),
            random: Arc::new(meta::Seeded::new(1)),
        });
        Self { rest }
    }

    fn kind(&self, plural: &str) -> Arc<Resource> {
        self.rest.registry().resolve("", "v1", plural).unwrap()
    }

    async fn create(&self, caller: &Caller, plural: &str, value: Value) -> Result<(), Status> {
        let object = Object::from_value(value).unwrap();
        self.rest
            .create(caller, &self.kind(plural), "ns", object, crate::rest::Duplicates::default())
            .await
            .map(|_| ())
    }

    async fn quota(&self, name: &str, hard: Value) {
        let quota = json!({"metadata": {"name": name}, "spec": {"hard": hard}});
        self.create(&server(), "resourcequotas", quota).await.unwrap();
    }

    fn used(&self, name: &str, amount: &str) -> Option<String> {
        let entry = self.rest.cache().get(&GroupResource::new("", "resourcequotas"), "ns", name).unwrap();
        let used = entry.object().unwrap();
        used.str(&["status", "used", amount]).map(str::to_owned)
    }
}

fn secret(name: &str) -> Value {
    json!({"metadata": {"name": name}, "type": "Opaque"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quota_is_never_exceeded() {
    for (limit, asked) in [(1, 24), (5, 40), (30, 30)] {
        let server = Arc::new(Server::start().await);
        server.quota("one", json!({"secrets": limit.to_string()})).await;
        server.quota("two", json!({"count/secrets": "100", "configmaps": "1"})).await;
        let mut requests = tokio::task::JoinSet::new();
        for at in 0..asked {
            let server = server.clone();
            requests.spawn(async move {
                let caller = Caller { field_manager: "test".to_owned(), ..Caller::default() };
                server.create(&caller, "secrets", secret(&format!("s{at}"))).await
            });
        }
        let answers = requests.join_all().await;
        let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert_eq!(answers.len() - refused.len(), limit);
        for status in refused {
            assert_eq!(status.code, 403);
            let why = format!(
                "exceeded quota: one, requested: secrets=1, used: secrets={limit}, limited: secrets={limit}"
            );
            assert!(status.message.ends_with(&why), "{}", status.message);
        }
        let stored = server.rest.cache().list(&GroupResource::new("", "secrets"), Some("ns"));
        assert_eq!(stored.len(), limit);
        assert_eq!(server.used("one", "secrets"), Some(limit.to_string()));
    }
}

#[tokio::test]
async fn nothing_is_taken_by_a_dry_run_or_for_a_name_that_is_there() {
    let server = Server::start().await;
    server.quota("q", json!({"secrets": "2"})).await;
    let user = Caller { field_manager: "test".to_owned(), ..Caller::default() };
    let dry = Caller { dry_run: true, ..user.clone() };
    server.create(&dry, "secrets", secret("a")).await.unwrap();
    assert_eq!(server.used("q", "secrets"), None);
    server.create(&user, "secrets", secret("a")).await.unwrap();
    assert_eq!(server.create(&user, "secrets", secret("a")).await.unwrap_err().code, 409);
    assert_eq!(server.used("q", "secrets").as_deref(), Some("1"));
    server.create(&user, "secrets", secret("b")).await.unwrap();
    assert_eq!(server.create(&dry, "secrets", secret("c")).await.unwrap_err().code, 403);
    let kept = ObjectKey::new("ns", "b");
    assert!(server.rest.get(&server.kind("secrets"), &kept, None).await.is_ok());
}

/// Both find the name free, and one of them takes a secret from the quota for nothing.
#[tokio::test]
async fn who_comes_second_gives_back_what_it_took() {
    let server = Server::start().await;
    server.quota("q", json!({"secrets": "3"})).await;
    let user = Caller { field_manager: "test".to_owned(), ..Caller::default() };
    let create = || server.create(&user, "secrets", secret("a"));
    let (one, other) = tokio::join!(create(), create());
    assert_eq!((one.is_ok(), other.unwrap_err().code), (true, 409));
    assert_eq!(server.used("q", "secrets").as_deref(), Some("1"));
}

#[tokio::test]
async fn what_others_took_since_stays_taken() {
    let server = Server::start().await;
    server.quota("q", json!({"secrets": "9"})).await;
    let kind = server.kind("secrets");
    let user = Caller::default();
    let key = ObjectKey::new("ns", "a");
    let target = crate::rest::Target { key, subresource: String::new() };
    let attributes = crate::rest::attributes(&user, &kind, &target, resource::Operation::Create);
    let cx = server.rest.context(&attributes);
    let object = Object::from_value(secret("a")).unwrap();
    let take = || server.rest.charge(&cx, &object, None);
    let (first, second) = (take().await.unwrap(), take().await.unwrap());
    let used = || server.used("q", "secrets").unwrap();
    assert_eq!(used(), "2");
    server.rest.give_back(first).await;
    assert_eq!(used(), "2", "it was the second who changed it last");
    server.rest.give_back_after(&Status::new(504, Reason::Timeout, "x"), second).await;
    assert_eq!(used(), "2", "its object may be stored");
    let third = take().await.unwrap();
    server.rest.give_back_after(&Status::internal("x"), third).await;
    assert_eq!(used(), "2");
}
