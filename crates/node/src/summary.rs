//! The summary API of a kubelet (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`), both ways: the agent writes it, and
//! whoever shows what nodes use reads it, of this agent or of upstream's kubelet.
//!
//! Written is what is measured here: CPU time, working sets, writable layers, the node's memory, disk and processes.

use k8s_openapi::api::core::v1::Pod;
use meta::{Timestamp, Value};
use runtime::stats::ContainerStats;
use serde_json::json;

use crate::{node::Measured, pod};

/// What a node said, as far as it matters for what it uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// When the machine was measured.
    pub at: Timestamp,
    /// CPU time and memory of the machine; the rest is not filled.
    pub measured: Measured,
    /// Containers of pods. They have no ids here: a pod's containers are told apart by their names.
    pub containers: Vec<ContainerStats>,
    /// Pods, with name, namespace and UID.
    pub pods: Vec<Pod>,
}

/// The answer of a node.
pub(crate) fn write(
    node: &str,
    at: Timestamp,
    measured: &Measured,
    containers: &[ContainerStats],
    pods: &[impl AsRef<Pod>],
) -> Value {
    let now = meta::format_second(at);
    let pods: Vec<Value> = pods
        .iter()
        .map(|of| {
            let of = of.as_ref();
            let own = containers.iter().filter(|container| container.pod_uid == pod::uid(of));
            json!({
                "podRef": { "name": pod::name(of), "namespace": pod::namespace(of), "uid": pod::uid(of) },
                "startTime": of.status.as_ref().and_then(|status| status.start_time.clone()),
                "containers": own.map(container_json).collect::<Vec<Value>>(),
            })
        })
        .collect();
    let used = measured.memory_bytes.saturating_sub(measured.memory_available_bytes);
    json!({
        "node": {
            "nodeName": node,
            "cpu": { "time": at.to_string(), "usageCoreNanoSeconds": measured.cpu_nanoseconds },
            "memory": { "time": now, "availableBytes": measured.memory_available_bytes, "workingSetBytes": used },
            "fs": {
                "time": now,
                "availableBytes": measured.disk_available_bytes,
                "capacityBytes": measured.disk_bytes,
                "inodes": measured.inodes,
                "inodesFree": measured.inodes_free,
            },
            "rlimit": { "time": now, "maxpid": measured.pids_max, "curproc": measured.pids },
        },
        "pods": pods,
    })
}

fn container_json(container: &ContainerStats) -> Value {
    let time = meta::format_second(container.at);
    json!({
        "name": container.name,
        "cpu": { "time": container.at.to_string(), "usageCoreNanoSeconds": container.cpu_nanoseconds },
        "memory": { "time": time, "workingSetBytes": container.memory_working_set_bytes },
        "rootfs": { "time": time, "usedBytes": container.writable_layer_bytes },
    })
}

impl Summary {
    /// Reads an answer. `None`: it has no time and memory of the machine, so it is none. Containers and pods without
    /// what is needed of them are left out.
    pub fn read(answer: &Value) -> Option<Self> {
        let node = answer.get("node")?;
        let available = number(node, "/memory/availableBytes").unwrap_or(0);
        let measured = Measured {
            cpu_nanoseconds: number(node, "/cpu/usageCoreNanoSeconds").unwrap_or(0),
            memory_bytes: available.saturating_add(number(node, "/memory/workingSetBytes")?),
            memory_available_bytes: available,
            ..Measured::default()
        };
        let at = time(node, "/cpu/time").or_else(|| time(node, "/memory/time"))?;
        let (mut containers, mut pods) = (Vec::new(), Vec::new());
        for of in answer.get("pods").and_then(Value::as_array).into_iter().flatten() {
            let text = |path: &str| of.pointer(path).and_then(Value::as_str).map(ToOwned::to_owned);
            let Some(uid) = text("/podRef/uid") else { continue };
            let own = of.get("containers").and_then(Value::as_array).into_iter().flatten();
            containers.extend(own.filter_map(|container| container_of(&uid, container)));
            let mut pod = Pod::default();
            pod.metadata.name = text("/podRef/name");
            pod.metadata.namespace = text("/podRef/namespace");
            pod.metadata.uid = Some(uid);
            pods.push(pod);
        }
        Some(Self { at, measured, containers, pods })
    }
}

fn container_of(pod_uid: &str, container: &Value) -> Option<ContainerStats> {
    let name = container.get("name")?.as_str()?;
    Some(ContainerStats {
        id: format!("{pod_uid}/{name}"),
        name: name.to_owned(),
        pod_uid: pod_uid.to_owned(),
        at: time(container, "/cpu/time")?,
        cpu_nanoseconds: number(container, "/cpu/usageCoreNanoSeconds")?,
        memory_working_set_bytes: number(container, "/memory/workingSetBytes")?,
        writable_layer_bytes: number(container, "/rootfs/usedBytes").unwrap_or(0),
    })
}

fn number(value: &Value, path: &str) -> Option<u64> {
    value.pointer(path)?.as_u64()
}

fn time(value: &Value, path: &str) -> Option<Timestamp> {
    value.pointer(path)?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let at: Timestamp = "2026-01-01T00:00:00.25Z".parse().unwrap();
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".to_owned());
        pod.metadata.namespace = Some("ns".to_owned());
        pod.metadata.uid = Some("uid".to_owned());
        let container = ContainerStats {
            id: "uid/main".to_owned(),
            name: "main".to_owned(),
            pod_uid: "uid".to_owned(),
            at,
            cpu_nanoseconds: 7,
            memory_working_set_bytes: 4096,
            writable_layer_bytes: 9,
        };
        let measured = Measured {
            cpu_nanoseconds: 5,
            memory_bytes: 100,
            memory_available_bytes: 40,
            ..Measured::default()
        };
        let written = write("n", at, &measured, std::slice::from_ref(&container), &[Arc::new(pod.clone())]);
        assert_eq!(written.pointer("/node/nodeName"), Some(&json!("n")));
        let read = Summary::read(&written).unwrap();
        assert_eq!(read, Summary { at, measured, containers: vec![container], pods: vec![pod] });
    }

    #[test]
    fn what_is_no_summary_is_none_and_half_a_pod_is_left_out() {
        for bad in [
            json!({}),
            json!([1]),
            json!({"node": {"memory": {}}}),
            json!({"node": {"memory": {"workingSetBytes": 1}}}),
        ] {
            assert_eq!(Summary::read(&bad), None, "{bad}");
        }
        let time = "2026-01-01T00:00:00Z";
        let node = json!({"memory": {"time": time, "workingSetBytes": 1}});
        let pods = json!([{"podRef": {"name": "p"}}, {"podRef": {"uid": "u"}, "containers": [{"name": "c", "cpu": {"time": time}}]}, 7]);
        let read = Summary::read(&json!({"node": node, "pods": pods})).unwrap();
        assert_eq!((read.pods.len(), read.containers.len()), (1, 0));
        let endless = json!({"time": time, "workingSetBytes": u64::MAX, "availableBytes": u64::MAX});
        let read = Summary::read(&json!({"node": {"memory": endless}})).unwrap();
        assert_eq!(read.measured.memory_bytes, u64::MAX);
    }
}
