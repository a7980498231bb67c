//! Two kubectl's, an old and a new one, through what people do with them: the same table for both, and where upstream's
//! server would answer them differently, the answer that it gives.
//!
//! The two are the oldest and the newest of: the one on the PATH, those beside it (`kubectl.1.NN`, as the Google Cloud
//! SDK installs them), those of `KEELSON_KUBECTLS` (paths with colons between them), and Debian's 1.20, which is
//! fetched with apt-get where no other is that old.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::cluster::{Cluster, Runtime};

/// The minor version from which kubectl knows only what 1.25 and newer serve.
const ONLY_STABLE: u32 = 25;

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx}], terminationGracePeriodSeconds: 0}
";

/// The minor version of a client, if it is one.
fn minor(program: &Path) -> Option<u32> {
    let output = Command::new(program).args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    version["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok()
}

/// Debian's package, unpacked; kept for the next run.
fn debians() -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kubernetes-client");
    let program = home.join("usr/bin/kubectl");
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&home).unwrap();
    let fetch = "apt-get -q download kubernetes-client && dpkg-deb -x kubernetes-client_*.deb .";
    let output = Command::new("sh").args(["-c", fetch]).current_dir(&home).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() && program.exists() {
        Ok(program)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The oldest and the newest kubectl there are.
fn clients() -> Vec<(u32, PathBuf)> {
    let path = env::var("PATH").unwrap_or_default();
    let on_path =
        env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|program| program.exists());
    let real = on_path.as_ref().and_then(|program| program.canonicalize().ok());
    let beside = real.as_ref().and_then(|program| fs::read_dir(program.parent()?).ok());
    let beside = beside.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let beside = beside
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubectl.1.")));
    let given = env::var("KEELSON_KUBECTLS").unwrap_or_default();
    let mut found: BTreeMap<u32, PathBuf> = BTreeMap::new();
    let all =
        env::split_paths(&given).filter(|path| !path.as_os_str().is_empty()).chain(beside).chain(on_path);
    found.extend(all.filter_map(|program| Some((minor(&program)?, program))));
    if found.first_key_value().is_none_or(|(oldest, _)| *oldest >= ONLY_STABLE) {
        match debians() {
            Ok(program) => found.extend(minor(&program).map(|minor| (minor, program))),
            Err(why) => println!("no kubectl older than 1.{ONLY_STABLE}: {why}"),
        }
    }
    let ends: BTreeMap<u32, PathBuf> = found.pop_first().into_iter().chain(found.pop_last()).collect();
    assert_eq!(ends.len(), 2, "want two versions of kubectl: name another in KEELSON_KUBECTLS");
    ends.into_iter().collect()
}

struct Client<'a> {
    cluster: &'a Cluster,
    program: PathBuf,
    minor: u32,
    namespace: String,
}

impl Client<'_> {
    /// Runs it in its namespace: whether it succeeded, and all that it said.
    fn try_run(&self, arguments: &[&str]) -> (bool, String) {
        let home = self.cluster.data_dir().join(&self.namespace);
        let mut command = self.cluster.command(self.program.to_str().unwrap());
        command.arg("--namespace").arg(&self.namespace).arg("--kubeconfig");
        command.arg(self.cluster.data_dir().join("admin.kubeconfig")).args(arguments);
        command.env("HOME", home).stdin(Stdio::null());
        let output = command.output().unwrap();
        let said =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), said)
    }

    /// It succeeds and says this.
    fn says(&self, arguments: &[&str], words: &str) -> String {
        let (done, said) = self.try_run(arguments);
        assert!(
            done && said.contains(words),
            "kubectl 1.{} {arguments:?} wants {words:?}:\n{said}",
            self.minor
        );
        said
    }

    /// It fails and says this.
    fn fails(&self, arguments: &[&str], words: &str) {
        let (done, said) = self.try_run(arguments);
        assert!(
            !done && said.contains(words),
            "kubectl 1.{} {arguments:?} wants {words:?}:\n{said}",
            self.minor
        );
    }
}

