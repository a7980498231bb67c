//! Who may do what, and what is written where, with the real kubectl.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::cluster::{Cluster, Runtime};

const POD: &str = "
apiVersion: v1
kind: Secret
metadata: {name: used}
stringData: {password: hunter2-used}
---
apiVersion: v1
kind: Secret
metadata: {name: other}
stringData: {password: hunter2-other}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  nodeName: node-0
  containers:
  - {name: c, image: nginx, env: [{name: P, valueFrom: {secretKeyRef: {name: used, key: password}}}]}
";

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, resources: [{group: '', resources: [secrets]}]}
- {level: Request, verbs: [create], resources: [{group: '', resources: [pods]}]}
";

/// Whether any file below has the text.
fn holds(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return holds(&path, text);
        }
        fs::read(path).unwrap().windows(text.len()).any(|window| window == text.as_bytes())
    })
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn secrets_are_sealed_nodes_are_narrow_and_requests_are_logged() {
    let home = tempfile::tempdir().unwrap();
    let (policy, log, tokens) =
        (home.path().join("policy.yaml"), home.path().join("audit.log"), home.path().join("tokens"));
    fs::write(&policy, POLICY).unwrap();
    fs::write(&tokens, "t0ken,ann,1,dev\n").unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let arguments = [
        "--audit-policy-file",
        &path(&policy),
        "--audit-log-path",
        &path(&log),
        "--token-auth-file",
        &path(&tokens),
    ];
    let mut cluster = Cluster::up(Runtime::Simulated, &arguments);
    cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"]);
    cluster.eventually("the service account", || {
        let found = cluster.try_kubectl(&["get", "serviceaccount", "default"]);
        if found.status.success() { Ok(()) } else { Err(text(&found)) }
    });
    cluster.apply(POD);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]);

    let store = cluster.data_dir().join("store");
    assert!(holds(&store, "nginx"), "the test looks in the right place");
    for plain in ["hunter2", "aHVudGVyMi11c2Vk"] {
        assert!(!holds(&store, plain), "{plain} is in the store in plain form");
    }

    // A node reads what its pods use, and has only its own objects.
    let node = ["--as", "system:node:node-0", "--as-group", "system:nodes"];
    let as_node = |arguments: &[&str]| cluster.try_kubectl(&[arguments, &node].concat());
    assert!(as_node(&["get", "secret", "used"]).status.success());
    let refused = text(&as_node(&["get", "secret", "other"]));
    assert!(refused.contains("Forbidden") || refused.contains("forbidden"), "{refused}");
    assert!(!as_node(&["get", "secrets"]).status.success());
    assert!(!as_node(&["get", "pods"]).status.success());
    assert!(as_node(&["get", "pods", "--field-selector", "spec.nodeName=node-0"]).status.success());
    let label = text(&as_node(&["label", "node", "node-0", "node-restriction.kubernetes.io/a=b"]));
    assert!(label.contains("not allowed to modify labels"), "{label}");

    // Who has a token of the file is who the file says.
    let who = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"];
    let config = home.path().join("ann.kubeconfig");
    let mut ann: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(cluster.data_dir().join("admin.kubeconfig")).unwrap())
            .unwrap();
    ann["users"][0]["user"] = serde_json::json!({"token": "t0ken"});
    fs::write(&config, ann.to_string()).unwrap();
    let mut command = cluster.command("kubectl");
    assert_eq!(run(command.arg("--kubeconfig").arg(&config).args(who)), "ann");
    ann["users"][0]["user"] = serde_json::json!({"token": "forged"});
    fs::write(&config, ann.to_string()).unwrap();
    let mut command = cluster.command("kubectl");
    assert!(!command.arg("--kubeconfig").arg(&config).args(who).output().unwrap().status.success());

    let events = fs::read_to_string(&log).unwrap();
    assert!(!events.contains("hunter2") && !events.contains("t0ken"), "{events}");
    let all: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let made = |resource: &str| {
        let of = |event: &&serde_json::Value| {
            event["verb"] == "create"
                && event["objectRef"]["resource"] == resource
                && event["responseStatus"]["code"] == 201
        };
        all.iter().find(of).unwrap_or_else(|| panic!("no event of {resource}:\n{events}"))
    };
    assert_eq!(made("pods")["requestObject"]["spec"]["nodeName"], "node-0");
    assert!(made("secrets").get("requestObject").is_none());
    assert_eq!(made("secrets")["user"]["username"], "kubernetes-admin");

    // Another key: everything is encrypted anew, and readable.
    let file = cluster.data_dir().join("pki/encryption.yaml");
    let before = fs::read_to_string(&file).unwrap();
    assert_eq!(cluster.stop(), 0);
    let key = "      - name: next\n        secret: MDEyMzQ1Njc4OWFiY2RlZg==\n";
    fs::write(&file, before.replace("      keys:\n", &format!("      keys:\n{key}"))).unwrap();
    cluster.start();
    let read = ["get", "secret", "used", "-o", "jsonpath={.data.password}"];
    assert_eq!(cluster.kubectl(&read), "aHVudGVyMi11c2Vk");
    assert!(holds(&store, "k8s:enc:aesgcm:v1:next:"));
    assert_eq!(cluster.stop(), 0);
}

