//! Databases on real containers, as a user would type it: the walking skeleton from end to end.

use serde_json::Value;

use crate::cluster::{Cluster, Runtime};

const ORDERS: &str = include_str!("../../../../examples/postgres.yaml");
const SESSIONS: &str = include_str!("../../../../examples/redis.yaml");

/// A pod to type commands in, with the password of a Database in its environment.
fn client(name: &str, image: &str, variable: &str, secret: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: client
    image: {image}
    command: [sleep, '3600']
    env:
    - {{name: {variable}, valueFrom: {{secretKeyRef: {{name: {secret}, key: password}}}}}}
"
    )
}

/// Runs a command in a pod; what it printed, successful or not.
fn exec(cluster: &Cluster, pod: &str, command: &[&str]) -> Result<String, String> {
    let mut arguments = vec!["exec", pod, "--"];
    arguments.extend(command);
    let output = cluster.try_kubectl(&arguments);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text.trim().to_owned()) } else { Err(text) }
}

fn sql(cluster: &Cluster, statement: &str) -> Result<String, String> {
    exec(
        cluster,
        "client",
        &["psql", "-qtA", "-h", "orders-service", "-U", "orders", "-d", "orders", "-c", statement],
    )
}

fn redis(cluster: &Cluster, command: &[&str]) -> Result<String, String> {
    let mut whole = vec!["redis-cli", "-h", "sessions-service"];
    whole.extend(command);
    exec(cluster, "client", &whole)
}

fn wait_ready(cluster: &Cluster, name: &str) {
    let database = format!("database/{name}");
    cluster.eventually(&format!("{name} is ready"), || {
        let output = cluster.try_kubectl(&["wait", "--for=condition=Ready", &database, "--timeout=20s"]);
        let current = cluster.kubectl(&[
            "get",
            &database,
            "-o",
            "jsonpath={.metadata.generation} {.status.observedGeneration} {.status.phase}",
        ]);
        let mut words = current.split_whitespace();
        let settled = words.next() == words.next() && words.next() == Some("Ready");
        if output.status.success() && settled { Ok(()) } else { Err(current) }
    });
}

