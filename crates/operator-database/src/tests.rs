//! The operator against the in-memory API, and the fourteen defects of the original as regressions.

use meta::ObjectKey;
use reconcile::testkit::{Bench, yaml};
use serde_json::{Value, json};

use crate::{Database, Databases, Phase, validate};

const POSTGRES: &str = "
apiVersion: databases.database-operator.io/v1alpha1
kind: Database
metadata: {name: orders, namespace: default}
spec:
  type: PostgreSQL
  version: '15'
  storage: {size: 1Gi}
  resources: {cpu: 100m, memory: 256Mi, memoryLimit: 512Mi}
  postgresql: {database: orders, username: orders, parameters: {max_connections: '50'}}
";

const REDIS: &str = "
apiVersion: databases.database-operator.io/v1alpha1
kind: Database
metadata: {name: sessions, namespace: default}
spec:
  type: Redis
  version: '7'
  redis: {parameters: {maxmemory-policy: noeviction}}
";

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

fn bench() -> Bench<Databases> {
    let bench = Bench::new(Databases);
    bench.api.register(reconcile::Kind::of::<Database>(), true);
    bench
}

/// A bench with one Database, settled.
async fn settled(manifest: &str, name: &str) -> Bench<Databases> {
    let bench = bench();
    bench.put_yaml(manifest);
    bench.settle(&key(name)).await;
    bench
}

fn get<K>(bench: &Bench<Databases>, name: &str) -> Option<Value>
where
    K: kube::Resource<DynamicType = ()>,
{
    bench.api.get(&reconcile::Kind::of::<K>(), &key(name))
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} in {value:#}"))
}

/// What a user changes in the spec of `orders`.
fn edit(bench: &Bench<Databases>, spec: Value) {
    bench.api.patch(&reconcile::Kind::of::<Database>(), &key("orders"), "", &json!({ "spec": spec }));
}

fn status(bench: &Bench<Databases>, name: &str) -> Value {
    at(&get::<Database>(bench, name).unwrap(), "/status").clone()
}

/// Plays the StatefulSet controller and the node: one pod, ready or not.
fn run_member(bench: &Bench<Databases>, name: &str, pod: Value) {
    let mut set = get::<k8s_openapi::api::apps::v1::StatefulSet>(bench, name).unwrap();
    let generation = at(&set, "/metadata/generation").clone();
    set["status"] = json!({
        "observedGeneration": generation, "replicas": 1, "currentRevision": "r1", "updateRevision": "r1",
    });
    bench.api.put(&set);
    let labels = at(&set, "/spec/template/metadata/labels").clone();
    bench.api.put(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{name}-0"), "namespace": "default", "labels": labels},
        "status": pod,
    }));
}

fn ready() -> Value {
    json!({"conditions": [{"type": "Ready", "status": "True"}]})
}

fn waiting(reason: &str, message: &str) -> Value {
    let state = json!({"waiting": {"reason": reason, "message": message}});
    json!({"containerStatuses": [{
        "name": "database", "image": "x", "imageID": "", "ready": false, "restartCount": 1, "state": state,
    }]})
}

#[tokio::test]
async fn children_of_postgresql() {
    let bench = settled(POSTGRES, "orders").await;
    let set = get::<k8s_openapi::api::apps::v1::StatefulSet>(&bench, "orders").unwrap();
    insta::assert_yaml_snapshot!(at(&set, "/spec"));
}

#[tokio::test]
async fn children_of_redis() {
    let bench = settled(REDIS, "sessions").await;
    let set = get::<k8s_openapi::api::apps::v1::StatefulSet>(&bench, "sessions").unwrap();
    insta::assert_yaml_snapshot!(at(&set, "/spec"));
    let config = get::<k8s_openapi::api::core::v1::ConfigMap>(&bench, "sessions-config").unwrap();
    insta::assert_snapshot!(at(&config, "/data/redis.conf").as_str().unwrap());
}

#[test]
fn the_crd_is_structural_and_its_rules_compile() {
    let crd = crate::crd();
    let json = at(&crd, "/spec/versions/0/schema/openAPIV3Schema");
    let schema = schema::openapi::from_crd(json, "spec.validation").unwrap();
    assert_eq!(schema::cel::Rules::check(&schema), Vec::new());
}

