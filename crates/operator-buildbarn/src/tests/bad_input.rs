//! Bad input: each case with the message that says which field, and nothing made of it.

use super::*;

/// Edits the small farm, which must then say so.
async fn check<K: Component>(name: &str, spec: Value, reason: &str, wanted: &str) {
    let farm = Farm::new(FARM);
    farm.edit::<K>(name, spec.clone());
    farm.settle().await;
    let ready = farm.condition::<K>(name, "Ready");
    assert!(ready.starts_with(&format!("False {reason}: ")) && ready.contains(wanted), "{spec}: {ready}");
    let made = farm.list::<Deployment>().into_iter().chain(farm.list::<StatefulSet>());
    let kind = K::APP;
    assert!(
        made.into_iter().all(|object| object["metadata"]["labels"]["app"] != kind),
        "{spec}: something was made"
    );
}

#[tokio::test]
async fn workers() {
    let platform = |pairs: &[(&str, &str)]| -> Value {
        let list: Vec<Value> =
            pairs.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        json!({"platform": {"properties": list}})
    };
    let cases = [
        (
            platform(&[("b", "1"), ("a", "1")]),
            "InvalidSpec",
            "spec.platform.properties: must be sorted by name and value, a=1 comes before b=1",
        ),
        (platform(&[("a", "1"), ("a", "1")]), "InvalidSpec", "spec.platform.properties: a=1 is given twice"),
        (platform(&[("", "1")]), "InvalidSpec", "spec.platform.properties.0.name: must not be empty"),
        (json!({"instanceNamePrefix": "/a"}), "InvalidSpec", "spec.instanceNamePrefix: must have no leading"),
        (json!({"instanceNamePrefix": "a/blobs"}), "InvalidSpec", "component \"blobs\""),
        (json!({"replicas": 3}), "InvalidSpec", "spec.replicas: is decided by autoscaling"),
        (
            json!({"autoscaling": {"min": 5, "max": 2}}),
            "InvalidSpec",
            "spec.autoscaling.max: must not be less than min: 2 < 5",
        ),
        (json!({"concurrency": 0}), "InvalidSpec", "spec.concurrency: must be from 1 to 1024, is 0"),
        (
            json!({"schedulerRef": {"name": "other"}}),
            "ReferenceNotFound",
            "spec.schedulerRef.name: there is no BuildbarnScheduler \"other\"",
        ),
        (
            json!({"storageRef": {"name": "other"}}),
            "ReferenceNotFound",
            "spec.storageRef.name: there is no BuildbarnStorage \"other\"",
        ),
        (
            json!({"prefetching": true}),
            "InvalidSpec",
            "spec.prefetching: needs the FSAC of BuildbarnStorage \"storage\"",
        ),
        (
            json!({"runnerResources": {"limits": {"memory": "much"}}}),
            "InvalidSpec",
            "spec.runnerResources.limits.memory: \"much\" is not a quantity",
        ),
        (
            json!({"runners": [{"name": "a"}, {"name": "a"}]}),
            "InvalidSpec",
            "spec.runners.1.name: \"a\" is used twice",
        ),
        (
            json!({"runners": [{"name": "worker"}]}),
            "InvalidSpec",
            "spec.runners.0.name: \"worker\" is the name of another container",
        ),
        (
            json!({"configOverlay": {"worker": {"noSuchField": 1}}}),
            "InvalidConfiguration",
            "spec.configOverlay: worker-ubuntu22-04.jsonnet: noSuchField: unknown field",
        ),
        (
            json!({"configOverlay": {"other": {}}}),
            "InvalidConfiguration",
            "spec.configOverlay.other: there is no such file: use runner or worker",
        ),
        (
            json!({"configMapName": "mine"}),
            "ConfigMapNotFound",
            "spec.configMapName: there is no ConfigMap \"mine\"",
        ),
        (
            json!({"buildDirectory": {"cacheSize": "lots"}}),
            "InvalidSpec",
            "spec.buildDirectory.cacheSize: \"lots\" is not a quantity",
        ),
    ];
    for (spec, reason, wanted) in cases {
        check::<BuildbarnWorker>("ubuntu", spec, reason, wanted).await;
    }
}

