//! A pod with all that this agent does for one, on a real machine: containerd, mounts, files, hooks,
//! probes. Needs root and what the tests of `runtime-containerd` need.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use meta::{Clock, Seeded, Timestamp};
use runtime::Runtime;
use runtime_containerd::private::{Handlers, Private, Settings};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Api, condition,
    server::{Ca, Caller, port},
};
use crate::{Collection, Options, dns::ClusterDns, host::System, run};

/// What is done here takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(120);

struct Wall;

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The file of an image that `images/build.sh` makes; built at most once, whoever asks.
fn image(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap().join("../..");
    let output =
        std::env::var_os("KEELSON_IMAGE_DIR").map_or_else(|| root.join("target/images"), PathBuf::from);
    let built =
        Command::new(root.join("images/build.sh")).arg("--output").arg(&output).arg(name).status().unwrap();
    assert!(built.success(), "images/build.sh {name} failed");
    output.join(format!("{name}.tar"))
}

struct Agent {
    task: tokio::task::JoinHandle<Result<(), crate::RunError>>,
    stop: CancellationToken,
}

fn start(
    api: &Api,
    runtime: Arc<dyn Runtime>,
    root: &Path,
    ca: &Ca,
    collection: Option<Collection>,
) -> Agent {
    let host = Arc::new(System::new(root.join("node"), root.join("volumes")));
    let mut options = Options::new("n1", host, Arc::new(Wall), Arc::new(Seeded::new(3)));
    options.addresses = vec!["127.0.0.1".into()];
    options.pod_cidr = Some("10.214.7.0/24".into());
    options.dns = ClusterDns { server: Some("10.96.0.10".into()), domain: "cluster.local".into() };
    options.log_dir = root.join("node/logs");
    options.clean_local_volumes = true;
    options.server = Some(ca.options());
    options.image_collection = collection;
    let stop = CancellationToken::new();
    Agent { task: tokio::spawn(run(api.client(), runtime, options, stop.clone())), stop }
}

impl Agent {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

const SCRIPT: &str = "
echo env $GREETING $POD_IP $HOME_DIR
echo config $(cat /config/a) $(stat -L -c %a /secret/key) $(cat /secret/key) $(stat -L -c %g /secret/key)
echo token $(cat /var/run/token) $(cat /pod/labels)
echo init $(cat /shared/init) hook $(ls /shared/hook 2>/dev/null)
echo mounts $(grep -c ' /fast tmpfs' /proc/mounts) $(ls /sub) $(id -u) $(id -G)
echo hosts $(grep -c myhost /etc/hosts) dns $(grep -c 10.96.0.10 /etc/resolv.conf) $(hostname)
echo row >> /data/rows
trap 'echo bye > /dev/termination-log; exit 3' TERM
touch /shared/ready
while true; do sleep 0.1; done
";

fn pod(root: &Path) -> Value {
    let env = json!([
        { "name": "GREETING", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "a" } } },
        { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        { "name": "HOME_DIR", "value": "/home/$(GREETING)" },
    ]);
    json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "uid-p", "generation": 1, "labels": { "l": "v" } },
        "spec": {
            "nodeName": "n1", "hostname": "myhost", "restartPolicy": "Never", "terminationGracePeriodSeconds": 10,
            "securityContext": { "fsGroup": 4321 },
            "volumes": [
                { "name": "shared", "emptyDir": {} },
                { "name": "fast", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
                { "name": "config", "configMap": { "name": "cm" } },
                { "name": "secret", "secret": { "secretName": "s", "defaultMode": 256 } },
                { "name": "token", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } },
                { "name": "pod", "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
                { "name": "data", "persistentVolumeClaim": { "claimName": "claim" } },
                { "name": "host", "hostPath": { "path": root.join("host"), "type": "DirectoryOrCreate" } },
            ],
            "initContainers": [{ "name": "init", "image": "busybox:1.35",
                "command": ["/bin/sh", "-c", "echo first > /shared/init; mkdir -p /host/a/b; touch /host/a/b/file"],
                "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }, { "name": "host", "mountPath": "/host" }] }],
            "containers": [{ "name": "c", "image": "busybox:1.35", "command": ["/bin/sh", "-c", SCRIPT], "env": env,
                "lifecycle": { "postStart": { "exec": { "command": ["/bin/sh", "-c", "touch /shared/hooked"] } },
                               "preStop": { "exec": { "command": ["/bin/sh", "-c", "echo stopping > /data/stopped"] } } },
                "readinessProbe": { "exec": { "command": ["/bin/sh", "-c", "test -f /shared/ready"] }, "periodSeconds": 1 },
                "volumeMounts": [
                    { "name": "shared", "mountPath": "/shared" }, { "name": "fast", "mountPath": "/fast" },
                    { "name": "config", "mountPath": "/config" }, { "name": "secret", "mountPath": "/secret" },
                    { "name": "token", "mountPath": "/var/run/token", "subPath": "token" },
                    { "name": "pod", "mountPath": "/pod" }, { "name": "data", "mountPath": "/data" },
                    { "name": "host", "mountPath": "/sub", "subPathExpr": "a/b" },
                ] }],
        }
    })
}

