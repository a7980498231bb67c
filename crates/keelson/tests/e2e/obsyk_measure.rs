//! What the Obsyk operator costs and how fast it is: the figures of `docs/benchmarks.md`. Nothing here is
//! asserted but that the platform has everything in the end.
//!
//! `cargo test --profile dist -p keelson --test e2e obsyk_with_10000 -- --ignored --nocapture`; `OBSYK_PODS=500` for a
//! look at whether it works.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use kube::{
    Api, Client, Config, Resource,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime as Tokio,
    sync::mpsc,
};

use crate::{
    cluster::{Cluster, Runtime},
    obsyk::{Platform, agent, deployment, equal, has_condition, secrets},
    obsyk_alone::Operator,
    obsyk_original::Original,
};

/// Requests to the API server at once.
const IN_FLIGHT: usize = 32;
/// Changes of an hour at ten a second, which are those of a cluster of 10,000 pods; of a smaller one, fewer.
const HOUR: usize = 36_000;
/// Changes of each pod in that hour, of ten pods.
const HOUR_OF_TEN_PODS: usize = 36;
/// Changes whose sending is timed.
const SENT: usize = 8000;
/// So long changes are made while the network stands: less than a request may take.
const HELD_SECONDS: f64 = 15.0;
/// Of the original.
const CHANNEL: f64 = 1000.0;
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(10);
/// What takes longer never ends.
const PATIENCE: Duration = Duration::from_secs(1800);

/// How many pods, unless somebody wants to see only whether it works.
fn asked(pods: usize) -> usize {
    std::env::var("OBSYK_PODS").map_or(pods, |text| text.parse().unwrap())
}

/// Asks often, so that what is timed is not the asking.
fn until(what: &str, operator: &Operator, mut ask: impl FnMut() -> bool) {
    let began = Instant::now();
    while !ask() {
        operator.must_run();
        assert!(began.elapsed() < PATIENCE, "{what}: not yet");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The network between agent and platform: with a round trip, with what went over it, and held up at will.
struct Network {
    url: String,
    one_way_micros: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    held: Arc<AtomicBool>,
}

impl Network {
    /// Of a platform that will be at this address.
    fn start(tokio: &Tokio, to: Arc<std::sync::OnceLock<String>>) -> Self {
        let listener = tokio.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let this = Self { url, one_way_micros: Arc::default(), bytes: Arc::default(), held: Arc::default() };
        let (delay, bytes, held) = (this.one_way_micros.clone(), this.bytes.clone(), this.held.clone());
        tokio.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Some(Ok(far)) = (match to.get() {
                    Some(to) => Some(TcpStream::connect(to).await),
                    None => None,
                }) else {
                    continue;
                };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                let pass = |from, to| pass(from, to, delay.clone(), bytes.clone(), held.clone());
                tokio::spawn(pass(near_read, far_write));
                tokio::spawn(pass(far_read, near_write));
            }
        });
        this
    }

    fn round_trip(&self, millis: u64) {
        self.one_way_micros.store(millis * 500, Relaxed);
    }
}

