//! One run: a cluster, a network, a platform over a store, an agent that may be killed, and the comparison.

use std::{collections::BTreeMap, io::Read as _, sync::Arc, time::Duration};

use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, header};
use meta::{Fixed, Random, Reason, Seeded, Status};
use obsyk_platform::{Client, Clients, Fault, Options, Receiver, public_key_pem};
use reconcile::{CancellationToken, testkit::FakeApi};
use serde_json::{Value, json};
use store::{Expect, Key, Memory, Store, Write};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use super::{
    churn::{CANARY, Churn, api_kind},
    wire::Wire,
};
use crate::{
    Kind,
    stream::{Agent, Report, Settings},
    testkit::{CLUSTER, clock, credentials},
    validate::Valid,
    wire::{Credentials, EVENTS, HEARTBEAT, SNAPSHOT, STATE, STREAM},
};

pub(super) const URL: &str = "https://platform.test";

/// How agent and platform speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The platform offers batches.
    Batch,
    /// It does not.
    Original,
    /// It does not, and takes no snapshots.
    NoSnapshots,
}

struct Running {
    reports: watch::Receiver<Report>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// See the module.
pub(super) struct Scene {
    mode: Mode,
    pub(super) churn: Churn,
    pub(super) wire: Arc<Wire>,
    pub(super) clock: Arc<Fixed>,
    pub(super) random: Arc<dyn Random>,
    pub(super) credentials: Credentials,
    store: Memory,
    agent: Option<Running>,
    fence: u64,
    budget: usize,
    refused: bool,
}

/// An object by kind and uid.
type Objects = BTreeMap<(String, String), Value>;

impl Scene {
    pub(super) async fn new(seed: u64, mode: Mode) -> Self {
        let clock = clock();
        let random: Arc<dyn Random> = Arc::new(Seeded::new(seed));
        let api = FakeApi::new(clock.clone(), random.clone());
        let credentials = credentials("client-1");
        let store = Memory::new();
        let receiver = open(&store, mode, &clock, &credentials).await;
        let scene = Self {
            mode,
            churn: Churn::new(api, seed),
            wire: Wire::new(receiver),
            clock,
            random,
            credentials,
            store,
            agent: None,
            fence: 0,
            budget: [3000, 20_000, 1 << 20][usize::try_from(seed % 3).unwrap()],
            refused: false,
        };
        scene.heal();
        scene
    }

    fn settings(&self) -> Settings {
        let valid = Valid {
            platform_url: URL.into(),
            cluster_name: "proof".into(),
            secret: "s".into(),
            sync_interval: Duration::from_secs(30),
            events_per_second: 100,
            burst: 100,
            batch: true,
        };
        let credentials = self.credentials.clone();
        Settings { valid, credentials, cluster_uid: CLUSTER.into(), authorities: None, fence: self.fence }
    }

    /// Starts an agent, unless one runs.
    pub(super) fn start_agent(&mut self) {
        if self.agent.is_some() {
            return;
        }
        let (to, reports) = watch::channel(Report::default());
        let (client, wire, clock) = (self.churn.api.client(), self.wire.clone(), self.clock.clone());
        let agent = Agent::new(client, wire, clock, self.random.clone(), self.settings(), to);
        let stop = CancellationToken::new();
        let task = tokio::spawn(agent.with_budget(self.budget).run(stop.clone()));
        self.agent = Some(Running { reports, stop, task });
    }

    /// As `kill -9`. Without snapshots nobody can know afterwards what was deleted: the limit is documented.
    pub(super) fn kill_agent(&mut self) {
        if self.mode == Mode::NoSnapshots {
            return;
        }
        if let Some(agent) = self.agent.take() {
            agent.task.abort();
        }
    }

    /// As SIGTERM.
    pub(super) async fn stop_agent(&mut self) {
        if self.mode == Mode::NoSnapshots {
            return;
        }
        if let Some(agent) = self.agent.take() {
            agent.stop.cancel();
            agent.task.await.unwrap();
        }
    }

    /// Another leader takes over while this one goes on for a while: only sessions keep them apart.
    pub(super) fn depose(&mut self) {
        let old = self.agent.take();
        if self.mode != Mode::Batch {
            self.agent = old;
            return self.kill_agent();
        }
        self.fence += 1;
        if let Some(old) = old {
            tokio::spawn(async move {
                sleep(Duration::from_secs(20)).await;
                old.stop.cancel();
                old.task.await.unwrap();
            });
        }
    }

    /// The platform's process is gone and comes back with what its store has.
    pub(super) async fn restart_platform(&mut self) {
        self.wire.cut().await;
        let receiver = open(&self.store, self.mode, &self.clock, &self.credentials).await;
        self.wire.connect(receiver);
        self.refused = false;
        self.heal();
    }