fn objects(api: &Api, root: &Path) {
    let meta = |name: &str| json!({ "name": name, "namespace": "ns", "uid": format!("uid-{name}") });
    api.put("configmaps", json!({ "metadata": meta("cm"), "data": { "a": "hello" } }));
    api.put("secrets", json!({ "metadata": meta("s"), "data": { "key": "aHVudGVyMg==" } }));
    api.put(
        "persistentvolumeclaims",
        json!({
            "metadata": meta("claim"), "spec": { "volumeName": "pv" }, "status": { "phase": "Bound" }
        }),
    );
    api.put(
        "persistentvolumes",
        json!({
            "metadata": { "name": "pv", "namespace": "", "finalizers": [crate::LOCAL_PATH_FINALIZER] },
            "spec": {
                "claimRef": { "namespace": "ns", "name": "claim", "uid": "uid-claim" },
                "hostPath": { "path": root.join("volumes/pv"), "type": "DirectoryOrCreate" },
                "persistentVolumeReclaimPolicy": "Delete",
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
                    { "key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"] }] }] } }
            },
            "status": { "phase": "Bound" }
        }),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_everything() {
    on_containerd(7, |runtime, root| async move { life(runtime, &root).await }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_class_says_what_runs_a_pod() {
    on_containerd(8, |runtime, root| async move { classes(runtime, &root).await }).await;
}

/// An OCI runtime that notes what it was asked, beside itself, and has runc do it.
fn noting(root: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = root.join("noting");
    std::fs::write(&path, format!("#!/bin/sh\necho \"$@\" >> {}\nexec runc \"$@\"\n", noted(root).display()))
        .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn noted(root: &Path) -> PathBuf {
    root.join("noted")
}

async fn classes(runtime: Arc<dyn Runtime>, root: &Path) {
    let (api, ca) = (Api::new(), Ca::new());
    for (name, handler) in [("noted", "noting"), ("odd", "no-such")] {
        api.put("runtimeclasses", json!({ "metadata": { "name": name }, "handler": handler }));
    }
    let agent = start(&api, runtime, root, &ca, None);
    let pod = |class: &str| {
        let container = json!({ "name": "c", "image": "busybox:1.35", "command": ["sleep", "600"] });
        json!({
            "metadata": { "name": class, "namespace": "ns", "uid": format!("uid-{class}"), "generation": 1 },
            "spec": { "nodeName": "n1", "runtimeClassName": class, "containers": [container] },
        })
    };
    api.put("pods", pod("odd"));
    let told = api.until("it says why", |api| api.events("odd", "FailedCreatePodSandBox").pop()).await;
    let message = told["message"].as_str().unwrap();
    assert!(message.starts_with("Failed to create pod sandbox: "), "{message}");
    assert!(message.contains("no runtime for \"no-such\" is configured"), "{message}");
    // The class was deleted and is there again, with another handler.
    api.put("runtimeclasses", json!({ "metadata": { "name": "odd" }, "handler": "runc" }));
    let ready = |name: &'static str| {
        move |api: &Api| api.get("pods", "ns", name).filter(|pod| condition(pod, "Ready") == "True")
    };
    api.until("the pod of the odd class is ready", ready("odd")).await;
    assert!(!noted(root).exists(), "nobody has asked for that runtime");

    api.put("pods", pod("noted"));
    api.until("the other pod is ready", ready("noted")).await;
    let asked = std::fs::read_to_string(noted(root)).unwrap();
    let made = asked.lines().filter(|line| line.contains(" create --bundle ")).count();
    assert_eq!(made, 2, "a sandbox and a container: {asked}");
    let node = api.get("nodes", "", "n1").unwrap();
    let handlers = node["status"]["runtimeHandlers"].as_array().unwrap();
    for name in ["", "noting", "runc"] {
        assert!(handlers.contains(&json!({ "name": name })), "{name:?} of {handlers:?}");
    }
    agent.stop().await;
}

/// Runs `work` on a containerd of its own, which is stopped however it ends.
async fn on_containerd<F: Future<Output = ()> + Send + 'static>(
    number: u8,
    work: impl FnOnce(Arc<dyn Runtime>, PathBuf) -> F,
) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: containers need root");
        return;
    }
    let directory = tempfile::Builder::new().prefix("keelson-node-").tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let handlers = Handlers::Given([("noting".to_owned(), noting(&root))].into());
    let bridge = format!("keelson-n{number}");
    let settings = Settings { bridge, handlers, ..Settings::new(root.join("c")) };
    let private = Private::start(settings).await.unwrap();
    private.load_image(&image("busybox")).await.unwrap();
    let begun = tokio::spawn(tokio::time::timeout(LIMIT, work(Arc::new(private.runtime()), root)));
    let ended = begun.await;
    private.stop(Duration::ZERO).await.unwrap();
    ended.unwrap().expect("it takes far less");
}

