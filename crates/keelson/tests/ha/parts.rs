//! `examples/ha` with processes on loopback: two of everything, and each leader is killed.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    balancer::Balancer,
    part::{Part, eventually, kubectl},
    servers::{postgres, redis},
};

/// API servers with one authority behind one address.
pub(crate) struct Cluster {
    pub(crate) directory: TempDir,
    pub(crate) balancer: Balancer,
    pub(crate) servers: Vec<Part>,
    store: String,
}

impl Cluster {
    pub(crate) fn start(servers: usize) -> Self {
        let directory = tempfile::Builder::new().prefix("kha").tempdir_in("/tmp").unwrap();
        let store = postgres().url(&postgres().database());
        let mut cluster = Self { directory, balancer: Balancer::start(), servers: Vec::new(), store };
        for _ in 0..servers {
            cluster.add_server();
        }
        cluster
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn add_server(&mut self) {
        self.add_server_with(&[]);
    }

    fn add_server_with(&mut self, more: &[&str]) {
        let data = self.path(&format!("server-{}", self.servers.len()));
        let advertise = format!("127.0.0.1:{}", self.balancer.port);
        let (pki, redis) = (self.path("pki"), redis().url());
        let arguments = [
            "apiserver",
            "--listen",
            "127.0.0.1:0",
            "--advertise",
            &advertise,
            "--node",
            "node-1,node-2",
            "--store",
            &self.store,
            "--events",
            &redis,
            "--pki-dir",
            pki.to_str().unwrap(),
            "--data-dir",
            data.to_str().unwrap(),
        ];
        let server = Part::start(&[&arguments, more].concat());
        self.balancer.add(server.address());
        self.servers.push(server);
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("server-0/admin.kubeconfig")
    }

    /// A kubeconfig of who has this token.
    fn with_token(&self, name: &str, token: &str) -> PathBuf {
        let path = self.path(&format!("{name}.kubeconfig"));
        let text = std::fs::read_to_string(self.kubeconfig()).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["users"][0]["user"] = json!({ "token": token });
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub(crate) fn part(&self, command: &[&str], kubeconfig: &str) -> Part {
        let path = self.path("server-0").join(kubeconfig);
        let arguments: Vec<&str> =
            command.iter().copied().chain(["--kubeconfig", path.to_str().unwrap()]).collect();
        Part::start(&arguments)
    }
}

/// As a compose file starts them.
#[test]
fn two_servers_make_a_new_cluster_at_the_same_time() {
    let directory = tempfile::Builder::new().prefix("kha").tempdir_in("/tmp").unwrap();
    let store = postgres().url(&postgres().database());
    let at = |name: &str| directory.path().join(name).display().to_string();
    let servers: Vec<Part> = std::thread::scope(|scope| {
        let start = |data: String| {
            let (pki, store) = (at("pki"), store.clone());
            scope.spawn(move || {
                let listen = ["apiserver", "--listen", "127.0.0.1:0"];
                Part::start(
                    &[&listen[..], &["--store", &store, "--pki-dir", &pki, "--data-dir", &data]].concat(),
                )
            })
        };
        let both = [at("a"), at("b")].map(start);
        both.into_iter().map(|server| server.join().unwrap()).collect()
    });
    for (server, name) in servers.iter().zip(["a", "b"]) {
        let kubeconfig = directory.path().join(name).join("admin.kubeconfig");
        let address = format!("--server=https://{}", server.address());
        let path = "jsonpath={.spec.clusterIP}";
        let ip = kubectl(&kubeconfig, &[&address, "get", "service", "kubernetes", "-o", path]);
        assert_eq!(ip, "10.43.0.1");
    }
}

/// Kills the one of two that leads, and waits until the other does.
fn depose(pair: &mut Vec<Part>, name: &str) {
    let leading = || format!("{name} leads");
    let leader = eventually(&leading(), || {
        pair.iter().position(|part| part.says("leading")).ok_or_else(|| pair[0].said())
    });
    pair.remove(leader).kill();
    eventually(&format!("the other {name}"), || {
        if pair[0].says("leading") { Ok(()) } else { Err(pair[0].said()) }
    });
}

fn scale(kubeconfig: &Path, replicas: u32) {
    let replicas = replicas.to_string();
    // A connection may just have broken; the next one goes to the other server.
    eventually("scale", || {
        crate::part::try_kubectl(kubeconfig, &["scale", "deployment/web", &format!("--replicas={replicas}")])
    });
    eventually(&format!("{replicas} replicas"), || {
        let path = "jsonpath={.status.readyReplicas}";
        let ready = crate::part::try_kubectl(kubeconfig, &["get", "deployment", "web", "-o", path])?;
        if ready == replicas { Ok(()) } else { Err(format!("{ready} are ready")) }
    });
}

#[test]
fn the_workload_goes_on_when_each_leader_is_killed() {
    let mut cluster = Cluster::start(2);
    let mut schedulers: Vec<Part> =
        (0..2).map(|_| cluster.part(&["scheduler"], "kube-scheduler.kubeconfig")).collect();
    let mut managers: Vec<Part> =
        (0..2).map(|_| cluster.part(&["controller-manager"], "kube-controller-manager.kubeconfig")).collect();
    let _nodes: Vec<Part> = (1..=2)
        .map(|at| {
            let (name, range) = (format!("node-{at}"), format!("10.42.{at}.0/24"));
            cluster.part(
                &["node", "--name", &name, "--pod-cidr", &range, "--runtime", "simulated"],
                &format!("node-{name}.kubeconfig"),
            )
        })
        .collect();
    let kubeconfig = cluster.kubeconfig();
    eventually("two nodes", || {
        let nodes = kubectl(&kubeconfig, &["get", "nodes", "--no-headers"]);
        if nodes.matches(" Ready ").count() == 2 { Ok(()) } else { Err(nodes) }
    });
    kubectl(&kubeconfig, &["create", "deployment", "web", "--image=nginx:1.27"]);
    scale(&kubeconfig, 3);
    depose(&mut schedulers, "kube-scheduler");
    depose(&mut managers, "kube-controller-manager");
    scale(&kubeconfig, 5);
    cluster.servers[0].kill();
    scale(&kubeconfig, 7);
    let pods = kubectl(&kubeconfig, &["get", "pods", "-o", "wide", "--no-headers"]);
    assert_eq!(pods.matches(" Running ").count(), 7, "{pods}");
    for node in ["node-1", "node-2"] {
        assert!(pods.contains(node), "{pods}");
    }
}

/// A balancer that asks hears of the end before connections are refused.
#[test]
fn a_server_that_stops_is_unready_first_and_serves_on_for_its_delay() {
    let mut cluster = Cluster::start(0);
    for delay in ["3600", "1"] {
        cluster.add_server_with(&["--shutdown-delay-seconds", delay]);
    }
    let kubeconfig = cluster.kubeconfig();
    let at_first = format!("--server=https://{}", cluster.servers[0].address());
    assert_eq!(kubectl(&kubeconfig, &[&at_first, "get", "--raw", "/readyz"]), "ok");
    cluster.servers[0].signal("-TERM");
    eventually("not ready", || {
        match crate::part::try_kubectl(&kubeconfig, &[&at_first, "get", "--raw", "/readyz"]) {
            Err(said) if said.contains("[-]shutdown failed: process is shutting down") => Ok(()),
            said => Err(format!("{said:?}")),
        }
    });
    assert_eq!(kubectl(&kubeconfig, &[&at_first, "get", "--raw", "/livez"]), "ok");
    kubectl(&kubeconfig, &[&at_first, "create", "configmap", "late"]);
    assert_eq!(cluster.servers[0].stop(), 1, "a second signal ends at once");
    assert_eq!(cluster.servers[1].stop(), 0, "{}", cluster.servers[1].said());
}

/// What each part's credentials are good for, and what not.
#[test]
fn parts_may_do_what_is_theirs_and_no_more() {
    let cluster = Cluster::start(1);
    let _scheduler = cluster.part(&["scheduler"], "kube-scheduler.kubeconfig");
    let _manager = cluster.part(&["controller-manager"], "kube-controller-manager.kubeconfig");
    let _nodes: Vec<Part> = ["node-1", "node-2"]
        .map(|name| {
            // Each is given its range of pod addresses.
            let kubeconfig = format!("node-{name}.kubeconfig");
            cluster.part(&["node", "--name", name, "--runtime", "simulated"], &kubeconfig)
        })
        .into();
    let admin = cluster.kubeconfig();
    for secret in ["used", "other"] {
        kubectl(&admin, &["create", "secret", "generic", secret, "--from-literal=a=b"]);
    }
    eventually("the default service account", || {
        crate::part::try_kubectl(&admin, &["get", "serviceaccount", "default"])
    });
    let pod = cluster.path("pod.yaml");
    let text = "\
apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  nodeName: node-1
  containers:
  - { name: c, image: i, env: [{ name: A, valueFrom: { secretKeyRef: { name: used, key: a } } }] }
";
    std::fs::write(&pod, text).unwrap();
    kubectl(&admin, &["apply", "-f", pod.to_str().unwrap()]);
    eventually("the pod runs", || {
        let phase =
            crate::part::try_kubectl(&admin, &["get", "pod", "web", "-o", "jsonpath={.status.phase}"])?;
        if phase == "Running" { Ok(()) } else { Err(phase) }
    });
    let of = |name: &str| cluster.path("server-0").join(format!("{name}.kubeconfig"));
    kubectl(&of("node-node-1"), &["get", "secret", "used"]);
    for (who, what) in [
        ("node-node-1", ["get", "secret", "other"]),
        ("node-node-2", ["get", "secret", "used"]),
        ("node-node-1", ["delete", "node", "node-2"]),
        ("kube-scheduler", ["get", "secret", "used"]),
        ("kube-controller-manager", ["create", "clusterrole", "wide"]),
    ] {
        let mut arguments = what.to_vec();
        if what[0] == "create" {
            arguments.extend(["--verb=get", "--resource=pods"]);
        }
        let refused = crate::part::try_kubectl(&of(who), &arguments);
        assert!(refused.as_ref().is_err_and(|why| why.contains("orbidden")), "{who} {what:?}: {refused:?}");
    }
}

/// Token Secrets, by a controller manager with its own rights: filled, good for their account, and gone with it.
#[test]
fn a_token_secret_is_filled_and_ends_with_its_account() {
    let cluster = Cluster::start(1);
    let _manager = cluster.part(&["controller-manager"], "kube-controller-manager.kubeconfig");
    let admin = cluster.kubeconfig();
    kubectl(&admin, &["create", "serviceaccount", "robot"]);
    let secret = |name: &str| {
        let (file, annotation) = (cluster.path(name), json!({"kubernetes.io/service-account.name": "robot"}));
        let metadata = json!({"name": name, "annotations": annotation});
        let kind = "kubernetes.io/service-account-token";
        let object = json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata});
        std::fs::write(&file, object.to_string()).unwrap();
        kubectl(&admin, &["apply", "-f", file.to_str().unwrap()]);
        let data = eventually("the token", || {
            let path = "jsonpath={.data.token} {.data.namespace} {.data.ca\\.crt}";
            let data = crate::part::try_kubectl(&admin, &["get", "secret", name, "-o", path])?;
            let parts: Vec<Vec<u8>> =
                data.split(' ').map(|part| STANDARD.decode(part).unwrap_or_default()).collect();
            if parts.iter().all(|part| !part.is_empty()) { Ok(parts) } else { Err(data) }
        });
        assert_eq!(data[1], b"default");
        assert!(data[2].starts_with(b"-----BEGIN CERTIFICATE-----"));
        cluster.with_token(name, std::str::from_utf8(&data[0]).unwrap())
    };
    let (first, second) = (secret("first"), secret("second"));
    // Known, and allowed nothing.
    for of in [&first, &second] {
        let refused = crate::part::try_kubectl(of, &["get", "pods"]).unwrap_err();
        assert!(refused.contains("system:serviceaccount:default:robot"), "{refused}");
    }
    kubectl(&admin, &["delete", "secret", "first"]);
    let refused = crate::part::try_kubectl(&first, &["get", "pods"]).unwrap_err();
    assert!(refused.contains("Unauthorized") || refused.contains("logged in"), "{refused}");
    kubectl(&admin, &["delete", "serviceaccount", "robot"]);
    eventually("the other is gone", || {
        match crate::part::try_kubectl(&admin, &["get", "secret", "second"]) {
            Err(why) if why.contains("NotFound") => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
}

/// A machine that has nothing but a token becomes a node, and one whose token is not for nodes waits for approval.
#[test]
fn a_node_asks_for_its_credentials_with_a_bootstrap_token() {
    let mut cluster = Cluster::start(0);
    cluster.add_server_with(&["--enable-bootstrap-token-auth"]);
    let admin = cluster.kubeconfig();
    let pki = |name: &str| cluster.path("pki").join(name).display().to_string();
    let signing =
        ["--cluster-signing-cert-file", &pki("ca.crt"), "--cluster-signing-key-file", &pki("ca.key")];
    let manager = [&["controller-manager"], &signing[..]].concat();
    let _manager = cluster.part(&manager, "kube-controller-manager.kubeconfig");
    let token = |id: &str, groups: &str| {
        let secret = format!("--from-literal=token-secret={}", "0123456789abcdef");
        let name = format!("bootstrap-token-{id}");
        let (id, groups) =
            (format!("--from-literal=token-id={id}"), format!("--from-literal=auth-extra-groups={groups}"));
        let usage = "--from-literal=usage-bootstrap-authentication=true";
        let kind = "--type=bootstrap.kubernetes.io/token";
        kubectl(
            &admin,
            &["create", "secret", "generic", &name, "-n", "kube-system", kind, &id, &secret, &groups, usage],
        );
    };
    token("nodes0", "system:bootstrappers:nodes");
    token("other0", "system:bootstrappers:others");
    let ask = "--clusterrole=system:node-bootstrapper";
    kubectl(&admin, &["create", "clusterrolebinding", "others", ask, "--group=system:bootstrappers:others"]);
    let bootstrap =
        |token: &str| cluster.with_token(token, &format!("{token}.0123456789abcdef")).display().to_string();
    let node = |name: &str, token: &str| -> Vec<String> {
        let kubeconfig = cluster.path(&format!("{name}.kubeconfig")).display().to_string();
        let range = name.replace("new-", "10.42.") + ".0/24";
        let bootstrap = bootstrap(token);
        ["node", "--name", name, "--pod-cidr", &range, "--runtime", "simulated", "--kubeconfig", &kubeconfig]
            .into_iter()
            .chain(["--bootstrap-kubeconfig", &bootstrap])
            .map(str::to_owned)
            .collect()
    };
    let start = |arguments: &[String]| Part::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let ready = |name: &str| {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        eventually(name, || {
            let found = crate::part::try_kubectl(&admin, &["get", "node", name, "-o", path])?;
            if found == "True" { Ok(()) } else { Err(found) }
        });
    };
    let first = start(&node("new-7", "nodes0"));
    ready("new-7");
    drop(first);
    let own = cluster.path("new-7.kubeconfig");
    kubectl(&own, &["get", "node", "new-7"]);
    assert!(crate::part::try_kubectl(&own, &["get", "secrets"]).is_err());
    assert!(!cluster.path("new-7.kubeconfig.key").exists());
    // What it has is enough from then on: the token may be gone.
    kubectl(&admin, &["delete", "secret", "-n", "kube-system", "bootstrap-token-nodes0"]);
    drop(start(&node("new-7", "nodes0")));
    let output = crate::part::finish(&node("new-8", "nodes0").iter().map(String::as_str).collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("Unauthorized"), "{said}");
    // Approved by hand, while it waits.
    let approved = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| start(&node("new-9", "other0")));
        let name = eventually("the request", || {
            let path = "jsonpath={.items[?(@.spec.username==\"system:bootstrap:other0\")].metadata.name}";
            let name = crate::part::try_kubectl(&admin, &["get", "csr", "-o", path])?;
            if name.is_empty() { Err(name) } else { Ok(name) }
        });
        kubectl(&admin, &["certificate", "approve", &name]);
        waiting.join().unwrap()
    });
    assert!(approved.said().contains("kubectl certificate approve node-csr-"), "{}", approved.said());
    ready("new-9");
}

