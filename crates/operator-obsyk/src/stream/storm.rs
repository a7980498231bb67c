//! Storms of changes with the platform slow, failing and away: in the end it knows the cluster as it is.
//!
//! The oracle is the fake API server's own content, read by code that shares nothing with the projection.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use meta::{ObjectKey, Random, Seeded};
use reconcile::{CancellationToken, testkit::FakeApi};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use super::{Agent, Report, Settings};
use crate::{
    Kind,
    testkit::{CLUSTER, FakePlatform, Fault, URL, clock, credentials},
    validate::Valid,
    wire::{Credentials, EVENTS, HEARTBEAT, SNAPSHOT, TOKEN},
};

struct Storm {
    api: FakeApi,
    platform: Arc<FakePlatform>,
    random: Arc<Seeded>,
    credentials: Credentials,
    version: u64,
    rate: u32,
}

struct Running {
    reports: watch::Receiver<Report>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Kinds the storm changes; the others are listed and empty.
const STORMY: [Kind; 5] = [Kind::Pod, Kind::ConfigMap, Kind::Secret, Kind::Node, Kind::Event];

fn api_kind(kind: Kind) -> reconcile::Kind {
    reconcile::Kind::new(kind.group(), "v1", kind.name(), kind.plural())
}

impl Storm {
    fn new(seed: u64) -> Self {
        let clock = clock();
        let random = Arc::new(Seeded::new(seed));
        let api = FakeApi::new(clock.clone(), random.clone());
        for kind in Kind::ALL {
            api.register(api_kind(kind), kind.is_namespaced());
        }
        let credentials = credentials("client-1");
        let platform = FakePlatform::new(clock, URL, &credentials);
        Self { api, platform, random, credentials, version: 0, rate: 1000 }
    }

    fn start(&self, budget: usize) -> Running {
        let valid = Valid {
            platform_url: URL.into(),
            cluster_name: "storm".into(),
            secret: "s".into(),
            sync_interval: Duration::from_secs(300),
            events_per_second: self.rate,
            burst: self.rate,
            batch: true,
        };
        let settings = Settings {
            valid,
            credentials: self.credentials.clone(),
            cluster_uid: CLUSTER.into(),
            authorities: None,
            fence: 0,
        };
        let (to, reports) = watch::channel(Report::default());
        let agent =
            Agent::new(self.api.client(), self.platform.clone(), clock(), self.random.clone(), settings, to);
        let stop = CancellationToken::new();
        let task = tokio::spawn(agent.with_budget(budget).run(stop.clone()));
        Running { reports, stop, task }
    }

    /// One random change of one of a few objects.
    fn change(&mut self) {
        let kind = STORMY[usize::try_from(self.random.below(5)).unwrap()];
        let name = format!("o-{}", self.random.below(30));
        let key = ObjectKey::new(if kind.is_namespaced() { "ns" } else { "" }, name.as_str());
        if self.random.below(4) == 0 && self.api.get(&api_kind(kind), &key).is_some() {
            self.api.delete(&api_kind(kind), &key);
            return;
        }
        self.version += 1;
        let mut object = json!({
            "apiVersion": "v1", "kind": kind.name(),
            "metadata": {"name": name, "labels": {"v": self.version.to_string()}},
        });
        if kind.is_namespaced() {
            object["metadata"]["namespace"] = json!("ns");
        }
        if kind == Kind::Event {
            object["count"] = json!(self.version);
        } else if matches!(kind, Kind::Secret | Kind::ConfigMap) {
            object["data"] = json!({format!("key-{}", self.random.below(3)): "CANARY-value"});
            object["metadata"]["annotations"] = json!({"tool/copy": "{\"data\":{\"k\":\"CANARY-copy\"}}"});
        } else if kind == Kind::Pod {
            object["spec"] = json!({"containers": [{"name": "c", "image": "i",
                "env": [{"name": "E", "value": "CANARY-env"}], "args": ["CANARY-arg"]}]});
        }
        self.api.put(&object);
    }

    async fn churn(&mut self, changes: usize, every: Duration) {
        for _ in 0..changes {
            self.change();
            sleep(every).await;
        }
    }

    /// What the platform should know: name, namespace and version of each object.
    fn wanted(&self) -> BTreeMap<(String, String), Value> {
        let facts = |kind: Kind, object: &Value| {
            let meta = &object["metadata"];
            let version = if kind == Kind::Event { &object["count"] } else { &meta["labels"]["v"] };
            let keys = object["data"].as_object().map(|data| data.keys().cloned().collect::<Vec<_>>());
            let key = (kind.name().to_owned(), meta["uid"].as_str().unwrap().to_owned());
            (key, json!([meta["name"], meta["namespace"], version, keys]))
        };
        let all = Kind::ALL.into_iter().flat_map(|kind| {
            self.api.list(&api_kind(kind), "").into_iter().map(move |object| facts(kind, &object))
        });
        all.collect()
    }

