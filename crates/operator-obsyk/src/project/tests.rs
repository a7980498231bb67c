//! Golden objects: what goes in, what the platform gets. Each row is a line of the contract.

use serde_json::{Value, json};

use super::*;

/// Projects `object` with metadata filled in, and compares all but the block that all kinds have.
fn check(kind: Kind, mut object: Value, expected: Value) {
    let meta = object.as_object_mut().unwrap().entry("metadata").or_insert(json!({}));
    for (key, value) in
        [("uid", "u"), ("name", "n"), ("resourceVersion", "7"), ("creationTimestamp", "2026-01-02T03:04:05Z")]
    {
        meta.as_object_mut().unwrap().entry(key).or_insert(json!(value));
    }
    let mut wanted = json!({"uid": "u", "name": "n", "k8s_created_at": "2026-01-02T03:04:05Z"});
    if kind.is_namespaced() {
        meta.as_object_mut().unwrap().insert("namespace".into(), json!("ns"));
        wanted["namespace"] = json!("ns");
    }
    wanted.as_object_mut().unwrap().extend(expected.as_object().unwrap().clone());
    let projected = Projected::decode(kind, &serde_json::to_vec(&object).unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&projected.body).unwrap(), wanted, "{}", kind.name());
    assert_eq!((&*projected.id.uid, &*projected.name, projected.revision), ("u", "n", 7));
}

#[test]
fn pods() {
    check(Kind::Pod, json!({"spec": {"containers": null}}), json!({}));
    check(
        Kind::Pod,
        json!({
            "spec": {
                "nodeName": "node-0", "serviceAccountName": "sa", "priorityClassName": "high",
                "securityContext": {"runAsUser": 0},
                "containers": [
                    {"name": "a", "image": "i:1", "command": ["secret-command"],
                     "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"cpu": 2}},
                     "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 81, "name": "x"}],
                     "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}, {"name": "w", "mountPath": "/w"}],
                     "env": [{"name": "Z", "value": "secret-value"}, {"name": "A", "valueFrom": {"fieldRef": {}}}],
                     "securityContext": {}},
                    {"name": "b", "image": "i:2"}
                ],
                "initContainers": [{"name": "c", "image": "i:3",
                    "securityContext": {"privileged": false, "runAsUser": 1000, "runAsNonRoot": false,
                        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}}],
                "ephemeralContainers": [{"name": "d", "image": "i:4"}]
            },
            "status": {
                "phase": "Running", "qosClass": "Burstable", "hostIP": "10.0.0.1", "podIP": "10.42.0.2",
                "podIPs": [{"ip": "10.42.0.2"}],
                "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null}, {"type": "Custom", "status": "False"}],
                "containerStatuses": [{"name": "b", "ready": true, "restartCount": 3, "state": {"running": {}}}],
                "initContainerStatuses": [{"name": "c", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 0}}}]
            }
        }),
        json!({
            "node_name": "node-0", "service_account": "sa", "priority_class_name": "high", "phase": "Running",
            "qos_class": "Burstable", "host_ip": "10.0.0.1", "pod_ip": "10.42.0.2",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Custom", "status": "False"}],
            "containers": [
                {"name": "a", "image": "i:1", "ready": false, "restart_count": 0,
                 "resources": {"cpu_request": "500m", "memory_request": "1Gi", "cpu_limit": "2"},
                 "ports": [{"container_port": 80, "protocol": "TCP"}, {"container_port": 81, "name": "x"}],
                 "volume_mounts": [{"name": "v", "mount_path": "/v", "read_only": true},
                                   {"name": "w", "mount_path": "/w", "read_only": false}],
                 "env_var_names": ["Z", "A"], "security_context": {}},
                {"name": "b", "image": "i:2", "state": "running", "ready": true, "restart_count": 3, "resources": {}}
            ],
            "init_containers": [{"name": "c", "image": "i:3", "state": "terminated", "ready": false,
                "restart_count": 0, "resources": {},
                "security_context": {"privileged": false, "run_as_root": true, "capabilities": ["NET_ADMIN"]}}]
        }),
    );
}

