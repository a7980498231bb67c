//! Each plugin through one check: what it makes of an object, or why it refuses.

use futures::executor::block_on;
use meta::Value;
use serde_json::json;

use super::*;
use crate::testing::{Cx, object};

/// The first plugin of this name.
fn named(name: &str) -> Arc<dyn Admission> {
    admission().into_iter().find(|plugin| plugin.name() == name).unwrap()
}

fn run(name: &str, cx: &Cx, new: Value, old: Option<Value>) -> Result<Object, String> {
    let (plugin, cx) = (named(name), cx.context());
    assert!(plugin.handles(cx.attributes));
    let (mut new, old) = (object(new), old.map(object));
    block_on(plugin.mutate(&cx, Some(&mut new), old.as_ref()))
        .and_then(|()| block_on(plugin.validate(&cx, Some(&new), old.as_ref())))
        .map(|()| new)
        .map_err(|status| format!("{} {}", status.code, status.message))
}

#[test]
fn service_account() {
    let pod = || {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts":
        [{"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]}})
    };
    assert_eq!(
        run("ServiceAccount", &Cx::new("pods", ""), pod(), None).unwrap_err(),
        "403 pods \"p\" is forbidden: error looking up service account ns/default: serviceaccount \"default\" \
         not found"
    );
    let account =
        json!({"metadata": {"name": "default", "namespace": "ns"}, "imagePullSecrets": [{"name": "s"}]});
    let cx = Cx::new("pods", "").with("", "serviceaccounts", account);
    let pod = run("ServiceAccount", &cx, pod(), None).unwrap();
    assert_eq!(pod.str(&["spec", "serviceAccountName"]), Some("default"));
    let volume = &pod.list(&["spec", "volumes"])[0];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    let containers = pod.list(&["spec", "containers"]);
    assert_eq!(containers[0]["volumeMounts"][0]["name"], name);
    assert_eq!(containers[1]["volumeMounts"].as_array().unwrap().len(), 1, "what is mounted there stays");
    assert_eq!(pod.list(&["spec", "imagePullSecrets"]), [json!({"name": "s"})]);

    let account =
        json!({"metadata": {"name": "default", "namespace": "ns"}, "automountServiceAccountToken": false});
    let cx = Cx::new("pods", "").with("", "serviceaccounts", account);
    let quiet = run("ServiceAccount", &cx, json!({"spec": {"containers": [{"name": "a"}]}}), None).unwrap();
    assert!(quiet.list(&["spec", "volumes"]).is_empty());
}

#[test]
fn tolerations() {
    let pod = run("DefaultTolerationSeconds", &Cx::new("pods", ""), json!({"spec": {}}), None).unwrap();
    assert_eq!(pod.list(&["spec", "tolerations"]).len(), 2);
    let all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
    let pod = run("DefaultTolerationSeconds", &Cx::new("pods", ""), all, None).unwrap();
    assert_eq!(pod.list(&["spec", "tolerations"]).len(), 1);
}

#[test]
fn priority() {
    let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default});
    let cx = Cx::new("pods", "").with("scheduling.k8s.io", "priorityclasses", class("high", 9, false));
    for (spec, expected) in [
        (json!({}), Ok((0, None))),
        (json!({"priorityClassName": "high"}), Ok((9, Some("high")))),
        (
            json!({"priorityClassName": "none"}),
            Err("403 pods \"p\" is forbidden: no PriorityClass with name none was found"),
        ),
        (
            json!({"priority": 5}),
            Err(
                "403 pods \"p\" is forbidden: the integer value of priority (5) must not be provided in pod \
                 spec; priority admission controller computed 0 from the given PriorityClass name",
            ),
        ),
    ] {
        let pod = run("Priority", &cx, json!({"metadata": {"name": "p"}, "spec": spec}), None);
        let seen = pod
            .as_ref()
            .map(|pod| (pod.int(&["spec", "priority"]).unwrap(), pod.str(&["spec", "priorityClassName"])));
        assert_eq!(seen.map_err(String::as_str), expected);
    }
    let cx = cx.with("scheduling.k8s.io", "priorityclasses", class("usual", 3, true));
    let pod = run("Priority", &cx, json!({"spec": {}}), None).unwrap();
    assert_eq!(pod.int(&["spec", "priority"]), Some(3));
}

