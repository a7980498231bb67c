//! What objects take, which quotas count them, and what admission says.

use std::collections::BTreeSet;

use meta::Timestamp;
use serde_json::json;

use super::*;
use crate::testing::{Cx, object};

fn taken(resource: &str, value: Value) -> Vec<String> {
    let taken = usage(&GroupResource::new("", resource), &object(value), Timestamp::UNIX_EPOCH);
    taken
        .iter()
        .map(|(name, amount)| format!("{name}={}", amount.canonical(QuantityForm::DecimalSi)))
        .collect()
}

#[test]
fn usage_of_each_kind() {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1k",
        "example.com/gpu": "2", "hugepages-2Mi": "4M"}, "limits": {"cpu": "2"}}});
    let pod = json!({"spec": {"containers": [container, container], "initContainers": [
        {"name": "i", "resources": {"requests": {"cpu": "5"}}}], "overhead": {"cpu": "100m"}}});
    assert_eq!(
        taken("pods", pod.clone()),
        [
            "count/pods=1",
            "cpu=5100m",
            "hugepages-2Mi=8M",
            "limits.cpu=4100m",
            "memory=2k",
            "pods=1",
            "requests.cpu=5100m",
            "requests.example.com/gpu=4",
            "requests.hugepages-2Mi=8M",
            "requests.memory=2k",
        ]
    );
    let mut ended = pod.clone();
    ended["status"] = json!({"phase": "Failed"});
    assert_eq!(taken("pods", ended), ["count/pods=1"]);
    let mut lost = pod;
    lost["metadata"] = json!({"deletionTimestamp": "1969-12-31T23:59:00Z", "deletionGracePeriodSeconds": 30});
    assert_eq!(taken("pods", lost), ["count/pods=1"]);
    let ports = json!([{"port": 1, "nodePort": 30000}, {"port": 2}]);
    for (spec, expected) in [
        (json!({"ports": ports}), ["0", "0"]),
        (json!({"type": "NodePort", "ports": ports}), ["0", "2"]),
        (json!({"type": "LoadBalancer", "ports": ports}), ["1", "2"]),
        (json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports}), ["1", "1"]),
    ] {
        let [balancers, ports] = expected;
        assert_eq!(
            taken("services", json!({"spec": spec})),
            [
                "count/services=1",
                "services=1",
                &format!("services.loadbalancers={balancers}"),
                &format!("services.nodeports={ports}")
            ]
        );
    }
    let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "5G"}}}});
    assert_eq!(
        taken("persistentvolumeclaims", claim),
        [
            "count/persistentvolumeclaims=1",
            "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1",
            "gold.storageclass.storage.k8s.io/requests.storage=5G",
            "persistentvolumeclaims=1",
            "requests.storage=5G",
        ]
    );
    assert_eq!(taken("secrets", json!({})), ["count/secrets=1", "secrets=1"]);
    let jobs = usage(&GroupResource::new("batch", "jobs"), &object(json!({})), Timestamp::UNIX_EPOCH);
    assert_eq!(jobs.into_keys().collect::<Vec<_>>(), ["count/jobs.batch"]);
}

#[test]
fn every_amount_names_the_kind_it_counts() {
    for (name, kind) in [
        ("pods", "pods"),
        ("limits.memory", "pods"),
        ("requests.nvidia.com/gpu", "pods"),
        ("hugepages-1Gi", "pods"),
        ("services.nodeports", "services"),
        ("requests.storage", "persistentvolumeclaims"),
        ("gold.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims"),
        ("count/jobs.batch", "jobs.batch"),
        ("count/pods", "pods"),
    ] {
        assert_eq!(counts(name).map(|kind| kind.to_string()).as_deref(), Some(kind), "{name}");
    }
    assert_eq!(counts("apples"), None);
}

