//! A second machine joins: its pods and the first one's reach each other, Services and names from both.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::cluster::{Cluster, NetworkNamespace, Program, ROOM, images};

/// `keelson node` on a machine of its own.
struct Node {
    namespace: NetworkNamespace,
    directory: tempfile::TempDir,
    program: Option<Program>,
}

impl Node {
    fn new(namespace: NetworkNamespace) -> Self {
        let directory = tempfile::Builder::new().prefix("kl").tempdir_in("/tmp").unwrap();
        Self { namespace, directory, program: None }
    }

    fn keelson(&self, arguments: &[&str]) -> Command {
        let mut command = self.namespace.command(Path::new(env!("CARGO_BIN_EXE_keelson")));
        command.args(arguments).arg("--data-dir").arg(self.directory.path().join("data"));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&mut self, more: &[&str]) {
        let kubeconfig = self.path("kubeconfig");
        let mut command = self.keelson(&["node", "--name", "node-1", "--kubelet-port", "10260"]);
        command.args([
            "--runtime",
            "containerd",
            "--registries",
            "off",
            "--eviction-hard",
            ROOM,
            "--log-level",
            "info",
            "--kubeconfig",
        ]);
        command.arg(kubeconfig).args(more);
        self.program = Some(Program::start(command));
    }

