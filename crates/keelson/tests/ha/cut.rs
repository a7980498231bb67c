//! The network between the API server and a scheduler, a controller manager, a node: cut under load for longer than a
//! lease, and healed. Oracle: what was acknowledged is there, revisions are contiguous, a watcher saw each change
//! once and in order, and nothing was done twice.
//!
//! In network namespaces: the API server, PostgreSQL and the test are at one bridge, each part behind a cable of
//! its own. A cable that is pulled tells nobody; what was under way arrives when it is plugged in again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs::File,
    os::fd::AsFd,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Node, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PostParams, WatchEvent, WatchParams},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::{
    kill::client,
    part::{Part, eventually, kubectl, try_kubectl},
    run,
    servers::Postgres,
};

/// Where the API server is.
const SERVER: &str = "10.97.0.1";

/// An API server in a network of its own, which the test's thread and all that it starts are in.
struct Site {
    server: Part,
    postgres: Postgres,
    database: String,
    directory: TempDir,
    cables: AtomicU32,
    /// Last: it goes when nobody is in it.
    name: Namespace,
}

struct Namespace(String);

/// A part behind its cable.
struct Remote {
    part: Part,
    cable: String,
    _namespace: Namespace,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors} (this test runs as root)");
}

impl Namespace {
    fn new(name: String) -> Self {
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("netns delete {}", self.0));
    }
}

impl Site {
    fn start(nodes: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            Namespace::new(format!("kc-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let own = File::open(format!("/run/netns/{}", name.0)).unwrap();
        move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        ip("link add br0 type bridge");
        ip(&format!("addr add {SERVER}/24 dev br0"));
        ip("link set br0 up");
        let directory = tempfile::Builder::new().prefix("kcut").tempdir_in("/tmp").unwrap();
        let postgres = Postgres::start(true);
        let database = postgres.database();
        let (data, listen) = (directory.path().join("data"), format!("{SERVER}:0"));
        let server = Part::start(&[
            "apiserver",
            "--listen",
            &listen,
            "--node",
            nodes,
            "--store",
            &postgres.url(&database),
            "--data-dir",
            data.to_str().unwrap(),
        ]);
        Self { server, postgres, database, directory, cables: AtomicU32::new(2), name }
    }

    fn kubeconfig(&self, of: &str) -> PathBuf {
        self.directory.path().join("data").join(format!("{of}.kubeconfig"))
    }

    /// A part of this name behind a new cable.
    fn remote(&self, command: &[&str], of: &str) -> Remote {
        let at = self.cables.fetch_add(1, Ordering::Relaxed);
        let (namespace, cable) = (Namespace::new(format!("{}-{at}", self.name.0)), format!("cable{at}"));
        ip(&format!("link add {cable} type veth peer name eth0 netns {}", namespace.0));
        ip(&format!("link set {cable} master br0 up"));
        ip(&format!("-n {} addr add 10.97.0.{at}/24 dev eth0", namespace.0));
        ip(&format!("-n {} link set eth0 up", namespace.0));
        let kubeconfig = self.kubeconfig(of);
        let arguments: Vec<&str> =
            command.iter().copied().chain(["--kubeconfig", kubeconfig.to_str().unwrap()]).collect();
        let part = Part::start_in(&namespace.0, &arguments);
        Remote { part, cable, _namespace: namespace }
    }

    /// Two of a part that elects; the one that leads is the first.
    fn pair(&self, command: &str) -> [Remote; 2] {
        let kubeconfig = format!("kube-{command}");
        let first = self.remote(&[command], &kubeconfig);
        first.leads();
        [first, self.remote(&[command], &kubeconfig)]
    }

    async fn client(&self) -> Client {
        client(&self.kubeconfig("admin"), self.server.address()).await
    }

    /// What PostgreSQL has, without a gap.
    fn check_log(&self) {
        let gaps = "SELECT (SELECT revision FROM keelson.head) - count(*) FROM keelson.log";
        assert_eq!(self.postgres.sql(&self.database, gaps), ["0"], "a gap");
    }
}

impl Remote {
    fn pull(&self) {
        ip(&format!("link set {} down", self.cable));
    }

    fn plug(&self) {
        ip(&format!("link set {} up", self.cable));
    }

    fn says(&self, begin: &str) {
        eventually(begin, || if self.part.says(begin) { Ok(()) } else { Err(self.part.said()) });
    }

    fn leads(&self) {
        self.says("leading");
    }
}

/// What one watcher saw of a kind, from its beginning to the object named `end`.
struct History<K> {
    watcher: JoinHandle<Vec<WatchEvent<K>>>,
}

impl<K> History<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    async fn begin(api: &Api<K>) -> Self {
        let from = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        let mut events =
            api.watch(&WatchParams::default().timeout(290).disable_bookmarks(), &from).await.unwrap().boxed();
        let watcher = tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(event) = events.next().await {
                let event = event.unwrap();
                let last = matches!(&event, WatchEvent::Added(object) if object.name_any() == "end");
                seen.push(event);
                if last {
                    return seen;
                }
            }
            panic!("the watch ended before the test: {} events", seen.len());
        });
        Self { watcher }
    }

    /// Each object's states, by its UID, in order.
    async fn end(self) -> BTreeMap<String, Vec<K>> {
        let (mut states, mut last) = (BTreeMap::<String, Vec<K>>::new(), 0);
        for event in self.watcher.await.unwrap() {
            let (added, object) = match event {
                WatchEvent::Added(object) => (true, object),
                WatchEvent::Modified(object) | WatchEvent::Deleted(object) => (false, object),
                other => panic!("{other:?}"),
            };
            let revision: u64 = object.resource_version().unwrap().parse().unwrap();
            assert!(revision > last, "out of order, or twice: {revision} after {last}");
            last = revision;
            let of = states.entry(object.uid().unwrap()).or_default();
            assert_eq!(added, of.is_empty(), "{object:?}");
            of.push(object);
        }
        states
    }
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str) -> Pod {
    let container = json!({"name": "c", "image": "i"});
    object(json!({"metadata": {"name": name}, "spec": {"containers": [container]}}))
}