/// Ids of all containers of all pods, as the API shows them.
fn container_ids(cluster: &Cluster) -> Vec<String> {
    let pods: Value = serde_json::from_str(&cluster.kubectl(&["get", "pods", "-A", "-o", "json"])).unwrap();
    let statuses = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|pod| pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default());
    let mut ids: Vec<String> =
        statuses.map(|status| status["containerID"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

fn gone(cluster: &Cluster, what: &str, selector: &str) {
    cluster.eventually(&format!("{what} of {selector} are gone"), || {
        let left = cluster.kubectl(&["get", what, "-l", &format!("app={selector}"), "-o", "name"]);
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_postgresql_lives_through_a_crash_a_change_a_stop_and_is_deleted() {
    let mut cluster = Cluster::up(Runtime::Containerd, &[]);
    cluster.load_image("postgres");
    cluster.apply(ORDERS);
    wait_ready(&cluster, "orders");
    cluster.apply(&client("client", "postgres:15", "PGPASSWORD", "orders-credentials"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=120s"]);
    sql(&cluster, "CREATE TABLE t (x int); INSERT INTO t VALUES (42)").unwrap();
    let wrong = ["env", "PGPASSWORD=wrong", "psql", "-h", "orders-service", "-U", "orders", "-c", "SELECT 1"];
    let refused = exec(&cluster, "client", &wrong).unwrap_err();
    assert!(refused.contains("password authentication failed"), "{refused}");

    let before = container_ids(&cluster);
    cluster.kill();
    cluster.start();
    wait_ready(&cluster, "orders");
    assert_eq!(container_ids(&cluster), before, "containers were adopted");
    assert_eq!(sql(&cluster, "SELECT x FROM t").unwrap(), "42");
    assert!(cluster.kubectl(&["logs", "orders-0"]).contains("database system is ready"));

    assert_eq!(sql(&cluster, "SHOW max_connections").unwrap(), "50");
    let patch = r#"{"spec":{"postgresql":{"parameters":{"max_connections":"77"}}}}"#;
    cluster.kubectl(&["patch", "database", "orders", "--type=merge", "-p", patch]);
    cluster.eventually("the parameter is applied", || match sql(&cluster, "SHOW max_connections") {
        Ok(value) if value == "77" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    wait_ready(&cluster, "orders");

    cluster.kubectl(&["scale", "database/orders", "--replicas=0"]);
    gone(&cluster, "pods", "orders");
    cluster.kubectl(&["scale", "database/orders", "--replicas=1"]);
    wait_ready(&cluster, "orders");
    assert_eq!(sql(&cluster, "SELECT x FROM t").unwrap(), "42", "a stop keeps the data");

    cluster.kubectl(&["delete", "database", "orders", "--timeout=120s"]);
    for kind in ["pods", "statefulsets", "services", "configmaps", "secrets", "poddisruptionbudgets"] {
        gone(&cluster, kind, "orders");
    }
    let kept = cluster.kubectl(&["get", "pvc", "data-orders-0", "-o", "jsonpath={.status.phase}"]);
    assert_eq!(kept, "Bound", "the policy is Retain");

    cluster.apply(&ORDERS.replace("  storage:", "  deletionPolicy: Delete\n  storage:"));
    wait_ready(&cluster, "orders");
    cluster.kubectl(&["delete", "pod", "client", "--wait=true"]);
    cluster.apply(&client("client", "postgres:15", "PGPASSWORD", "orders-credentials"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=120s"]);
    assert_eq!(
        sql(&cluster, "SELECT x FROM t").unwrap(),
        "42",
        "the kept volume is found, with a new password"
    );
    cluster.kubectl(&["delete", "database", "orders", "--timeout=120s"]);
    gone(&cluster, "pvc", "orders");
    cluster.eventually("the volume's directory is gone", || {
        let left = std::fs::read_dir(cluster.data_dir().join("volumes")).unwrap().count();
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    });
    assert_eq!(cluster.stop(), 0, "{}", cluster.said());
}

#[test]
fn a_redis_asks_for_its_password_and_keeps_its_data() {
    let mut cluster = Cluster::up(Runtime::Containerd, &[]);
    cluster.load_image("redis");
    cluster.apply(SESSIONS);
    wait_ready(&cluster, "sessions");
    cluster.apply(&client("client", "redis:7", "REDISCLI_AUTH", "sessions-credentials"));
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=120s"]);
    let anonymous = ["env", "-u", "REDISCLI_AUTH", "redis-cli", "-h", "sessions-service", "get", "k"];
    let refused = exec(&cluster, "client", &anonymous).unwrap_or_else(|text| text);
    assert!(refused.contains("NOAUTH"), "{refused}");
    assert_eq!(redis(&cluster, &["set", "k", "v"]).unwrap(), "OK");
    assert!(redis(&cluster, &["config", "get", "maxmemory-policy"]).unwrap().contains("noeviction"));

    let before = container_ids(&cluster);
    cluster.kill();
    cluster.start();
    wait_ready(&cluster, "sessions");
    assert_eq!(container_ids(&cluster), before, "containers were adopted");
    assert_eq!(redis(&cluster, &["get", "k"]).unwrap(), "v");

    let patch = r#"{"spec":{"redis":{"parameters":{"maxmemory-policy":"allkeys-lru"}}}}"#;
    cluster.kubectl(&["patch", "database", "sessions", "--type=merge", "-p", patch]);
    cluster.eventually("the parameter is applied", || {
        match redis(&cluster, &["config", "get", "maxmemory-policy"]) {
            Ok(value) if value.contains("allkeys-lru") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    wait_ready(&cluster, "sessions");
    assert_eq!(redis(&cluster, &["get", "k"]).unwrap(), "v", "a restart keeps the data");

    cluster.kubectl(&["delete", "database", "sessions", "--timeout=120s"]);
    for kind in ["pods", "statefulsets", "services", "configmaps", "secrets"] {
        gone(&cluster, kind, "sessions");
    }
    assert_eq!(cluster.kubectl(&["get", "pvc", "-o", "name"]).lines().count(), 1, "the policy is Retain");
    cluster.down();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let left = mounts.lines().filter(|line| line.contains(cluster.data_dir().to_str().unwrap()));
    assert_eq!(left.collect::<Vec<_>>(), Vec::<&str>::new(), "nothing stays mounted");
}

#[test]
fn bad_databases_say_what_to_change_and_lose_nothing() {
    let cluster = Cluster::up(Runtime::Simulated, &[]);
    let refusals = [
        ("type: PostgreSQL", "type: Oracle", "Unsupported value: \"Oracle\""),
        ("size: 1Gi", "size: 1Gigabyte", "spec.storage.size"),
        ("version: \"15\"", "version: 15", "spec.version"),
        ("  storage:", "  storge:", "storge\""),
        ("  postgresql:", "  redis: {}\n  postgresql:", "redis is only for type Redis"),
    ];
    for (good, bad, wanted) in refusals {
        let said = cluster.refuse(&ORDERS.replacen(good, bad, 1));
        assert!(said.contains(wanted), "{bad}: {said}");
    }
    let missing = ORDERS.replace(
        "    username: orders\n",
        "    username: orders\n    passwordSecret: {name: nowhere, key: p}\n",
    );
    cluster.apply(&missing);
    let message = cluster.eventually("the condition names the Secret", || {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].message}";
        let message = cluster.kubectl(&["get", "database", "orders", "-o", path]);
        if message.is_empty() { Err(message) } else { Ok(message) }
    });
    assert!(message.contains("secret \"nowhere\" not found: create it with the key \"p\""), "{message}");
    let second = cluster.try_kubectl(&[
        "create",
        "-f",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/postgres.yaml"),
    ]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("\"orders\" already exists"), "{said}");
    let resized = cluster
        .refuse(&missing.replace("type: PostgreSQL", "type: Redis").replace("  postgresql:", "  nothing:"));
    assert!(resized.contains("type cannot be changed") || resized.contains("unknown field"), "{resized}");
    cluster.kubectl(&["delete", "database", "orders", "--timeout=60s"]);
}

#[test]
fn an_image_that_cannot_be_had_is_named_in_the_condition() {
    let cluster = Cluster::up(Runtime::Containerd, &[]);
    cluster.apply(&ORDERS.replace("version: \"15\"", "version: \"99\""));
    let message = cluster.eventually("the condition names the image", || {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].message}";
        let message = cluster.kubectl(&["get", "database", "orders", "-o", path]);
        if message.contains("Image") { Ok(message) } else { Err(message) }
    });
    assert!(message.contains("postgres:99") && message.contains("keelson image load"), "{message}");
    // A corrected version reaches the member that could not start.
    cluster.load_image("postgres");
    cluster.kubectl(&["patch", "database", "orders", "--type=merge", "-p", r#"{"spec":{"version":"15"}}"#]);
    wait_ready(&cluster, "orders");
}
