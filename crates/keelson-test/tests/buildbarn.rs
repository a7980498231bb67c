//! The Buildbarn operator on a whole cluster in virtual time, with users, a scheduler and nodes that do anything at any
//! moment, from a seed: pools scale, roll out and leave their nodes, shards come and go, the scheduler restarts and falls
//! silent. No pod that runs an action is deleted, the farm always comes to rest as it was wanted, and how much is
//! written is counted.
//!
//! Left out, as `operator_buildbarn` says: a scheduler that restarts between being asked and the deletion that follows.
//! After a restart, actions are handed out again a few seconds later, as clients take to come back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use keelson_test::{Clock, Cluster, Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
};
use meta::{Random, Seeded};
use operator_buildbarn::{Lane, StandIn};
use reconcile::MetricsSnapshot;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const NODES: u64 = 2;
/// Actions that a worker runs at a time.
const THREADS: u32 = 2;
/// Most pods of the pool while things happen.
const PODS_MAX: u64 = 10;
/// Things that happen to a farm; `BUILDBARN_STEPS` chooses another number.
const STEPS: u64 = 16;
/// A farm of three objects and one of five.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=2;
/// How often what waits is handed out.
const ASSIGN_EVERY: Duration = Duration::from_millis(500);
/// A restarted scheduler hands out nothing for so long: the operator looks again every two seconds.
const CLIENTS_COME_BACK: Duration = Duration::from_secs(5);
/// Writes of the operator for one thing that happens. A change of the shards rolls out everything three times.
const WRITES_PER_STEP_MAX: u64 = 40;
/// A farm that is made, and one that comes to rest, are so many steps' work more.
const WRITES_AROUND_STEPS: u64 = 4;
/// Within so long every queue and store is looked at again.
const LOOKED_AT_AGAIN: Duration = Duration::from_secs(65);
/// So long nothing is written then: longer than anything is let be before it is looked at anew.
const AT_REST: Duration = Duration::from_secs(320);
/// Within so long a farm comes to rest when its actions end: windows of shards and stabilisation included.
const REST_MAX: Duration = Duration::from_secs(3600);

const FARM: &str = "
apiVersion: buildbarn.io/v1alpha1
kind: BuildbarnStorage
metadata: {name: storage, namespace: default}
spec: {replicas: 1, resharding: {windowSeconds: 60}}
---
apiVersion: buildbarn.io/v1alpha1
kind: BuildbarnScheduler
metadata: {name: scheduler, namespace: default}
spec: {}
---
apiVersion: buildbarn.io/v1alpha1
kind: BuildbarnWorker
metadata: {name: pool, namespace: default}
spec:
  replicas: 3
  concurrency: 2
  platform: {properties: [{name: OSFamily, value: linux}]}
  drain: {timeoutSeconds: 1209600}
";

/// What only every second farm has: more reads the map of the shards, and a seed takes longer.
const READERS: &str = "
apiVersion: buildbarn.io/v1alpha1
kind: BuildbarnFrontend
metadata: {name: frontend, namespace: default}
spec: {replicas: 1}
---
apiVersion: buildbarn.io/v1alpha1
kind: BuildbarnBrowser
metadata: {name: browser, namespace: default}
spec: {replicas: 1}
";

const PARTS: [(&str, &str); 5] = [
    ("BuildbarnStorage", "storage"),
    ("BuildbarnScheduler", "scheduler"),
    ("BuildbarnWorker", "pool"),
    // Those of `READERS`.
    ("BuildbarnFrontend", "frontend"),
    ("BuildbarnBrowser", "browser"),
];
const CORE: usize = 3;

/// The time of day of the cluster.
struct Now {
    start: Timestamp,
    origin: Instant,
}

impl Clock for Now {
    fn now(&self) -> Timestamp {
        self.start.checked_add(self.origin.elapsed()).unwrap()
    }
}

type Counters = Vec<Box<dyn Fn() -> MetricsSnapshot + Send + Sync>>;

/// What came of one seed.
#[derive(Default)]
struct Outcome {
    drained: u64,
    writes: u64,
    reconciles: u64,
}

/// What is seen of the workers' pods.
#[derive(Default)]
struct Workers {
    /// Those that run, whose workers have come to the scheduler.
    running: BTreeSet<String>,
    /// Those whose deletion has begun.
    deleted: BTreeSet<String>,
    /// Those of them that ran an action.
    lost: Vec<String>,
}

