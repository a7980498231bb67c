//! A cluster, its inventory streamed to `keelson obsyk-platform`, and the page a person sees.
//!
//! Equality is by the oracle: a second reading of the contract over what kubectl says that there is.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;

use crate::cluster::{Cluster, Runtime};

/// What must never leave the cluster.
const CANARY: &str = "canary-8d1f3c";

/// Kinds and what kubectl calls them.
const KINDS: [(&str, &str); 20] = [
    ("Namespace", "namespaces"),
    ("Pod", "pods"),
    ("Service", "services"),
    ("Node", "nodes"),
    ("Deployment", "deployments"),
    ("StatefulSet", "statefulsets"),
    ("DaemonSet", "daemonsets"),
    ("Job", "jobs"),
    ("CronJob", "cronjobs.v1.batch"),
    ("Ingress", "ingresses.v1.networking.k8s.io"),
    ("NetworkPolicy", "networkpolicies"),
    ("ConfigMap", "configmaps"),
    ("Secret", "secrets"),
    ("PersistentVolumeClaim", "persistentvolumeclaims"),
    ("ServiceAccount", "serviceaccounts"),
    ("Role", "roles"),
    ("ClusterRole", "clusterroles"),
    ("RoleBinding", "rolebindings"),
    ("ClusterRoleBinding", "clusterrolebindings"),
    ("Event", "events.v1."),
];

/// A platform of the test's own.
pub(crate) struct Platform {
    directory: tempfile::TempDir,
    process: Child,
    pub(crate) url: String,
    /// Address and port for agents, where it listens.
    pub(crate) listens: String,
    page: String,
    said: Arc<Mutex<String>>,
}

struct Started {
    process: Child,
    url: String,
    listens: String,
    page: String,
}