/// Defects 1 and 14: Ready is what the engine says through its readiness probe, and goes when it goes.
#[tokio::test]
async fn ready_follows_the_members() {
    let bench = settled(POSTGRES, "orders").await;
    assert_eq!(at(&status(&bench, "orders"), "/phase"), "Creating");
    run_member(&bench, "orders", ready());
    bench.settle(&key("orders")).await;
    let now = status(&bench, "orders");
    assert_eq!((at(&now, "/phase"), at(&now, "/readyReplicas")), (&json!("Ready"), &json!(1)));
    assert_eq!(at(&now, "/conditions/0/status"), "True");
    run_member(&bench, "orders", json!({"conditions": [{"type": "Ready", "status": "False"}]}));
    bench.settle(&key("orders")).await;
    let now = status(&bench, "orders");
    assert_eq!((at(&now, "/phase"), at(&now, "/readyReplicas")), (&json!("Failed"), &json!(0)));
}

/// Later revision of the original: the message says which pod has which trouble.
#[tokio::test]
async fn trouble_of_a_pod_is_in_the_condition() {
    let bench = settled(POSTGRES, "orders").await;
    run_member(&bench, "orders", waiting("ImagePullBackOff", "no such image"));
    bench.settle(&key("orders")).await;
    let message = at(&status(&bench, "orders"), "/conditions/0/message").clone();
    let wanted =
        "Pod issues detected: Pod orders-0: Container database is waiting - ImagePullBackOff: no such image";
    assert_eq!(message, wanted);
}

/// Defect 2: edits reach the objects that are there.
#[tokio::test]
async fn edits_reach_existing_children() {
    let bench = settled(POSTGRES, "orders").await;
    let parameters = json!({"max_connections": "77"});
    edit(&bench, json!({"postgresql": {"parameters": parameters}, "serviceType": "NodePort"}));
    bench.settle(&key("orders")).await;
    let set = get::<k8s_openapi::api::apps::v1::StatefulSet>(&bench, "orders").unwrap();
    let args = at(&set, "/spec/template/spec/containers/0/args").to_string();
    assert!(args.contains("max_connections=77"), "{args}");
    let service = get::<k8s_openapi::api::core::v1::Service>(&bench, "orders-service").unwrap();
    assert_eq!(at(&service, "/spec/type"), "NodePort");
}

/// Defect 3: members have names of their own.
#[tokio::test]
async fn the_stateful_set_has_a_headless_service() {
    let bench = settled(POSTGRES, "orders").await;
    let set = get::<k8s_openapi::api::apps::v1::StatefulSet>(&bench, "orders").unwrap();
    let service = get::<k8s_openapi::api::core::v1::Service>(&bench, "orders-headless").unwrap();
    assert_eq!(at(&set, "/spec/serviceName"), "orders-headless");
    assert_eq!(at(&service, "/spec/clusterIP"), "None");
}