struct Run {
    seed: u64,
    cluster: Cluster,
    client: Client,
    scheduler: StandIn,
    lane: Lane,
    random: Seeded,
    counters: Counters,
    parts: &'static [(&'static str, &'static str)],
    workers: Arc<Mutex<Workers>>,
    /// What has happened, for the message of a failure.
    story: Vec<String>,
    rollouts: u64,
    silent: bool,
    /// Nothing is handed out before.
    back_at: Instant,
    _operator: tokio::task::JoinHandle<()>,
}

impl Run {
    async fn start(seed: u64) -> Self {
        let nodes = u32::try_from(NODES).unwrap();
        let cluster = Cluster::builder().nodes(nodes).seed(seed).start().await.unwrap();
        for definition in operator_buildbarn::crds() {
            cluster.apply_value(&definition).await.unwrap();
        }
        let (client, scheduler) = (cluster.client(), StandIn::default());
        let lane = Lane::of(&[("OSFamily", "linux")], 0);
        scheduler.declare(&lane);
        let controllers = operator_buildbarn::controllers_beside(&scheduler);
        let counters = controllers.iter().map(|one| Box::new(one.metrics()) as _).collect();
        let clock = Arc::new(Now { start: cluster.now(), origin: Instant::now() });
        let context = reconcile::Context::new(client.clone(), clock, Arc::new(Seeded::new(seed)));
        let operator = tokio::spawn(reconcile::run(controllers, context, CancellationToken::new()));
        let workers = Arc::default();
        tokio::spawn(watch(client.clone(), scheduler.clone(), lane.clone(), Arc::clone(&workers)));
        cluster.apply(FARM).await.unwrap();
        let parts = if seed % 2 == 1 { PARTS.len() } else { CORE };
        if parts > CORE {
            cluster.apply(READERS).await.unwrap();
        }
        Self {
            seed,
            cluster,
            client,
            scheduler,
            lane,
            random: Seeded::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            counters,
            parts: &PARTS[..parts],
            workers,
            story: Vec::new(),
            rollouts: 0,
            silent: false,
            back_at: Instant::now(),
            _operator: operator,
        }
    }