/// Each piece leaves as long after it came as one way takes.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    held: Arc<AtomicBool>,
) {
    let (queue, mut pieces) = mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(1024);
    let reading = async move {
        let mut piece = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            bytes.fetch_add(count as u64, Relaxed);
            let at = tokio::time::Instant::now() + Duration::from_micros(delay.load(Relaxed));
            if queue.send((at, piece[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, piece)) = pieces.recv().await {
            tokio::time::sleep_until(at).await;
            while held.load(Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

/// Of the operator's process.
struct Cost {
    resident_mib: f64,
    /// Of that, what is no part of the program's file.
    own_mib: f64,
    peak_mib: f64,
    processor_seconds: f64,
}

fn cost(operator: &Operator) -> Cost {
    operator.must_run();
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", operator.pid())).unwrap();
    let status = read("status");
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    };
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // utime and stime, in hundredths of a second.
    let processor_seconds = (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0;
    Cost { resident_mib: mib("VmRSS:"), own_mib: mib("RssAnon:"), peak_mib: mib("VmHWM:"), processor_seconds }
}

/// The peak is measured from now on.
fn forget_peak(operator: &Operator) {
    std::fs::write(format!("/proc/{}/clear_refs", operator.pid()), "5").unwrap();
}

async fn create<K>(client: &Client, count: usize, of: impl Fn(usize) -> Value + Copy)
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + DeserializeOwned
        + serde::Serialize
        + Clone
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), "default");
    let made =
        stream::iter(0..count).map(|at| {
            let api = api.clone();
            async move {
                api.create(&PostParams::default(), &serde_json::from_value(of(at)).unwrap()).await.unwrap()
            }
        });
    made.buffer_unordered(IN_FLIGHT).for_each(|_| async {}).await;
}

/// A pod as charts make them: two containers, a dozen of variables, probes, volumes. Nobody places it.
fn pod(at: usize) -> Value {
    let env: Vec<Value> = (0..12)
        .map(|n| json!({"name": format!("SETTING_NUMBER_{n}"), "value": format!("value {n} of {at} that stays here")}))
        .collect();
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example.com/team-{}/{name}:1.{at}.0", at % 40),
            "args": ["--verbose", "--config=/etc/app/config.yaml"], "env": env,
            "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "tmp", "mountPath": "/tmp"}],
            "securityContext": {"runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{at:05}"), "labels": {
            "app.kubernetes.io/name": format!("app-{}", at % 500), "app.kubernetes.io/instance": format!("i-{at}"),
            "app.kubernetes.io/version": "1.2.3", "pod-template-hash": format!("{at:010x}"), "tier": "backend", "v": "0"},
            "annotations": {"prometheus.io/scrape": "true", "checksum/config": format!("{at:064x}")}},
        "spec": {"schedulerName": "nobody", "containers": [container("main"), container("sidecar")],
            "volumes": [{"name": "config", "configMap": {"name": "config"}}, {"name": "tmp", "emptyDir": {}}]},
    })
}

struct Rig {
    tokio: Tokio,
    cluster: Cluster,
    client: Client,
    platform: Platform,
    network: Network,
    pods: usize,
    version: u64,
}

impl Rig {
    fn new(pods: usize) -> Self {
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let address = Arc::default();
        let network = Network::start(&tokio, Arc::clone(&address));
        let platform = Platform::start(&["--url", &network.url]);
        address.set(platform.listens.clone()).unwrap();
        let cluster = Cluster::up(Runtime::Simulated, &["--operators", "none"]);
        let mut install = std::process::Command::new(env!("CARGO_BIN_EXE_keelson"));
        let install = install.args(["install", "--operator", "obsyk"]).output().unwrap();
        cluster.apply(&String::from_utf8(install.stdout).unwrap());
        let client = tokio.block_on(async {
            let file = Kubeconfig::read_from(cluster.data_dir().join("admin.kubeconfig")).unwrap();
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
            Client::try_from(config).unwrap()
        });
        // Long before the agent: one that the platform does not know yet tries again after half a minute.
        cluster.apply(&platform.register(crate::obsyk_original::CLIENT));
        cluster.apply(&platform.register("home"));
        let key = |at: usize| json!({format!("key-{at}"): "dmFsdWU="});
        let meta = |kind: &str, at: usize| json!({"name": format!("{kind}-{at:05}"), "labels": {"app": "a"}});
        tokio.block_on(async {
            create::<Pod>(&client, pods, pod).await;
            create::<Secret>(&client, pods * 6 / 10, |at| json!({"metadata": meta("secret", at), "data": key(at)})).await;
            create::<ConfigMap>(&client, pods * 4 / 10, |at| json!({"metadata": meta("config", at), "data": key(at)})).await;
            create::<Event>(&client, pods, |at| json!({"metadata": meta("event", at), "type": "Normal", "reason": "Started",
                "message": format!("Started container main of {at}"), "count": 1, "source": {"component": "kubelet"},
                "involvedObject": {"kind": "Pod", "name": format!("pod-{at:05}"), "namespace": "default"}})).await;
        });
        cluster.apply(&agent("home", &network.url));
        Self { tokio, cluster, client, platform, network, pods, version: 0 }
    }

    fn operator(&self) -> Operator {
        Operator::start(&self.cluster.data_dir().join("admin.kubeconfig"))
    }

