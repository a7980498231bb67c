//! kubectl against a cluster with simulated nodes.

use crate::cluster::{Cluster, Runtime};

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: nginx:1.27, ports: [{containerPort: 80}]}]
";

#[test]
fn a_deployment_is_created_changed_and_deleted_with_kubectl() {
    let mut cluster = Cluster::up(Runtime::Simulated, &["--nodes", "2"]);
    let nodes = cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"]);
    assert_eq!(nodes.lines().count(), 2);
    assert!(cluster.apply(DEPLOYMENT).contains("created"));
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(cluster.kubectl(&["get", "deployments"]).contains("2/2"));
    assert!(cluster.kubectl(&["get", "pods", "-o", "wide"]).contains("Running"));
    assert!(cluster.kubectl(&["describe", "deployment", "web"]).contains("ScalingReplicaSet"));
    cluster.kubectl(&["scale", "deployment/web", "--replicas=3"]);
    cluster.kubectl(&["set", "image", "deployment/web", "web=nginx:1.28"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.kubectl(&["label", "deployment", "web", "tier=front"]);
    cluster.kubectl(&["annotate", "deployment", "web", "note=x"]);
    cluster.kubectl(&["expose", "deployment", "web", "--port=80"]);
    cluster.eventually("three endpoints", || {
        let slices = cluster.kubectl(&[
            "get",
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=web",
            "-o",
            "jsonpath={.items[*].endpoints[*].addresses[0]}",
        ]);
        if slices.split_whitespace().count() == 3 { Ok(()) } else { Err(slices) }
    });
    cluster.kubectl(&[
        "patch",
        "deployment",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/replicas","value":1}]"#,
    ]);
    cluster.eventually("one replica", || {
        let ready = cluster.kubectl(&[
            "get",
            "deployment",
            "web",
            "-o",
            "jsonpath={.status.replicas} {.status.readyReplicas}",
        ]);
        if ready == "1 1" { Ok(()) } else { Err(ready) }
    });
    assert!(cluster.kubectl(&["explain", "deployment.spec.replicas"]).contains("integer"));
    assert!(cluster.kubectl(&["auth", "can-i", "create", "pods"]).contains("yes"));
    cluster.kubectl(&["delete", "deployment", "web", "--timeout=60s"]);
    cluster.eventually("dependents are collected", || {
        let left = cluster.kubectl(&["get", "replicasets,pods", "-o", "name"]);
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    });
    assert_eq!(cluster.stop(), 0, "{}", cluster.said());
}

const CONTROLLER: &str = "
apiVersion: v1
kind: ReplicationController
metadata: {name: primary, labels: {app: primary}}
spec:
  replicas: 1
  selector: {app: primary}
  template:
    metadata: {labels: {app: primary}}
    spec: {containers: [{name: primary, image: 'agnhost:2', ports: [{name: main, containerPort: 6379}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: primary, labels: {app: primary}}
spec: {selector: {app: primary}, ports: [{port: 6379, targetPort: main}]}
---
apiVersion: v1
kind: Pod
metadata: {name: single}
spec: {containers: [{name: single, image: 'httpd:1'}]}
";

/// What upstream's conformance tests ask of these three commands.
#[test]
fn describe_label_and_replace() {
    let cluster = Cluster::up(Runtime::Simulated, &[]);
    cluster.apply(CONTROLLER);
    let ready = "--for=condition=Ready";
    cluster.kubectl(&["wait", ready, "pod", "single", "--timeout=120s"]);
    let pod = cluster.eventually("the controller's pod", || {
        let pods = cluster.kubectl(&[
            "get",
            "pods",
            "-l",
            "app=primary",
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ]);
        if pods.is_empty() { Err(pods) } else { Ok(pods) }
    });
    cluster.kubectl(&["wait", ready, "pod", &pod, "--timeout=120s"]);
    let check = |what: &[&str], expected: &[&str]| {
        let said = cluster.kubectl(&[&["describe"], what].concat());
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in expected {
            assert!(words.contains(part), "{part:?} is not in:\n{said}");
        }
    };
    let running = "Pods Status: 1 Running / 0 Waiting / 0 Succeeded / 0 Failed";
    let expected =
        ["Name: primary", "Replicas: 1 current / 1 desired", running, "Image: agnhost:2", "SuccessfulCreate"];
    check(&["rc", "primary"], &expected);
    let controlled = "Controlled By: ReplicationController/primary";
    check(&["pod", &pod], &["Status: Running", controlled, "Ready True", "Scheduled", "Started"]);
    check(
        &["service", "primary"],
        &["Selector: app=primary", "Type: ClusterIP", "Port: <unset> 6379/TCP", "Endpoints: 10."],
    );
    let node = [
        "Roles:",
        "Conditions:",
        "Capacity:",
        "System Info:",
        "Non-terminated Pods:",
        "Allocated resources:",
    ];
    check(&["node", "node-0"], &node);
    check(&["namespace", "default"], &["Name: default", "Status: Active", "No resource quota."]);

    let labelled = |expected: &str| {
        let columns = cluster.kubectl(&["get", "pod", "single", "-L", "testing-label", "--no-headers"]);
        assert_eq!(columns.contains("testing-label-value"), expected == "yes", "{columns}");
    };
    cluster.kubectl(&["label", "pods", "single", "testing-label=testing-label-value"]);
    labelled("yes");
    cluster.kubectl(&["label", "pods", "single", "testing-label-"]);
    labelled("no");

    let whole = cluster.kubectl(&["get", "pod", "single", "-o", "json"]).replace("httpd:1", "busybox:2");
    let file = cluster.data_dir().join("single.json");
    std::fs::write(&file, whole).unwrap();
    cluster.kubectl(&["replace", "-f", file.to_str().unwrap()]);
    let image = cluster.kubectl(&["get", "pod", "single", "-o", "jsonpath={.spec.containers[0].image}"]);
    assert_eq!(image, "busybox:2");
}

#[test]
fn server_side_apply_owns_fields_and_reports_conflicts() {
    let cluster = Cluster::up(Runtime::Simulated, &[]);
    let manifest = |replicas: u32| DEPLOYMENT.replace("replicas: 2", &format!("replicas: {replicas}"));
    let apply = |text: String, manager: &str, force: bool| {
        let path = cluster.data_dir().join(format!("{manager}.yaml"));
        std::fs::write(&path, text).unwrap();
        let mut arguments =
            vec!["apply", "--server-side", "--field-manager", manager, "-f", path.to_str().unwrap()];
        if force {
            arguments.push("--force-conflicts");
        }
        cluster.try_kubectl(&arguments)
    };
    assert!(apply(manifest(2), "one", false).status.success());
    assert!(apply(manifest(2), "one", false).status.success());
    let conflict = apply(manifest(3), "two", false);
    let said = String::from_utf8_lossy(&conflict.stderr).into_owned();
    assert!(
        !conflict.status.success()
            && said.contains("conflict with \"one\"")
            && said.contains(".spec.replicas"),
        "{said}"
    );
    assert!(apply(manifest(3), "two", true).status.success());
}

#[test]
fn bad_input_says_what_to_do() {
    let cluster = Cluster::up(Runtime::Simulated, &[]);
    let unknown = cluster.refuse(&DEPLOYMENT.replace("replicas: 2", "replcas: 2"));
    // Older clients check against the published schema themselves.
    let named = ["unknown field \"spec.replcas\"", "unknown field \"replcas\""];
    assert!(named.iter().any(|text| unknown.contains(text)), "{unknown}");
    let wrong = cluster.refuse(&DEPLOYMENT.replace("replicas: 2", "replicas: two"));
    assert!(wrong.contains("replicas"), "{wrong}");
    let selector =
        cluster.refuse(&DEPLOYMENT.replace("matchLabels: {app: web}", "matchLabels: {app: other}"));
    assert!(selector.contains("`selector` does not match template `labels`"), "{selector}");
    let quantity = cluster.refuse(
        &DEPLOYMENT.replace("ports: [{containerPort: 80}]", "resources: {requests: {memory: 1Gigabyte}}"),
    );
    assert!(quantity.contains("quantities must match the regular expression"), "{quantity}");
    let namespace = cluster.try_kubectl(&["create", "configmap", "x", "-n", "nowhere"]);
    let said = String::from_utf8_lossy(&namespace.stderr).into_owned();
    assert!(said.contains("namespaces \"nowhere\" not found"), "{said}");
}

#[test]
fn what_was_acknowledged_survives_kill_nine() {
    let mut cluster = Cluster::up(Runtime::Simulated, &[]);
    for at in 0..10 {
        cluster.kubectl(&["create", "configmap", &format!("c{at}"), &format!("--from-literal=at={at}")]);
    }
    cluster.kill();
    cluster.start();
    for at in 0..10 {
        let value = cluster.kubectl(&["get", "configmap", &format!("c{at}"), "-o", "jsonpath={.data.at}"]);
        assert_eq!(value, at.to_string());
    }
}

#[test]
fn namespaces_take_their_contents_with_them() {
    let cluster = Cluster::up(Runtime::Simulated, &[]);
    cluster.kubectl(&["create", "namespace", "gone"]);
    cluster.kubectl(&["create", "configmap", "a", "-n", "gone"]);
    cluster.kubectl(&["create", "deployment", "web", "--image=nginx", "-n", "gone"]);
    cluster.kubectl(&["delete", "namespace", "gone", "--timeout=90s"]);
    assert!(!cluster.try_kubectl(&["get", "namespace", "gone"]).status.success());
}

#[test]
fn what_a_cluster_cannot_do_it_says_in_words() {
    let cluster = Cluster::up(Runtime::Simulated, &[]);
    let said = |arguments: &[&str]| {
        let output = cluster.try_kubectl(arguments);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let path = cluster.data_dir().join("policy.yaml");
    let policy = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}}
";
    std::fs::write(&path, policy).unwrap();
    let policy = said(&["create", "-f", path.to_str().unwrap()]);
    assert!(policy.contains("Warning:") && policy.contains("no traffic is filtered"), "{policy}");
    cluster.kubectl(&["run", "p", "--image=busybox", "--restart=Never"]);
    cluster.kubectl(&["wait", "pod/p", "--for=condition=PodScheduled", "--timeout=60s"]);
    for arguments in [&["logs", "p"][..], &["exec", "p", "--", "ls"], &["port-forward", "p", "18080:80"]] {
        let why = said(arguments);
        assert!(why.contains("is simulated"), "{arguments:?}: {why}");
    }
    assert!(!cluster.kubectl(&["api-versions"]).contains("keelson.internal"));
}

/// kubectl before 1.22 drains nodes so.
#[test]
fn evictions_of_old_clients_are_understood() {
    let cluster = Cluster::up(Runtime::Simulated, &[]);
    cluster.kubectl(&["run", "p", "--image=busybox", "--restart=Never"]);
    let path = cluster.data_dir().join("eviction.json");
    let eviction = r#"{"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p"}}"#;
    std::fs::write(&path, eviction).unwrap();
    let pod = "/api/v1/namespaces/default/pods/p/eviction";
    cluster.kubectl(&["create", "--raw", pod, "-f", path.to_str().unwrap()]);
    cluster.kubectl(&["wait", "pod/p", "--for=delete", "--timeout=60s"]);
}

/// The claim's class, which admission adds, and its volume, which the binder adds, are not the applier's.
#[test]
fn a_bound_claim_can_be_applied_again_from_the_server_side() {
    let cluster = Cluster::up(Runtime::Simulated, &[]);
    let manifest = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  containers: [{name: c, image: busybox, volumeMounts: [{name: data, mountPath: /data}]}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
";
    cluster.apply(manifest);
    cluster.kubectl(&["wait", "pvc/data", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s"]);
    let path = cluster.data_dir().join("claim.yaml");
    std::fs::write(&path, manifest.split("---").next().unwrap()).unwrap();
    for _ in 0..2 {
        cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", path.to_str().unwrap()]);
    }
}

/// The command line's own errors: what it says, and 2 for a wrong command line, 1 for anything else.
#[test]
fn the_command_line_says_what_to_do() {
    let mut cluster = Cluster::up(Runtime::Simulated, &[]);
    let run = |arguments: &[&str], data: &std::path::Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_keelson"));
        let output = command.args(arguments).arg("--data-dir").arg(data).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    };
    let data = cluster.data_dir();
    let home = data.parent().unwrap();
    let up =
        |more: &[&'static str]| [&["up", "--runtime", "simulated", "--listen", "127.0.0.1:0"], more].concat();
    for (arguments, directory, code, expected) in [
        (up(&[]), &*data, 1, "`keelson down` stops it"),
        (up(&[]), home, 1, "is no data directory of keelson"),
        (up(&["--nodes", "0"]), &*data, 2, "0 is not in 1..=32768"),
        (up(&["--operators", "x"]), &*data, 2, "say all, none, or some of"),
        (vec!["up", "--listen", "6443"], &*data, 2, "want ADDRESS:PORT"),
        (vec!["up", "--eviction-hard", "disk<1%"], &*data, 2, "there are memory.available"),
        (vec!["image", "load", "/nowhere.tar"], &*data, 1, "is no file"),
    ] {
        let (seen, said) = run(&arguments, directory);
        assert!(seen == Some(code) && said.contains(expected), "{arguments:?}: {seen:?} {said}");
    }
    assert_eq!(run(&["status"], &data).0, Some(0));
    assert_eq!(cluster.stop(), 0);
    let (code, said) = run(&["status"], &data);
    assert!(code == Some(1) && said.contains("does not run") && said.lines().count() == 2, "{said}");
    let (code, said) = run(&["down"], &data);
    assert!(code == Some(0) && said.contains("nothing ran"), "{said}");
}

const BATCH: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec: {containers: [{name: c, image: nginx}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: everywhere}
spec: {minAvailable: 1, selector: {matchLabels: {app: everywhere}}}
";

#[test]
fn jobs_end_daemons_are_on_every_node_and_budgets_count_them() {
    let cluster = Cluster::up(Runtime::Simulated, &["--nodes", "2"]);
    cluster.kubectl(&["create", "job", "once", "--image=busybox", "--", "true"]);
    cluster.apply(BATCH);
    cluster.kubectl(&["wait", "--for=condition=Complete", "job/once", "--timeout=60s"]);
    cluster.kubectl(&["rollout", "status", "daemonset/everywhere", "--timeout=60s"]);
    cluster.eventually("the budget allows one of two", || {
        let path = "jsonpath={.status.currentHealthy} {.status.disruptionsAllowed}";
        let counts = cluster.kubectl(&["get", "poddisruptionbudgets.v1.policy", "everywhere", "-o", path]);
        if counts == "2 1" { Ok(()) } else { Err(counts) }
    });
}

const HUGE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: huge}
spec:
  containers: [{name: c, image: nginx:1.27, resources: {requests: {cpu: 9999}}}]
";

#[test]
fn scheduler_and_controllers_say_what_they_do() {
    let cluster = Cluster::up(Runtime::Simulated, &["--nodes", "2"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"]);
    let say = |arguments: &[&str]| {
        let output = cluster.keelson(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    cluster.apply(HUGE);
    cluster.eventually("why the pod waits", || {
        let (_, told, errors) = say(&["explain", "pod", "huge"]);
        let whole = told.contains("0 of 2 fit")
            && told.contains("NodeResourcesFit: Insufficient cpu")
            && told
                .contains("0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available");
        if whole { Ok(()) } else { Err(format!("{told}{errors}")) }
    });
    let (done, told, _) = say(&["explain", "pod", "huge", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(done && told["nodes"].as_array().unwrap().len() == 2, "{told}");
    let (done, _, errors) = say(&["explain", "pod", "nobody"]);
    assert!(!done && errors.contains("there is no pod \"nobody\""), "{errors}");

    let path = "jsonpath={range .items[*]}{.metadata.name}={.conditions[0].message} {end}";
    let parts = cluster.kubectl(&["get", "componentstatuses", "-o", path]);
    assert_eq!(parts.trim(), "controller-manager=ok etcd-0=ok scheduler=ok");

    // A paused controller does nothing, whatever comes; resumed, it has missed nothing.
    let name = "replicaset";
    let (done, told, errors) = say(&["controllers", "pause", name]);
    assert!(done, "{told}{errors}");
    cluster.apply(DEPLOYMENT);
    cluster.eventually("the replica set waits", || {
        let (_, told, _) = say(&["controllers", "queues", name]);
        if told.contains("default/web-") { Ok(()) } else { Err(told) }
    });
    assert_eq!(cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]), "");
    assert!(say(&["controllers", "resume", name]).0);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let (done, _, errors) = say(&["controllers", "trigger", "nobody", "x"]);
    assert!(!done && errors.contains("there is no controller"), "{errors}");
}
