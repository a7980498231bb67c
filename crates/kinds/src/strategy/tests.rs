//! Kinds as the engine uses them: defaults, then what the server sets, then everything that is wrong.

use meta::{Object, Value};
use resource::{Operation, Resource};
use serde_json::json;

use crate::{
    Acts, Options,
    testing::{Cx, object},
};

/// One kind in a world, written to through the engine's steps.
struct Kind {
    kind: Resource,
    cx: Cx,
}

impl Kind {
    fn new(plural: &str) -> Self {
        let table = crate::all(&Options::default(), &Acts::default());
        let kind = table.into_iter().find(|kind| &*kind.plural == plural && !kind.verbs.is_empty()).unwrap();
        Self { kind, cx: Cx::new(plural, "") }
    }

    fn write(&mut self, new: Value, old: Option<&Object>) -> Result<Object, Vec<String>> {
        self.cx.attributes.operation = if old.is_some() { Operation::Update } else { Operation::Create };
        let mut tree = new;
        schema::default::apply(&self.kind.schema, &mut tree);
        let mut new = object(tree);
        self.kind.strategy.default(&mut new);
        let cx = self.cx.context();
        if let Err(status) = self.kind.strategy.prepare(&cx, &mut new, old) {
            return Err(vec![format!("{} {}", status.code, status.message)]);
        }
        let tree = new.clone().into_value();
        let before = old.map(|old| old.clone().into_value());
        let mut errors = schema::validate::value(&self.kind.schema, &tree, before.as_ref());
        self.kind.strategy.validate(&cx, &new, old, &mut errors);
        if errors.is_empty() { Ok(new) } else { Err(errors.iter().map(ToString::to_string).collect()) }
    }

    fn create(&mut self, new: Value) -> Object {
        self.write(new, None).unwrap()
    }

    /// Creates `base` with `value` set at `path` (JSON pointer); each error begins with what is expected.
    fn check(&mut self, base: &Value, path: &str, value: Value, expected: &[&str]) {
        let mut new = base.clone();
        put(&mut new, path, value);
        let errors = self.write(new, None).err().unwrap_or_default();
        same(&errors, expected);
    }

    /// The same for an update of `base`.
    fn change(&mut self, base: &Value, path: &str, value: Value, expected: &[&str]) {
        let old = self.create(base.clone());
        let mut new = old.clone().into_value();
        put(&mut new, path, value);
        let errors = self.write(new, Some(&old)).err().unwrap_or_default();
        same(&errors, expected);
    }
}

fn same(errors: &[String], expected: &[&str]) {
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(expected), "{error}\ndoes not begin with\n{expected}");
    }
}

/// Sets a value, or removes it when it is null.
fn put(tree: &mut Value, path: &str, value: Value) {
    let (parent, last) = path.rsplit_once('/').unwrap();
    let parent = tree.pointer_mut(parent).unwrap();
    match parent {
        Value::Object(map) if value.is_null() => {
            map.remove(last);
        }
        Value::Object(map) => {
            map.insert(last.to_owned(), value);
        }
        Value::Array(list) => list[last.parse::<usize>().unwrap()] = value,
        _ => panic!("{path} is not in a map or list"),
    }
}

fn pod() -> Value {
    json!({"metadata": {"name": "p", "namespace": "ns"},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], "volumes": [{"name": "v", "emptyDir": {}}]}})
}

#[test]
fn a_pod_gets_its_defaults() {
    let made = Kind::new("pods").create(pod());
    assert_eq!(made.get(&["status"]), Some(&json!({"phase": "Pending", "qosClass": "BestEffort"})));
    insta::assert_json_snapshot!(made.get(&["spec"]));
}