    /// What the platform says of the cluster; null when it says nothing.
    fn known(&self) -> Value {
        let all = self.platform.get("/api/clusters").unwrap_or_default();
        let mut all = all.as_array().into_iter().flatten();
        all.find(|cluster| cluster["client_id"] == "home").cloned().unwrap_or_default()
    }

    fn number(&self, field: &str) -> u64 {
        self.known()[field].as_u64().unwrap_or(0)
    }

    fn text(&self, field: &str) -> String {
        self.known()[field].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the platform has been told of `version` of so many pods. It searches them all for that, which takes a
    /// while.
    fn told(&self, operator: &Operator, pods: usize) {
        let last = format!(
            "/api/clusters/{}/objects?kind=Pod&limit=1&q=%22v%22:%22{}%22",
            self.text("uid"),
            self.version
        );
        let pods = u64::try_from(pods).unwrap();
        until("the platform was told", operator, || {
            self.number("queue_objects") == 0
                && self.platform.get(&last).is_ok_and(|found| found["found"].as_u64() == Some(pods))
        });
    }

    /// Changes so many pods, each once, and more often only when there are fewer.
    fn churn(&mut self, changes: usize) {
        let mut left = changes;
        while left > 0 {
            self.version += 1;
            let (api, version): (Api<Pod>, _) =
                (Api::namespaced(self.client.clone(), "default"), self.version);
            let count = left.min(self.pods);
            left -= count;
            self.tokio.block_on(async {
                let patched = stream::iter(0..count).map(|at| {
                    let (api, name) = (api.clone(), format!("pod-{at:05}"));
                    let patch = json!({"metadata": {"labels": {"v": version.to_string()}}});
                    async move {
                        api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch))
                            .await
                            .unwrap()
                    }
                });
                patched.buffer_unordered(IN_FLIGHT).for_each(|_| async {}).await;
            });
        }
    }
}

/// A phase's time, and what it cost the operator and the network.
struct Phase {
    began: Instant,
    bytes: u64,
    processor_seconds: f64,
}

impl Phase {
    fn begin(rig: &Rig, operator: &Operator) -> Self {
        let processor_seconds = cost(operator).processor_seconds;
        Self { began: Instant::now(), bytes: rig.network.bytes.load(Relaxed), processor_seconds }
    }

    fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn megabytes(&self, rig: &Rig) -> f64 {
        (rig.network.bytes.load(Relaxed) - self.bytes) as f64 / 1e6
    }

    /// Milliseconds of processor for a thousand changes.
    fn processor(&self, operator: &Operator, changes: usize) -> f64 {
        (cost(operator).processor_seconds - self.processor_seconds) * 1e6 / changes as f64
    }
}

fn measure(pods: usize) {
    let pods = asked(pods);
    let began = Instant::now();
    let mut rig = Rig::new(pods);
    println!(
        "{pods} pods, {} Secrets, {} ConfigMaps, {pods} Events, made in {:.0} s",
        pods * 6 / 10,
        pods * 4 / 10,
        began.elapsed().as_secs_f64()
    );
    let operator = rig.operator();
    first_sync(&rig, &operator);
    idle(&operator);
    let per_second = as_they_are_made(&mut rig, &operator);
    let original = rig.tokio.block_on(Original::new(&rig.client, &rig.network.url));
    // As many as are made before the request that waits for the network is given up.
    let count = SENT.min(pods).min((per_second * HELD_SECONDS) as usize);
    for millis in [0, 20, 100] {
        rig.network.round_trip(millis);
        those_that_wait(&mut rig, &operator, &original, count, millis);
    }
    rig.network.round_trip(0);
    away_and_back(&mut rig, &operator);
    idle(&operator);
    assert!(operator.stop());
    let operator = started_again(&rig);
    in_the_original_contract(&rig, &operator);
    println!("  all of it: {:.0} s", began.elapsed().as_secs_f64());
}

fn first_sync(rig: &Rig, operator: &Operator) {
    let phase = Phase { began: Instant::now(), bytes: 0, processor_seconds: 0.0 };
    let objects = u64::try_from(rig.pods * 3).unwrap();
    until("everything is sent", operator, || {
        rig.number("objects") >= objects && rig.number("queue_objects") == 0
    });
    let Cost { peak_mib, processor_seconds, .. } = cost(operator);
    println!(
        "  first sync: {:.1} s, {:.1} MB over the network, {processor_seconds:.1} s of processor, peak {peak_mib:.1} MiB",
        phase.seconds(),
        phase.megabytes(rig)
    );
}