#[test]
fn an_old_and_a_new_kubectl_do_what_people_do() {
    let cluster = Cluster::up(Runtime::Simulated, &["--operators", "none"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"]);
    for (minor, program) in clients() {
        println!("kubectl 1.{minor}: {}", program.display());
        let namespace = format!("with-1-{minor}");
        cluster.kubectl(&["create", "namespace", &namespace]);
        let client = Client { cluster: &cluster, program, minor, namespace };
        reads(&client);
        writes(&client);
        creates(&client);
        tends_nodes(&client);
        cluster.kubectl(&["delete", "namespace", &client.namespace, "--wait=false"]);
    }
}

fn reads(client: &Client<'_>) {
    for (arguments, words) in [
        (&["version", "-o", "json"][..], "\"serverVersion\""),
        (&["api-resources"], "deployments"),
        (&["api-resources", "--api-group=apps", "-o", "name"], "statefulsets.apps"),
        (&["api-versions"], "admissionregistration.k8s.io/v1"),
        (&["explain", "deployment.spec.strategy"], "rollingUpdate"),
        (&["explain", "pods", "--recursive"], "terminationGracePeriodSeconds"),
        (&["auth", "can-i", "create", "pods"], "yes"),
        (&["auth", "can-i", "--list"], "*.*"),
        (&["auth", "can-i", "get", "/metrics"], "yes"),
        (&["cluster-info"], "is running at"),
        (&["get", "--raw", "/readyz"], "ok"),
        (&["get", "nodes", "-o", "wide"], "CONTAINER-RUNTIME"),
        (&["describe", "node", "node-0"], "Allocatable:"),
    ] {
        client.says(arguments, words);
    }
    client.fails(&["auth", "can-i", "create", "pods", "--as", "nobody"], "no");
    client.cluster.eventually("the usage of the node", || match client.try_run(&["top", "node"]) {
        (true, said) if said.contains("node-0") => Ok(()),
        (_, said) => Err(said),
    });
    if client.minor >= ONLY_STABLE {
        client.says(&["auth", "whoami"], "kubernetes-admin");
        client.says(&["create", "token", "default"], ".");
    }
}

fn writes(client: &Client<'_>) {
    let home = client.cluster.data_dir().join(&client.namespace);
    fs::create_dir_all(&home).unwrap();
    let (web, more) = (home.join("web.yaml"), home.join("more.yaml"));
    fs::write(&web, WEB).unwrap();
    fs::write(&more, WEB.replace("replicas: 2", "replicas: 3")).unwrap();
    let (web, more) = (web.to_str().unwrap(), more.to_str().unwrap());
    let deployment = "deployment/web";
    client.says(&["apply", "-f", web], "deployment.apps/web created");
    client.says(&["apply", "-f", web], "deployment.apps/web unchanged");
    client.says(&["rollout", "status", deployment, "--timeout=60s"], "successfully rolled out");
    client.says(&["wait", "--for=condition=Available", deployment, "--timeout=60s"], "condition met");
    client.says(&["diff", "-f", web], "");
    client.fails(&["diff", "-f", more], "+  replicas: 3");
    client.says(
        &["apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", more],
        "serverside-applied",
    );
    client.says(&["apply", "--server-side", "--force-conflicts", "-f", web], "serverside-applied");
    client.says(&["rollout", "history", deployment], "REVISION");
    client.says(&["rollout", "restart", deployment], "restarted");
    client.says(&["rollout", "status", deployment, "--timeout=60s"], "successfully rolled out");
    client.says(&["rollout", "undo", deployment], "rolled back");
    client.says(&["rollout", "pause", deployment], "paused");
    client.says(&["rollout", "resume", deployment], "resumed");
    client.says(&["scale", deployment, "--replicas=1"], "scaled");
    client.says(&["set", "image", deployment, "c=nginx:2"], "image updated");
    client.says(&["label", deployment, "a=b"], "labeled");
    client.says(&["annotate", deployment, "a=b"], "annotated");
    for (how, patch) in [
        ("strategic", r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"nginx:3"}]}}}}"#),
        ("merge", r#"{"metadata":{"labels":{"a":null}}}"#),
        ("json", r#"[{"op":"remove","path":"/metadata/annotations/a"}]"#),
    ] {
        client.says(&["patch", deployment, "--type", how, "-p", patch], "patched");
    }
    client.says(&["get", deployment, "-o", "jsonpath={.spec.template.spec.containers[0].image}"], "nginx:3");
    client.says(&["get", deployment, "-o", "custom-columns=N:.metadata.name"], "web");
    client.says(&["describe", deployment], "StrategyType:");
    client.says(&["rollout", "status", deployment, "--timeout=60s"], "successfully rolled out");
    client.says(&["get", "events"], "ScalingReplicaSet");
    if client.minor >= ONLY_STABLE {
        client.says(&["events"], "ScalingReplicaSet");
        client.says(
            &["wait", "--for=jsonpath={.status.replicas}=1", deployment, "--timeout=60s"],
            "condition met",
        );
    }
}

