//! The driver against the simulated runtime, a machine in memory and a small API, in virtual time.

mod api;
mod containerd;
mod server;

use std::{sync::Arc, time::Duration};

use api::Api;
use meta::{Clock, Seeded, Timestamp};
use runtime::{
    Runtime,
    simulated::{Settings, Simulated},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Options, host, node::Measured, run};

/// Moves with `tokio`'s virtual time.
struct Virtual(tokio::time::Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        let begun: Timestamp = "2024-01-01T00:00:00Z".parse().unwrap();
        begun + self.0.elapsed()
    }
}

struct World {
    api: Api,
    runtime: Simulated,
    memory: Arc<host::Memory>,
    clock: Arc<Virtual>,
    agent: Option<(JoinHandle<Result<(), crate::RunError>>, CancellationToken)>,
}

impl World {
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(server: Option<crate::ServerOptions>) -> Self {
        let clock = Arc::new(Virtual(tokio::time::Instant::now()));
        let settings = Settings { pod_cidr: Some("10.244.0.0/24".into()), ..Settings::default() };
        let runtime = Simulated::new(clock.clone(), settings).unwrap();
        let measured = Measured {
            cpus: 4,
            memory_bytes: 8 << 30,
            memory_available_bytes: 8 << 30,
            ..Measured::default()
        };
        let memory = Arc::new(host::Memory::new(measured));
        let mut world = Self { api: Api::new(), runtime, memory, clock, agent: None };
        world.start_with(server);
        world
            .api
            .until("the node is ready", |api| {
                let node = api.get("nodes", "", "n1")?;
                (condition(&node, "Ready") == "True").then_some(())
            })
            .await;
        world
    }

    fn start(&mut self) {
        self.start_with(None);
    }

    fn start_with(&mut self, server: Option<crate::ServerOptions>) {
        let mut options =
            Options::new("n1", self.memory.clone(), self.clock.clone(), Arc::new(Seeded::new(7)));
        options.addresses = vec!["192.0.2.1".into()];
        options.pod_cidr = Some("10.244.0.0/24".into());
        options.clean_local_volumes = true;
        options.server = server;
        let stop = CancellationToken::new();
        let runtime: Arc<dyn Runtime> = Arc::new(self.runtime.clone());
        let task = tokio::spawn(run(self.api.client(), runtime, options, stop.clone()));
        self.agent = Some((task, stop));
    }

    async fn stop(&mut self) {
        let (task, stop) = self.agent.take().unwrap();
        stop.cancel();
        task.await.unwrap().unwrap();
    }

    fn pod(&self, name: &str, annotations: Value, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        self.api.put(
            "pods",
            json!({
                "metadata": { "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": 1,
                    "annotations": annotations },
                "spec": spec,
            }),
        );
    }

    async fn phase(&self, name: &str, phase: &str) -> Value {
        self.api
            .until(&format!("{name} is {phase}"), |api| {
                api.get("pods", "ns", name).filter(|pod| pod["status"]["phase"] == phase)
            })
            .await
    }

    async fn waiting(&self, name: &str, reason: &str) -> Value {
        self.api
            .until(&format!("{name} waits: {reason}"), |api| {
                let pod = api.get("pods", "ns", name)?;
                let waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
                (waiting["reason"] == reason).then_some(waiting)
            })
            .await
    }

    async fn ready(&self, name: &str, status: &str) -> Value {
        self.api
            .until(&format!("{name} Ready={status}"), |api| {
                api.get("pods", "ns", name).filter(|pod| condition(pod, "Ready") == status)
            })
            .await
    }
}

fn condition(object: &Value, kind: &str) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.and_then(|list| list.iter().find(|condition| condition["type"] == kind));
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default().to_owned()
}