    /// The platform's disk forgets objects. Only digests find that.
    pub(super) async fn lose_objects(&mut self, count: usize) {
        if self.mode != Mode::Batch {
            return;
        }
        let keys: Vec<Key> = {
            let objects = self.known();
            let lists = |name: &str| Kind::from_name(name).unwrap().list();
            let key = |(kind, uid): &(String, String)| {
                Key::parse(&format!("inventory.obsyk.io/{}/{CLUSTER}/{uid}", lists(kind))).unwrap()
            };
            objects.keys().take(count).map(key).collect()
        };
        let delete = |key| Write { key, expect: Expect::Any, value: None };
        self.store.commit(keys.into_iter().map(delete).collect()).await.unwrap();
        self.restart_platform().await;
    }

    pub(super) fn break_watches(&self, expired: bool) {
        if expired {
            for kind in Kind::ALL {
                let gone = Status::new(410, Reason::Expired, "too old resource version");
                self.churn.api.fail_next(http::Method::GET, kind.plural(), gone);
            }
        }
        self.churn.api.break_watches();
    }

    /// A kind may not be listed for a while.
    pub(super) fn deny(&self, at: u64) {
        let kind = Kind::ALL[usize::try_from(at).unwrap()];
        let no = Status::new(403, Reason::Forbidden, "forbidden");
        self.churn.api.fail_next(http::Method::GET, kind.plural(), no);
        self.churn.api.break_watches();
    }

    /// Nothing fails any more, save for a platform that never takes snapshots.
    pub(super) fn heal(&self) {
        let no_snapshots = self.mode == Mode::NoSnapshots;
        let refuse = move |path: &str| (no_snapshots && path == SNAPSHOT).then_some(Fault::Status(413, None));
        self.wire.receiver().faults().set(refuse);
    }

    /// Everything fails at times, from this seed.
    pub(super) fn fail(&self, seed: u64) {
        let dice = Seeded::new(seed);
        let no_snapshots = self.mode == Mode::NoSnapshots;
        let often = 40 + dice.below(120);
        let choose = move |path: &str| {
            if no_snapshots && path == SNAPSHOT {
                return Some(Fault::Status([413, 422, 400][usize::try_from(dice.below(3)).unwrap()], None));
            }
            let status =
                |status: u16, after: Option<&str>| Some(Fault::Status(status, after.map(str::to_owned)));
            match dice.below(often) {
                0 => status(500, None),
                1 => status(502, None),
                2 => status(503, Some("2")),
                3 => status(503, Some("Thu, 01 Jan 2026 00:00:05 GMT")),
                4 => status(504, None),
                5 => status(429, Some("1")),
                6 => status(429, None),
                7 => status(429, Some("soon")),
                8 => status(401, None),
                9 => Some(Fault::ForgetTokens),
                10 => Some(Fault::Disconnect),
                11 | 12 => Some(Fault::Swallow),
                13 => Some(Fault::Slow(Duration::from_millis(dice.below(5000)))),
                14 => Some(Fault::Truncate),
                15 => Some(Fault::HalfBody),
                16 => Some(Fault::Redirect("https://elsewhere.test/".to_owned())),
                17 if path == STREAM => status(413, None),
                18 if path == STREAM => status(415, None),
                19 if path == STREAM => Some(Fault::Drop),
                20 if path == STREAM => Some(Fault::ForgetSession),
                21 if path == STREAM || path == STATE => status(404, None),
                22 if path == STREAM => Some(Fault::BadRecord),
                23 => Some(Fault::Hang),
                24 => status(408, None),
                25 => status(403, None),
                _ => None,
            }
        };
        self.wire.receiver().faults().set(choose);
    }

    pub(super) async fn storm(&mut self, changes: usize, every: Duration) {
        for _ in 0..changes {
            self.churn.change();
            sleep(every).await;
        }
    }

    /// What the oracle says that the platform should have.
    pub(super) fn wanted(&self) -> Objects {
        let of = |kind: Kind| {
            let all = self.churn.api.list(&api_kind(kind), "");
            all.into_iter().map(move |object| {
                let key = (kind.name().to_owned(), object["metadata"]["uid"].as_str().unwrap().to_owned());
                (key, obsyk_platform::oracle::expected(kind.name(), &object))
            })
        };
        Kind::ALL.into_iter().flat_map(of).collect()
    }

    fn look(&self, path: &str) -> Value {
        let request = Request::get(path).header(header::HOST, "localhost").body(Bytes::new()).unwrap();
        serde_json::from_slice(self.wire.receiver().look(&request).body()).unwrap()
    }