#[test]
fn storage() {
    let class = |name: &str, created: &str| {
        json!({"metadata": {"name": name, "creationTimestamp": created,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "allowVolumeExpansion": true})
    };
    let cx = Cx::new("persistentvolumeclaims", "")
        .with("storage.k8s.io", "storageclasses", class("old", "2024-01-01T00:00:00Z"))
        .with("storage.k8s.io", "storageclasses", class("new", "2025-01-01T00:00:00Z"));
    let claim = run("DefaultStorageClass", &cx, json!({"spec": {}}), None).unwrap();
    assert_eq!(claim.str(&["spec", "storageClassName"]), Some("new"));
    let none = json!({"spec": {"storageClassName": ""}});
    let claim = run("DefaultStorageClass", &cx, none, None).unwrap();
    assert_eq!(claim.str(&["spec", "storageClassName"]), Some(""));
    let claim = run("StorageObjectInUseProtection", &cx, json!({"metadata": {"name": "c"}}), None).unwrap();
    assert_eq!(claim.list(&["metadata", "finalizers"]), [json!("kubernetes.io/pvc-protection")]);

    let mut cx = cx;
    cx.attributes.operation = Operation::Update;
    let sized = |size: &str, phase: &str| {
        json!({"metadata": {"name": "c"}, "spec": {"storageClassName": "new",
            "resources": {"requests": {"storage": size}}}, "status": {"phase": phase}})
    };
    let name = "PersistentVolumeClaimResize";
    assert!(run(name, &cx, sized("2Gi", "Bound"), Some(sized("1Gi", "Bound"))).is_ok());
    assert_eq!(
        run(name, &cx, sized("2Gi", "Pending"), Some(sized("1Gi", "Pending"))).unwrap_err(),
        "403 persistentvolumeclaims \"c\" is forbidden: Only bound persistent volume claims can be expanded"
    );
}

#[test]
fn limits() {
    let range = json!({"metadata": {"name": "l", "namespace": "ns"}, "spec": {"limits": [
        {"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "100m"}, "default": {"cpu": "500m"},
         "defaultRequest": {"cpu": "200m"}},
        {"type": "Pod", "max": {"cpu": "1500m"}}
    ]}});
    let cx = Cx::new("pods", "").with("", "limitranges", range);
    let pod = |containers: Value| json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
    let given = run("LimitRanger", &cx, pod(json!([{"name": "a"}])), None).unwrap();
    assert_eq!(
        given.list(&["spec", "containers"])[0]["resources"],
        json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "500m"}})
    );
    assert_eq!(
        given.annotation("kubernetes.io/limit-ranger"),
        Some("LimitRanger plugin set: cpu request for container a; cpu limit for container a")
    );
    let cpu = |name: &str, request: &str, limit: &str| json!({"name": name, "resources": {"requests": {"cpu": request}, "limits": {"cpu": limit}}});
    for (containers, why) in [
        (json!([cpu("a", "50m", "1")]), "minimum cpu usage per Container is 100m, but request is 50m"),
        (
            json!([cpu("a", "1", "2")]),
            "[maximum cpu usage per Container is 1, but limit is 2, maximum cpu usage per Pod is 1500m, but limit is 2]",
        ),
        (
            json!([cpu("a", "1", "1"), cpu("b", "1", "1")]),
            "maximum cpu usage per Pod is 1500m, but limit is 2",
        ),
    ] {
        let refused = run("LimitRanger", &cx, pod(containers), None).unwrap_err();
        assert_eq!(refused, format!("403 pods \"p\" is forbidden: {why}"));
    }
}

#[test]
fn nodes_ingresses_and_runtimes() {
    let node = run("TaintNodesByCondition", &Cx::new("nodes", ""), json!({}), None).unwrap();
    assert_eq!(node.list(&["spec", "taints"])[0]["key"], "node.kubernetes.io/not-ready");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"runtimeClassName": "r"}});
    assert_eq!(
        run("RuntimeClass", &Cx::new("pods", ""), pod, None).unwrap_err(),
        "403 pods \"p\" is forbidden: pod rejected: RuntimeClass \"r\" not found"
    );
    let class = json!({"metadata": {"name": "web",
        "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}});
    let mut cx = Cx::new("ingresses", "").with("networking.k8s.io", "ingressclasses", class);
    cx.attributes.resource = GroupResource::new("networking.k8s.io", "ingresses");
    let ingress = run("DefaultIngressClass", &cx, json!({"spec": {}}), None).unwrap();
    assert_eq!(ingress.str(&["spec", "ingressClassName"]), Some("web"));
}

#[test]
fn topology() {
    let node =
        json!({"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z", "other": "o"}}});
    for (subresource, body) in [
        ("binding", json!({"metadata": {"name": "p"}, "target": {"name": "n"}})),
        ("", json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}})),
    ] {
        let mut cx = Cx::new("pods", subresource).with("", "nodes", node.clone());
        cx.attributes.namespace = String::new();
        let labelled = run("PodTopologyLabels", &cx, body, None).unwrap();
        assert_eq!(labelled.get(&["metadata", "labels"]), Some(&json!({"topology.kubernetes.io/zone": "z"})));
    }
}
