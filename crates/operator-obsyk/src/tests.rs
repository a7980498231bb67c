//! ObsykAgents through their lives, against the fake API and the strict platform.

use std::sync::Arc;

use meta::ObjectKey;
use reconcile::testkit::Bench;
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use crate::{
    Kind,
    fleet::Fleet,
    reconciler::Agents,
    testkit::{CLUSTER, FakePlatform, Fault, URL, clock, p256, p384},
    wire::{Credentials, EVENTS, SNAPSHOT},
};

struct Rig {
    bench: Bench<Agents>,
    platform: Arc<FakePlatform>,
}

fn agent(name: &str, cluster: &str) -> Value {
    json!({
        "apiVersion": "obsyk.io/v1", "kind": "ObsykAgent", "metadata": {"name": name, "namespace": "obsyk", "generation": 1},
        "spec": {"platformURL": URL, "clusterName": cluster, "credentialsSecretRef": {"name": "credentials"},
            "syncInterval": "1m"},
    })
}

fn secret(client: &str, pem: &str) -> Value {
    use base64::{Engine, engine::general_purpose::STANDARD};
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials", "namespace": "obsyk"},
        "data": {"client_id": STANDARD.encode(client), "private_key": STANDARD.encode(pem)},
    })
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("obsyk", name)
}

fn agents() -> reconcile::Kind {
    reconcile::Kind::new("obsyk.io", "v1", "ObsykAgent", "obsykagents")
}

impl Rig {
    fn new() -> (Self, String) {
        let pem = p256().1;
        let client = Credentials::parse(Some(b"client-1"), Some(pem.as_bytes())).unwrap();
        let platform = FakePlatform::new(clock(), URL, &client);
        let bench = Bench::new(Agents::new(Fleet::over(platform.clone())));
        for kind in Kind::ALL {
            let of = reconcile::Kind::new(kind.group(), "v1", kind.name(), kind.plural());
            bench.api.register(of, kind.is_namespaced());
        }
        bench.api.register(agents(), true);
        bench.api.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system", "uid": CLUSTER}}));
        bench.api.put(&secret("client-1", &pem));
        (Self { bench, platform }, pem)
    }

    /// Reconciles as the driver would: now, and whenever there is news.
    async fn live(&self, name: &str, seconds: u64) {
        for _ in 0..seconds {
            self.bench.settle(&key(name)).await;
            sleep(Duration::from_secs(1)).await;
        }
        self.bench.settle(&key(name)).await;
    }