/// Defects 4, 6, 7, 9 and 11: what this release does not run, or nobody can, is refused with what to change, and
/// nothing is made of it.
#[tokio::test]
async fn bad_specs_say_what_to_change_and_make_nothing() {
    let cases = [
        ("type: PostgreSQL", "type: MongoDB", "spec.type: MongoDB is not supported by this release"),
        ("version: '15'", "version: '15', replicas: 3", "spec.replicas: 3 members are not supported"),
        ("size: 1Gi", "size: 1Gigabyte", "spec.storage.size: \"1Gigabyte\" is not a quantity"),
        ("cpu: 100m", "cpu: lots", "spec.resources.cpu: \"lots\" is not a quantity"),
        (
            "memoryLimit: 512Mi",
            "memoryLimit: 128Mi",
            "spec.resources.memory: must not be greater than memoryLimit",
        ),
        ("max_connections: '50'", "port: '1'", "spec.postgresql.parameters.port: is set by the operator"),
        ("max_connections: '50'", "'max connections': '1'", "is not the name of a parameter"),
        ("version: '15'", "version: 'a b'", "spec.version: \"a b\" is not an image tag"),
        ("version: '15'", "version: '15', redis: {}", "spec.redis: is only for type Redis"),
        (
            "version: '15'",
            "version: '15', env: [{name: PGDATA, value: x}]",
            "spec.env: PGDATA is set by the operator",
        ),
        ("name: orders", "name: 9orders", "metadata.name"),
    ];
    let flat = POSTGRES.replace("spec:\n  type: PostgreSQL\n  version: '15'\n  storage: {size: 1Gi}\n  resources: {cpu: 100m, memory: 256Mi, memoryLimit: 512Mi}\n  postgresql: {database: orders, username: orders, parameters: {max_connections: '50'}}",
        "spec: {type: PostgreSQL, version: '15', storage: {size: 1Gi}, resources: {cpu: 100m, memory: 256Mi, memoryLimit: 512Mi}, postgresql: {database: orders, username: orders, parameters: {max_connections: '50'}}}");
    for (good, bad, wanted) in cases {
        let manifest = flat.replacen(good, bad, 1);
        assert_ne!(manifest, flat, "{good}");
        let name = if bad.starts_with("name:") { "9orders" } else { "orders" };
        let bench = settled(&manifest, name).await;
        let now = status(&bench, name);
        let message = at(&now, "/conditions/0/message").as_str().unwrap();
        assert!(message.contains(wanted), "{bad}: {message}");
        assert_eq!(
            (at(&now, "/phase"), at(&now, "/conditions/0/reason")),
            (&json!("Failed"), &json!("InvalidSpec"))
        );
        assert!(get::<k8s_openapi::api::apps::v1::StatefulSet>(&bench, name).is_none(), "{bad}");
    }
}

/// Defect 5: Redis asks for the password.
#[tokio::test]
async fn redis_is_started_with_its_password() {
    let bench = settled(REDIS, "sessions").await;
    let config = get::<k8s_openapi::api::core::v1::ConfigMap>(&bench, "sessions-config").unwrap();
    let start = at(&config, "/data/start.sh").as_str().unwrap();
    assert!(start.contains("requirepass") && start.contains("$REDIS_PASSWORD"));
    assert!(!at(&config, "/data").to_string().contains(&password_of(&bench, "sessions")));
}

/// Defect 8: the data directory is below the mount point.
#[tokio::test]
async fn pgdata_is_below_the_mount_point() {
    let bench = settled(POSTGRES, "orders").await;
    let set = get::<k8s_openapi::api::apps::v1::StatefulSet>(&bench, "orders").unwrap();
    let env = at(&set, "/spec/template/spec/containers/0/env").as_array().unwrap();
    let pgdata = env.iter().find(|variable| variable["name"] == "PGDATA").unwrap();
    assert_eq!(pgdata["value"], "/var/lib/postgresql/data/pgdata");
}

fn password_of(bench: &Bench<Databases>, name: &str) -> String {
    let secret = get::<k8s_openapi::api::core::v1::Secret>(bench, &format!("{name}-credentials")).unwrap();
    let encoded = secret.pointer("/data/password").or_else(|| secret.pointer("/stringData/password"));
    encoded.and_then(Value::as_str).unwrap().to_owned()
}

/// Defect 10: credentials are generated, once, and differ.
#[tokio::test]
async fn credentials_are_generated_once() {
    let bench = settled(POSTGRES, "orders").await;
    bench.put_yaml(REDIS);
    bench.settle(&key("sessions")).await;
    let first = password_of(&bench, "orders");
    assert!(first.len() >= 40 && first != password_of(&bench, "sessions"));
    bench.settle(&key("orders")).await;
    assert_eq!(password_of(&bench, "orders"), first);
}