/// Creates objects until told to stop; the names of those acknowledged.
fn load<K>(
    api: Api<K>,
    make: fn(&str) -> K,
    each: Duration,
    stop: Arc<AtomicBool>,
) -> JoinHandle<BTreeSet<String>>
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + serde::Serialize
        + Debug
        + Send
        + Sync
        + 'static,
{
    tokio::spawn(async move {
        let mut acknowledged = BTreeSet::new();
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("load-{number}");
            api.create(&PostParams::default(), &make(&name)).await.unwrap();
            acknowledged.insert(name);
            tokio::time::sleep(each).await;
        }
        acknowledged
    })
}

/// The leader is cut off, the other takes over, the first comes back and leads again when the other ends.
fn move_leadership(pair: &mut [Remote; 2], more: &dyn Fn(&str)) {
    let [first, second] = pair;
    more("by the first");
    first.pull();
    second.leads();
    first.says("lost");
    more("by the second");
    first.plug();
    more("after the first came back");
    let led = first.part.said().matches("leading").count();
    assert_eq!(led, 1, "it leads beside the other: {}", first.part.said());
    assert_eq!(second.part.stop(), 0, "{}", second.part.said());
    eventually("the first leads again", || {
        let said = first.part.said();
        if said.matches("leading").count() > led { Ok(()) } else { Err(said) }
    });
    more("by the first again");
}

