//! The operator in a process of its own, with no rights but those that its manifests give it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Runtime},
    obsyk::{Platform, agent, deployment, equal, has_condition, secrets},
};

const NAMESPACE: &str = "keelson-system";
const NAME: &str = "keelson-operator-obsyk";

const INGRESS: &str = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\n\
                       spec: {rules: [{host: web.example}]}\n";

/// The process.
pub(crate) struct Operator {
    process: Child,
    health: String,
    said: Arc<Mutex<String>>,
}

impl Operator {
    pub(crate) fn start(kubeconfig: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_keelson"))
            .args(["--log-level", "debug", "operator", "obsyk", "--namespace", NAMESPACE])
            .args(["--health", "127.0.0.1:0", "--kubeconfig"])
            .arg(kubeconfig)
            // As the Deployment of `keelson install` has it.
            .env("MIMALLOC_PURGE_DELAY", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut errors, said) =
            (BufReader::new(process.stderr.take().unwrap()), Arc::<Mutex<String>>::default());
        let log = said.clone();
        std::thread::spawn(move || {
            let mut line = String::new();
            while errors.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                log.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let health =
            ready.rsplit_once("http://").map(|(_, rest)| rest.trim().trim_end_matches(')').to_owned());
        let health = health.unwrap_or_else(|| panic!("it said {ready:?} and {}", said.lock().unwrap()));
        Self { process, health, said }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Panics with its last words when it has ended, as a leader does that cannot renew its lease for ten seconds.
    pub(crate) fn must_run(&self) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')) {
            let said = self.said();
            let last: Vec<&str> = said.lines().rev().take(5).collect();
            panic!("the operator ended: {last:#?}");
        }
    }

    /// Its log so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.health).unwrap();
        let head = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.health);
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// SIGTERM, and waits; whether it ended well.
    pub(crate) fn stop(mut self) -> bool {
        assert!(Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap().success());
        self.process.wait().unwrap().success()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Applies the manifests; a kubeconfig of the ServiceAccount that they make.
fn install(cluster: &Cluster) -> PathBuf {
    let install =
        Command::new(env!("CARGO_BIN_EXE_keelson")).args(["install", "--operator", "all"]).output().unwrap();
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
    cluster.apply(&String::from_utf8(install.stdout).unwrap());
    let token = cluster.kubectl(&["create", "token", NAME, "-n", NAMESPACE]);
    let of = |path: &str| {
        cluster.kubectl(&[
            "config",
            "view",
            "--raw",
            "-o",
            &format!("jsonpath={{.clusters[0].cluster.{path}}}"),
        ])
    };
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": of("server"),
            "certificate-authority-data": of("certificate-authority-data")}}],
        "users": [{"name": "u", "user": {"token": token.trim()}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let path = cluster.data_dir().join("operator.kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

#[test]
fn the_operator_runs_with_the_rights_of_its_manifests() {
    let cluster = Cluster::up(Runtime::Simulated, &["--operators", "none"]);
    let kubeconfig = install(&cluster);
    let operator = Operator::start(&kubeconfig);
    let platform = Platform::start(&[]);
    cluster.apply(&platform.register("home"));
    cluster.apply(&secrets());
    cluster.apply(INGRESS);
    cluster.apply(&agent("home", &platform.url));
    cluster.apply(&deployment("web", 5));
    has_condition(&cluster, "home", "Available", "True AgentRunning");
    has_condition(&cluster, "home", "CachesSynced", "True Synced");
    cluster.eventually("equality", || equal(&cluster, &platform));
    has_condition(&cluster, "home", "Degraded", "False AgentHealthy");
    let metrics = operator.metrics();
    assert!(metrics.contains("obsyk_agent_up{namespace=\"default\",agent=\"home\"} 1\n"), "{metrics}");

    // It was refused nothing, and may not do what it has no need to.
    let said = operator.said();
    assert!(!said.to_lowercase().contains("forbidden"), "{said}");
    let user = format!("--as=system:serviceaccount:{NAMESPACE}:{NAME}");
    let may = |verb: &str, what: &str| {
        cluster.try_kubectl(&["auth", "can-i", verb, what, "-A", &user]).status.success()
    };
    assert!(may("list", "secrets") && may("watch", "clusterroles") && may("get", "obsykagents"));
    for (verb, what) in [
        ("create", "pods"),
        ("delete", "pods"),
        ("get", "pods/log"),
        ("update", "secrets"),
        ("update", "obsykagents"),
        ("list", "leases"),
        ("create", "clusterrolebindings"),
    ] {
        assert!(!may(verb, what), "{verb} {what}");
    }
    assert!(operator.stop());
    let holder = ["get", "lease", NAME, "-n", NAMESPACE, "-o", "jsonpath={.spec.holderIdentity}"];
    assert_eq!(cluster.kubectl(&holder), "", "the lease was given back");

    // A right is missing: that is said, the rest goes on, and what the platform has of the kind stays there.
    let live: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "clusterrole", NAME, "-o", "json"])).unwrap();
    let role = json!({"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": {"name": NAME},
        "rules": live["rules"]});
    let role = role.to_string();
    let less = role.replace("\"ingresses\",", "");
    assert_ne!(role, less);
    cluster.apply(&less);
    let operator = Operator::start(&kubeconfig);
    let message = has_condition(&cluster, "home", "CachesSynced", "False KindsUnread");
    assert!(message.contains("ingresses") && !message.contains("pods"), "{message}");
    cluster.kubectl(&["scale", "deployment/web", "--replicas=2"]);
    cluster.eventually("equality without a right", || equal(&cluster, &platform));
    cluster.apply(&role);
    has_condition(&cluster, "home", "CachesSynced", "True Synced");
    assert!(operator.stop());
}