#[tokio::test]
async fn storages() {
    let cases = [
        (json!({"cas": {"volumeSize": "1Gi", "size": "2Gi"}}), "spec.cas.size: 2Gi of blocks and"),
        (json!({"cas": {"volumeSize": "100Ki"}}), "spec.cas.volumeSize: "),
        (
            json!({"cas": {"currentBlocks": 90}}),
            "spec.cas: oldBlocks, currentBlocks, newBlocks and spareBlocks are 104 together",
        ),
        (json!({"ac": {"newBlocks": 3}}), "spec.ac.newBlocks: must be 1 for all stores but the CAS, is 3"),
        (json!({"ac": {"enabled": false}}), "spec.ac.enabled: every storage has one"),
        (
            json!({"ac": {"hierarchicalInstanceNames": true}}),
            "spec.ac.hierarchicalInstanceNames: is for the CAS only",
        ),
        (json!({"mirroring": {"enabled": true}, "replicas": 3}), "spec.replicas: must be even"),
        (json!({"shards": {"keys": ["a"]}}), "spec.shards.keys: 1 keys for 2 shards"),
        (json!({"shards": {"keys": ["a", "a"]}}), "spec.shards.keys.1: \"a\" must be unique"),
        (json!({"shards": {"weights": [1, 0]}}), "spec.shards.weights.1: must be greater than 0"),
        (json!({"resharding": {"strategy": "Drop"}}), "spec.resharding.strategy: Drop loses data"),
        (
            json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}),
            "spec.volumeClaimTemplates.0.metadata.name: must be that of a store",
        ),
    ];
    for (spec, wanted) in cases {
        check::<BuildbarnStorage>("storage", spec, "InvalidSpec", wanted).await;
    }
}

#[tokio::test]
async fn schedulers_frontends_and_browsers() {
    let scheduler = [
        (json!({"replicas": 2}), "InvalidSpec", "spec.replicas: must be from 0 to 1, is 2"),
        (
            json!({"execution": {"defaultTimeoutSeconds": 9000}}),
            "InvalidSpec",
            "spec.execution.defaultTimeoutSeconds: 9000 must not be greater than maximumTimeoutSeconds, 3600",
        ),
        (
            json!({"sizeClassAnalysis": {}}),
            "InvalidSpec",
            "spec.sizeClassAnalysis: needs the ISCC of BuildbarnStorage \"storage\": set its spec.iscc.enabled to true",
        ),
        (
            json!({"auth": {"execute": {"nobody": {}}}}),
            "InvalidSpec",
            "spec.auth.execute: nobody: unknown field",
        ),
        (
            json!({"buildQueueState": {"address": "http://scheduler:8984"}}),
            "InvalidSpec",
            "spec.buildQueueState.address: must be HOST:PORT",
        ),
        (
            json!({"auth": {"modifyDrains": {"deny": {}}}}),
            "InvalidSpec",
            "spec.auth.modifyDrains: must not be deny",
        ),
        (
            json!({"browserRef": {"name": "b"}}),
            "ReferenceNotFound",
            "spec.browserRef.name: there is no BuildbarnBrowser \"b\"",
        ),
        (
            json!({"configOverlay": {"executeAuthorizer": {"deny": {}}}}),
            "InvalidConfiguration",
            "spec.configOverlay: scheduler.jsonnet: executeAuthorizer: only one of allow, deny may be set",
        ),
        (
            json!({"predeclaredQueues": [{"platform": {"properties": [{"name": "b"}, {"name": "a"}]}}]}),
            "InvalidConfiguration",
            "must be sorted by name and value",
        ),
    ];
    for (spec, reason, wanted) in scheduler {
        check::<BuildbarnScheduler>("scheduler", spec, reason, wanted).await;
    }
    let frontend = [
        (
            json!({"cacheOnly": true, "schedulers": [{"address": "a:1"}]}),
            "InvalidSpec",
            "spec.schedulers: must be empty where cacheOnly is true",
        ),
        (
            json!({"schedulers": [{}]}),
            "InvalidSpec",
            "spec.schedulers.0: set one of schedulerRef and address",
        ),
        (
            json!({"schedulers": [{"schedulerRef": {"name": "x"}}]}),
            "ReferenceNotFound",
            "spec.schedulers.0.schedulerRef.name: there is no BuildbarnScheduler \"x\"",
        ),
        (
            json!({"externalHost": "grpc://bb.example.com"}),
            "InvalidSpec",
            "spec.externalHost: must be a host name or address",
        ),
        (
            json!({"serviceType": "Balancer"}),
            "InvalidSpec",
            "spec.serviceType: must be ClusterIP, NodePort or LoadBalancer",
        ),
        (
            json!({"auth": {"cas": {"put": {"allow": {}, "deny": {}}}}}),
            "InvalidSpec",
            "spec.auth.cas.put: .: only one of allow, deny may be set",
        ),
    ];
    for (spec, reason, wanted) in frontend {
        check::<BuildbarnFrontend>("frontend", spec, reason, wanted).await;
    }
    let browser = [
        (json!({"ingressHost": "Not A Host"}), "InvalidSpec", "spec.ingressHost: a lowercase"),
        (
            json!({"ingressHost": "a.b", "ingress": {"host": "a.b"}}),
            "InvalidSpec",
            "spec.ingressHost: is given by spec.ingress.host",
        ),
        (json!({"routePrefix": "x"}), "InvalidSpec", "spec.routePrefix: must begin and end with a slash"),
    ];
    for (spec, reason, wanted) in browser {
        check::<BuildbarnBrowser>("browser", spec, reason, wanted).await;
    }
}