#[test]
fn a_scheduler_is_cut_off_and_no_pod_is_bound_twice() {
    const ROOM: usize = 1000;
    let site = Site::start("none");
    let admin = site.kubeconfig("admin");
    kubectl(&admin, &["create", "serviceaccount", "default"]);
    let mut pair = site.pair("scheduler");
    run(async {
        let client = site.client().await;
        let (pods, nodes): (Api<Pod>, Api<Node>) =
            (Api::namespaced(client.clone(), "default"), Api::all(client.clone()));
        for name in ["a", "b", "c"] {
            let room = json!({"cpu": "1k", "memory": "1Ti", "pods": ROOM.to_string()});
            let ready = json!({"type": "Ready", "status": "True"});
            let status = json!({"capacity": room, "allocatable": room, "conditions": [ready]});
            let node = object(json!({"metadata": {"name": name}, "status": status}));
            nodes.create(&PostParams::default(), &node).await.unwrap();
            // Without a controller that finds it ready.
            tokio::task::block_in_place(|| {
                try_kubectl(&admin, &["taint", "node", name, "node.kubernetes.io/not-ready-"])
            })
            .ok();
        }
        let history = History::begin(&pods).await;
        let stop = Arc::new(AtomicBool::new(false));
        let writer = load(pods.clone(), pod, Duration::from_millis(50), stop.clone());
        let bound = || {
            let path = "jsonpath={.items[?(@.spec.nodeName)].metadata.name}";
            kubectl(&admin, &["get", "pods", "-o", path]).split(' ').filter(|name| !name.is_empty()).count()
        };
        tokio::task::block_in_place(|| {
            move_leadership(&mut pair, &|when| {
                let before = bound();
                eventually(&format!("pods are bound {when}"), || {
                    let now = bound();
                    if now > before + 20 { Ok(()) } else { Err(format!("{now} are bound, {before} before")) }
                });
            });
        });
        stop.store(true, Ordering::Relaxed);
        let acknowledged = writer.await.unwrap();
        tokio::task::block_in_place(|| {
            eventually("all pods are bound", || {
                let now = bound();
                if now == acknowledged.len() {
                    Ok(())
                } else {
                    Err(format!("{now} of {}", acknowledged.len()))
                }
            })
        });
        pods.create(&PostParams::default(), &pod("end")).await.unwrap();
        let mut seen = BTreeSet::new();
        for states in history.end().await.into_values() {
            let node = |pod: &Pod| pod.spec.as_ref().unwrap().node_name.clone();
            let mut nodes: Vec<Option<String>> = states.iter().map(node).collect();
            nodes.dedup();
            let name = states[0].name_any();
            if name != "end" {
                assert!(matches!(&nodes[..], [None, Some(_)]), "{name} was bound so: {nodes:?}");
                seen.insert(name);
            }
        }
        assert_eq!(seen, acknowledged);
        let events: Api<Event> = Api::namespaced(client, "default");
        let mut told = BTreeSet::new();
        for event in events.list(&ListParams::default()).await.unwrap() {
            if event.reason.as_deref() == Some("Scheduled") {
                assert!(event.count.unwrap_or(1) <= 1, "{event:?}");
                let of = event.involved_object.name.clone().unwrap();
                assert!(told.insert(of), "two schedulers say that they have bound it: {event:?}");
            }
        }
        assert!(!told.is_empty());
    });
    site.check_log();
}