#[test]
fn pods_are_checked() {
    let (mut pods, base) = (Kind::new("pods"), pod());
    for (path, value, expected) in [
        ("/spec/containers", Value::Null, &["spec.containers: Required value"][..]),
        ("/spec/containers/0/image", Value::Null, &["spec.containers[0].image: Required value"]),
        (
            "/spec/containers/0/name",
            json!("A"),
            &["spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label"],
        ),
        (
            "/spec/containers",
            json!([{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]),
            &["spec.containers[1]: Duplicate value", "spec.containers[1].name: Duplicate value: \"c\""],
        ),
        (
            "/spec/restartPolicy",
            json!("Sometimes"),
            &[
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            ],
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "w", "mountPath": "/w"}]),
            &["spec.containers[0].volumeMounts[0].name: Not found: \"w\""],
        ),
        (
            "/spec/containers/0/resources",
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            &[
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ],
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 70000}]),
            &[
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({}),
            &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "a", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
            &[
                "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            ],
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]),
            &[
                "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            ],
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "secret": {}}]),
            &["spec.volumes[0].secret.secretName: Required value"],
        ),
        (
            "/spec/tolerations",
            json!([{"key": "a", "operator": "Exists", "value": "b"}]),
            &[
                "spec.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
            ],
        ),
        (
            "/spec/activeDeadlineSeconds",
            json!(0),
            &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1"],
        ),
    ] {
        pods.check(&base, path, value, expected);
    }
}