fn container() -> Value {
    json!({ "name": "c", "image": "app:1" })
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_is_deleted_and_leaves_nothing() {
    let world = World::new().await;
    world.pod(
        "web",
        json!({}),
        json!({ "containers": [container()], "volumes": [{ "name": "v", "emptyDir": {} }] }),
    );
    let pod = world.ready("web", "True").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert!(pod["status"]["podIP"].as_str().unwrap().starts_with("10.244.0."));
    assert_eq!(pod["status"]["hostIP"], "192.0.2.1");
    assert_eq!(pod["status"]["observedGeneration"], 1);
    assert_eq!(world.memory.volumes("uid-web"), ["v"]);
    world.api.delete("pods", "ns", "web", Some(30));
    world.api.until("the pod is gone", |api| api.get("pods", "ns", "web").is_none().then_some(())).await;
    assert!(world.api.writes().contains(&"DELETE /api/v1/namespaces/ns/pods/web".to_owned()));
    let runtime = world.runtime.clone();
    loop {
        if runtime.observe().await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(world.memory.volumes("uid-web").is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_before_the_pod_is_deleted() {
    let world = World::new().await;
    world.pod(
        "web",
        json!({ "simulated.keelson.dev/stop-delay": "5s" }),
        json!({ "containers": [container()] }),
    );
    world.ready("web", "True").await;
    world.api.delete("pods", "ns", "web", Some(2));
    let last = world.api.until("the pod is gone", |api| api.last("pods", "ns", "web")).await;
    let told = &last["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(told["exitCode"], 137, "the grace was shorter than the container's own end");
    assert_eq!(last["status"]["phase"], "Failed");
}

#[tokio::test(start_paused = true)]
async fn crash_loops_back_off() {
    let world = World::new().await;
    world.pod(
        "bad",
        json!({ "simulated.keelson.dev/crash-loop": "true" }),
        json!({ "containers": [container()] }),
    );
    let waiting = world.waiting("bad", "CrashLoopBackOff").await;
    assert_eq!(waiting["message"], "back-off 10s restarting failed container=c pod=bad_ns(uid-bad)");
    let begun = tokio::time::Instant::now();
    let pod = world
        .api
        .until("five restarts", |api| {
            api.get("pods", "ns", "bad")
                .filter(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 5)
        })
        .await;
    let took = begun.elapsed().as_secs();
    assert!((150..=155).contains(&took), "10 + 20 + 40 + 80 s, not {took}");
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    let told = world.api.events("bad", "BackOff");
    assert_eq!(told.len(), 1, "one event with a count: {told:?}");
    let message = "Back-off restarting failed container c in pod bad_ns(uid-bad)";
    assert_eq!(told[0]["message"], message);
    assert_eq!(told[0]["type"], "Warning");
    assert_eq!(told[0]["involvedObject"]["fieldPath"], "spec.containers{c}");
    // At the beginning of the four waits, once more in the one of 80 s, and the next wait may have begun.
    let count = told[0]["count"].as_u64().unwrap();
    assert!((5..=6).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn jobs_end() {
    let world = World::new().await;
    for (name, annotations, policy, phase) in [
        ("good", json!({ "simulated.keelson.dev/exit-after": "3s" }), "Never", "Succeeded"),
        (
            "bad",
            json!({ "simulated.keelson.dev/exit-after": "3s", "simulated.keelson.dev/exit-code": "3" }),
            "Never",
            "Failed",
        ),
        ("fine", json!({ "simulated.keelson.dev/exit-after": "3s" }), "OnFailure", "Succeeded"),
    ] {
        world.pod(name, annotations, json!({ "containers": [container()], "restartPolicy": policy }));
        let pod = world.phase(name, phase).await;
        assert_eq!(condition(&pod, "Ready"), "False");
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(ended["exitCode"], if phase == "Failed" { 3 } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_in_order() {
    let world = World::new().await;
    let init = |name: &str| json!({ "name": name, "image": "i:1" });
    let sidecar = json!({ "name": "side", "image": "i:1", "restartPolicy": "Always" });
    world.pod(
        "p",
        json!({ "simulated.keelson.dev/exit-after.one": "5s", "simulated.keelson.dev/exit-after.two": "5s" }),
        json!({ "initContainers": [init("one"), sidecar, init("two")], "containers": [container()] }),
    );
    let pod = world.ready("p", "True").await;
    let statuses = pod["status"]["initContainerStatuses"].as_array().unwrap();
    let at =
        |status: &Value, state: &str, field: &str| status["state"][state][field].as_str().unwrap().to_owned();
    assert!(at(&statuses[0], "terminated", "finishedAt") <= at(&statuses[1], "running", "startedAt"));
    assert!(at(&statuses[1], "running", "startedAt") <= at(&statuses[2], "terminated", "startedAt"));
    let main = &pod["status"]["containerStatuses"][0];
    assert!(at(&statuses[2], "terminated", "finishedAt") <= at(main, "running", "startedAt"));
}

#[tokio::test(start_paused = true)]
async fn missing_references_and_images_are_explained_and_cured() {
    let world = World::new().await;
    let env = json!([{ "name": "P", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }]);
    world.pod("a", json!({}), json!({ "containers": [{ "name": "c", "image": "app:1", "env": env }] }));
    let waiting = world.waiting("a", "CreateContainerConfigError").await;
    assert_eq!(waiting["message"], "secret \"s\" not found");
    world.api.put(
        "secrets",
        json!({ "metadata": { "name": "s", "namespace": "ns" }, "data": { "other": "eA==" } }),
    );
    world
        .api
        .until("the key is missing", |api| {
            let pod = api.get("pods", "ns", "a")?;
            let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].clone();
            (message == "couldn't find key k in Secret ns/s").then_some(())
        })
        .await;
    world
        .api
        .put("secrets", json!({ "metadata": { "name": "s", "namespace": "ns" }, "data": { "k": "eA==" } }));
    world.ready("a", "True").await;
    world.pod("b", json!({}), json!({ "containers": [{ "name": "c", "image": "missing.invalid/x:1" }] }));
    world.waiting("b", "ErrImagePull").await;
    let waiting = world.waiting("b", "ImagePullBackOff").await;
    assert!(
        waiting["message"]
            .as_str()
            .unwrap()
            .starts_with("Back-off pulling image \"missing.invalid/x:1\": ErrImagePull: "),
        "{waiting}"
    );
    let told = |reason: &str| -> Vec<(Value, Value)> {
        let events = world.api.events("b", reason).into_iter();
        events.map(|event| (event["type"].clone(), event["message"].clone())).collect()
    };
    let back_off = json!("Back-off pulling image \"missing.invalid/x:1\"");
    assert_eq!(told("BackOff"), [(json!("Normal"), back_off)]);
    let failed = (json!("Warning"), json!("Error: ImagePullBackOff"));
    assert!(told("Failed").contains(&failed), "{:?}", told("Failed"));
    world.pod("c", json!({}), json!({ "containers": [{ "name": "c", "image": "missing.invalid/x:1", "imagePullPolicy": "Never" }] }));
    let waiting = world.waiting("c", "ErrImageNeverPull").await;
    assert_eq!(
        waiting["message"],
        "Container image \"missing.invalid/x:1\" is not present with pull policy of Never"
    );
}

#[tokio::test(start_paused = true)]
async fn a_runtime_class_is_looked_up_until_it_is_there() {
    let world = World::new().await;
    world.pod("p", json!({}), json!({ "containers": [container()], "runtimeClassName": "small" }));
    let told = world.api.until("why", |api| api.events("p", "FailedCreatePodSandBox").pop()).await;
    assert_eq!(
        (told["type"].as_str(), told["message"].as_str()),
        (Some("Warning"), Some("Failed to create pod sandbox: runtimeclass.node.k8s.io \"small\" not found"))
    );
    // Whatever the handler: a simulated runtime has them all.
    world.api.put("runtimeclasses", json!({ "metadata": { "name": "small" }, "handler": "any" }));
    world.ready("p", "True").await;
}

#[tokio::test(start_paused = true)]
async fn probes_decide() {
    let world = World::new().await;
    let probe = json!({ "httpGet": { "port": 80 }, "periodSeconds": 1, "failureThreshold": 2 });
    let probed = json!({ "name": "c", "image": "app:1", "readinessProbe": probe, "livenessProbe": probe });
    world.pod(
        "p",
        json!({ "simulated.keelson.dev/readiness": "20s", "simulated.keelson.dev/liveness": "60s" }),
        json!({ "containers": [probed], "terminationGracePeriodSeconds": 1 }),
    );
    let pod = world.phase("p", "Running").await;
    assert_eq!(condition(&pod, "Ready"), "False");
    world.ready("p", "True").await;
    let pod = world
        .api
        .until("liveness restarts it", |api| {
            api.get("pods", "ns", "p")
                .filter(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1)
        })
        .await;
    assert_eq!(condition(&pod, "Ready"), "False");
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_agent_keeps_containers() {
    let mut world = World::new().await;
    let probe = json!({ "httpGet": { "port": 80 }, "initialDelaySeconds": 30 });
    world.pod(
        "kept",
        json!({}),
        json!({ "containers": [{ "name": "c", "image": "app:1", "readinessProbe": probe }] }),
    );
    world.pod("gone", json!({}), json!({ "containers": [container()], "terminationGracePeriodSeconds": 1 }));
    let before = world.ready("kept", "True").await;
    world.ready("gone", "True").await;
    world.stop().await;
    assert_eq!(world.runtime.observe().await.unwrap().len(), 2, "stopping the agent stops no container");
    world.api.delete("pods", "ns", "gone", None);
    let writes = world.api.writes().len();
    world.start();
    let runtime = world.runtime.clone();
    while runtime.observe().await.unwrap().len() > 1 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(90)).await;
    let after = world.api.get("pods", "ns", "kept").unwrap();
    assert_eq!(after["status"], before["status"], "an adopted pod is not reported anew");
    let about_pod: Vec<String> = world
        .api
        .writes()
        .split_off(writes)
        .into_iter()
        .filter(|write| write.contains("pods/kept"))
        .collect();
    assert!(about_pod.is_empty(), "{about_pod:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_fit_is_refused() {
    let world = World::new().await;
    let big = json!({ "name": "c", "image": "app:1", "resources": { "requests": { "cpu": "5" } } });
    world.pod("big", json!({}), json!({ "containers": [big] }));
    let pod = world.phase("big", "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    assert!(world.runtime.observe_pod("uid-big").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_server_without_room_is_asked_less_and_less() {
    const PODS: usize = 20;
    let mut world = World::new().await;
    world.api.refuse_reports(true);
    for index in 0..PODS {
        world.pod(&format!("many-{index}"), json!({}), json!({ "containers": [container()] }));
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let refused = world.api.reports();
    assert_eq!(refused.most, 1, "one status of the node at a time");
    // Four tries in the first eight seconds or so, then one in eight to sixteen seconds; each of the
    // runtime's few events makes one more.
    assert!((PODS * 40..PODS * 90).contains(&refused.count), "{} reports in ten minutes", refused.count);

    world.api.refuse_reports(false);
    for index in 0..PODS {
        world.ready(&format!("many-{index}"), "True").await;
    }
    assert_eq!(world.api.reports().most, 1);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_pod() {
    let world = World::new().await;
    world.pod("late", json!({}), json!({ "containers": [container()], "activeDeadlineSeconds": 20, "terminationGracePeriodSeconds": 1 }));
    world.ready("late", "True").await;
    let pod = world.phase("late", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    world
        .api
        .until("its container ended", |api| {
            let pod = api.get("pods", "ns", "late")?;
            (!pod["status"]["containerStatuses"][0]["state"]["terminated"].is_null()).then_some(())
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn released_volumes_are_removed_then_let_go() {
    let world = World::new().await;
    world.api.put("persistentvolumes", json!({
        "metadata": { "name": "pv", "namespace": "", "finalizers": ["keelson.dev/local-path-cleanup", "other"] },
        "spec": { "hostPath": { "path": "/volumes/pv" }, "persistentVolumeReclaimPolicy": "Delete",
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                { "key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"] }] }] } } },
        "status": { "phase": "Released" }
    }));
    world
        .api
        .until("the finalizer is gone", |api| {
            let volume = api.get("persistentvolumes", "", "pv")?;
            (volume["metadata"]["finalizers"] == json!(["other"])).then_some(())
        })
        .await;
    assert_eq!(world.memory.removed(), [std::path::PathBuf::from("/volumes/pv")]);
}

#[tokio::test(start_paused = true)]
async fn the_node_says_that_it_is_alive() {
    let world = World::new().await;
    let node = world.api.get("nodes", "", "n1").unwrap();
    assert_eq!(node["status"]["capacity"]["cpu"], "4");
    assert_eq!(node["status"]["addresses"][0], json!({ "type": "InternalIP", "address": "192.0.2.1" }));
    assert!(node["status"]["daemonEndpoints"].is_null(), "a simulated node opens no port");
    let renewed = |api: &Api| {
        api.get("leases", "kube-node-lease", "n1")?["spec"]["renewTime"].as_str().map(str::to_owned)
    };
    let first = world.api.until("a lease", renewed).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(renewed(&world.api).unwrap() > first);
    let posts = world.api.writes().iter().filter(|write| write.ends_with("nodes/n1/status")).count();
    assert!(posts <= 2, "an unchanged status is not posted with every heartbeat: {posts}");
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_range_is_registered_and_waits_for_one() {
    let api = Api::new();
    let clock = Arc::new(Virtual(tokio::time::Instant::now()));
    let memory = Arc::new(host::Memory::new(Measured { cpus: 4, ..Measured::default() }));
    let mut options = Options::new("n1", memory, clock, Arc::new(Seeded::new(7)));
    options.addresses = vec!["192.0.2.1".into()];
    let (client, waits) = (api.client(), Arc::new(std::sync::atomic::AtomicU32::new(0)));
    let told = waits.clone();
    let waiting = tokio::spawn(async move {
        let tell = || {
            told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        crate::pod_cidr(&client, &options, tell).await
    });
    let node = api.until("the node is registered", |api| api.get("nodes", "", "n1")).await;
    assert_eq!((condition(&node, "Ready").as_str(), &node["spec"]["podCIDR"]), ("False", &Value::Null));
    let ready = &node["status"]["conditions"][3]["message"];
    assert!(ready.as_str().unwrap().ends_with("the node has no spec.podCIDR yet"), "{ready}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut given = node;
    given["spec"]["podCIDR"] = json!("10.42.1.0/24");
    api.put("nodes", given);
    assert_eq!(waiting.await.unwrap().unwrap(), "10.42.1.0/24");
    assert_eq!(waits.load(std::sync::atomic::Ordering::Relaxed), 1, "told once");
    assert_eq!(api.writes(), ["POST /api/v1/nodes"]);
}

fn resized(name: &str, cpu: &str, generation: i64, policy: Value) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "ns", "uid": format!("uid-{name}"), "generation": generation },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "app:1", "resizePolicy": policy,
            "resources": { "requests": { "cpu": cpu } } }] },
    })
}

#[tokio::test(start_paused = true)]
async fn a_resize_is_told_and_done() {
    let mut world = World::new().await;
    let policy = json!([]);
    world.api.put("pods", resized("web", "1", 1, policy.clone()));
    let before = world.ready("web", "True").await;
    let own = |pod: &Value, path: &str| pod.pointer(&format!("/status/containerStatuses/0{path}")).cloned();
    assert_eq!(own(&before, "/resources/requests/cpu"), Some(json!("1")));
    let change = |world: &World, cpu: &str, generation: i64, policy: &Value| {
        let status = world.api.get("pods", "ns", "web").unwrap()["status"].clone();
        let mut pod = resized("web", cpu, generation, policy.clone());
        pod["status"] = status;
        world.api.put("pods", pod);
    };
    // In place: the same container has more.
    change(&world, "2", 2, &policy);
    let after = world
        .api
        .until("it has two", |api| {
            api.get("pods", "ns", "web").filter(|pod| {
                own(pod, "/resources/requests/cpu") == Some(json!("2"))
                    && condition(pod, "PodResizeInProgress").is_empty()
            })
        })
        .await;
    assert_eq!(own(&after, "/containerID"), own(&before, "/containerID"));
    assert_eq!(own(&after, "/allocatedResources/cpu"), Some(json!("2")));
    // More than the node has: it keeps what it has, and says why.
    change(&world, "5", 3, &policy);
    let refused = world
        .api
        .until("it is refused", |api| {
            api.get("pods", "ns", "web").filter(|pod| condition(pod, "PodResizePending") == "True")
        })
        .await;
    let conditions = refused["status"]["conditions"].as_array().unwrap();
    let pending = conditions.iter().find(|condition| condition["type"] == "PodResizePending").unwrap();
    assert_eq!(pending["reason"], "Infeasible");
    let message = "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000";
    assert_eq!(pending["message"], message);
    assert_eq!(own(&refused, "/resources/requests/cpu"), Some(json!("2")));
    assert_eq!(own(&refused, "/allocatedResources/cpu"), Some(json!("2")));
    // The agent that comes after knows what the container has from what was told.
    world.stop().await;
    world.start();
    let restart = json!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }]);
    change(&world, "3", 4, &restart);
    let anew = world
        .api
        .until("it has three", |api| {
            api.get("pods", "ns", "web").filter(|pod| own(pod, "/resources/requests/cpu") == Some(json!("3")))
        })
        .await;
    assert_eq!(own(&anew, "/restartCount"), Some(json!(1)));
    assert_ne!(own(&anew, "/containerID"), own(&before, "/containerID"));
    world
        .api
        .until("nothing is pending", |api| {
            let pod = api.get("pods", "ns", "web")?;
            condition(&pod, "PodResizePending").is_empty().then_some(())
        })
        .await;
}