fn idle(operator: &Operator) {
    // What a phase has left behind is given back by then.
    std::thread::sleep(IDLE / 2);
    let before = cost(operator);
    std::thread::sleep(IDLE / 2);
    let Cost { resident_mib, own_mib, peak_mib: _, processor_seconds } = cost(operator);
    println!(
        "  idle: {resident_mib:.1} MiB, {own_mib:.1} of it no part of the program's file, {:.2} % of a processor",
        (processor_seconds - before.processor_seconds) * 200.0 / IDLE.as_secs_f64()
    );
}

/// How many a second were made.
fn as_they_are_made(rig: &mut Rig, operator: &Operator) -> f64 {
    let count = SENT.min(rig.pods);
    let phase = Phase::begin(rig, operator);
    rig.churn(count);
    let made = phase.seconds();
    rig.told(operator, count);
    println!(
        "  {count} changes as they are made, {:.0}/s: all there {:.2} s after the last, {:.2} MB, {:.0} ms of processor for 1,000",
        count as f64 / made,
        phase.seconds() - made,
        phase.megabytes(rig),
        phase.processor(operator, count)
    );
    count as f64 / made
}

/// The rate, with all of it waiting before it begins; and the original's, which drops what finds no room.
fn those_that_wait(rig: &mut Rig, operator: &Operator, original: &Original, count: usize, millis: u64) {
    let told = rig.number("changes");
    let mut phase = Phase::begin(rig, operator);
    rig.network.held.store(true, Relaxed);
    rig.churn(count);
    let made = phase.seconds();
    let processor_making = phase.processor(operator, count);
    phase.began = Instant::now();
    rig.network.held.store(false, Relaxed);
    let all = told + u64::try_from(count).unwrap();
    until("what waited is sent", operator, || {
        rig.number("changes") >= all && rig.number("queue_objects") == 0
    });
    let took = phase.seconds();
    println!(
        "  {count} changes that wait, {millis} ms round trip: {:.0}/s, {:.2} MB, {:.0} ms of processor for 1,000, {processor_making:.0} \
         of them to see them",
        count as f64 / took,
        phase.megabytes(rig),
        phase.processor(operator, count)
    );
    rig.told(operator, count);
    let rate = rig.tokio.block_on(original.rate());
    let lost = |rate: f64| (count as f64 - CHANNEL - rate * made).max(0.0);
    println!(
        "    original's design, one at a time: {rate:.0}/s; were these all that change, in {made:.0} s, it would drop {:.0} of \
         them, and {:.0} at its default of 10/s",
        lost(rate),
        lost(rate.min(10.0))
    );
}

/// The platform is away for an hour of changes.
fn away_and_back(rig: &mut Rig, operator: &Operator) {
    let hour = HOUR.min(rig.pods * HOUR_OF_TEN_PODS / 10);
    forget_peak(operator);
    rig.platform.kill();
    let phase = Phase::begin(rig, operator);
    rig.churn(hour);
    let processor = phase.processor(operator, hour);
    let Cost { resident_mib, own_mib, peak_mib, .. } = cost(operator);
    println!(
        "  platform away, {hour} changes: peak {peak_mib:.1} MiB, at the end {resident_mib:.1}, {own_mib:.1} of it no part of the \
         program's file, {processor:.0} ms of processor for 1,000"
    );
    let url = rig.network.url.clone();
    rig.platform.restart(&["--url", &url]);
    let phase = Phase::begin(rig, operator);
    let last = if hour.is_multiple_of(rig.pods) { rig.pods } else { hour % rig.pods };
    rig.told(operator, last);
    println!(
        "  back: everything there after {:.1} s, {:.1} MB, peak {:.1} MiB",
        phase.seconds(),
        phase.megabytes(rig),
        cost(operator).peak_mib
    );
}

