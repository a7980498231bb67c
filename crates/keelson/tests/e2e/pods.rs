//! A pod on a real container, reached in every way that kubectl knows.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Runtime, images};

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

/// A registry of files: what a static web server can be of one, which is all that pulling needs.
struct Registry {
    directory: tempfile::TempDir,
    _server: Background,
}

impl Registry {
    /// On loopback of the cluster, with the image in a repository that anybody may read and in one that asks who it is.
    fn start(cluster: &Cluster) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (layout, root) = (directory.path().join("layout"), directory.path().join("root"));
        std::fs::create_dir(&layout).unwrap();
        let tar = images().join("busybox.tar");
        let unpacked = Command::new("tar").arg("xf").arg(tar).arg("-C").arg(&layout).status().unwrap();
        assert!(unpacked.success());
        let index: Value =
            serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap();
        let blobs = layout.join("blobs/sha256");
        for repository in ["v2/open/app", "v2/closed/app"] {
            let [manifests, into] = ["manifests", "blobs"].map(|part| root.join(repository).join(part));
            std::fs::create_dir_all(&manifests).unwrap();
            std::fs::create_dir_all(&into).unwrap();
            for blob in std::fs::read_dir(&blobs).unwrap() {
                let blob = blob.unwrap();
                let name = format!("sha256:{}", blob.file_name().to_str().unwrap());
                std::fs::copy(blob.path(), into.join(&name)).unwrap();
                if name == digest {
                    std::fs::copy(blob.path(), manifests.join(&name)).unwrap();
                    std::fs::copy(blob.path(), manifests.join("1.0")).unwrap();
                }
            }
        }
        let configuration = directory.path().join("httpd.conf");
        let manifest = "application/vnd.oci.image.manifest.v1+json";
        std::fs::write(&configuration, format!(".0:{manifest}\n/v2/closed:ann:secret\n")).unwrap();
        let mut busybox = cluster.command("busybox");
        busybox.args(["httpd", "-f", "-p", "127.0.0.1:5000", "-c"]).arg(configuration).arg("-h").arg(root);
        Self { directory, _server: Background(busybox.spawn().unwrap()) }
    }
}

#[test]
fn images_are_fetched_from_registries_with_the_secrets_that_a_pod_names() {
    let cluster = Cluster::up(Runtime::Containerd, &["--registries", "on", "--operators", "none"]);
    let registry = Registry::start(&cluster);
    let config = json!({"auths": {"127.0.0.1:5000": {"username": "ann", "password": "secret"}}}).to_string();
    let file = registry.directory.path().join("config.json");
    std::fs::write(&file, config).unwrap();
    let from = format!("--from-file=.dockerconfigjson={}", file.display());
    let kind = "--type=kubernetes.io/dockerconfigjson";
    cluster.kubectl(&["create", "secret", "generic", "login", kind, &from]);
    let pod = |name: &str, image: &str, secrets: &str| {
        cluster.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  imagePullSecrets: [{secrets}]
  containers: [{{name: main, image: '127.0.0.1:5000/{image}', imagePullPolicy: Always, command: [sleep, '3600']}}]
"
        ));
    };
    pod("open", "open/app:1.0", "");
    pod("closed", "closed/app:1.0", "{name: login}");
    pod("stranger", "closed/app:1.0", "");
    pod("missing", "open/app:2.0", "");
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/open", "pod/closed", "--timeout=120s"]);
    let waits = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    for (name, says) in [("stranger", "401 Unauthorized"), ("missing", "not found")] {
        cluster.eventually("the pull fails and is tried again", || {
            let reason = cluster.kubectl(&["get", "pod", name, "-o", waits]);
            let events = cluster.kubectl(&[
                "get",
                "events",
                "--field-selector",
                &format!("involvedObject.name={name}"),
            ]);
            let told = events.contains("Failed to pull image") && events.contains(says);
            if told && ["ErrImagePull", "ImagePullBackOff"].contains(&&*reason) {
                Ok(())
            } else {
                Err(format!("{reason} {events}"))
            }
        });
    }
    let image = "jsonpath={.status.containerStatuses[0].imageID}";
    assert!(cluster.kubectl(&["get", "pod", "open", "-o", image]).contains("/app@sha256:"));
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