#[test]
fn a_certificate_is_asked_for_approved_and_works() {
    let cluster = Cluster::up(Runtime::Simulated, &[]);
    let home = tempfile::tempdir().unwrap();
    let (key, csr, crt) = (home.path().join("key"), home.path().join("csr"), home.path().join("crt"));
    run(Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"])
        .arg("/O=dev/O=ops/CN=ann")
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&csr));
    let request = run(Command::new("base64").args(["-w", "0"]).arg(&csr));
    let manifest = |name: &str, request: &str| {
        format!(
            "
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: {name}}}
spec:
  request: {request}
  signerName: kubernetes.io/kube-apiserver-client
  expirationSeconds: 3600
  usages: [client auth]
"
        )
    };
    cluster.apply(&manifest("ann", &request));
    assert!(cluster.kubectl(&["get", "csr"]).contains("Pending"));
    cluster.kubectl(&["certificate", "approve", "ann"]);
    let certificate = cluster.eventually("the certificate", || {
        let text = cluster.kubectl(&["get", "csr", "ann", "-o", "jsonpath={.status.certificate}"]);
        if text.is_empty() { Err("not issued".to_owned()) } else { Ok(text) }
    });
    assert!(cluster.kubectl(&["get", "csr"]).contains("Approved,Issued"));
    let encoded = home.path().join("encoded");
    fs::write(&encoded, certificate).unwrap();
    fs::write(&crt, run(Command::new("base64").arg("-d").arg(&encoded))).unwrap();
    let config = home.path().join("ann.kubeconfig");
    let mut ann: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(cluster.data_dir().join("admin.kubeconfig")).unwrap())
            .unwrap();
    ann["users"][0]["user"] = serde_json::json!({"client-certificate": crt, "client-key": key});
    fs::write(&config, ann.to_string()).unwrap();
    let mut command = cluster.command("kubectl");
    let who = run(command.arg("--kubeconfig").arg(&config).args([
        "auth",
        "whoami",
        "-o",
        "jsonpath={.status.userInfo}",
    ]));
    assert!(who.contains("\"ann\"") && who.contains("\"dev\"") && who.contains("\"ops\""), "{who}");

    let masters = home.path().join("masters");
    run(Command::new("openssl")
        .args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"])
        .arg("/O=system:masters/CN=root")
        .arg("-keyout")
        .arg(home.path().join("masters.key"))
        .arg("-out")
        .arg(&masters));
    let request = run(Command::new("base64").args(["-w", "0"]).arg(&masters));
    let refused = cluster.refuse(&manifest("root", &request));
    assert!(refused.contains("with system:masters group is not allowed"), "{refused}");
}

#[test]
fn flags_that_cannot_work_say_so() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["--audit-log-path", "-"][..], "needs --audit-policy-file"),
        (&["--oidc-issuer-url", "https://x.example"], "needs --oidc-client-id"),
        (&["--oidc-issuer-url", "http://x.example", "--oidc-client-id", "a"], "begins with https://"),
        (&["--oidc-signing-algs", "HS256"], "not supported"),
        (&["--encryption-provider-config", "/nowhere"], "there is no such file"),
        (&["--token-auth-file", "/nowhere"], "there is no such file"),
        (
            &["--max-requests-inflight=0", "--max-mutating-requests-inflight=0"],
            "no request would be answered",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_keelson"))
            .args(["up", "--listen", "127.0.0.1:0", "--runtime", "simulated", "--data-dir"])
            .arg(home.path().join("data"))
            .args(arguments)
            .output()
            .unwrap();
        let said = text(&output);
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
    }
}