    fn known(&self) -> Objects {
        let mut all = Objects::new();
        loop {
            let page = self.look(&format!("/api/clusters/{CLUSTER}/objects?skip={}", all.len()));
            let Some(objects) = page["objects"].as_array().filter(|objects| !objects.is_empty()) else {
                break;
            };
            for one in objects {
                let text = |field: &str| one[field].as_str().unwrap().to_owned();
                all.insert((text("kind"), text("uid")), one["object"].clone());
            }
        }
        all
    }

    /// E1 and E2: objects that are missing, too many or different.
    pub(super) fn differences(&self) -> Vec<String> {
        let (wanted, known) = (self.wanted(), self.known());
        let missing =
            wanted.iter().filter(|(key, _)| !known.contains_key(*key)).map(|(k, _)| format!("missing {k:?}"));
        let ghosts = known.keys().filter(|key| !wanted.contains_key(*key)).map(|k| format!("ghost {k:?}"));
        let other = wanted.iter().filter_map(|(key, object)| {
            let is = known.get(key).filter(|is| *is != object)?;
            Some(format!("{key:?} is {is} and should be {object}"))
        });
        missing.chain(ghosts).chain(other).collect()
    }

    /// Whether the agent says that nothing waits. One that the platform answered 403 waits for five minutes with
    /// all that it has to say, also with deletes of what the platform does not have.
    fn is_at_rest(&self) -> bool {
        self.agent.as_ref().is_none_or(|agent| {
            let report = agent.reports.borrow();
            report.trouble.is_none() && report.stream.queue_objects == 0
        })
    }

    /// Waits until the platform has everything and nothing waits any more. An agent that a 404 has sent back to
    /// the original contract asks for batches again after an hour, and only they find what a platform's disk
    /// has lost.
    pub(super) async fn quiet(&mut self) {
        for round in 0..240 {
            sleep(Duration::from_secs(if round < 120 { 5 } else { 60 })).await;
            if self.is_at_rest() && self.differences().is_empty() {
                // What is still on its way must not change it; heartbeats bring comparisons.
                sleep(Duration::from_secs(200)).await;
                if self.is_at_rest() && self.differences().is_empty() {
                    return;
                }
            }
        }
    }

    /// Waits until the agent says that something is refused, and everything else is sent.
    pub(super) async fn refused(&mut self) -> (usize, String) {
        let agent = self.agent.as_mut().unwrap();
        agent.reports.wait_for(|report| report.refusals.is_some()).await.unwrap();
        sleep(Duration::from_secs(40)).await;
        self.agent.as_ref().unwrap().reports.borrow().refusals.clone().unwrap()
    }

    /// The comparison.
    pub(super) async fn check(&mut self) {
        assert_eq!(
            self.differences(),
            Vec::<String>::new(),
            "E1, E2: {:?}",
            self.agent.as_ref().map(|a| a.reports.borrow().clone())
        );
        self.check_digests();
        self.check_history().await;
        self.check_counters().await;
        self.check_canaries().await;
        self.check_replay().await;
    }

    /// E3: number and digest of each kind are the oracle's.
    fn check_digests(&self) {
        let digests = self.look(&format!("/api/clusters/{CLUSTER}/digests"));
        let wanted = self.wanted();
        for kind in Kind::ALL {
            let mut tally = crate::digest::Tally::default();
            for ((_, uid), object) in wanted.iter().filter(|((name, _), _)| name == kind.name()) {
                tally.add(uid, crate::digest::hash(object.to_string().as_bytes()));
            }
            let is = &digests[kind.name()];
            assert_eq!(
                (&is["count"], &is["digest"]),
                (&json!(tally.count), &json!(tally.text())),
                "E3 {kind:?}"
            );
        }
    }

