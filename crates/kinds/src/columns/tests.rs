//! Rows of a few objects, each as kubectl would print it.

use meta::Value;
use serde_json::json;

use super::*;
use crate::testing::object;

fn row(columns: &[Col], value: Value) -> String {
    let object = object(value);
    let now = "2024-01-01T00:10:00Z".parse().unwrap();
    let cells = columns.iter().map(|column| match (column.column().cell)(&object, now) {
        Value::String(text) => text,
        other => other.to_string(),
    });
    cells.collect::<Vec<_>>().join(" | ")
}

#[test]
fn services() {
    let ports = json!([{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]);
    let service = json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.43.0.9"], "ports": ports,
        "selector": {"a": "b"}}});
    assert_eq!(
        row(SERVICE, service),
        "LoadBalancer | 10.43.0.9 | <pending> | 80:30080/TCP,53/UDP | <unknown> | a=b"
    );
    let external = json!({"spec": {"type": "ExternalName", "externalName": "a.b"}});
    assert_eq!(row(SERVICE, external), "ExternalName | <none> | a.b | <none> | <unknown> | <none>");
}

#[test]
fn workloads() {
    let deployment = json!({
        "metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}}},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}
    });
    assert_eq!(row(DEPLOYMENT, deployment), "2/3 | 3 | 1 | 10m | c,d | i,j | a=b");
    let job = json!({"spec": {"completions": 2}, "status": {"succeeded": 1,
        "startTime": "2024-01-01T00:00:00Z", "conditions": [{"type": "Suspended", "status": "True"}]}});
    assert_eq!(row(JOB, job), "Suspended | 1/2 | 10m | <unknown> |  |  | <none>");
    let autoscaler = json!({"apiVersion": "autoscaling/v2", "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]}});
    assert_eq!(
        row(AUTOSCALER, autoscaler),
        "Deployment/d | cpu: <unknown>/80% | <unset> | 3 | 0 | <unknown>"
    );
}

#[test]
fn nodes_and_storage() {
    let node = json!({
        "metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "kernelVersion": "6.1", "architecture": "amd64"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}
    });
    assert_eq!(
        row(NODE, node),
        "Ready,SchedulingDisabled | control-plane | <unknown> | v1.36.0 | 10.0.0.1 | <none> | <unknown> | 6.1 \
         (amd64) | <unknown>"
    );
    let claim = json!({"spec": {"volumeName": "v", "storageClassName": "s", "volumeMode": "Filesystem"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}});
    assert_eq!(row(CLAIM, claim), "Bound | v | 1Gi | RWO,RWX | s | <unset> | <unknown> | Filesystem");
    let class = json!({"metadata": {"name": "s", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "p"});
    assert_eq!(row(CLASS, class), "s (default) | p | Delete | Immediate | false | <unknown>");
}

#[test]
fn events_in_both_shapes() {
    let rest = "Normal | Pulled | pod/p |  | kubelet, n | done | 10m | 2 | e";
    let core = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "message": " done\n",
        "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2024-01-01T00:00:00Z", "lastTimestamp": "2024-01-01T00:09:30Z", "count": 2});
    assert_eq!(row(EVENT, core), format!("30s | {rest}"));
    let new = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "note": "done",
        "regarding": {"kind": "Pod", "name": "p"}, "reportingController": "kubelet", "reportingInstance": "n",
        "eventTime": "2024-01-01T00:00:00.000000Z",
        "series": {"count": 2, "lastObservedTime": "2024-01-01T00:09:30.000000Z"}});
    assert_eq!(row(EVENT, new), format!("30s | {rest}"));
}

#[test]
fn endpoints_and_ingresses() {
    let ips: Vec<Value> = (1..=5).map(|n| json!({"ip": format!("10.0.0.{n}")})).collect();
    let endpoints = json!({"subsets": [{"addresses": ips, "ports": [{"port": 80}]}]});
    assert_eq!(row(ENDPOINTS, endpoints), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more... | <unknown>");
    let slice =
        json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.0.0.1"]}]});
    assert_eq!(row(ENDPOINT_SLICE, slice), "IPv4 | 80 | 10.0.0.1 | <unknown>");
    let ingress = json!({"spec": {"rules": [{"host": "a.b"}], "tls": [{}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}});
    assert_eq!(row(INGRESS, ingress), "<none> | a.b | 10.0.0.1 | 80, 443 | <unknown>");
}