#[test]
fn up_stands_on_postgresql_and_asks_for_leases_there() {
    let directory = tempfile::Builder::new().prefix("kha").tempdir_in("/tmp").unwrap();
    let (store, events) = (postgres().url(&postgres().database()), redis().url());
    let data = directory.path().join("data");
    let start = || {
        Part::start(&[
            "up",
            "--listen",
            "127.0.0.1:0",
            "--runtime",
            "simulated",
            "--operators",
            "none",
            "--store",
            &store,
            "--events",
            &events,
            "--data-dir",
            data.to_str().unwrap(),
        ])
    };
    let kubeconfig = data.join("admin.kubeconfig");
    let mut up = start();
    kubectl(&kubeconfig, &["create", "deployment", "web", "--image=nginx:1.27"]);
    scale(&kubeconfig, 2);
    for name in ["kube-scheduler", "kube-controller-manager"] {
        let path = "jsonpath={.spec.holderIdentity}";
        let holder = kubectl(&kubeconfig, &["get", "lease", "-n", "kube-system", name, "-o", path]);
        assert!(!holder.is_empty(), "{name}");
    }
    assert_eq!(up.stop(), 0, "{}", up.said());
    assert!(!data.join("store").exists(), "the objects are in PostgreSQL");
    let mut again = start();
    scale(&kubeconfig, 3);
    assert_eq!(again.stop(), 0, "{}", again.said());
}