#[test]
fn a_controller_manager_is_cut_off_and_no_replica_is_made_twice() {
    const REPLICAS: usize = 3;
    fn deployment(name: &str) -> Deployment {
        let template = json!({
            "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        let spec =
            json!({"replicas": REPLICAS, "selector": {"matchLabels": {"app": name}}, "template": template});
        object(json!({"metadata": {"name": name}, "spec": spec}))
    }
    let site = Site::start("none");
    let admin = site.kubeconfig("admin");
    let mut pair = site.pair("controller-manager");
    eventually("the default service account", || try_kubectl(&admin, &["get", "serviceaccount", "default"]));
    run(async {
        let client = site.client().await;
        let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
        let history = History::begin(&pods).await;
        let stop = Arc::new(AtomicBool::new(false));
        let writer =
            load(Api::namespaced(client, "default"), deployment, Duration::from_millis(400), stop.clone());
        let made = || kubectl(&admin, &["get", "pods", "-o", "name"]).lines().count();
        tokio::task::block_in_place(|| {
            move_leadership(&mut pair, &|when| {
                let before = made();
                eventually(&format!("pods are made {when}"), || {
                    let now = made();
                    if now > before + 20 { Ok(()) } else { Err(format!("{now} are there, {before} before")) }
                });
            });
        });
        stop.store(true, Ordering::Relaxed);
        let acknowledged = writer.await.unwrap();
        tokio::task::block_in_place(|| {
            eventually("all deployments have their pods", || {
                let path = "jsonpath={range .items[*]}{.status.replicas}{\"\\n\"}{end}";
                let replicas = kubectl(&admin, &["get", "deployments", "-o", path]);
                let full = replicas.lines().filter(|line| *line == REPLICAS.to_string()).count();
                let (now, wanted) = (made(), acknowledged.len() * REPLICAS);
                match full == acknowledged.len() && now == wanted {
                    true => Ok(()),
                    false => Err(format!("{now} of {wanted} pods, {full} of {} full", acknowledged.len())),
                }
            })
        });
        pods.create(&PostParams::default(), &pod("end")).await.unwrap();
        let mut each: BTreeMap<String, usize> = BTreeMap::new();
        for states in history.end().await.into_values() {
            if let Some(app) = states[0].labels().get("app") {
                *each.entry(app.clone()).or_default() += 1;
            }
        }
        assert_eq!(each.keys().cloned().collect::<BTreeSet<_>>(), acknowledged);
        let wrong: Vec<_> = each.iter().filter(|(_, made)| **made != REPLICAS).collect();
        assert!(wrong.is_empty(), "of {} deployments: {wrong:?}", each.len());
    });
    site.check_log();
}

/// The node is away for longer than it is waited for: what may run elsewhere is made elsewhere, what may run only
/// once is not, and when the node is back it removes what it should not have any more.
#[test]
fn a_node_is_cut_off_and_its_pods_run_once() {
    let site = Site::start("node-1,node-2");
    let admin = site.kubeconfig("admin");
    let _scheduler = site.remote(&["scheduler"], "kube-scheduler");
    let _manager = site.remote(&["controller-manager"], "kube-controller-manager");
    let nodes: Vec<Remote> = (1..=2)
        .map(|at| {
            let (name, range) = (format!("node-{at}"), format!("10.42.{at}.0/24"));
            site.remote(
                &["node", "--name", &name, "--pod-cidr", &range, "--runtime", "simulated"],
                &format!("node-node-{at}"),
            )
        })
        .collect();
    let ready = |wanted: &[&str]| {
        let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        eventually(&format!("nodes are {wanted:?}"), || {
            let found = try_kubectl(&admin, &["get", "nodes", "-o", path])?;
            if found.split(' ').eq(wanted.iter().copied()) { Ok(()) } else { Err(found) }
        });
    };
    ready(&["True", "True"]);
    let file = site.directory.path().join("workload.json");
    let tolerations: Vec<Value> = ["not-ready", "unreachable"]
        .iter()
        .map(|taint| {
            let key = format!("node.kubernetes.io/{taint}");
            json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1})
        })
        .collect();
    let workload = |kind: &str, name: &str| {
        let spread = json!({
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": name}},
        });
        let template = json!({
            "metadata": {"labels": {"app": name}},
            "spec": {
                "containers": [{"name": "c", "image": "i"}], "tolerations": tolerations,
                "topologySpreadConstraints": [spread],
            },
        });
        let spec = json!({
            "replicas": 4, "selector": {"matchLabels": {"app": name}}, "template": template,
            "podManagementPolicy": "Parallel",
        });
        let mut object =
            json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        if kind == "Deployment" {
            object["spec"].as_object_mut().unwrap().remove("podManagementPolicy");
        }
        object
    };
    let list = json!({
        "apiVersion": "v1", "kind": "List",
        "items": [workload("Deployment", "many"), workload("StatefulSet", "one")],
    });
    std::fs::write(&file, list.to_string()).unwrap();
    run(async {
        let pods: Api<Pod> = Api::namespaced(site.client().await, "default");
        let history = History::begin(&pods).await;
        tokio::task::block_in_place(|| {
            kubectl(&admin, &["apply", "-f", file.to_str().unwrap()]);
            let all_ready = |what: &str| {
                let path = "jsonpath={.status.readyReplicas}";
                eventually(what, || {
                    let ready = |of: &str| try_kubectl(&admin, &["get", of, "-o", path]);
                    let found = (ready("deployment/many")?, ready("statefulset/one")?);
                    if found == ("4".into(), "4".into()) { Ok(()) } else { Err(format!("{found:?}")) }
                });
            };
            all_ready("four of each");
            nodes[0].pull();
            ready(&["Unknown", "True"]);
            let on = |node: &str, app: &str| {
                let (field, label) = (format!("--field-selector=spec.nodeName={node}"), format!("app={app}"));
                let path = "jsonpath={range .items[*]}{.metadata.deletionTimestamp}\n{end}";
                let text = kubectl(&admin, &["get", "pods", &field, "-l", &label, "-o", path]);
                let leaving = text.lines().filter(|line| !line.is_empty()).count();
                (text.lines().count(), leaving)
            };
            eventually("the deployment is complete elsewhere", || {
                let (here, there) = (on("node-1", "many"), on("node-2", "many"));
                if there == (4, 0) && here.0 == here.1 { Ok(()) } else { Err(format!("{here:?} {there:?}")) }
            });
            // What may run only once waits for the node.
            let (here, there) = (on("node-1", "one"), on("node-2", "one"));
            assert_eq!((here, there), ((2, 2), (2, 0)));
            nodes[0].plug();
            ready(&["True", "True"]);
            all_ready("four of each again");
            eventually("nothing is left over", || {
                let names = try_kubectl(&admin, &["get", "pods", "-o", "name"])?;
                if names.lines().count() == 8 { Ok(()) } else { Err(names) }
            });
            let taints = kubectl(&admin, &["get", "nodes", "-o", "jsonpath={.items[*].spec.taints}"]);
            assert_eq!(taints, "");
        });
        pods.create(&PostParams::default(), &pod("end")).await.unwrap();
        let mut made: BTreeMap<String, usize> = BTreeMap::new();
        // Of each name, when its pods were made and when they were gone.
        let mut lives: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for states in history.end().await.into_values() {
            let revision = |pod: &Pod| pod.resource_version().unwrap().parse::<u64>().unwrap();
            let (first, last) = (states.first().unwrap(), states.last().unwrap());
            lives.entry(first.name_any()).or_default().push((revision(first), revision(last)));
            if let Some(app) = first.labels().get("app") {
                *made.entry(app.clone()).or_default() += 1;
            }
            // Started once, wherever it is.
            let container = |pod: &Pod| pod.status.as_ref()?.container_statuses.as_ref()?.first().cloned();
            let started: BTreeSet<_> =
                states.iter().filter_map(container).filter_map(|status| status.container_id).collect();
            assert!(started.len() <= 1, "{}: {started:?}", first.name_any());
        }
        // Each of the two that were on the node was made once more.
        assert_eq!(made, BTreeMap::from([("many".into(), 6), ("one".into(), 6)]));
        for (name, mut of) in lives {
            of.sort();
            assert!(of.windows(2).all(|pair| pair[0].1 < pair[1].0), "two {name} at once: {of:?}");
        }
    });
    site.check_log();
}