#[test]
fn volumes_take_their_first_source() {
    let row = |volume: Value, kind: &str, source: Value| {
        let mut named = volume;
        named["name"] = json!("v");
        let mut wanted = json!({"name": "v", "type": kind});
        if !source.is_null() {
            wanted["source"] = source;
        }
        check(Kind::Pod, json!({"spec": {"volumes": [named]}}), json!({"volumes": [wanted]}));
    };
    row(json!({"emptyDir": {}}), "emptyDir", Value::Null);
    row(json!({"configMap": {"name": "m"}}), "configMap", json!("m"));
    row(json!({"secret": {"secretName": "s"}}), "secret", json!("s"));
    row(json!({"persistentVolumeClaim": {"claimName": "c"}}), "pvc", json!("c"));
    row(json!({"hostPath": {"path": "/p"}}), "hostPath", json!("/p"));
    row(json!({"projected": {"sources": []}}), "projected", Value::Null);
    row(json!({"downwardAPI": {}}), "downwardAPI", Value::Null);
    row(json!({"csi": {"driver": "d.example"}}), "csi", json!("d.example"));
    row(json!({"nfs": {"server": "h", "path": "/x"}}), "nfs", json!("h:/x"));
    row(json!({"ephemeral": {}}), "ephemeral", Value::Null);
    row(json!({"iscsi": {}}), "unknown", Value::Null);
}

#[test]
fn workloads() {
    let template = json!({"spec": {"nodeSelector": {"d": "ssd"}, "containers": [{"image": "first"}, {"image": "second"}]}});
    let selector =
        json!({"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "k", "operator": "Exists"}]});
    check(
        Kind::Deployment,
        json!({}),
        json!({"replicas": 1, "ready_replicas": 0, "available_replicas": 0, "updated_replicas": 0}),
    );
    check(
        Kind::Deployment,
        json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}, "selector": selector, "template": template},
            "status": {"readyReplicas": 1, "availableReplicas": 2, "updatedReplicas": 3}}),
        json!({"replicas": 0, "ready_replicas": 1, "available_replicas": 2, "updated_replicas": 3, "strategy": "Recreate",
            "selector": {"app": "a"}, "image": "first"}),
    );
    check(
        Kind::StatefulSet,
        json!({"spec": {"updateStrategy": {"type": "OnDelete"}, "serviceName": "s", "selector": selector, "template": template},
            "status": {"readyReplicas": 1, "currentReplicas": 2}}),
        json!({"replicas": 1, "ready_replicas": 1, "current_replicas": 2, "update_strategy": "OnDelete", "service_name": "s",
            "selector": {"app": "a"}, "image": "first"}),
    );
    check(
        Kind::DaemonSet,
        json!({"spec": {"selector": selector, "template": template},
            "status": {"desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberReady": 2, "numberAvailable": 1}}),
        json!({"desired_number_scheduled": 4, "current_number_scheduled": 3, "number_ready": 2, "number_available": 1,
            "selector": {"app": "a"}, "node_selector": {"d": "ssd"}, "image": "first"}),
    );
    check(
        Kind::Job,
        json!({"metadata": {"ownerReferences": [{"kind": "Other", "name": "o"}, {"kind": "CronJob", "name": "c"}]},
            "spec": {"completions": 2}, "status": {"succeeded": 1, "startTime": "2026-01-01T00:00:00Z", "completionTime": null}}),
        json!({"completions": 2, "parallelism": 1, "succeeded": 1, "failed": 0, "active": 0,
            "start_time": "2026-01-01T00:00:00Z", "owner_ref": "c"}),
    );
    check(
        Kind::CronJob,
        json!({"spec": {"schedule": "* * * * *", "concurrencyPolicy": "Forbid"},
            "status": {"active": [{}, {}], "lastScheduleTime": "2026-01-01T00:00:00Z"}}),
        json!({"schedule": "* * * * *", "suspend": false, "concurrency_policy": "Forbid", "active_jobs": 2,
            "last_schedule_time": "2026-01-01T00:00:00Z"}),
    );
}