/// Where an old client asks for versions that upstream no longer serves since 1.25, it is answered as upstream would.
fn creates(client: &Client<'_>) {
    let budget = ["create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=0"];
    let cron = ["create", "cronjob", "tick", "--image=busybox", "--schedule=0 0 1 1 *"];
    if client.minor >= ONLY_STABLE {
        client.says(&budget, "created");
        client.says(&cron, "created");
    } else {
        client.fails(&budget, "no matches for kind \"PodDisruptionBudget\" in version \"policy/v1beta1\"");
        client.fails(&cron, "the server could not find the requested resource");
    }
    let pod = client.says(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"], "web-");
    let debug = ["debug", &pod, "--image=busybox", "--container=debugger"];
    if client.minor >= ONLY_STABLE {
        client.says(&debug, "");
        let named = "jsonpath={.spec.ephemeralContainers[0].name}";
        client.says(&["get", "pod", &pod, "-o", named], "debugger");
        client.says(&["debug", &pod, "--image=busybox", "--copy-to=copy"], "");
        client.says(&["get", "pod", "copy"], "copy");
    } else {
        // It sends the kind EphemeralContainers, which was dropped before it was stable.
        client.fails(&debug, "EphemeralContainers");
    }
    for (what, arguments) in [
        ("configmap", &["--from-literal=a=b"][..]),
        ("role", &["--verb=get", "--resource=pods"]),
        ("serviceaccount", &[]),
        ("quota", &["--hard=pods=50"]),
    ] {
        client.says(&[&["create", what, "made"], arguments].concat(), "created");
    }
    client.says(&["create", "job", "once", "--image=busybox"], "created");
    client.says(&["create", "secret", "generic", "s", "--from-literal=a=b"], "created");
    client.says(&["expose", "deployment/web", "--port=80"], "exposed");
    client.says(&["autoscale", "deployment/web", "--max=3"], "autoscaled");
    // What is not there on a simulated node is said, not hung on.
    client.fails(&["cp", "/etc/hostname", &format!("{pod}:/tmp/x")], "is simulated");
    client.fails(&["exec", &pod, "--", "true"], "is simulated");
}

fn tends_nodes(client: &Client<'_>) {
    client.says(&["cordon", "node-0"], "cordoned");
    client.says(&["drain", "node-0", "--ignore-daemonsets", "--force", "--timeout=60s"], "node/node-0 ");
    client.says(&["uncordon", "node-0"], "uncordoned");
    client.says(&["taint", "node", "node-0", "a=b:NoSchedule"], "tainted");
    client.says(&["taint", "node", "node-0", "a-"], "untainted");
    client.says(&["delete", "deployment/web"], "deleted");
}