    /// E4: no object ever went back, epochs rise, numbers have no gap: by all that was ever written.
    async fn check_history(&self) {
        let head = self.store.head().await.unwrap();
        let mut follow = self.store.follow(head.compacted);
        // Version, epoch and number of what was written last; zeroes for the original contract.
        let mut versions: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        let mut session = (0_u64, 0_u64, Value::Null);
        loop {
            if head.revision == head.compacted {
                break;
            }
            let change = follow.next().await.unwrap().unwrap();
            if let Some(value) = &change.value
                && change.key.resource() != "assertions"
            {
                let value: Value = serde_json::from_slice(value).unwrap();
                if change.key.resource() == "clusters" {
                    let number = |field: &str| value[field].as_u64().unwrap();
                    let now = (number("epoch"), number("applied"), value["last_batch"].clone());
                    assert!(now.0 >= session.0, "E4: epoch {session:?} to {now:?}");
                    // A batch goes on where the last one ended; one that was forgotten on purpose comes again.
                    let follows =
                        now.2.is_null() || now.2 == session.2 || now.2[0].as_u64() == Some(session.1 + 1);
                    assert!(now.0 > session.0 || follows, "E4: numbers {session:?} to {now:?}");
                    session = now;
                } else if let Some(version) = value["object"]["labels"]["v"].as_str() {
                    let number = |field: &str| value[field].as_u64().unwrap();
                    let now = [version.parse().unwrap(), number("epoch"), number("seq")];
                    let before = versions.insert(change.key.as_str().to_owned(), now);
                    assert!(
                        before.is_none_or(|before| before[0] <= now[0]),
                        "E4: {} went back from {before:?} to {now:?} in {session:?}",
                        change.key.as_str()
                    );
                }
            }
            if change.revision >= head.revision {
                break;
            }
        }
    }

    /// E6: every change ended as something, and nothing waits. E8: what waited was bounded.
    async fn check_counters(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.stop.cancel();
        agent.task.await.unwrap();
        let report = agent.reports.borrow().clone();
        let stats = &report.stream;
        let ended = stats.sent + stats.merged + stats.withdrawn + stats.shed + stats.quarantined;
        assert_eq!((stats.queued, stats.queue_objects, stats.queue_bytes), (ended, 0, 0), "E6 {stats:?}");
        assert!(stats.noop <= stats.observed, "E6 {stats:?}");
        // No object of the churn is larger than the smallest budget.
        let room = u64::try_from(self.budget).unwrap();
        assert!(stats.queue_bytes_max <= room, "E8 {} bytes of {room} waited", stats.queue_bytes_max);
        assert_eq!(report.trouble, None);
        assert!(!format!("{report:?}").contains(CANARY), "E7: the report");
        // A session that a 404 ended before its first batch sent none.
        assert!(stats.epoch.is_none() || (self.mode == Mode::Batch && stats.batches > 0), "{stats:?}");
    }

    /// E7: no value that stays in the cluster is in anything that was sent or stored.
    async fn check_canaries(&self) {
        for sent in self.wire.journal.lock().iter() {
            let mut plain = Vec::new();
            if sent.encoding.as_deref() == Some("gzip") {
                flate2::read::GzDecoder::new(&*sent.body).read_to_end(&mut plain).unwrap();
            } else {
                plain = sent.body.to_vec();
            }
            let encoded = base64::engine::general_purpose::STANDARD.encode(CANARY);
            let text = String::from_utf8_lossy(&plain);
            assert!(!text.contains(CANARY) && !text.contains(&encoded), "E7: {}", sent.path);
            let packs = sent.encoding.is_some();
            let batch = sent.path == STREAM;
            assert!(batch || !packs, "the original contract is not packed: {}", sent.path);
            assert!(self.mode == Mode::Batch || !(batch || sent.path == STATE), "{} unasked", sent.path);
            let json = [SNAPSHOT, EVENTS, HEARTBEAT, STATE].contains(&sent.path.as_str());
            assert!(!json || sent.content_type == "application/json");
        }
        let mut loading = self.store.load();
        while let Some(Ok(store::Loaded::Object(stored))) = loading.next().await {
            assert!(!String::from_utf8_lossy(&stored.value).contains(CANARY), "E7: {}", stored.key.as_str());
        }
    }

    /// E9: batches that come again, all of them, change nothing.
    async fn check_replay(&self) {
        let before = self.known();
        let platform = crate::wire::Platform::new(
            self.wire.clone(),
            URL,
            self.credentials.clone(),
            self.clock.clone(),
            self.random.clone(),
        );
        let journal = self.wire.journal.lock().clone();
        for sent in journal.into_iter().filter(|sent| sent.path == STREAM) {
            let encoding = sent.encoding.is_some().then_some("gzip");
            drop(platform.exchange_batch(STREAM, sent.body, encoding).await);
        }
        assert_eq!(self.known(), before, "E9");
    }
}

async fn open(store: &Memory, mode: Mode, clock: &Arc<Fixed>, credentials: &Credentials) -> Arc<Receiver> {
    let options =
        Options { batch: mode == Mode::Batch, ..Options::new(URL, clock.clone(), Arc::new(Seeded::new(1))) };
    let receiver = Receiver::open(Arc::new(store.clone()), options).await.unwrap();
    let mut clients = Clients::default();
    let public_keys = vec![public_key_pem(credentials.public_key())];
    clients.register(Client { client_id: "client-1".into(), public_keys, revoked: false }).unwrap();
    receiver.set_clients(clients);
    receiver
}