#[test]
fn pods_hardly_change() {
    let (mut pods, base) = (Kind::new("pods"), pod());
    pods.change(&base, "/spec/containers/0/image", json!("i:2"), &[]);
    pods.change(&base, "/spec/activeDeadlineSeconds", json!(5), &[]);
    pods.change(&base, "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]), &[]);
    pods.change(
        &base,
        "/spec/nodeName",
        json!("n"),
        &["spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"],
    );
    pods.change(
        &base,
        "/spec/containers/0/command",
        json!(["a"]),
        &["spec: Forbidden: pod updates may not change"],
    );
    let two = json!([{"name": "c", "image": "i:1"}, {"name": "d", "image": "i:1"}]);
    pods.change(
        &base,
        "/spec/containers",
        two,
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
}

#[test]
fn subresources_of_pods_have_their_own_rules() {
    let mut pods = Kind::new("pods");
    let old = pods.create(pod());
    pods.cx.attributes.subresource = "binding".to_owned();
    let mut bound = old.clone().into_value();
    put(&mut bound, "/spec/nodeName", json!("n"));
    let bound = pods.write(bound, Some(&old)).unwrap();
    assert_eq!(bound.str(&["spec", "nodeName"]), Some("n"));

    pods.cx.attributes.subresource = "ephemeralcontainers".to_owned();
    let mut debugged = bound.clone().into_value();
    put(&mut debugged, "/spec/ephemeralContainers", json!([{"name": "e", "image": "i:1"}]));
    put(&mut debugged, "/spec/nodeName", json!("other"));
    let debugged = pods.write(debugged, Some(&bound)).unwrap();
    assert_eq!(debugged.str(&["spec", "nodeName"]), Some("n"), "only ephemeral containers are taken");
    assert_eq!(debugged.list(&["spec", "ephemeralContainers"])[0]["terminationMessagePolicy"], "File");
    let mut gone = debugged.clone().into_value();
    put(&mut gone, "/spec/ephemeralContainers", Value::Null);
    same(
        &pods.write(gone, Some(&debugged)).unwrap_err(),
        &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed"],
    );

    pods.cx.attributes.subresource = "status".to_owned();
    let mut reported = bound.clone().into_value();
    put(&mut reported, "/status", json!({"phase": "Running", "qosClass": "Guaranteed"}));
    let reported = pods.write(reported, Some(&bound)).unwrap();
    assert_eq!(reported.str(&["status", "qosClass"]), Some("BestEffort"), "it never changes");
}

/// Upstream's texts of `ValidatePodResize`.
#[test]
fn only_cpu_and_memory_are_resized() {
    let mut pods = Kind::new("pods");
    let mut wanted = pod();
    let resources = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": "1Gi"}});
    put(&mut wanted, "/spec/containers/0/resources", resources("100m", "64Mi"));
    let init = json!([
        {"name": "i", "image": "i:1", "resources": {"requests": {"cpu": "1"}}},
        {"name": "s", "image": "i:1", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
    ]);
    put(&mut wanted, "/spec/initContainers", init);
    let old = pods.create(wanted);
    pods.cx.attributes.subresource = "resize".to_owned();
    let mut resized = old.clone().into_value();
    put(&mut resized, "/spec/containers/0/resources", resources("200m", "128Mi"));
    put(&mut resized, "/spec/initContainers/1/resources/requests/cpu", json!("2"));
    put(&mut resized, "/spec/containers/0/image", json!("other:2"));
    put(&mut resized, "/metadata/labels", json!({"left": "aside"}));
    let resized = pods.write(resized, Some(&old)).unwrap();
    let container = &resized.list(&["spec", "containers"])[0];
    assert_eq!(
        (&container["resources"]["requests"]["cpu"], &container["image"]),
        (&json!("200m"), &json!("i:1"))
    );
    assert_eq!(resized.list(&["spec", "initContainers"])[1]["resources"]["requests"]["cpu"], "2");
    assert_eq!(resized.get(&["metadata", "labels"]), old.get(&["metadata", "labels"]));
    for (at, value, expected) in [
        (
            "/spec/containers/0/resources/limits",
            json!({}),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            "/spec/containers/0/resources/requests",
            json!({"memory": "64Mi"}),
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ),
        (
            "/spec/containers/0/resources/requests/example.com~1gpu",
            json!("1"),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
        (
            "/spec/initContainers/0/resources/requests/cpu",
            json!("2"),
            "spec: Forbidden: only cpu and memory resources for sidecar containers are mutable",
        ),
        (
            "/spec/containers/0/resizePolicy",
            json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
    ] {
        let mut new = old.clone().into_value();
        put(&mut new, at, value);
        let errors = pods.write(new, Some(&old)).unwrap_err();
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{at}: {errors:?}");
    }
    // Limits that come to be what is requested would make it Guaranteed.
    let mut class = old.clone().into_value();
    put(&mut class, "/spec/initContainers", json!([]));
    let plain = object(class.clone());
    put(
        &mut class,
        "/spec/containers/0/resources",
        json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
    );
    let errors = pods.write(class, Some(&plain)).unwrap_err();
    let expected =
        "spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing";
    assert!(errors.iter().any(|error| error == expected), "{errors:?}");
    // A node that does not say what its containers have cannot resize them.
    let mut deaf = old.clone();
    deaf.set(&["status", "containerStatuses"], json!([{"name": "c", "state": {"running": {}}}]));
    let mut new = deaf.clone().into_value();
    put(&mut new, "/spec/containers/0/resources", resources("200m", "64Mi"));
    let errors = pods.write(new, Some(&deaf)).unwrap_err();
    let expected = "spec: Forbidden: Pod running on node without support for resize";
    assert!(errors.iter().any(|error| error == expected), "{errors:?}");
}

#[test]
fn a_pod_takes_its_time_to_go() {
    let pods = Kind::new("pods");
    for (spec, phase, asked, expected) in [
        (json!({"nodeName": "n", "terminationGracePeriodSeconds": 30}), "Running", None, 30),
        (json!({"nodeName": "n", "terminationGracePeriodSeconds": 30}), "Running", Some(5), 5),
        (json!({"nodeName": "n", "terminationGracePeriodSeconds": -1}), "Running", None, 1),
        (json!({"nodeName": "n", "terminationGracePeriodSeconds": 30}), "Failed", None, 0),
        (json!({"terminationGracePeriodSeconds": 30}), "Pending", None, 0),
    ] {
        let pod = object(json!({"spec": spec, "status": {"phase": phase}}));
        assert_eq!(pods.kind.strategy.grace_period(&pod, asked), Some(expected), "{spec}");
    }
    let maps = Kind::new("configmaps");
    assert_eq!(maps.kind.strategy.grace_period(&object(json!({})), Some(5)), None);
}

#[test]
fn quality_of_service() {
    for (resources, class) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
            "Guaranteed",
        ),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        (json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "1Gi"}}), "Burstable"),
    ] {
        let mut pod = pod();
        put(&mut pod, "/spec/containers/0/resources", resources);
        assert_eq!(Kind::new("pods").create(pod).str(&["status", "qosClass"]), Some(class));
    }
}