/// Of two pools that would take each other's actions, the later by name says so, and neither loses its pods.
#[tokio::test]
async fn pools_that_overlap() {
    let farm = Farm::new(FARM);
    farm.run().await;
    let mut twin = farm.get::<BuildbarnWorker>("ubuntu").unwrap();
    twin["metadata"] = json!({"name": "zwilling", "namespace": "buildbarn"});
    twin.as_object_mut().unwrap().remove("status");
    farm.storage.api.put(&twin);
    farm.run().await;
    let ready = farm.condition::<BuildbarnWorker>("zwilling", "Ready");
    assert!(ready.contains("spec.platform: overlaps with BuildbarnWorker \"ubuntu\""), "{ready}");
    farm.edit::<BuildbarnWorker>("zwilling", json!({"sizeClass": 4}));
    farm.run().await;
    let ready = farm.condition::<BuildbarnWorker>("zwilling", "Ready");
    assert!(
        ready.contains("spec.sizeClass: must be greater than 0 here and in BuildbarnWorker \"ubuntu\""),
        "{ready}"
    );
    assert!(farm.condition::<BuildbarnWorker>("ubuntu", "Ready").starts_with("True"));
}

/// A spec that goes bad leaves what runs untouched.
#[tokio::test]
async fn a_bad_edit_leaves_running_pods_alone() {
    let farm = Farm::new(FARM);
    farm.run().await;
    let (sets, deployments, pods) =
        (farm.list::<StatefulSet>(), farm.list::<Deployment>(), farm.list::<Pod>());
    farm.edit::<BuildbarnStorage>("storage", json!({"replicas": 999}));
    farm.edit::<BuildbarnScheduler>("scheduler", json!({"replicas": 2}));
    farm.edit::<BuildbarnWorker>("ubuntu", json!({"concurrency": 0}));
    farm.run().await;
    assert_eq!(
        (farm.list::<StatefulSet>(), farm.list::<Deployment>(), farm.list::<Pod>()),
        (sets, deployments, pods)
    );
}