    async fn edit(&self, kind: &str, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        api(&self.client, kind).patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn cordon(&self, node: u64, unschedulable: bool) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "spec": { "unschedulable": unschedulable } }));
        nodes.patch(&format!("node-{node}"), &PatchParams::default(), &patch).await.unwrap();
    }

    fn busy(&self) -> Vec<String> {
        let workers = self.workers.lock().unwrap();
        workers.running.iter().filter(|pod| self.scheduler.busy(pod)).cloned().collect()
    }

    /// Something happens.
    async fn step(&mut self) {
        let below = |bound| self.random.below(bound);
        let choice = below(16);
        let told = match choice {
            0..=2 => {
                let to = below(PODS_MAX + 1);
                self.edit("BuildbarnWorker", "pool", json!({ "replicas": to })).await;
                format!("scale to {to}")
            }
            3 => {
                self.rollouts += 1;
                let concurrency = 10 + self.rollouts;
                let spec = json!({ "inputDownloadConcurrency": concurrency });
                self.edit("BuildbarnWorker", "pool", spec).await;
                "roll out".to_owned()
            }
            4..=5 => {
                let (node, emptied) = (below(NODES), choice == 4);
                self.cordon(node, emptied).await;
                format!("cordon node-{node}: {emptied}")
            }
            6 => {
                let to = 1 + below(3);
                self.edit("BuildbarnStorage", "storage", json!({ "replicas": to })).await;
                format!("{to} shards")
            }
            7 => {
                self.scheduler.restart();
                self.back_at = Instant::now() + CLIENTS_COME_BACK;
                "the scheduler restarts".to_owned()
            }
            8 => {
                self.silent = !self.silent;
                self.scheduler.silence(self.silent);
                format!("the scheduler is silent: {}", self.silent)
            }
            9..=11 => {
                let actions = u32::try_from(1 + below(2 * PODS_MAX)).unwrap();
                self.scheduler.submit(&self.lane, actions);
                format!("{actions} actions come")
            }
            _ => {
                for pod in self.busy() {
                    if self.random.below(2) == 0 {
                        self.scheduler.finish(&pod);
                    }
                }
                "some actions end".to_owned()
            }
        };
        self.story.push(told);
        let pause = Duration::from_millis(self.random.below(6000));
        self.pass(pause).await;
    }

    /// Time passes, in which whoever has a thread free is given what waits.
    async fn pass(&self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            if Instant::now() >= self.back_at {
                self.scheduler.assign();
            }
            let lost = self.workers.lock().unwrap().lost.clone();
            let story = &self.story;
            assert!(lost.is_empty(), "seed {}: {lost:?} ran actions and were deleted\n{story:#?}", self.seed);
            if Instant::now() >= until {
                return;
            }
            sleep(ASSIGN_EVERY.min(until - Instant::now())).await;
        }
    }

    fn counted(&self) -> (u64, u64) {
        let all = self.counters.iter().map(|counters| counters());
        all.fold((0, 0), |(writes, reconciles), one| (writes + one.writes, reconciles + one.reconciles))
    }

    /// Everything works again, and actions end: then the farm is as it was wanted, and nothing is written any more.
    async fn comes_to_rest(&mut self) {
        self.scheduler.silence(false);
        for node in 0..NODES {
            self.cordon(node, false).await;
        }
        let replicas = 1 + self.random.below(4);
        self.edit("BuildbarnWorker", "pool", json!({ "replicas": replicas })).await;
        let begun = Instant::now();
        while let Err(why) = self.is_at_rest(replicas).await {
            let story = &self.story;
            assert!(begun.elapsed() < REST_MAX, "seed {}: no rest: {why}\n{story:#?}", self.seed);
            for pod in self.busy() {
                self.scheduler.finish(&pod);
            }
            self.pass(Duration::from_secs(5)).await;
        }
        // What queues hold is written down when they are looked at again.
        self.pass(LOOKED_AT_AGAIN).await;
        let before = self.counted().0;
        self.pass(AT_REST).await;
        assert_eq!(self.counted().0, before, "seed {}: writes at rest\n{:#?}", self.seed, self.story);
        assert_eq!(self.cluster.violations(), Vec::<String>::new(), "seed {}", self.seed);
    }

    async fn is_at_rest(&self, replicas: u64) -> Result<(), String> {
        for (kind, name) in self.parts {
            let object = serde_json::to_value(api(&self.client, kind).get(name).await.unwrap()).unwrap();
            let status = &object["status"];
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready").cloned();
            let ready = ready.unwrap_or_default();
            let stage = status["topology"]["stage"].as_str().unwrap_or("Stable");
            if ready["status"] != "True"
                || status["observedGeneration"] != object["metadata"]["generation"]
                || stage != "Stable"
            {
                return Err(format!("{kind}: {ready}, shards {stage}"));
            }
        }
        let (pods, drains) = (self.workers.lock().unwrap().running.len() as u64, self.scheduler.drains());
        if pods == replicas && drains == 0 { Ok(()) } else { Err(format!("{pods} workers, {drains} drains")) }
    }
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "buildbarn.io".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "buildbarn.io/v1alpha1".to_owned(),
        kind: kind.to_owned(),
        plural: format!("{}s", kind.to_lowercase()),
    };
    Api::namespaced_with(client.clone(), "default", &resource)
}

/// Sees each pod of a worker: when it runs, its worker comes to the scheduler; when it is deleted, what it runs is lost.
async fn watch(client: Client, scheduler: StandIn, lane: Lane, workers: Arc<Mutex<Workers>>) {
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut from = "0".to_owned();
    loop {
        let params = WatchParams::default().labels("app=worker");
        let mut events = std::pin::pin!(pods.watch(&params, &from).await.unwrap());
        while let Some(Ok(event)) = events.next().await {
            let (pod, gone) = match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
                WatchEvent::Deleted(pod) => (pod, true),
                WatchEvent::Bookmark(_) => continue,
                // The revision is forgotten: from the beginning.
                WatchEvent::Error(_) => {
                    from = "0".to_owned();
                    break;
                }
            };
            from = pod.resource_version().unwrap();
            let (name, mut workers) = (pod.name_any(), workers.lock().unwrap());
            if gone || pod.metadata.deletion_timestamp.is_some() {
                if workers.deleted.insert(name.clone()) {
                    if scheduler.busy(&name) {
                        workers.lost.push(name.clone());
                    }
                    workers.running.remove(&name);
                    scheduler.vanish(&name);
                }
            } else if pod.status.and_then(|status| status.phase).as_deref() == Some("Running")
                && workers.running.insert(name.clone())
            {
                scheduler.register(&lane, &name, THREADS);
            }
        }
    }
}

async fn run(seed: u64, steps: u64) -> Outcome {
    let mut run = Run::start(seed).await;
    run.pass(Duration::from_secs(30)).await;
    for _ in 0..steps {
        run.step().await;
    }
    run.comes_to_rest().await;
    let (writes, reconciles) = run.counted();
    let bound = WRITES_PER_STEP_MAX * (steps + WRITES_AROUND_STEPS);
    assert!(writes <= bound, "seed {seed}: {writes} writes for {steps} steps\n{:#?}", run.story);
    let drained = run.workers.lock().unwrap().deleted.len() as u64;
    Outcome { drained, writes, reconciles }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect(name))
}