fn deployment() -> Value {
    json!({"metadata": {"name": "d", "namespace": "ns"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[test]
fn deployments() {
    let (mut kind, base) = (Kind::new("deployments"), deployment());
    let made = kind.create(base.clone());
    assert_eq!(
        made.get(&["spec", "strategy"]),
        Some(
            &json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        )
    );
    assert_eq!(
        (made.int(&["spec", "replicas"]), made.int(&["spec", "progressDeadlineSeconds"])),
        (Some(1), Some(600))
    );
    for (path, value, expected) in [
        ("/spec/selector", Value::Null, &["spec.selector: Required value"][..]),
        (
            "/spec/selector",
            json!({}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        ),
        (
            "/spec/selector/matchLabels/a",
            json!("c"),
            &[
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        ),
        (
            "/spec/template/spec/containers/0/image",
            Value::Null,
            &["spec.template.spec.containers[0].image: Required value"],
        ),
        (
            "/spec/replicas",
            json!(-1),
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            "/spec/strategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ],
        ),
        ("/spec/strategy", json!({"type": "Recreate"}), &[]),
        (
            "/spec/template/spec/restartPolicy",
            json!("Never"),
            &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
        ),
    ] {
        kind.check(&base, path, value, expected);
    }
    kind.change(&base, "/spec/replicas", json!(3), &[]);
    let other = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
    kind.change(&base, "/spec/selector", other, &["spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"Exists\"}]}: field is immutable"]);
}

#[test]
fn sets() {
    let base = deployment();
    let mut stateful = Kind::new("statefulsets");
    let made = stateful.create(base.clone());
    assert_eq!(
        made.get(&["spec", "updateStrategy"]),
        Some(&json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}))
    );
    assert_eq!(made.str(&["spec", "podManagementPolicy"]), Some("OrderedReady"));
    stateful.change(&base, "/spec/replicas", json!(2), &[]);
    stateful.change(
        &base,
        "/spec/serviceName",
        json!("s"),
        &["spec: Forbidden: updates to statefulset spec for fields other than 'replicas'"],
    );
    let mut mounting = base.clone();
    put(
        &mut mounting,
        "/spec/volumeClaimTemplates",
        json!([{"metadata": {"name": "data"}, "spec":
        {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]),
    );
    stateful.check(
        &mounting,
        "/spec/template/spec/containers/0/volumeMounts",
        json!([{"name": "data", "mountPath": "/d"}]),
        &[],
    );

    let mut daemons = Kind::new("daemonsets");
    let made = daemons.create(base.clone());
    assert_eq!(
        made.get(&["spec", "updateStrategy"]),
        Some(&json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}))
    );
    daemons.check(
        &base,
        "/spec/updateStrategy",
        json!({"rollingUpdate": {"maxUnavailable": 0}}),
        &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"],
    );
}

fn job() -> Value {
    json!({"metadata": {"name": "j", "namespace": "ns", "uid": "u"}, "spec": {"template": {"spec":
        {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}})
}

#[test]
fn jobs() {
    let (mut kind, base) = (Kind::new("jobs"), job());
    let made = kind.create(base.clone());
    assert_eq!(
        made.get(&["spec", "selector"]),
        Some(&json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}))
    );
    assert_eq!(
        made.get(&["spec", "template", "metadata", "labels"]),
        Some(
            &json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j", "controller-uid": "u", "job-name": "j"})
        )
    );
    assert_eq!((made.int(&["spec", "completions"]), made.int(&["spec", "backoffLimit"])), (Some(1), Some(6)));
    kind.check(
        &base,
        "/spec/template/spec/restartPolicy",
        Value::Null,
        &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
    );
    kind.check(&base, "/spec/completionMode", json!("Indexed"), &[]);
    kind.check(
        &base,
        "/spec/backoffLimitPerIndex",
        json!(1),
        &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
    );
    kind.change(&base, "/spec/parallelism", json!(2), &[]);
    kind.change(
        &base,
        "/spec/completions",
        json!(2),
        &["spec.completions: Invalid value: 2: field is immutable"],
    );
    kind.change(
        &base,
        "/spec/template/spec/containers/0/image",
        json!("k"),
        &["spec.template: Invalid value:"],
    );

    let cron = json!({"metadata": {"name": "c", "namespace": "ns"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": base["spec"]}}});
    let mut kind = Kind::new("cronjobs");
    let made = kind.create(cron.clone());
    assert_eq!(made.str(&["spec", "concurrencyPolicy"]), Some("Allow"));
    assert_eq!(made.get(&["spec", "jobTemplate", "spec", "selector"]), None);
    kind.check(
        &cron,
        "/spec/schedule",
        json!("x"),
        &["spec.schedule: Invalid value: \"x\": expected exactly 5 fields, found 1: [x]"],
    );
    kind.check(&cron, "/spec/schedule", Value::Null, &["spec.schedule: Required value"]);
}

fn service() -> Value {
    json!({"metadata": {"name": "s", "namespace": "ns"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}})
}

#[test]
fn services_get_addresses() {
    let mut kind = Kind::new("services");
    let made = kind.create(service());
    let ip = made.str(&["spec", "clusterIP"]).unwrap();
    assert!(ip.starts_with("10.43."), "{ip}");
    assert_eq!(made.list(&["spec", "clusterIPs"]), [json!(ip)]);
    assert_eq!(
        (made.list(&["spec", "ipFamilies"]), made.str(&["spec", "ipFamilyPolicy"])),
        (&[json!("IPv4")][..], Some("SingleStack"))
    );
    assert_eq!(made.list(&["spec", "ports"]), [json!({"port": 80, "protocol": "TCP", "targetPort": 80})]);
    assert_eq!(made.get(&["status"]), Some(&json!({"loadBalancer": {}})));
    let claims = kind.kind.strategy.claims(&made);
    assert_eq!((claims.len(), claims[0].object.name()), (1, ip));

    let mut asking = service();
    put(&mut asking, "/spec/clusterIP", json!("10.43.0.10"));
    assert_eq!(kind.create(asking.clone()).str(&["spec", "clusterIP"]), Some("10.43.0.10"));
    kind.cx = Cx::new("services", "").with(
        "networking.k8s.io",
        "ipaddresses",
        json!({"metadata": {"name": "10.43.0.10"}}),
    );
    same(
        &kind.write(asking, None).unwrap_err(),
        &[
            "422 Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"10.43.0.10\"]: failed to allocate IP \
         10.43.0.10: provided IP is already allocated",
        ],
    );
    kind.check(&service(), "/spec/clusterIP", json!("10.0.0.1"), &[
        "422 Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: failed to allocate IP 10.0.0.1: \
         the provided IP (10.0.0.1) is not in the valid range. The range of valid IPs is 10.43.0.0/16",
    ]);
    kind.check(&service(), "/spec/ipFamilyPolicy", json!("RequireDualStack"), &[
        "422 Service \"s\" is invalid: spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not \
         configured for dual-stack services",
    ]);
    kind.check(&service(), "/spec/ports", Value::Null, &["spec.ports: Required value"]);
}

#[test]
fn services_keep_what_they_got() {
    let mut kind = Kind::new("services");
    let mut ported = service();
    put(&mut ported, "/spec/type", json!("NodePort"));
    let old = kind.create(ported.clone());
    let node = old.list(&["spec", "ports"])[0]["nodePort"].as_i64().unwrap();
    assert!((30_000..=32_767).contains(&node));
    assert_eq!(old.str(&["spec", "externalTrafficPolicy"]), Some("Cluster"));
    let claims = kind.kind.strategy.claims(&old);
    assert_eq!(claims.iter().map(|c| c.object.name().to_owned()).nth(1), Some(node.to_string()));

    let same_again = kind.write(ported, Some(&old)).unwrap();
    assert_eq!(same_again.get(&["spec"]), old.get(&["spec"]), "what was chosen stays");
    let mut moved = old.clone().into_value();
    put(&mut moved, "/spec/clusterIP", json!("10.43.7.7"));
    let errors = kind.write(moved, Some(&old)).unwrap_err();
    same(&errors, &["spec.clusterIPs[0]: Invalid value: [\"10.43.7.7\"]: may not change once set"]);

    let mut plain = old.clone().into_value();
    put(&mut plain, "/spec/type", json!("ClusterIP"));
    let plain = kind.write(plain, Some(&old)).unwrap();
    assert_eq!(plain.list(&["spec", "ports"])[0].get("nodePort"), None);
    assert_eq!(plain.str(&["spec", "externalTrafficPolicy"]), None);
    let mut outside = plain.clone().into_value();
    put(&mut outside, "/spec/type", json!("ExternalName"));
    put(&mut outside, "/spec/externalName", json!("a.b"));
    let outside = kind.write(outside, Some(&plain)).unwrap();
    assert_eq!((outside.get(&["spec", "clusterIP"]), outside.get(&["spec", "ipFamilies"])), (None, None));
    assert_eq!(kind.kind.strategy.claims(&outside), []);
}

#[test]
fn services_without_addresses() {
    let mut kind = Kind::new("services");
    let mut headless = service();
    put(&mut headless, "/spec/clusterIP", json!("None"));
    let made = kind.create(headless);
    assert_eq!(made.list(&["spec", "clusterIPs"]), [json!("None")]);
    assert_eq!(kind.kind.strategy.claims(&made), []);
    let external =
        json!({"metadata": {"name": "s"}, "spec": {"type": "ExternalName", "externalName": "a.b"}});
    assert_eq!(kind.create(external).get(&["spec", "clusterIP"]), None);
    kind.check(
        &service(),
        "/spec/ports",
        json!([{"port": 1}, {"port": 2}]),
        &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    );
    kind.check(
        &service(),
        "/spec/ports/0/nodePort",
        json!(30000),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
}

#[test]
fn claims_and_volumes() {
    let claim = json!({"metadata": {"name": "c", "namespace": "ns"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let mut kind = Kind::new("persistentvolumeclaims");
    let made = kind.create(claim.clone());
    assert_eq!(
        (made.str(&["spec", "volumeMode"]), made.str(&["status", "phase"])),
        (Some("Filesystem"), Some("Pending"))
    );
    kind.check(
        &claim,
        "/spec/accessModes",
        json!([]),
        &["spec.accessModes: Required value: at least 1 access mode is required"],
    );
    kind.check(&claim, "/spec/resources/requests", json!({}), &["spec.resources[storage]: Required value"]);
    kind.change(
        &claim,
        "/spec/accessModes",
        json!(["ReadWriteMany"]),
        &["spec: Forbidden: spec is immutable after creation except resources.requests"],
    );
    kind.change(&claim, "/spec/volumeName", json!("v"), &[]);

    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/v"}}});
    let mut kind = Kind::new("persistentvolumes");
    assert_eq!(kind.create(volume.clone()).str(&["spec", "persistentVolumeReclaimPolicy"]), Some("Retain"));
    kind.check(&volume, "/spec/hostPath", Value::Null, &["spec: Required value: must specify a volume type"]);
    kind.check(&volume, "/spec/capacity", Value::Null, &["spec.capacity: Required value"]);
    kind.change(
        &volume,
        "/spec/hostPath/path",
        json!("/w"),
        &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
    );

    let class = json!({"metadata": {"name": "s"}, "provisioner": "a.b/c"});
    let mut kind = Kind::new("storageclasses");
    assert_eq!(kind.create(class.clone()).str(&["volumeBindingMode"]), Some("Immediate"));
    kind.change(
        &class,
        "/provisioner",
        json!("d"),
        &["provisioner: Invalid value: \"d\": field is immutable"],
    );
}

#[test]
fn roles_and_bindings() {
    let mut roles = Kind::new("roles");
    let role = json!({"metadata": {"name": "r", "namespace": "ns"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    roles.check(
        &role,
        "/rules/0/verbs",
        json!([]),
        &["rules[0].verbs: Required value: verbs must contain at least one value"],
    );
    roles.check(&role, "/rules/0/nonResourceURLs", json!(["/a"]), &[
        "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs",
        "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: rules cannot apply to both regular resources",
    ]);
    let mut bindings = Kind::new("rolebindings");
    let binding = json!({"metadata": {"name": "b", "namespace": "ns"}, "roleRef": {"kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "ns"}]});
    let made = bindings.create(binding.clone());
    assert_eq!(made.list(&["subjects"])[0]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(made.list(&["subjects"])[1].get("apiGroup"), None);
    bindings.check(
        &binding,
        "/roleRef/kind",
        json!("X"),
        &["roleRef.kind: Unsupported value: \"X\": supported values: \"Role\", \"ClusterRole\""],
    );
    bindings.change(&binding, "/roleRef/name", json!("q"), &["roleRef: Invalid value:"]);
}

#[test]
fn definitions() {
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let base = json!({"metadata": {"name": "foos.a.io"}, "spec": {"group": "a.io", "scope": "Namespaced",
        "names": {"plural": "foos", "kind": "Foo"}, "versions": [version]}});
    let mut kind = Kind::new("customresourcedefinitions");
    let made = kind.create(base.clone());
    assert_eq!(
        made.get(&["spec", "names"]),
        Some(&json!({"plural": "foos", "kind": "Foo", "singular": "foo", "listKind": "FooList"}))
    );
    assert_eq!(made.list(&["status", "storedVersions"]), [json!("v1")]);
    assert_eq!(made.get(&["spec", "conversion"]), Some(&json!({"strategy": "None"})));
    kind.check(
        &base,
        "/metadata/name",
        json!("x"),
        &["metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group"],
    );
    kind.check(&base, "/spec/versions/0/storage", json!(false), &["spec.versions: Invalid value: "]);
    kind.check(
        &base,
        "/spec/versions/0/schema",
        Value::Null,
        &["spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"],
    );
}

#[test]
fn networks() {
    let ingress = json!({"metadata": {"name": "i", "namespace": "ns"}, "spec": {"rules": [{"http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}});
    let mut kind = Kind::new("ingresses");
    kind.check(
        &ingress,
        "/spec/rules/0/host",
        json!("10.0.0.1"),
        &["spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"],
    );
    kind.check(
        &ingress,
        "/spec/rules/0/http/paths/0/path",
        json!("a"),
        &["spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path"],
    );
    kind.check(
        &ingress,
        "/spec/rules/0/http/paths/0/backend/service/port",
        json!({}),
        &["spec.rules[0].http.paths[0].backend: Required value: port name or number is required"],
    );

    let policy = json!({"metadata": {"name": "n", "namespace": "ns"}, "spec": {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}});
    let mut kind = Kind::new("networkpolicies");
    assert_eq!(
        kind.create(policy.clone()).list(&["spec", "policyTypes"]),
        [json!("Ingress"), json!("Egress")]
    );
    kind.check(
        &policy,
        "/spec/egress/0/to",
        json!([{}]),
        &["spec.egress[0].to[0]: Required value: must specify a peer"],
    );

    let slice = json!({"metadata": {"name": "e", "namespace": "ns"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]});
    let mut kind = Kind::new("endpointslices");
    assert_eq!(
        kind.create(slice.clone()).list(&["ports"]),
        [json!({"name": "", "port": 80, "protocol": "TCP"})]
    );
    kind.check(&slice, "/endpoints", Value::Null, &[]);
    kind.check(
        &slice,
        "/endpoints/0/addresses",
        json!([]),
        &["endpoints[0].addresses: Required value: must contain at least 1 address"],
    );
    kind.change(
        &slice,
        "/addressType",
        json!("FQDN"),
        &["addressType: Invalid value: \"FQDN\": field is immutable"],
    );
}

#[test]
fn others() {
    let budget = json!({"metadata": {"name": "b", "namespace": "ns"}, "spec": {"minAvailable": 1}});
    Kind::new("poddisruptionbudgets").check(
        &budget,
        "/spec/maxUnavailable",
        json!(1),
        &["spec: Invalid value: "],
    );
    let class = json!({"metadata": {"name": "p"}, "value": 5});
    let mut kind = Kind::new("priorityclasses");
    assert_eq!(kind.create(class.clone()).str(&["preemptionPolicy"]), Some("PreemptLowerPriority"));
    kind.check(
        &class,
        "/value",
        json!(2_000_000_000),
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
    kind.change(&class, "/value", json!(6), &["value: Forbidden: may not be changed in an update."]);
    let autoscaler = json!({"metadata": {"name": "h", "namespace": "ns"}, "apiVersion": "autoscaling/v2",
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}});
    let mut kind = Kind::new("horizontalpodautoscalers");
    assert_eq!(
        kind.create(autoscaler.clone()).list(&["spec", "metrics"])[0]["resource"]["target"]["averageUtilization"],
        80
    );
    kind.check(
        &autoscaler,
        "/spec/maxReplicas",
        json!(0),
        &["spec.maxReplicas: Invalid value: 0: must be greater than 0"],
    );
    let node = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}], "podCIDR": "10.42.0.0/24"},
        "status": {"capacity": {"cpu": "4"}}});
    let mut kind = Kind::new("nodes");
    let made = kind.create(node.clone());
    assert_eq!(
        (made.list(&["spec", "podCIDRs"]), made.str(&["status", "allocatable", "cpu"])),
        (&[json!("10.42.0.0/24")][..], Some("4"))
    );
    kind.change(
        &node,
        "/spec/podCIDRs",
        json!(["10.42.1.0/24"]),
        &["spec.podCIDRs: Forbidden: node updates may not change podCIDR"],
    );
}