#[test]
fn network() {
    check(
        Kind::Service,
        json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "selector": {"a": "b"}, "externalIPs": ["1.2.3.4"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web", "nodePort": 30000},
                      {"protocol": "UDP", "port": 53, "targetPort": 5353}, {"protocol": "TCP", "port": 1}]}}),
        json!({"service_type": "ClusterIP", "cluster_ip": "None", "selector": {"a": "b"},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web"},
                      {"protocol": "UDP", "port": 53, "targetPort": "5353"},
                      {"protocol": "TCP", "port": 1, "targetPort": "0"}]}),
    );
    check(
        Kind::Ingress,
        json!({"spec": {"ingressClassName": "c", "defaultBackend": {"service": {"name": "d"}},
            "tls": [{"hosts": ["h"], "secretName": "s"}, {}],
            "rules": [{"host": "h", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}},
                {"pathType": "Exact", "backend": {"service": {"name": "t", "port": {"name": "web"}}}},
                {"path": "/r", "backend": {"resource": {"kind": "K", "name": "r"}}}]}}, {}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1", "hostname": "x"}, {"hostname": "y"}, {}]}}}),
        json!({"ingress_class_name": "c", "tls": [{"hosts": ["h"], "secret_name": "s"}, {}],
            "rules": [{"host": "h", "paths": [
                {"path": "/", "path_type": "Prefix", "service_name": "s", "service_port": 80},
                {"path_type": "Exact", "service_name": "t"}, {"path": "/r"}]}, {}],
            "load_balancer_ips": ["1.1.1.1", "y"]}),
    );
    check(
        Kind::NetworkPolicy,
        json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"], "ingress": [{}, {}]}}),
        json!({"pod_selector": {"a": "b"}, "policy_types": ["Ingress"], "ingress_rules": 2, "egress_rules": 0}),
    );
}

#[test]
fn nodes() {
    check(
        Kind::Node,
        json!({}),
        json!({"status": "NotReady", "cpu_capacity": "0", "memory_capacity": "0", "pod_capacity": "0"}),
    );
    let labels = json!({"node-role.kubernetes.io/master": "", "node-role.kubernetes.io/control-plane": "",
        "node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/": ""});
    check(
        Kind::Node,
        json!({"metadata": {"labels": labels}, "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1", "containerRuntimeVersion": "c", "osImage": "o", "architecture": "amd64"},
            "capacity": {"cpu": "4", "memory": "16384Mi", "pods": 110}}}),
        json!({"labels": labels, "status": "Ready", "roles": ["control-plane", "worker"], "kubelet_version": "v1",
            "container_runtime": "c", "os_image": "o", "architecture": "amd64",
            "cpu_capacity": "4", "memory_capacity": "16Gi", "pod_capacity": "110"}),
    );
}

#[test]
fn configuration_and_storage() {
    check(Kind::Namespace, json!({"status": {"phase": "Active"}}), json!({"phase": "Active"}));
    check(
        Kind::ConfigMap,
        json!({"binaryData": {"z": "AA==", "a": "AA=="}, "immutable": true}),
        json!({"binary_keys": ["a", "z"], "immutable": true}),
    );
    check(
        Kind::Secret,
        json!({"type": "Opaque", "data": {"password": "CANARY", "a": null}}),
        json!({"type": "Opaque", "data_keys": ["a", "password"], "immutable": false}),
    );
    check(
        Kind::PersistentVolumeClaim,
        json!({"spec": {"storageClassName": "s", "volumeName": "v", "volumeMode": "Block",
            "accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1024Mi"}}}, "status": {"phase": "Bound"}}),
        json!({"storage_class_name": "s", "volume_name": "v", "volume_mode": "Block", "phase": "Bound",
            "access_modes": ["ReadWriteOncePod"], "storage_request": "1Gi"}),
    );
    check(
        Kind::ServiceAccount,
        json!({"secrets": [{"name": "s"}], "imagePullSecrets": [{"name": "i"}], "automountServiceAccountToken": false}),
        json!({"secrets": ["s"], "image_pull_secrets": ["i"], "automount_service_account_token": false}),
    );
    check(Kind::ServiceAccount, json!({}), json!({}));
}

#[test]
fn access() {
    check(Kind::Role, json!({"rules": null}), json!({"is_cluster": false, "rule_count": 0, "resources": []}));
    check(
        Kind::ClusterRole,
        json!({"rules": [{"resources": ["pods", "nodes"], "verbs": ["get"]}, {"nonResourceURLs": ["/x"]}, {"resources": ["pods"]}]}),
        json!({"is_cluster": true, "rule_count": 3, "resources": ["nodes", "pods"]}),
    );
    let binding = json!({"roleRef": {"apiGroup": "g", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "apiGroup": "g", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]});
    let sent = |is_cluster: bool| {
        json!({"is_cluster": is_cluster, "role_ref": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]})
    };
    check(Kind::RoleBinding, binding.clone(), sent(false));
    check(Kind::ClusterRoleBinding, binding, sent(true));
}