/// Defect 12: no finalizer on what is being deleted; and deletion takes everything, the volume as the policy says.
#[tokio::test]
async fn deletion_takes_children_and_treats_the_volume_as_asked() {
    for (policy, kept) in [("Retain", true), ("Delete", false)] {
        let manifest =
            POSTGRES.replace("version: '15'", &format!("version: '15'\n  deletionPolicy: {policy}"));
        let bench = settled(&manifest, "orders").await;
        run_member(&bench, "orders", ready());
        let set = get::<k8s_openapi::api::apps::v1::StatefulSet>(&bench, "orders").unwrap();
        let labels = at(&set, "/spec/template/metadata/labels").clone();
        bench.api.put(&json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data-orders-0", "namespace": "default", "labels": labels},
        }));
        bench.settle(&key("orders")).await;
        bench.api.delete(&reconcile::Kind::of::<Database>(), &key("orders"));
        bench.settle(&key("orders")).await;
        assert_eq!(at(&status(&bench, "orders"), "/phase"), "Deleting");
        assert!(get::<Database>(&bench, "orders").is_some(), "a member still runs");
        // The garbage collector and the node.
        bench.api.delete(&reconcile::Kind::of::<k8s_openapi::api::core::v1::Pod>(), &key("orders-0"));
        bench.settle(&key("orders")).await;
        assert!(get::<Database>(&bench, "orders").is_none(), "{policy}");
        for service in ["orders-service", "orders-headless"] {
            assert!(get::<k8s_openapi::api::core::v1::Service>(&bench, service).is_none());
        }
        assert!(get::<k8s_openapi::api::core::v1::Secret>(&bench, "orders-credentials").is_none());
        let claim = get::<k8s_openapi::api::core::v1::PersistentVolumeClaim>(&bench, "data-orders-0");
        assert_eq!(claim.is_some(), kept, "{policy}");
    }
}

/// Defect 13: a missing Secret is said, and a changed one restarts the member.
#[tokio::test]
async fn secrets_of_the_user_are_waited_for_and_followed() {
    let manifest =
        POSTGRES.replace("database: orders,", "database: orders, passwordSecret: {name: pw, key: p},");
    let bench = settled(&manifest, "orders").await;
    let now = status(&bench, "orders");
    assert_eq!(
        (at(&now, "/phase"), at(&now, "/conditions/0/reason")),
        (&json!("Pending"), &json!("SecretNotFound"))
    );
    assert!(get::<k8s_openapi::api::apps::v1::StatefulSet>(&bench, "orders").is_none());
    let secret = |value: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pw", "namespace": "default"},
            "data": {"p": value}})
    };
    bench.api.put(&secret("b25l"));
    bench.settle(&key("orders")).await;
    let annotation = "/spec/template/metadata/annotations/databases.database-operator.io~1credentials";
    let version = |bench: &Bench<Databases>| {
        let set = get::<k8s_openapi::api::apps::v1::StatefulSet>(bench, "orders").unwrap();
        at(&set, annotation).clone()
    };
    let before = version(&bench);
    bench.api.put(&secret("dHdv"));
    bench.settle(&key("orders")).await;
    assert_ne!(version(&bench), before);
}

#[tokio::test]
async fn objects_of_others_are_left_alone() {
    let bench = bench();
    bench.put_yaml(POSTGRES);
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders-service", "namespace": "default"},
        "spec": {"ports": [{"port": 1}]},
    });
    bench.api.put(&foreign);
    bench.settle(&key("orders")).await;
    let message = at(&status(&bench, "orders"), "/conditions/0/message").clone();
    assert!(
        message.as_str().unwrap().contains("Service \"orders-service\" exists and belongs to something else")
    );
    let service = get::<k8s_openapi::api::core::v1::Service>(&bench, "orders-service").unwrap();
    assert_eq!(at(&service, "/spec"), &foreign["spec"]);
}

#[tokio::test]
async fn a_volume_cannot_be_resized_and_says_so() {
    let bench = settled(POSTGRES, "orders").await;
    edit(&bench, json!({"storage": {"size": "2Gi"}}));
    bench.settle(&key("orders")).await;
    let now = status(&bench, "orders");
    assert_eq!(at(&now, "/conditions/0/reason"), "VolumeImmutable");
    let set = get::<k8s_openapi::api::apps::v1::StatefulSet>(&bench, "orders").unwrap();
    assert_eq!(at(&set, "/spec/volumeClaimTemplates/0/spec/resources/requests/storage"), "1Gi");
}

#[test]
fn valid_specs_come_to_what_they_say() {
    let database: Database = yaml(POSTGRES);
    let valid = validate(&database).unwrap();
    assert_eq!((valid.image.as_str(), valid.replicas), ("postgres:15", 1));
    assert_eq!(valid.password.key().name, "orders-credentials");
    assert_eq!(serde_json::to_value(Phase::Ready).unwrap(), "Ready");
}