    fn load_image(&self, name: &str) {
        let archive = images().join(format!("{name}.tar"));
        let output = self.keelson(&["image", "load", archive.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Stops it with all that it left running.
    fn leave(&mut self) {
        drop(self.program.take());
        let output = self.keelson(&["down"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.program.take());
        drop(self.keelson(&["down"]).output());
    }
}

fn pod_on(node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: on-{node}, labels: {{app: on-{node}}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: busybox:1.35
    command: [sh, -c, 'mkdir /www; echo {node} > /www/index.html; dd if=/dev/zero of=/www/large bs=1024 count=1024; exec httpd -f -p 8080 -h /www']
    readinessProbe: {{httpGet: {{path: /large, port: 8080}}, periodSeconds: 1, timeoutSeconds: 10}}
---
apiVersion: v1
kind: Service
metadata: {{name: on-{node}}}
spec: {{selector: {{app: on-{node}}}, ports: [{{port: 80, targetPort: 8080}}]}}
"
    )
}

/// What a pod gets from an address, with what it said where it failed.
fn fetched(cluster: &Cluster, from: &str, url: &str) -> Result<Vec<u8>, String> {
    let output = cluster.try_kubectl(&["exec", from, "--", "wget", "-qO-", url]);
    if output.status.success() { Ok(output.stdout) } else { Err(format!("{output:?}")) }
}

/// From each node to the other one's pod.
fn both_ways(cluster: &Cluster) {
    for (from, to) in [("node-0", "node-1"), ("node-1", "node-0")] {
        let get = |url: &str| {
            cluster.eventually(&format!("{url} from {from}"), || fetched(cluster, &format!("on-{from}"), url))
        };
        assert_eq!(
            get(&format!("http://on-{to}.default.svc.cluster.local/")),
            format!("{to}\n").into_bytes()
        );
        let ip = cluster.kubectl(&["get", "pod", &format!("on-{to}"), "-o", "jsonpath={.status.podIP}"]);
        // More than one packet of the greatest length.
        assert_eq!(get(&format!("http://{ip}:8080/large")).len(), 1 << 20);
    }
}

#[test]
fn a_second_machine_joins_is_killed_and_leaves() {
    let [one, two] = NetworkNamespace::pair();
    let mut cluster = Cluster::up_at(
        "192.0.2.1:6443",
        one,
        &["--operators", "none", "--node", "node-1", "--enable-bootstrap-token-auth"],
    );
    let mut node = Node::new(two);
    std::fs::copy(cluster.data_dir().join("node-node-1.kubeconfig"), node.path("kubeconfig")).unwrap();
    cluster.eventually("the first machine's node", || {
        let ready = cluster.try_kubectl(&["wait", "--for=condition=Ready", "node/node-0", "--timeout=60s"]);
        if ready.status.success() { Ok(()) } else { Err(format!("{ready:?}")) }
    });
    for (range, address, code, says) in [
        (
            "10.42.0.128/25",
            "192.0.2.2",
            2,
            "10.42.0.128/25 has addresses of 10.42.0.0/24, which node node-0 has",
        ),
        ("10.99.0.0/24", "192.0.2.2", 2, "10.99.0.0/24 is not within 10.42.0.0/16"),
        ("10.42.1.0/24", "192.0.2.7", 1, "no network interface has the address 192.0.2.7"),
    ] {
        refused(&node, range, address, code, says);
    }
    stands_in_for_nothing(&node);
    // Its range is given to it: the first that is free.
    node.start(&[]);
    let said = "waiting for a range of pod addresses for node node-1";
    assert_eq!(node.program.as_ref().unwrap().said().matches(said).count(), 1);
    let of_node = |path: &str| cluster.kubectl(&["get", "node", "node-1", "-o", &format!("jsonpath={path}")]);
    assert_eq!(of_node("{.spec.podCIDR}"), "10.42.1.0/24");
    cluster.load_image("busybox");
    node.load_image("busybox");
    for name in ["node-0", "node-1"] {
        cluster.apply(&pod_on(name));
    }
    cluster.eventually("where its kubelet API is", || {
        let port = of_node("{.status.daemonEndpoints.kubeletEndpoint.Port}");
        if port == "10260" { Ok(()) } else { Err(port) }
    });
    let ready =
        ["wait", "--for=condition=Ready", "node/node-0", "node/node-1", "pod/on-node-0", "pod/on-node-1"];
    cluster.kubectl(&[&ready[..], &["--timeout=120s"]].concat());
    both_ways(&cluster);
    cluster.kubectl(&["exec", "on-node-1", "--", "nc", "-w", "5", "kubernetes.default", "443"]);
    cluster.kubectl(&["logs", "on-node-1"]);
    cluster.eventually("what the second machine uses", || {
        let top = cluster.try_kubectl(&["top", "node", "node-1"]);
        if top.status.success() { Ok(()) } else { Err(format!("{top:?}")) }
    });

    // Both programs are killed: containers go on, and what they said of the network is taken up again.
    let id = ["get", "pod", "on-node-1", "-o", "jsonpath={.status.containerStatuses[0].containerID}"];
    let before = cluster.kubectl(&id);
    node.program.as_mut().unwrap().kill();
    cluster.kill();
    node.namespace.ip("route del 10.42.0.0/24 dev keelson-vx");
    cluster.start();
    node.start(&[]);
    both_ways(&cluster);
    assert_eq!(cluster.kubectl(&id), before, "adopted, not started again");

    // It joins again by a token: both of its certificates are asked for, and approved.
    drop(node.program.take());
    refused(&node, "10.42.9.0/24", "192.0.2.2", 2, "node node-1 has 10.42.1.0/24, not 10.42.9.0/24");
    std::fs::remove_file(node.path("kubeconfig")).unwrap();
    let bootstrap = bootstrap(&cluster, &node);
    let joins = ["--pod-cidr", "10.42.1.0/24", "--bootstrap-kubeconfig", bootstrap.to_str().unwrap()];
    node.start(&joins);
    let said = "waiting for the approval of node-csr-";
    assert_eq!(node.program.as_ref().unwrap().said().matches(said).count(), 2);
    cluster.eventually("the new certificate serves", || {
        let echo = cluster.try_kubectl(&["exec", "on-node-1", "--", "echo", "again"]);
        if echo.stdout == b"again\n" { Ok(()) } else { Err(format!("{echo:?}")) }
    });

    // A node that is gone is forgotten.
    node.leave();
    assert_eq!(node.namespace.ip("-brief link show type vxlan"), "");
    cluster.kubectl(&["delete", "node", "node-1"]);
    cluster.eventually("the route is taken away", || {
        let mut ip = cluster.command("ip");
        let routes =
            String::from_utf8(ip.args(["route", "show", "dev", "keelson-vx"]).output().unwrap().stdout);
        if routes.as_deref() == Ok("") { Ok(()) } else { Err(format!("{routes:?}")) }
    });
}

/// What a node cannot begin with is said, and nothing is left behind.
fn refused(node: &Node, range: &str, address: &str, code: i32, says: &str) {
    let mut command = node.keelson(&["node", "--name", "node-1", "--runtime", "containerd"]);
    command.args(["--pod-cidr", range, "--node-ip", address, "--kubeconfig"]).arg(node.path("kubeconfig"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(code) && said.contains(says), "{range} {address}: {output:?}");
    assert!(!node.path("data").join("keelson.pid").exists());
}

/// Where containerd cannot run, a node of a cluster of others is not simulated unasked.
fn stands_in_for_nothing(node: &Node) {
    let mut command = node.namespace.command(Path::new(env!("CARGO_BIN_EXE_keelson")));
    command.args(["node", "--name", "node-1", "--pod-cidr", "10.42.1.0/24", "--kubeconfig"]);
    command.arg(node.path("kubeconfig")).arg("--data-dir").arg(node.path(&"long".repeat(30)));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let failed = output.status.code() == Some(1) && said.contains("is too long for a socket");
    assert!(failed && said.contains("--runtime simulated"), "{output:?}");
}

/// A token for new nodes, as README of `examples/ha` makes it.
fn bootstrap(cluster: &Cluster, node: &Node) -> PathBuf {
    cluster.apply(
        "
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData:
  token-id: abcdef
  token-secret: 0123456789abcdef
  usage-bootstrap-authentication: 'true'
  auth-extra-groups: system:bootstrappers:nodes
",
    );
    let text = std::fs::read_to_string(cluster.data_dir().join("admin.kubeconfig")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({ "token": "abcdef.0123456789abcdef" });
    let path = node.path("bootstrap");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}