impl Platform {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("op").tempdir_in("/tmp").unwrap();
        let said = Arc::default();
        let started = Self::spawn(directory.path(), ["127.0.0.1:0"; 2], arguments, &said);
        let Started { process, url, listens, page } = started;
        Self { directory, process, url, listens, page, said }
    }

    fn spawn(
        directory: &Path,
        [listen, page]: [&str; 2],
        arguments: &[&str],
        said: &Arc<Mutex<String>>,
    ) -> Started {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keelson"))
            .args(["--log-level", "info", "obsyk-platform", "--listen", listen, "--page", page, "--data-dir"])
            .arg(directory.join("platform"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut errors, log) = (child.stderr.take().unwrap(), said.clone());
        std::thread::spawn(move || {
            let mut text = String::new();
            // The process has ended then; what it said is all there is.
            drop(errors.read_to_string(&mut text));
            log.lock().unwrap().push_str(&text);
        });
        let mut started =
            Started { process: child, url: String::new(), listens: String::new(), page: String::new() };
        let mut lines = BufReader::new(started.process.stdout.take().unwrap()).lines();
        for line in lines.by_ref().map_while(Result::ok) {
            let after = |head: &str| line.trim().strip_prefix(head).map(|text| text.trim().to_owned());
            started.page = after("page:").unwrap_or(started.page);
            if let Some((_, listens)) = line.split_once("(listens on ") {
                started.listens = listens.trim_end_matches(')').to_owned();
            }
            if let Some(ready) = after("ready:") {
                started.url = ready;
                break;
            }
        }
        assert!(!started.url.is_empty(), "the platform ended before it was ready");
        if started.listens.is_empty() {
            started.listens = started.url.trim_start_matches("https://").to_owned();
        }
        std::thread::spawn(move || lines.for_each(drop));
        started
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts again where it was.
    pub(crate) fn restart(&mut self, arguments: &[&str]) {
        let page = self.page.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let started = Self::spawn(self.directory.path(), [&self.listens, &page], arguments, &self.said);
        assert_eq!(started.url, self.url);
        self.process = started.process;
    }

    /// Registers a client; the Secret for its agent, which has the client's name.
    pub(crate) fn register(&self, client: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_keelson"))
            .args(["obsyk-platform", "register", client, "--secret", client, "--data-dir"])
            .arg(self.directory.path().join("platform"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value, String> {
        let host = self.page.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(host).map_err(|error| error.to_string())?;
        // Whoever asks asks again, and gives up in the end.
        stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(|error| error.to_string())?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        serde_json::from_str(body).map_err(|error| error.to_string())
    }

    /// Everything it knows of the one cluster, by kind and uid.
    pub(crate) fn known(&self) -> Result<BTreeMap<(String, String), Value>, String> {
        let clusters = self.get("/api/clusters")?;
        let uid = clusters[0]["uid"].as_str().ok_or("no cluster yet")?.to_owned();
        let mut all = BTreeMap::new();
        loop {
            let page = self.get(&format!("/api/clusters/{uid}/objects?skip={}", all.len()))?;
            let objects = page["objects"].as_array().ok_or("no objects")?;
            if objects.is_empty() {
                return Ok(all);
            }
            for one in objects {
                let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
                all.insert((text("kind"), text("uid")), one["object"].clone());
            }
        }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What the oracle says that the platform should know.
pub(crate) fn wanted(cluster: &Cluster) -> BTreeMap<(String, String), Value> {
    let mut all = BTreeMap::new();
    for (kind, plural) in KINDS {
        let listed = cluster.kubectl(&["get", plural, "-A", "-o", "json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        for object in listed["items"].as_array().into_iter().flatten() {
            let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();
            all.insert((kind.to_owned(), uid), obsyk_platform::oracle::expected(kind, object));
        }
    }
    all
}

pub(crate) fn equal(cluster: &Cluster, platform: &Platform) -> Result<usize, String> {
    let (known, wanted) = (platform.known()?, wanted(cluster));
    differences(&known, &wanted).map_err(|why| {
        let report = cluster.try_kubectl(&["get", "obsykagents", "-A", "-o", "yaml"]);
        format!("{why}\n{}", String::from_utf8_lossy(&report.stdout))
    })?;
    Ok(wanted.len())
}

/// What a platform knows that it should not, does not know that it should, and knows wrong.
pub(crate) fn differences(
    known: &BTreeMap<(String, String), Value>,
    wanted: &BTreeMap<(String, String), Value>,
) -> Result<(), String> {
    let missing = wanted.keys().filter(|key| !known.contains_key(*key)).count();
    let ghosts = known.keys().filter(|key| !wanted.contains_key(*key)).count();
    let other: Vec<String> = wanted
        .iter()
        .filter_map(|(key, object)| {
            let is = known.get(key).filter(|is| *is != object)?;
            Some(format!("{key:?} is {is} and should be {object}"))
        })
        .collect();
    if missing + ghosts + other.len() == 0 {
        return Ok(());
    }
    Err(format!("missing {missing}, ghosts {ghosts}, other {}: {:?}", other.len(), other.first()))
}

/// An agent, and its Secret of the same name.
pub(crate) fn agent(name: &str, url: &str) -> String {
    format!(
        "apiVersion: obsyk.io/v1\nkind: ObsykAgent\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         platformURL: {url}\n  clusterName: Home & <Lab>\n  syncInterval: 5s\n  \
         credentialsSecretRef: {{name: {name}}}\n  rateLimit: {{eventsPerSecond: 200, burstSize: 200}}\n"
    )
}

pub(crate) fn deployment(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
         spec:\n      containers:\n      - name: main\n        image: nginx:1.27\n        args: [{CANARY}]\n        \
         env: [{{name: PASSWORD, value: {CANARY}}}]\n"
    )
}

pub(crate) fn secrets() -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: keys, annotations: {{kapp.k14s.io/original: {CANARY}, note: is {CANARY}}}}}\n\
         stringData: {{password: {CANARY}}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\n\
         data: {{file: {CANARY}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  \
         selector: {{app: web}}\n  ports: [{{port: 80, targetPort: http}}]\n"
    )
}

/// Status, reason and message of an agent's condition.
pub(crate) fn condition(cluster: &Cluster, agent: &str, kind: &str) -> [String; 3] {
    let text = cluster.kubectl(&["get", "obsykagent", agent, "-o", "json"]);
    let agent: Value = serde_json::from_str(&text).unwrap();
    let mut conditions = agent["status"]["conditions"].as_array().into_iter().flatten();
    let one = conditions.find(|condition| condition["type"] == kind).cloned().unwrap_or_default();
    ["status", "reason", "message"].map(|field| one[field].as_str().unwrap_or_default().to_owned())
}

/// Waits for status and reason; the message.
pub(crate) fn has_condition(cluster: &Cluster, agent: &str, kind: &str, wanted: &str) -> String {
    cluster.eventually(&format!("{agent}: {kind} {wanted}"), || {
        let [status, reason, message] = condition(cluster, agent, kind);
        if format!("{status} {reason}") == wanted {
            Ok(message)
        } else {
            Err(format!("{status} {reason}: {message}"))
        }
    })
}

/// Every file below a directory, as it is on disk.
fn bytes_below(directory: &Path, to: &mut Vec<u8>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes_below(&path, to);
        } else {
            to.extend(std::fs::read(&path).unwrap());
        }
    }
}

#[test]
fn an_inventory_survives_churn_and_a_killed_platform() {
    let mut platform = Platform::start(&[]);
    let mut cluster = Cluster::up(Runtime::Simulated, &["--nodes", "3"]);
    cluster.apply(&platform.register("home"));
    cluster.apply(&secrets());
    cluster.apply(&deployment("web", 120));
    cluster.apply(&agent("home", &platform.url));
    has_condition(&cluster, "home", "Available", "True AgentRunning");
    has_condition(&cluster, "home", "CredentialsValid", "True Accepted");
    let objects = cluster.eventually("equality after the start", || equal(&cluster, &platform));
    assert!(objects > 150, "{objects} objects");

    // Churn, and the platform gone in the middle of it.
    cluster.apply(&deployment("batch", 80));
    cluster.kubectl(&["scale", "deployment/web", "--replicas=60"]);
    platform.kill();
    cluster.kubectl(&["set", "image", "deployment/batch", "main=nginx:1.28"]);
    cluster.kubectl(&["delete", "service", "web"]);
    has_condition(&cluster, "home", "Available", "False PlatformUnavailable");
    has_condition(&cluster, "home", "Degraded", "False AgentHealthy");
    platform.restart(&[]);
    cluster.kubectl(&["rollout", "status", "deployment/batch", "--timeout=180s"]);
    cluster.eventually("equality after the platform came back", || equal(&cluster, &platform));
    has_condition(&cluster, "home", "Available", "True AgentRunning");

    let stream = cluster.kubectl(&["get", "obsykagent", "home", "-o", "jsonpath={.status.stream}"]);
    let stream: Value = serde_json::from_str(&stream).unwrap();
    assert!(
        stream["sessions"].as_u64() >= Some(1) && stream["snapshots"] == 0,
        "batches by negotiation: {stream}"
    );

    let metrics = cluster.kubectl(&["get", "--raw", "/metrics"]);
    for line in [
        "obsyk_agent_up{namespace=\"default\",agent=\"home\"} 1\n",
        "keelson_controller_reconciles_total{controller=\"obsyk-operator\"} ",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }

    // Nothing of what stays in the cluster is anywhere else.
    let mut left = platform.said.lock().unwrap().clone().into_bytes();
    bytes_below(platform.directory.path(), &mut left);
    left.extend(cluster.said().into_bytes());
    left.extend(cluster.kubectl(&["get", "obsykagents", "-A", "-o", "json"]).into_bytes());
    assert!(!String::from_utf8_lossy(&left).contains(CANARY), "a value left the cluster");
    picture(&platform);

    // Revoked: said, and taken up again with another key.
    let revoke = Command::new(env!("CARGO_BIN_EXE_keelson"))
        .args(["obsyk-platform", "revoke", "home", "--data-dir"])
        .arg(platform.directory.path().join("platform"))
        .status();
    assert!(revoke.unwrap().success());
    has_condition(&cluster, "home", "CredentialsValid", "False AuthenticationError");
    cluster.apply(&platform.register("home"));
    has_condition(&cluster, "home", "CredentialsValid", "True Accepted");
    assert_eq!(cluster.stop(), 0, "{}", cluster.said());
}

/// Opens the page in a browser, and looks at what it made of it. The picture goes to `KEELSON_SCREENSHOT`,
/// when that is set.
fn picture(platform: &Platform) {
    let profile = tempfile::tempdir().unwrap();
    let shot = profile.path().join("page.png");
    let browse = |arguments: &[&str]| {
        let output = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                "--window-size=1440,1000",
                "--virtual-time-budget=8000",
            ])
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .args(arguments)
            .arg(&platform.page)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("chromium does not start (scripts/deps test): {error}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let page = browse(&["--dump-dom"]);
    let counts = platform.get("/api/clusters").unwrap()[0]["counts"].clone();
    assert!(page.contains("data-ready=\"true\""), "{page}");
    assert!(page.contains("Home &amp; &lt;Lab&gt;"), "names are text, not markup: {page}");
    // The newest changes, whatever they are.
    let changes = [">added<", ">modified<", ">deleted<"];
    let changed = changes.iter().any(|what| page.contains(what));
    assert!(page.contains(">deployments<") && changed, "kinds and changes: {page}");
    assert!(counts["pods"].as_u64() > Some(100), "{counts}");
    browse(&[&format!("--screenshot={}", shot.display())]);
    assert!(std::fs::metadata(&shot).unwrap().len() > 20_000, "there is a picture");
    if let Some(to) = std::env::var_os("KEELSON_SCREENSHOT") {
        std::fs::copy(&shot, PathBuf::from(to)).unwrap();
    }
}