#[test]
fn scopes() {
    let pods = GroupResource::new("", "pods");
    let best_effort = json!({"spec": {"containers": [{"name": "a"}]}});
    let ends = json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high", "containers": [
        {"name": "a", "resources": {"requests": {"cpu": "1"}}}], "affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["other"]}]}}}});
    let selector = |operator: &str, values: &[&str]| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    for (spec, first, second) in [
        (json!({}), true, true),
        (json!({"scopes": ["BestEffort"]}), true, false),
        (json!({"scopes": ["NotBestEffort", "Terminating"]}), false, true),
        (json!({"scopes": ["NotTerminating"]}), true, false),
        (json!({"scopes": ["CrossNamespacePodAffinity"]}), false, true),
        (json!({"scopes": ["PriorityClass"]}), false, true),
        (selector("In", &["high"]), false, true),
        (selector("NotIn", &["high"]), true, false),
        (selector("DoesNotExist", &[]), true, false),
        (json!({"scopes": ["Unheard"]}), false, false),
    ] {
        let quota = object(json!({"spec": spec}));
        let seen = (
            covers(&quota, &pods, &object(best_effort.clone())),
            covers(&quota, &pods, &object(ends.clone())),
        );
        assert_eq!(seen, (first, second), "{spec}");
        let services = GroupResource::new("", "services");
        assert_eq!(covers(&quota, &services, &object(json!({}))), spec == json!({}));
    }
}

fn charge(quota: Value, resource: &str, new: Value, old: Option<Value>) -> Result<Value, String> {
    let mut cx = Cx::new(resource, "").with("", "resourcequotas", quota);
    cx.attributes.operation =
        if old.is_some() { resource::Operation::Update } else { resource::Operation::Create };
    let plugin = crate::admission().into_iter().find(|plugin| plugin.name() == "ResourceQuota").unwrap();
    assert!(plugin.handles(&cx.attributes));
    let old = old.map(object);
    let charged = plugin.charge(&cx.context(), &object(new), old.as_ref(), &BTreeSet::new());
    match charged.map_err(|status| status.message)?.as_slice() {
        [] => Ok(Value::Null),
        [quota] => Ok(quota.get(&["status", "used"]).cloned().unwrap()),
        more => panic!("{more:?}"),
    }
}

#[test]
fn admission_charges_or_refuses() {
    let quota = |hard: Value, used: Value| json!({"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": hard}, "status": {"used": used}});
    let pod = |resources: Value| json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}});
    let small = json!({"requests": {"cpu": "500m", "memory": "1Gi"}});
    let limited = quota(
        json!({"pods": "2", "requests.cpu": "1", "memory": "4Gi"}),
        json!({"pods": "1", "requests.cpu": "500m", "memory": "512Mi"}),
    );
    assert_eq!(
        charge(limited.clone(), "pods", pod(small.clone()), None),
        Ok(json!({"pods": "2", "requests.cpu": "1", "memory": "1536Mi"}))
    );
    assert_eq!(
        charge(limited.clone(), "pods", pod(json!({"requests": {"cpu": "501m", "memory": "4Gi"}})), None),
        Err("pods \"p\" is forbidden: exceeded quota: q, requested: memory=4Gi,requests.cpu=501m, used: \
             memory=512Mi,requests.cpu=500m, limited: memory=4Gi,requests.cpu=1"
            .to_owned())
    );
    assert_eq!(
        charge(limited, "pods", pod(json!({})), None),
        Err("pods \"p\" is forbidden: failed quota: q: must specify memory for: c; requests.cpu for: c"
            .to_owned())
    );
    // Nobody has counted yet: counted here.
    assert_eq!(
        charge(quota(json!({"pods": "1"}), json!({})), "pods", pod(small), None),
        Ok(json!({"pods": "1"}))
    );
    // Only growth is refused, and only growth beyond what there was.
    let claim = |size: &str| json!({"metadata": {"name": "c"}, "spec": {"resources": {"requests": {"storage": size}}}});
    let full = quota(json!({"requests.storage": "10Gi"}), json!({"requests.storage": "12Gi"}));
    assert_eq!(
        charge(full.clone(), "persistentvolumeclaims", claim("3Gi"), Some(claim("4Gi"))),
        Ok(json!({"requests.storage": "11Gi"}))
    );
    assert_eq!(
        charge(full.clone(), "persistentvolumeclaims", claim("4Gi"), Some(claim("4Gi"))),
        Ok(Value::Null)
    );
    let refused = charge(full, "persistentvolumeclaims", claim("5Gi"), Some(claim("4Gi"))).unwrap_err();
    assert!(
        refused.ends_with(
            "requested: requests.storage=1Gi, used: requests.storage=12Gi, limited: requests.storage=10Gi"
        ),
        "{refused}"
    );
}
