//! A pod on a real container, reached in every way that kubectl knows.

use std::{
    io::Write,
    process::{Child, Stdio},
};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Runtime};

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: init
    image: busybox:1.35
    command: [sh, -c, echo hello > /www/index.html]
    volumeMounts: [{name: www, mountPath: /www}]
  containers:
  - name: web
    image: busybox:1.35
    command: [httpd, -f, -p, '8080', -h, /www]
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /index.html, port: http}, periodSeconds: 1, timeoutSeconds: 10}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 30}
    volumeMounts: [{name: www, mountPath: /www}]
  - name: echo
    image: busybox:1.35
    stdin: true
    command: [sh, -c, 'while read line; do echo got $line; done; sleep 3600']
  volumes: [{name: www, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: client, image: 'busybox:1.35', command: [sleep, '3600']}]
";

/// Ends when the test does, however it ends.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A kubectl that goes on until it is dropped.
fn background(cluster: &Cluster, arguments: &[&str]) -> Background {
    let mut command = cluster.command("kubectl");
    command.arg("--kubeconfig").arg(cluster.data_dir().join("admin.kubeconfig")).args(arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Background(command.spawn().unwrap())
}

#[test]
fn a_pod_is_copied_to_forwarded_to_attached_to_and_debugged() {
    let cluster = Cluster::up(Runtime::Containerd, &[]);
    cluster.load_image("busybox");
    cluster.apply(WEB);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "pod/client", "--timeout=120s"]);

    let file = cluster.data_dir().join("copied");
    std::fs::write(&file, "copied").unwrap();
    cluster.kubectl(&["cp", file.to_str().unwrap(), "web:/www/copied.html", "-c", "web"]);
    cluster.eventually("the service leads to the pod", || {
        let get = ["exec", "client", "--", "wget", "-qO-", "http://front/copied.html"];
        let output = cluster.try_kubectl(&get);
        if output.status.success() && output.stdout == b"copied" {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    });
    let back = cluster.data_dir().join("back");
    cluster.kubectl(&["cp", "web:/www/index.html", back.to_str().unwrap(), "-c", "web"]);
    assert_eq!(std::fs::read_to_string(back).unwrap(), "hello\n");

    let _forward = background(&cluster, &["port-forward", "pod/web", "18080:8080"]);
    cluster.eventually("the forwarded port answers", || {
        let mut busybox = cluster.command("busybox");
        let output = busybox.args(["wget", "-qO-", "http://127.0.0.1:18080/"]).output().unwrap();
        if output.stdout == b"hello\n" { Ok(()) } else { Err(format!("{output:?}")) }
    });

    let mut attached = background(&cluster, &["attach", "-i", "web", "-c", "echo"]);
    attached.0.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    cluster.eventually("what was typed arrives", || {
        let log = cluster.kubectl(&["logs", "web", "-c", "echo"]);
        if log.contains("got one") { Ok(()) } else { Err(log) }
    });
    debugged(&cluster);
    let restarts = "jsonpath={.status.containerStatuses[*].restartCount}";
    assert_eq!(cluster.kubectl(&["get", "pod", "web", "-o", restarts]), "0 0");
}

/// An ephemeral container sees the processes of its target, and runs once.
fn debugged(cluster: &Cluster) {
    let path = "/api/v1/namespaces/default/pods/web/ephemeralcontainers";
    let mut pod: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", path])).unwrap();
    pod["spec"]["ephemeralContainers"] = json!([{
        "name": "debug", "image": "busybox:1.35", "targetContainerName": "web", "command": ["ps", "-o", "args"],
    }]);
    let file = cluster.data_dir().join("debug.json");
    std::fs::write(&file, pod.to_string()).unwrap();
    cluster.kubectl(&["replace", "--raw", path, "-f", file.to_str().unwrap()]);
    let status = cluster.eventually("the ephemeral container ends", || {
        let path = "jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.reason}";
        let reason = cluster.kubectl(&["get", "pod", "web", "-o", path]);
        if reason == "Completed" { Ok(reason) } else { Err(reason) }
    });
    assert_eq!(status, "Completed");
    let log = cluster.kubectl(&["logs", "web", "-c", "debug"]);
    assert!(log.contains("httpd -f -p 8080"), "{log}");
}