    fn known(&self) -> BTreeMap<(String, String), Value> {
        let facts = |(key, object): (&(String, String), &Value)| {
            let version = if key.0 == "Event" { &object["count"] } else { &object["labels"]["v"] };
            (key.clone(), json!([object["name"], object["namespace"], version, object["data_keys"]]))
        };
        self.platform.known.lock().objects.iter().map(facts).collect()
    }

    /// Waits, in virtual time, until the platform knows everything and goes on knowing it.
    async fn settle(&self) {
        for _ in 0..3600 {
            sleep(Duration::from_secs(1)).await;
            if self.known() == self.wanted() {
                // Nothing that is still on its way may change it.
                sleep(Duration::from_secs(200)).await;
                break;
            }
        }
        assert_eq!(self.known(), self.wanted());
        let known = self.platform.known.lock();
        assert_eq!(known.violations, Vec::<String>::new());
        assert!(!String::from_utf8_lossy(&known.bytes).contains("CANARY"), "a value left the cluster");
    }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

const MIB: usize = 1024 * 1024;

#[tokio::test(start_paused = true)]
async fn begins_with_a_snapshot_and_goes_on_with_changes() {
    let mut storm = Storm::new(1);
    storm.churn(100, Duration::ZERO).await;
    let mut agent = storm.start(MIB);
    storm.settle().await;
    assert_eq!(
        (storm.platform.requests(SNAPSHOT), storm.platform.requests(EVENTS)),
        (1, 0),
        "no flood of added"
    );
    storm.churn(50, Duration::from_millis(100)).await;
    storm.settle().await;
    assert_eq!(storm.platform.requests(SNAPSHOT), 1);
    assert!(storm.platform.requests(EVENTS) > 20);
    assert!(storm.platform.requests(HEARTBEAT) > 0, "every syncInterval");
    let report = agent.reports.borrow_and_update().clone();
    assert_eq!((report.trouble, report.unread.len(), report.stream.queue_objects), (None, 0, 0));
    assert_eq!(storm.platform.known.lock().cluster_name, "storm");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_shows_nothing_new_is_not_sent() {
    let storm = Storm::new(2);
    let node = |beat: &str| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": beat}]}})
    };
    storm.api.put(&node("1"));
    let agent = storm.start(MIB);
    storm.settle().await;
    for beat in 2..20 {
        storm.api.put(&node(&beat.to_string()));
    }
    storm.settle().await;
    assert_eq!(storm.platform.requests(EVENTS), 0);
    agent.stop().await;
}

/// The spec's rollout storm: the original loses two thirds of it. Rate and budget as they come.
#[tokio::test(start_paused = true)]
async fn a_rollout_storm_with_the_platform_slow_loses_nothing() {
    let mut storm = Storm::new(3);
    storm.rate = 10;
    storm.platform.fail(|_| Some(Fault::Slow(Duration::from_millis(100))));
    let agent = storm.start(MIB);
    storm.settle().await;
    storm.churn(6000, Duration::from_millis(15)).await;
    storm.settle().await;
    let merged = agent.reports.borrow().stream.merged;
    assert!(merged > 1000, "what nobody needs is not sent: {merged}");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_costs_a_snapshot_and_no_memory() {
    let mut storm = Storm::new(4);
    let mut agent = storm.start(4096);
    storm.settle().await;
    storm.platform.fail(|_| Some(Fault::Disconnect));
    storm.churn(1200, Duration::from_secs(3)).await;
    let report = agent.reports.borrow_and_update().clone();
    assert!(report.stream.queue_bytes <= 4096, "{:?}", report.stream);
    assert!(report.trouble.is_some());
    let tried: u32 =
        [EVENTS, HEARTBEAT, SNAPSHOT, TOKEN].iter().map(|path| storm.platform.requests(path)).sum();
    assert!(tried < 400, "a dead platform is tried about twice a minute, not {tried} times an hour");
    storm.platform.fail(|_| None);
    storm.settle().await;
    assert!(storm.platform.requests(SNAPSHOT) >= 2);
    assert_eq!(agent.reports.borrow_and_update().trouble, None);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_while_the_agent_was_down_goes_too() {
    let mut storm = Storm::new(5);
    let agent = storm.start(MIB);
    storm.churn(200, Duration::from_millis(10)).await;
    storm.settle().await;
    agent.stop().await;
    storm.churn(200, Duration::ZERO).await;
    let agent = storm.start(MIB);
    storm.settle().await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_refused_for_what_it_says_holds_up_no_other() {
    let mut storm = Storm::new(6);
    let mut agent = storm.start(MIB);
    storm.settle().await;
    let mut first = true;
    storm
        .platform
        .fail(move |path| (path == EVENTS && std::mem::take(&mut first)).then_some(Fault::Status(422, None)));
    storm.churn(30, Duration::from_millis(10)).await;
    let refused = |report: &Report| report.refusals.is_some();
    let report = agent.reports.wait_for(refused).await.unwrap().clone();
    assert_eq!((report.refusals.unwrap().0, report.trouble), (1, None));
    // Said again after a while, and taken then.
    storm.settle().await;
    let report = agent.reports.borrow_and_update().clone();
    assert_eq!((report.stream.quarantined, report.stream.queue_objects, report.refusals), (1, 0, None));
    assert_eq!(storm.platform.requests(SNAPSHOT), 1);
    agent.stop().await;
}

/// An object that the platform will never take costs less and less, and the others nothing.
#[tokio::test(start_paused = true)]
async fn what_is_always_refused_is_said_again_an_hour_apart() {
    let storm = Storm::new(6);
    storm.platform.fail(move |path| match path {
        SNAPSHOT => Some(Fault::Status(413, None)),
        EVENTS => Some(Fault::Status(400, None)),
        _ => None,
    });
    storm
        .api
        .put(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"v": "1"}}}));
    let mut agent = storm.start(MIB);
    sleep(Duration::from_secs(20 * 3600)).await;
    let tried = storm.platform.requests(EVENTS);
    assert!((20..30).contains(&tried), "{tried} times in twenty hours");
    let named = agent.reports.borrow_and_update().refusals.clone();
    assert_eq!(named, Some((1, "Node n".to_owned())));
    storm.platform.fail(|path| (path == SNAPSHOT).then_some(Fault::Status(413, None)));
    storm.settle().await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_may_not_be_listed_is_said_and_the_rest_goes_on() {
    let mut storm = Storm::new(7);
    for _ in 0..2 {
        let no = meta::Status::new(403, meta::Reason::Forbidden, "secrets is forbidden");
        storm.api.fail_next(http::Method::GET, "/secrets", no);
    }
    let mut agent = storm.start(MIB);
    storm.churn(50, Duration::ZERO).await;
    agent
        .reports
        .wait_for(|report| report.unread.iter().any(|(kind, _)| *kind == Kind::Secret))
        .await
        .unwrap();
    storm.settle().await;
    assert_eq!(agent.reports.borrow_and_update().unread, Vec::new(), "and taken up again when it may");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_flushes_what_waits() {
    let mut storm = Storm::new(8);
    storm.rate = 1;
    let agent = storm.start(MIB);
    storm.settle().await;
    storm.churn(40, Duration::ZERO).await;
    sleep(Duration::from_secs(1)).await;
    agent.stop().await;
    assert_eq!(storm.known(), storm.wanted());
}

/// A platform (or a proxy before it) that takes no snapshot gets everything as changes.
#[tokio::test(start_paused = true)]
async fn a_refused_snapshot_becomes_changes() {
    for (seed, status) in [(9, 413), (10, 422), (11, 400)] {
        let mut storm = Storm::new(seed);
        storm.churn(60, Duration::ZERO).await;
        storm.platform.fail(move |path| (path == SNAPSHOT).then_some(Fault::Status(status, None)));
        let mut agent = storm.start([2048, MIB][usize::try_from(seed % 2).unwrap()]);
        storm.churn(200, Duration::from_millis(20)).await;
        storm.settle().await;
        let report = agent.reports.borrow_and_update().clone();
        assert!(report.refused.is_some_and(|words| words.contains(&status.to_string())));
        assert_eq!((report.trouble, report.stream.snapshots, report.stream.quarantined), (None, 0, 0));
        agent.stop().await;
    }
}

/// Every fault at random, for many seeds; a failing seed is its own regression test.
#[tokio::test(start_paused = true)]
async fn any_fault_at_any_time_loses_nothing() {
    for seed in 100..140 {
        let mut storm = Storm::new(seed);
        let dice = Seeded::new(seed + 1);
        storm.platform.fail(move |path| match dice.below(24) {
            0 => Some(Fault::Disconnect),
            1 | 2 => Some(Fault::Swallow),
            3 => Some(Fault::Status(503, Some("2"))),
            4 => Some(Fault::Status(429, None)),
            5 => Some(Fault::Status(401, None)),
            6 => Some(Fault::Hang),
            7 => Some(Fault::Status(404, None)),
            8 if path == SNAPSHOT => Some(Fault::Slow(Duration::from_secs(20))),
            9..12 => Some(Fault::Slow(Duration::from_millis(dice.below(3000)))),
            _ => None,
        });
        let budget = [2048, 16 * 1024, MIB][usize::try_from(seed % 3).unwrap()];
        let mut agent = storm.start(budget);
        for round in 0..6 {
            storm.churn(60, Duration::from_millis(storm.random.below(400))).await;
            if round == 3 && seed % 2 == 0 {
                // As a crash: nothing is flushed.
                agent.task.abort();
                agent = storm.start(budget);
            }
        }
        storm.platform.fail(|_| None);
        storm.settle().await;
        let report = agent.reports.borrow().clone();
        assert_eq!(report.stream.quarantined, 0, "seed {seed}");
        agent.stop().await;
    }
}