#[test]
fn events() {
    check(
        Kind::Event,
        json!({"metadata": {"labels": {"l": "v"}, "annotations": {"a": "b"}}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "ns", "uid": "x", "apiVersion": "v1"},
            "reportingComponent": "k", "firstTimestamp": null}),
        json!({"type": "", "reason": "", "message": "", "count": 0, "source": {},
            "involved_object": {"kind": "Pod", "name": "p", "namespace": "ns", "uid": "x"}}),
    );
    check(
        Kind::Event,
        json!({"type": "Normal", "reason": "R", "message": "m", "count": 3, "source": {"component": "c", "host": "h"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z"}),
        json!({"type": "Normal", "reason": "R", "message": "m", "count": 3, "source": {"component": "c", "host": "h"},
            "first_timestamp": "2026-01-01T00:00:00Z", "last_timestamp": "2026-01-01T00:00:01Z",
            "involved_object": {"kind": "", "name": ""}}),
    );
}

#[test]
fn annotations_are_filtered_by_literal_prefix() {
    let annotate = |annotations: Value| json!({"metadata": {"annotations": annotations}});
    check(
        Kind::Namespace,
        annotate(json!({"kubernetes.io/x": "1", "kubectl.kubernetes.io/last-applied-configuration": "2"})),
        json!({}),
    );
    let kept = json!({"app.kubernetes.io/name": "a", "deployment.kubernetes.io/revision": "3"});
    check(Kind::Namespace, annotate(kept.clone()), json!({"annotations": kept}));
}

#[test]
fn a_copy_of_a_secret_in_an_annotation_stays_here() {
    let annotations = json!({
        "kapp.k14s.io/original": "x",
        "tool.example/manifest": "{\"kind\":\"Secret\",\"stringData\":{\"p\":\"CANARY\"}}",
        "tool.example/yaml": "data:\n  p: CANARY\n",
        "tool.example/packed": "H4sIAAAAAAAA",
        "tool.example/owner": "team-a",
    });
    check(
        Kind::Secret,
        json!({"metadata": {"annotations": annotations}}),
        json!({"immutable": false, "annotations": {"tool.example/owner": "team-a"}}),
    );
    // Of Secrets and ConfigMaps, any annotation that holds one of their own values.
    let annotations = json!({
        "tool.example/url": "postgres://me:hunter2@db/app", "tool.example/packed": "aHVudGVyMg==",
        "tool.example/owner": "team-a"});
    let kept = json!({"tool.example/owner": "team-a"});
    let metadata = json!({"annotations": annotations});
    check(
        Kind::Secret,
        json!({"metadata": metadata, "data": {"k": "aHVudGVyMg=="}}),
        json!({"immutable": false, "data_keys": ["k"], "annotations": kept}),
    );
    check(
        Kind::ConfigMap,
        json!({"metadata": metadata, "data": {"k": "hunter2\n"}, "binaryData": {"b": "AAECAwQF"}}),
        json!({"immutable": false, "data_keys": ["k"], "binary_keys": ["b"], "annotations": kept}),
    );
    check(Kind::Pod, json!({"metadata": metadata}), json!({"annotations": annotations}));
}

#[test]
fn equal_content_is_equal_bytes_whatever_the_order() {
    let of = |text: &str| Projected::decode(Kind::ConfigMap, text.as_bytes()).unwrap();
    let one = of(
        r#"{"data":{"b":"1","a":"2"},"metadata":{"uid":"u","name":"n","resourceVersion":"1","managedFields":[{}]}}"#,
    );
    let two =
        of(r#"{"metadata":{"name":"n","resourceVersion":"2","uid":"u"},"data":{"a":"other","b":"values"}}"#);
    assert_eq!((one.hash, &one.body), (two.hash, &two.body));
    assert!(one.revision < two.revision);
    let created: Value = serde_json::from_slice(&one.body).unwrap();
    assert_eq!(created["k8s_created_at"], "0001-01-01T00:00:00Z");
}