fn started_again(rig: &Rig) -> Operator {
    let (epoch, bytes) = (rig.number("epoch"), rig.network.bytes.load(Relaxed));
    let phase = Phase { began: Instant::now(), bytes, processor_seconds: 0.0 };
    let operator = rig.operator();
    until("the session is open and checked", &operator, || {
        rig.number("epoch") > epoch && rig.number("acked_seq") > 0
    });
    let Cost { peak_mib, processor_seconds, .. } = cost(&operator);
    println!(
        "  started again, nothing changed: {:.2} s, {:.3} MB over the network, {processor_seconds:.2} s of processor, peak \
         {peak_mib:.1} MiB",
        phase.seconds(),
        phase.megabytes(rig)
    );
    has_condition(&rig.cluster, "home", "Available", "True AgentRunning");
    operator
}

/// What the same costs by snapshots, which the original sends once in its life.
fn in_the_original_contract(rig: &Rig, operator: &Operator) {
    forget_peak(operator);
    let phase = Phase::begin(rig, operator);
    let original = "{\"spec\":{\"transport\":{\"mode\":\"original\"}}}";
    rig.cluster.kubectl(&["patch", "obsykagent", "home", "--type=merge", "-p", original]);
    until("the snapshot is taken", operator, || rig.text("mode") == "original");
    println!(
        "  again in the original contract, nothing changed: {:.1} s, {:.1} MB over the network, {:.1} s of processor, peak {:.1} MiB",
        phase.seconds(),
        phase.megabytes(rig),
        phase.processor(operator, 1_000_000),
        cost(operator).peak_mib
    );
}

/// As `an_inventory_survives_churn_and_a_killed_platform`, with so many pods that lists have many pages, the
/// queue overflows, and the platform is away for minutes.
#[test]
#[ignore = "ten thousand simulated pods take minutes; see the module"]
fn obsyk_equals_a_cluster_of_10000_simulated_pods() {
    let pods = u32::try_from(asked(10_000)).unwrap();
    let (batch, web) = (pods / 100, pods - pods / 100);
    let mut platform = Platform::start(&[]);
    let cluster = Cluster::up(Runtime::Simulated, &["--nodes", "200"]);
    cluster.apply(&platform.register("home"));
    cluster.apply(&secrets());
    cluster.apply(&agent("home", &platform.url));
    let ready = |name: &str, wanted: u32| {
        let began = Instant::now();
        let path = "jsonpath={.status.readyReplicas}";
        while cluster.kubectl(&["get", "deployment", name, "-o", path]) != wanted.to_string() {
            assert!(began.elapsed() < Duration::from_secs(1800), "{name}: {}", cluster.picture());
            std::thread::sleep(Duration::from_secs(2));
        }
        println!("  {name}: {wanted} ready after {:.0} s", began.elapsed().as_secs_f64());
    };
    let equals = |platform: &Platform, when: &str| {
        let began = Instant::now();
        let objects = loop {
            match equal(&cluster, platform) {
                Ok(objects) => break objects,
                Err(why) => assert!(began.elapsed() < Duration::from_secs(900), "{when}: {why:.2000}"),
            }
        };
        println!("  {when}: {objects} objects are equal after {:.0} s", began.elapsed().as_secs_f64());
    };
    cluster.apply(&deployment("web", web));
    ready("web", web);
    equals(&platform, "at the start");
    platform.kill();
    cluster.apply(&deployment("batch", batch));
    cluster.kubectl(&["scale", "deployment/web", &format!("--replicas={}", web - 9 * batch)]);
    cluster.kubectl(&["set", "image", "deployment/batch", "main=nginx:1.28"]);
    // Some are deleted meanwhile, which kubectl takes for a failure.
    drop(cluster.try_kubectl(&["label", "pods", "-l", "app=web", "churned=yes", "--overwrite"]));
    cluster.kubectl(&["scale", "deployment/web", &format!("--replicas={web}")]);
    ready("web", web);
    ready("batch", batch);
    platform.restart(&[]);
    equals(&platform, "after the platform came back");
    has_condition(&cluster, "home", "Available", "True AgentRunning");
}

#[test]
#[ignore = "measures for minutes; see the module"]
fn obsyk_with_10000_pods() {
    measure(10_000);
}

#[test]
#[ignore = "measures for minutes; see the module"]
fn obsyk_with_50000_pods() {
    measure(50_000);
}