/// `BUILDBARN_SEEDS=FIRST..LAST` chooses others.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let Ok(text) = std::env::var("BUILDBARN_SEEDS") else { return SEEDS };
    let (first, last) = text.split_once("..").expect("BUILDBARN_SEEDS=FIRST..LAST");
    first.parse().unwrap()..=last.parse().unwrap()
}

/// One after the other, each in a runtime of its own.
fn run_all(seeds: Vec<u64>) -> Outcome {
    let (mut all, steps) = (Outcome::default(), number("BUILDBARN_STEPS", STEPS));
    for seed in seeds {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let Outcome { drained, writes, reconciles } = runtime.block_on(run(seed, steps));
        println!("seed {seed}: {drained} pods drained, {writes} writes, {reconciles} reconciliations");
        assert!(drained > 0, "seed {seed} drained nothing");
        all.drained += drained;
        all.writes += writes;
        all.reconciles += reconciles;
    }
    all
}

#[test]
fn no_action_is_lost_and_the_farm_comes_to_rest() {
    let (odd, even): (Vec<u64>, Vec<u64>) = seeds().partition(|seed| seed % 2 == 1);
    let (odd, even) = std::thread::scope(|scope| {
        let odd = scope.spawn(|| run_all(odd));
        let even = run_all(even);
        (odd.join().expect("a seed failed, see above"), even)
    });
    println!(
        "{} runs: {} pods drained, none lost an action; {} writes, {} reconciliations",
        seeds().count(),
        odd.drained + even.drained,
        odd.writes + even.writes,
        odd.reconciles + even.reconciles
    );
}

const STORAGE: &str = "
apiVersion: buildbarn.io/v1alpha1
kind: BuildbarnStorage
metadata: {name: storage, namespace: default}
spec: {replicas: 2}
";

/// What only the API server knows to be wrong is told for as long as it is, and no pod is touched by it; a store that
/// comes later gets its volumes, shard after shard.
#[tokio::test(start_paused = true)]
async fn a_storage_tells_what_is_refused_and_takes_another_store() {
    let cluster = Cluster::start().await.unwrap();
    for definition in operator_buildbarn::crds() {
        cluster.apply_value(&definition).await.unwrap();
    }
    let controllers = operator_buildbarn::controllers_beside(&StandIn::default());
    let clock = Arc::new(Now { start: cluster.now(), origin: Instant::now() });
    let context = reconcile::Context::new(cluster.client(), clock, Arc::new(Seeded::new(1)));
    let _operator = tokio::spawn(reconcile::run(controllers, context, CancellationToken::new()));
    cluster.apply(STORAGE).await.unwrap();
    let storages = api(&cluster.client(), "BuildbarnStorage");
    let edit = async |spec: Value| {
        let patch = Patch::Merge(json!({ "spec": spec }));
        storages.patch("storage", &PatchParams::default(), &patch).await.unwrap();
    };
    let says = async |wanted: &str| {
        let ask = async || {
            let object = serde_json::to_value(storages.get("storage").await.unwrap()).unwrap();
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready =
                conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default();
            let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            let said = format!("{} {}: {}", ready["status"], ready["reason"], ready["message"]);
            if current && said.contains(wanted) { Ok(()) } else { Err(said) }
        };
        cluster.eventually(wanted, ask).await.unwrap();
        cluster.settle().await.unwrap();
        ask().await.unwrap();
    };
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let uids = async || -> Vec<String> {
        pods.list(&ListParams::default()).await.unwrap().into_iter().filter_map(|pod| pod.uid()).collect()
    };
    says("2 of 2 pod(s) are ready").await;
    let before = uids().await;
    edit(json!({ "tolerations": [{ "operator": "Sometimes" }] })).await;
    says("spec.template.spec.tolerations[0].operator").await;
    assert_eq!(uids().await, before);
    edit(json!({ "tolerations": null })).await;
    says("2 of 2 pod(s) are ready").await;
    assert_eq!(uids().await, before);
    edit(json!({ "fsac": { "enabled": true } })).await;
    says("2 of 2 pod(s) are ready").await;
    assert_ne!(uids().await, before, "pods that mount another volume are others");
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(cluster.client());
    let claims: Vec<String> =
        claims.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    let wanted = [
        "ac-storage-0",
        "ac-storage-1",
        "cas-storage-0",
        "cas-storage-1",
        "fsac-storage-0",
        "fsac-storage-1",
    ];
    assert_eq!(claims, wanted);
}