async fn images(runtime: &dyn Runtime) -> String {
    let images = runtime.list_images().await.unwrap();
    images.iter().flat_map(|image| image.repo_tags.clone()).collect::<Vec<_>>().join(" ")
}

async fn life(runtime: Arc<dyn Runtime>, root: &Path) {
    let (api, ca) = (Api::new(), Ca::new());
    objects(&api, root);
    let agent = start(&api, Arc::clone(&runtime), root, &ca, None);
    api.put("pods", pod(root));
    let running = |api: &Api| api.get("pods", "ns", "p").filter(|pod| condition(pod, "Ready") == "True");
    let before = api.until("the pod is ready", running).await;
    let ip = before["status"]["podIP"].as_str().unwrap();
    let log = std::fs::read_to_string(root.join("node/logs/ns_p_uid-p/c/0.log")).unwrap();
    let said: Vec<&str> =
        log.lines().filter_map(|line| line.split_once(" F ")).map(|(_, text)| text).collect();
    let hook = said.get(3).copied().unwrap_or_default();
    assert!(hook == "init first hook" || hook == "init first hook /shared/hook", "{said:?}");
    assert_eq!(said[0], format!("env hello {ip} /home/hello"));
    assert_eq!(said[1], "config hello 440 hunter2 4321");
    assert_eq!(said[2], "token jwt l=\"v\"");
    assert_eq!(said[4], "mounts 1 file 0 0 4321");
    assert_eq!(said[5], "hosts 1 dns 1 myhost");
    let volumes = root.join("node/pods/uid-p/volumes");
    assert!(volumes.join("shared/hooked").exists(), "postStart ran");

    let caller = Caller::new(&ca, Some(ca.issue("apiserver")), port(&api));
    let path = "/exec/ns/p/c?command=sh&command=-c&command=echo+said+%24%28%281%2B1%29%29&output=1&error=1";
    let said = caller.upgraded(path, "said 2\n").await;
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");

    agent.stop().await;
    // Of a disk that is always too full.
    let every = Duration::from_millis(20);
    let collection = Collection { high_percent: 0, low_percent: 0, min_age: Duration::ZERO, every };
    let agent = start(&api, Arc::clone(&runtime), root, &ca, Some(collection));
    api.put(
        "configmaps",
        json!({ "metadata": { "name": "cm", "namespace": "ns" }, "data": { "a": "changed" } }),
    );
    let config = volumes.join("config/a");
    // The new agent makes the volumes anew, which is also how they are refreshed.
    while std::fs::read_to_string(&config).unwrap() != "changed" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = api.get("pods", "ns", "p").unwrap();
    assert_eq!(after["status"], before["status"], "the same containers, not reported anew");
    assert!(images(&*runtime).await.contains("busybox"), "in use");

    api.delete("pods", "ns", "p", Some(10));
    let last = api.until("the pod is gone", |api| api.last("pods", "ns", "p")).await;
    let ended = &last["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["message"]), (&json!(3), &json!("bye\n")), "{ended}");
    let left = || root.join("node/pods/uid-p").exists() || root.join("node/logs/ns_p_uid-p").exists();
    while !runtime.observe().await.unwrap().is_empty() || left() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(std::fs::read_to_string(root.join("volumes/pv/rows")).unwrap(), "row\n", "the volume stays");
    assert_eq!(
        std::fs::read_to_string(root.join("volumes/pv/stopped")).unwrap(),
        "stopping\n",
        "preStop ran"
    );
    while images(&*runtime).await.contains("busybox") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(images(&*runtime).await.contains("pause"), "what the runtime needs stays");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/node/pods/uid-p"), "no mount is left");

    let mut volume = api.get("persistentvolumes", "", "pv").unwrap();
    volume["status"]["phase"] = json!("Released");
    api.put("persistentvolumes", volume);
    while root.join("volumes/pv").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.stop().await;
}