    fn condition(&self, name: &str, kind: &str) -> (String, String, String) {
        let agent = self.bench.api.get(&agents(), &key(name)).unwrap();
        let list = agent["status"]["conditions"].as_array().unwrap().clone();
        let found = list.iter().find(|condition| condition["type"] == kind).unwrap();
        let text = |field: &str| found[field].as_str().unwrap().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    fn check(&self, kind: &str, status: &str, reason: &str) {
        let (is, why, message) = self.condition("a", kind);
        assert_eq!((&*is, &*why), (status, reason), "{kind}: {message}");
    }
}

#[test]
fn the_crd_is_structural_and_its_rules_hold() {
    let crd = crate::crd();
    let json = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
    let schema = schema::openapi::from_crd(json, "spec.validation").unwrap();
    assert_eq!(schema::cel::Rules::check(&schema), Vec::new());
    assert_eq!(
        json.pointer("/properties/status/properties/resourceCounts/properties")
            .unwrap()
            .as_object()
            .unwrap()
            .len(),
        20
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_lives_is_edited_and_goes() {
    let (rig, _) = Rig::new();
    rig.bench.api.put(&agent("a", "first"));
    rig.live("a", 40).await;
    for (kind, status, reason) in [
        ("Available", "True", "AgentRunning"),
        ("Syncing", "True", "SyncActive"),
        ("Degraded", "False", "AgentHealthy"),
        ("CredentialsValid", "True", "Accepted"),
        ("CachesSynced", "True", "Synced"),
    ] {
        rig.check(kind, status, reason);
    }
    let status = rig.bench.api.get(&agents(), &key("a")).unwrap()["status"].clone();
    assert_eq!((&status["clusterUID"], &status["resourceCounts"]["secrets"]), (&json!(CLUSTER), &json!(1)));
    assert!(status["lastSyncTime"].is_string() && status["lastSnapshotTime"].is_string());
    assert_eq!(rig.platform.known.lock().cluster_name, "first");

    rig.bench.api.put(&agent("a", "second"));
    rig.live("a", 10).await;
    assert_eq!(rig.platform.known.lock().cluster_name, "second", "an edit reaches the platform");
    assert_eq!(rig.platform.requests(SNAPSHOT), 2);

    rig.bench.api.delete(&agents(), &key("a"));
    rig.bench.settle(&key("a")).await;
    assert!(rig.bench.reconciler.fleet.find(&key("a")).is_none());
    let before = rig.platform.requests(EVENTS);
    rig.bench
        .api
        .put(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "obsyk"}}));
    sleep(Duration::from_secs(100)).await;
    assert_eq!(rig.platform.requests(EVENTS), before, "a deleted agent says nothing");
    assert_eq!(rig.platform.known.lock().violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn credentials_are_missing_wrong_rotated_and_revoked() {
    let (rig, pem) = Rig::new();
    let secrets = reconcile::Kind::new("", "v1", "Secret", "secrets");
    rig.bench.api.delete(&secrets, &key("credentials"));
    rig.bench.api.put(&agent("a", "c"));
    rig.live("a", 2).await;
    rig.check("Available", "False", "AuthenticationError");
    rig.check("CredentialsValid", "False", "AuthenticationError");
    assert!(rig.condition("a", "Degraded").2.contains("client_id"));

    rig.bench.api.put(&secret("client-1", &p384()));
    rig.live("a", 2).await;
    assert!(rig.condition("a", "Degraded").2.contains("P-256"));

    rig.bench.api.put(&secret("client-1", &pem));
    rig.live("a", 40).await;
    rig.check("Available", "True", "AgentRunning");
    rig.check("Degraded", "False", "AgentHealthy");

    // Unreadable while it runs: said, and it goes on.
    rig.bench.api.put(&secret("client-1", "nonsense"));
    rig.live("a", 2).await;
    rig.check("Available", "True", "AgentRunning");
    rig.check("Degraded", "True", "AuthenticationError");

    // Rotated: the platform knows the new key only.
    let other = p256().0;
    let client = Credentials::parse(Some(b"client-1"), Some(other.as_bytes())).unwrap();
    rig.platform.known.lock().clients.insert("client-1".into(), client.public_key().to_vec());
    rig.platform.known.lock().tokens.clear();
    rig.bench.api.put(&secret("client-1", &other));
    rig.live("a", 40).await;
    rig.check("CredentialsValid", "True", "Accepted");
    rig.check("Degraded", "False", "AgentHealthy");

    rig.platform.known.lock().clients.clear();
    rig.platform.known.lock().tokens.clear();
    rig.live("a", 100).await;
    rig.check("CredentialsValid", "False", "AuthenticationError");
    rig.check("Degraded", "True", "AuthenticationError");
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_is_away_is_said_and_degrades_nothing() {
    let (rig, _) = Rig::new();
    rig.platform.fail(|_| Some(Fault::Status(503, None)));
    rig.bench.api.put(&agent("a", "c"));
    rig.live("a", 60).await;
    rig.check("Available", "False", "PlatformUnavailable");
    rig.check("Syncing", "False", "SnapshotFailed");
    rig.check("Degraded", "False", "AgentHealthy");
    rig.platform.fail(|_| None);
    rig.live("a", 120).await;
    rig.check("Available", "True", "AgentRunning");
}

#[tokio::test(start_paused = true)]
async fn several_agents_and_a_bad_one_do_not_meet() {
    let (rig, _) = Rig::new();
    let mut bad = agent("bad", "c");
    bad["spec"]["syncInterval"] = json!("soon");
    rig.bench.api.put(&bad);
    rig.bench.api.put(&agent("a", "c"));
    rig.bench.api.put(&agent("b", "c"));
    for name in ["bad", "a", "b"] {
        rig.live(name, 5).await;
    }
    assert!(rig.condition("bad", "Degraded").2.contains("syncInterval"));
    assert_eq!(rig.platform.known.lock().snapshots, 2);
}

/// Whatever a platform answers is a condition that says so, and nothing ends by it.
#[tokio::test(start_paused = true)]
async fn every_answer_is_a_condition() {
    let status = |status| Fault::Status(status, None);
    for (fault, kind, value, reason, part) in [
        (status(500), "Available", "False", "PlatformUnavailable", "500"),
        (status(502), "Available", "False", "PlatformUnavailable", "502"),
        (Fault::Status(503, Some("7")), "Available", "False", "PlatformUnavailable", "503"),
        (
            Fault::Status(429, Some("Sun, 06 Nov 2094 08:49:37 GMT")),
            "Available",
            "False",
            "PlatformUnavailable",
            "429",
        ),
        (status(408), "Available", "False", "PlatformUnavailable", "408"),
        (status(401), "CredentialsValid", "False", "AuthenticationError", "401"),
        (status(403), "Available", "False", "AuthenticationError", "403"),
        (status(302), "Available", "False", "UnexpectedAnswer", "redirects are not followed"),
        (status(307), "Available", "False", "UnexpectedAnswer", "redirects are not followed"),
        (status(404), "Available", "False", "UnexpectedAnswer", "platformURL"),
        (Fault::Disconnect, "Available", "False", "PlatformUnavailable", "no answer"),
        (Fault::Swallow, "Available", "False", "PlatformUnavailable", "connection closed"),
        (Fault::Hang, "Available", "False", "PlatformUnavailable", "none within 30 s"),
        (
            Fault::Slow(Duration::from_secs(40)),
            "Available",
            "False",
            "PlatformUnavailable",
            "none within 30 s",
        ),
    ] {
        let (rig, _) = Rig::new();
        let chosen = fault.clone();
        rig.platform.fail(move |_| Some(chosen.clone()));
        rig.bench.api.put(&agent("a", "c"));
        rig.live("a", 60).await;
        let (is, why, message) = rig.condition("a", kind);
        assert_eq!((&*is, &*why), (value, reason), "{fault:?}: {message}");
        assert!(message.contains(part), "{fault:?}: {message}");
        rig.platform.fail(|_| None);
        rig.live("a", 700).await;
        rig.check("Available", "True", "AgentRunning");
        rig.check("Degraded", "False", "AgentHealthy");
    }
    // What only a snapshot is refused for does not keep the rest from going on.
    for refused in [400, 413, 415, 422] {
        let (rig, _) = Rig::new();
        rig.platform.fail(move |path| (path == SNAPSHOT).then_some(Fault::Status(refused, None)));
        rig.bench.api.put(&agent("a", "c"));
        rig.live("a", 60).await;
        rig.check("Available", "True", "AgentRunning");
        rig.check("Degraded", "True", "SnapshotRefused");
        assert!(!rig.platform.known.lock().objects.is_empty(), "{refused}: sent as changes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_off_by_ten_minutes_is_said() {
    use meta::Clock;
    for (seconds, side) in [(600, "behind"), (-600, "ahead of")] {
        let (rig, _) = Rig::new();
        let platform = rig.platform.clock();
        platform.set(meta::Timestamp::from_second(platform.now().as_second() + seconds).unwrap());
        rig.bench.api.put(&agent("a", "c"));
        rig.live("a", 60).await;
        rig.check("CredentialsValid", "False", "AuthenticationError");
        let message = rig.condition("a", "Degraded").2;
        assert!(message.contains(&format!("600 s {side} the platform's")), "{message}");
    }
}
