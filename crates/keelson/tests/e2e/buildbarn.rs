//! A build farm on simulated nodes: the objects that a user applies, and what comes of them.

use operator_buildbarn::{Lane, Served};

use crate::cluster::{Cluster, Runtime};

pub(crate) const FARM: &str = include_str!("../../../../examples/buildbarn/small.yaml");

/// Every kind of a farm, with the name that it has in the example.
const PARTS: &[(&str, &str)] = &[
    ("buildbarnstorage", "storage"),
    ("buildbarnscheduler", "scheduler"),
    ("buildbarnworker", "ubuntu"),
    ("buildbarnfrontend", "frontend"),
    ("buildbarnbrowser", "browser"),
];

fn get(cluster: &Cluster, what: &str, path: &str) -> String {
    cluster.kubectl(&["get", "-n", "buildbarn", what, "-o", &format!("jsonpath={path}")])
}

/// Every part is ready by its condition: a pool that is scaled to zero too.
fn is_well(cluster: &Cluster) {
    for (kind, name) in PARTS {
        let what = format!("{kind}/{name}");
        cluster.eventually(&format!("{what} is ready"), || {
            let state = get(cluster, &what, "{.status.conditions[?(@.type==\"Ready\")].status}");
            if state == "True" { Ok(()) } else { Err(get(cluster, &what, "{.status.conditions}")) }
        });
    }
}

pub(crate) fn ready(cluster: &Cluster) {
    for (kind, name) in PARTS {
        let what = format!("{kind}/{name}");
        cluster.eventually(&format!("{what} is ready"), || {
            let state =
                get(cluster, &what, "{.status.state} {.metadata.generation} {.status.observedGeneration}");
            let words: Vec<&str> = state.split(' ').collect();
            match words[..] {
                ["Ready", wanted, seen] if wanted == seen => Ok(()),
                _ => Err(format!("{state}: {}", get(cluster, &what, "{.status.conditions}"))),
            }
        });
    }
}

/// The ConfigMap that each workload's pods are made from: a new name restarts them.
fn configurations(cluster: &Cluster) -> Vec<String> {
    let path = "{range .items[*]}{.metadata.name}={.spec.template.spec.volumes[?(@.name==\"configs\")]}{\"\\n\"}{end}";
    let all = get(cluster, "deployments,statefulsets", path);
    let mut lines: Vec<String> = all.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_farm_becomes_ready_and_a_change_restarts_one_component() {
    let cluster = Cluster::up(Runtime::Simulated, &["--nodes", "3"]);
    cluster.apply(FARM);
    ready(&cluster);
    let before = configurations(&cluster);
    assert!(before.len() >= 5 && before.iter().all(|line| line.contains("configMap")), "{before:?}");
    let patch = r#"{"spec":{"configOverlay":{"maximumMessageSizeBytes":4194304}}}"#;
    cluster.kubectl(&["patch", "-n", "buildbarn", "buildbarnfrontend/frontend", "--type=merge", "-p", patch]);
    let after = cluster.eventually("the frontend has another configuration", || {
        let after = configurations(&cluster);
        if after == before { Err(format!("{after:?}")) } else { Ok(after) }
    });
    let changed: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(changed.len() == 1 && changed[0].starts_with("frontend"), "{changed:?}");
    ready(&cluster);
    let refused = cluster.refuse(&FARM.replace("concurrency: 4", "concurrency: 0"));
    assert!(refused.contains("concurrency"), "{refused}");
    cluster.kubectl(&["delete", "namespace", "buildbarn", "--timeout=120s"]);
}

/// The platform of the small farm's pool, and the threads of one of its pods.
pub(crate) const PLATFORM: &[(&str, &str)] =
    &[("OSFamily", "linux"), ("container-image", "docker://ghcr.io/catthehacker/ubuntu:act-22.04")];
pub(crate) const THREADS: u32 = 4;

/// The small farm with a pool that goes to zero within a second, whose queue is at an address of the test's.
fn farm_at(address: &str) -> String {
    let pool = "autoscaling: {min: 0, max: 8, scaleDownStabilizationSeconds: 1}";
    let scheduler = format!("buildQueueState: {{address: \"{address}\"}}\n  execution:");
    let farm = FARM.replace("autoscaling: {min: 1, max: 8}", pool).replace("execution:", &scheduler);
    assert!(farm.contains(pool) && farm.contains(address));
    farm
}

/// Pods of workers that run and are not on their way out.
pub(crate) fn workers(cluster: &Cluster) -> Vec<String> {
    let path = "{range .items[?(@.status.phase==\"Running\")]}{.metadata.name} {end}";
    let all = cluster.kubectl(&[
        "get",
        "pods",
        "-n",
        "buildbarn",
        "-l",
        "app=worker",
        "-o",
        &format!("jsonpath={path}"),
    ]);
    all.split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn pods(cluster: &Cluster, wanted: usize) -> Vec<String> {
    cluster.eventually(&format!("the pool has {wanted} pods"), || {
        let pods = workers(cluster);
        let of_pool = get(cluster, "buildbarnworker/ubuntu", "{.status}");
        if pods.len() == wanted { Ok(pods) } else { Err(format!("{pods:?}: {of_pool}")) }
    })
}

/// The queue grows and the pool with it; it drains, and nothing that runs is taken; it is empty, and so is the pool.
#[test]
fn a_pool_follows_its_queue_up_and_back_to_zero() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let scheduler = runtime.block_on(Served::start()).unwrap();
    let lane = Lane::of(PLATFORM, 0);
    scheduler.declare(&lane);
    let cluster = Cluster::up(Runtime::Simulated, &["--nodes", "3"]);
    cluster.apply(&farm_at(&scheduler.address()));
    is_well(&cluster);
    assert_eq!(pods(&cluster, 0), Vec::<String>::new(), "nothing waits");
    scheduler.submit(&lane, 9);
    let first = pods(&cluster, 3);
    first.iter().for_each(|pod| scheduler.register(&lane, pod, THREADS));
    scheduler.assign();
    let (busy, idle): (Vec<String>, Vec<String>) = first.into_iter().partition(|pod| scheduler.busy(pod));
    assert_eq!((busy.len(), idle.len()), (3, 0), "nine actions, four a pod");
    // Two pods' actions end: these two go, and the third stays with what it runs.
    busy.iter().skip(1).for_each(|pod| scheduler.finish(pod));
    assert_eq!(pods(&cluster, 1), busy[..1], "the pod that runs something stays");
    assert!(scheduler.busy(&busy[0]));
    busy.iter().skip(1).for_each(|pod| scheduler.vanish(pod));
    scheduler.finish(&busy[0]);
    pods(&cluster, 0);
    is_well(&cluster);
    scheduler.vanish(&busy[0]);
    let told = scheduler.told();
    for pod in &busy {
        let of_pod =
            |call: &str| told.iter().any(|told| told.starts_with(call) && told.contains(pod.as_str()));
        assert!(of_pod("AddDrain") && of_pod("TerminateWorkers"), "{pod} went without a farewell: {told:?}");
    }
    cluster.eventually("drains are forgotten with their pods", || match scheduler.drains() {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    });
}

/// Kind and name, a bad change, what undoes it, and the field that is named in answer.
const BAD: &[(&str, &str, &str, &str)] = &[
    (
        "buildbarnworker/ubuntu",
        r#"{"platform":{"properties":[{"name":"b","value":"1"},{"name":"a","value":"1"}]}}"#,
        ORIGINAL_PLATFORM,
        "spec.platform.properties: must be sorted",
    ),
    (
        "buildbarnworker/ubuntu",
        r#"{"platform":{"properties":[{"name":"a","value":"1"},{"name":"a","value":"1"}]}}"#,
        ORIGINAL_PLATFORM,
        "spec.platform.properties",
    ),
    ("buildbarnworker/ubuntu", r#"{"concurrency":0}"#, r#"{"concurrency":4}"#, "spec.concurrency"),
    (
        "buildbarnworker/ubuntu",
        r#"{"schedulerRef":{"name":"other"}}"#,
        r#"{"schedulerRef":null}"#,
        "spec.schedulerRef.name: there is no BuildbarnScheduler",
    ),
    (
        "buildbarnfrontend/frontend",
        r#"{"storageRef":{"name":"other"}}"#,
        r#"{"storageRef":null}"#,
        "spec.storageRef.name: there is no BuildbarnStorage",
    ),
    ("buildbarnstorage/storage", r#"{"cas":{"size":"20Gi"}}"#, r#"{"cas":{"size":null}}"#, "spec.cas.size"),
    (
        "buildbarnstorage/storage",
        r#"{"cas":{"currentBlocks":30}}"#,
        r#"{"cas":{"currentBlocks":null}}"#,
        "spec.cas.currentBlocks",
    ),
    (
        "buildbarnstorage/storage",
        r#"{"shards":{"keys":["x","1"]}}"#,
        r#"{"shards":null}"#,
        "spec.shards.keys.0",
    ),
    ("buildbarnscheduler/scheduler", r#"{"replicas":2}"#, r#"{"replicas":null}"#, "spec.replicas"),
    (
        "buildbarnfrontend/frontend",
        r#"{"configOverlay":{"noSuchField":1}}"#,
        r#"{"configOverlay":null}"#,
        "spec.configOverlay",
    ),
];
const ORIGINAL_PLATFORM: &str = r#"{"platform":{"properties":[{"name":"OSFamily","value":"linux"},{"name":"container-image","value":"docker://ghcr.io/catthehacker/ubuntu:act-22.04"}]}}"#;
const READY: &str =
    "{.status.conditions[?(@.type==\"Ready\")].status}: {.status.conditions[?(@.type==\"Ready\")].message}";

/// Applied to a served API: each is refused, or told by the condition, with its field; what runs goes on as it was.
#[test]
fn bad_changes_are_told_by_their_field_and_touch_no_pod() {
    let cluster = Cluster::up(Runtime::Simulated, &["--nodes", "3"]);
    cluster.apply(FARM);
    is_well(&cluster);
    let uids = "{range .items[*]}{.metadata.name}={.metadata.uid}/{.metadata.deletionTimestamp} {end}";
    let before = get(&cluster, "pods", uids);
    for (what, bad, undo, wanted) in BAD {
        let patch = |spec: &str| {
            let spec = format!("{{\"spec\":{spec}}}");
            cluster.try_kubectl(&["patch", "-n", "buildbarn", what, "--type=merge", "-p", &spec])
        };
        let output = patch(bad);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let field = wanted.split(':').next().unwrap();
            assert!(said.contains(field), "{what} {bad}: {said}");
            continue;
        }
        cluster.eventually(&format!("{what} {bad} is told"), || {
            let said = get(&cluster, what, READY);
            if said.starts_with("False") && said.contains(wanted) { Ok(()) } else { Err(said) }
        });
        assert!(patch(undo).status.success(), "{what} {undo}");
        cluster.eventually(&format!("{what} {undo} is well again"), || {
            let said = get(&cluster, what, READY);
            if said.starts_with("True") { Ok(()) } else { Err(said) }
        });
    }
    let start = FARM.find("---\napiVersion: buildbarn.io/v1alpha1\nkind: BuildbarnWorker").unwrap();
    let twin = FARM[start + 4..].split("\n---").next().unwrap().replace("name: ubuntu", "name: zwilling");
    cluster.apply(&twin);
    cluster.eventually("the pool that overlaps is told", || {
        let said = get(&cluster, "buildbarnworker/zwilling", READY);
        let wanted = "spec.platform: overlaps with BuildbarnWorker \"ubuntu\"";
        if said.starts_with("False") && said.contains(wanted) { Ok(()) } else { Err(said) }
    });
    let path = "{.status.conditions[?(@.type==\"QueueReachable\")].status}";
    assert_eq!(get(&cluster, "buildbarnworker/ubuntu", path), "False", "no scheduler answers here");
    assert_eq!(get(&cluster, "pods", uids), before, "what runs goes on as it was");
}

/// What the project shows, it can run: each example, in turn, with a scheduler that answers. Without one, workers that
/// were made before all that they refer to would be waited for until their drain limit, as if they were busy.
#[test]
fn every_example_becomes_ready_on_simulated_nodes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let scheduler = runtime.block_on(Served::start()).unwrap();
    let spec = format!("spec:\n  buildQueueState: {{address: \"{}\"}}\n", scheduler.address());
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/buildbarn");
    let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let cluster = Cluster::up(Runtime::Simulated, &["--nodes", "8"]);
        let text = std::fs::read_to_string(&file).unwrap();
        let (before, after) = text.split_once("kind: BuildbarnScheduler\n").unwrap();
        let text = format!("{before}kind: BuildbarnScheduler\n{}", after.replacen("spec:\n", &spec, 1));
        cluster.apply(&text);
        let kinds: Vec<&str> = PARTS.iter().map(|(kind, _)| *kind).collect();
        let wanted = text.matches("apiVersion: buildbarn.io/").count();
        let path = format!("{{range .items[*]}}{{.metadata.name}} {READY}{{\"\\n\"}}{{end}}");
        cluster.eventually(&format!("{} is ready", file.display()), || {
            let said = get(&cluster, &kinds.join(","), &path);
            let well = said.lines().filter(|line| line.contains(" True: ")).count();
            if well == wanted { Ok(()) } else { Err(said) }
        });
    }
}
