//! What nodes and pods use: samples that agents put on a [`Board`], and the objects of the resource
//! metrics API (`metrics.k8s.io/v1beta1`) that the newest samples make.
//!
//! Guarantees: CPU is a rate between two samples of one container; a pod is shown once all its running
//! containers have one; a node that no longer reports is no longer shown. Bounded by nodes and pods.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use meta::{Object, Timestamp, Value};
use runtime::stats::ContainerStats;
use serde_json::json;

use crate::{node::Measured, pod};

/// Between two samples (metrics-server `--metric-resolution`).
pub const SAMPLE_EVERY: Duration = Duration::from_secs(15);
/// A report older than four samples is of a node that is gone.
const OLD_S: i64 = 60;

/// CPU and memory in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU, billionths of a core.
    pub cpu_nanocores: u64,
    /// Working set.
    pub memory_bytes: u64,
}

/// The use of one pod's containers.
#[derive(Clone, Debug, PartialEq)]
pub struct PodUsage {
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels: selectors of the metrics API go by them.
    pub labels: BTreeMap<String, String>,
    /// By container.
    pub containers: Vec<(String, Usage)>,
}

/// What one node measured last.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// When.
    pub at: Timestamp,
    /// Over which time CPU was measured.
    pub window: Duration,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// The whole machine.
    pub node: Usage,
    /// Its pods.
    pub pods: Vec<PodUsage>,
}

/// The newest report of each node.
#[derive(Debug, Default)]
pub struct Board(Mutex<Reports>);

#[derive(Debug, Default)]
struct Reports {
    /// Of the nodes of this process.
    own: BTreeMap<String, Report>,
    /// Of nodes elsewhere, which were asked.
    asked: BTreeMap<String, Report>,
    /// How often something has changed.
    changes: u64,
}

impl Reports {
    /// A node is shown by what it says by itself, if it does.
    fn shown(&self) -> impl Iterator<Item = (&String, &Report)> {
        let asked = self.asked.iter().filter(|(node, _)| !self.own.contains_key(*node));
        self.own.iter().chain(asked)
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Reports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the report of a node of this process.
    pub fn put(&self, node: &str, report: Report) {
        let mut reports = self.lock();
        reports.changes += 1;
        reports.own.insert(node.to_owned(), report);
    }

    /// Replaces the report of a node that was asked. It is not shown while the node reports by itself.
    pub fn put_asked(&self, node: &str, report: Report) {
        let mut reports = self.lock();
        reports.changes += 1;
        reports.asked.insert(node.to_owned(), report);
    }

    /// Whether the node reports by itself.
    pub fn reports(&self, node: &str) -> bool {
        self.lock().own.contains_key(node)
    }

    /// Forgets reports of nodes that report no more. Gives another number whenever the objects are others.
    pub fn version(&self, now: Timestamp) -> u64 {
        let mut reports = self.lock();
        let Reports { own, asked, changes } = &mut *reports;
        let is_new = |report: &Report| now.as_second() - report.at.as_second() <= OLD_S;
        let before = own.len() + asked.len();
        own.retain(|_, report| is_new(report));
        asked.retain(|_, report| is_new(report));
        *changes += u64::from(own.len() + asked.len() != before);
        *changes
    }

    /// Gives the NodeMetrics of the nodes that report.
    pub fn nodes(&self, take: &mut dyn FnMut(&Object)) {
        for (name, report) in self.lock().shown() {
            let metadata = json!({ "name": name, "labels": report.labels });
            let mut object = object("NodeMetrics", metadata, report);
            object.set(&["usage"], usage(report.node));
            take(&object);
        }
    }

    /// Gives the PodMetrics of their pods.
    pub fn pods(&self, take: &mut dyn FnMut(&Object)) {
        let reports = self.lock();
        let pods = reports.shown().flat_map(|(_, report)| report.pods.iter().map(move |pod| (report, pod)));
        for (report, pod) in pods {
            let PodUsage { namespace, name, labels, containers } = pod;
            let metadata = json!({ "name": name, "namespace": namespace, "labels": labels });
            let mut object = object("PodMetrics", metadata, report);
            let one = |(name, used): &(String, Usage)| json!({ "name": name, "usage": usage(*used) });
            object.set(&["containers"], containers.iter().map(one).collect::<Vec<Value>>());
            take(&object);
        }
    }
}

fn object(kind: &str, mut metadata: Value, report: &Report) -> Object {
    let at = meta::format_second(report.at);
    if let Some(fields) = metadata.as_object_mut() {
        fields.insert("creationTimestamp".to_owned(), json!(at));
    }
    let window = format!("{:.3}s", report.window.as_secs_f64());
    let value = json!({
        "apiVersion": "metrics.k8s.io/v1beta1", "kind": kind, "metadata": metadata,
        "timestamp": at, "window": window,
    });
    Object::from_value(value).unwrap_or_default()
}

fn usage(used: Usage) -> Value {
    let Usage { cpu_nanocores, memory_bytes } = used;
    json!({ "cpu": format!("{cpu_nanocores}n"), "memory": format!("{}Ki", memory_bytes.div_ceil(1024)) })
}

/// Makes rates of counters.
#[derive(Debug, Default)]
pub struct Sampler {
    containers: HashMap<String, (Timestamp, u64)>,
    machine: Option<(Timestamp, u64)>,
}

impl Sampler {
    /// The report that follows from a sample; `None` before the second one.
    pub fn sample(
        &mut self,
        at: Timestamp,
        measured: &Measured,
        stats: &[ContainerStats],
        pods: &[impl AsRef<Pod>],
        labels: BTreeMap<String, String>,
    ) -> Option<Report> {
        let mut of_pod: HashMap<&str, Option<Vec<(String, Usage)>>> = HashMap::new();
        let mut containers = HashMap::with_capacity(stats.len());
        let mut sum = Usage::default();
        for container in stats {
            let before = self.containers.get(&container.id);
            let rate = before.and_then(|before| rate(*before, (container.at, container.cpu_nanoseconds)));
            containers.insert(container.id.clone(), (container.at, container.cpu_nanoseconds));
            let used = rate.map(|cpu_nanocores| Usage {
                cpu_nanocores,
                memory_bytes: container.memory_working_set_bytes,
            });
            sum.cpu_nanocores += used.map_or(0, |used| used.cpu_nanocores);
            sum.memory_bytes += container.memory_working_set_bytes;
            let own = of_pod.entry(&container.pod_uid).or_insert_with(|| Some(Vec::new()));
            match (own.as_mut(), used) {
                (Some(list), Some(used)) => list.push((container.name.clone(), used)),
                (_, None) => *own = None,
                (None, Some(_)) => {}
            }
        }
        self.containers = containers;
        let now = (at, measured.cpu_nanoseconds);
        let before = self.machine.replace(now)?;
        let window =
            Duration::try_from(at.duration_since(before.0)).ok().filter(|window| !window.is_zero())?;
        let node = match measured.cpu_nanoseconds {
            // A machine without processes of its own uses what its pods use.
            0 => sum,
            _ => Usage {
                cpu_nanocores: rate(before, now)?,
                memory_bytes: measured.memory_bytes.saturating_sub(measured.memory_available_bytes),
            },
        };
        let shown = pods.iter().filter_map(|pod| {
            let pod = pod.as_ref();
            let mut containers = of_pod.remove(pod::uid(pod)).flatten()?;
            containers.sort_by(|a, b| a.0.cmp(&b.0));
            Some(PodUsage {
                namespace: pod::namespace(pod).to_owned(),
                name: pod::name(pod).to_owned(),
                labels: pod.metadata.labels.clone().unwrap_or_default(),
                containers,
            })
        });
        let mut shown: Vec<PodUsage> = shown.collect();
        shown.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Some(Report { at, window, labels, node, pods: shown })
    }
}

/// Billionths of a core between two readings of nanoseconds; `None` when the clock or counter stood still
/// or went back.
fn rate(before: (Timestamp, u64), now: (Timestamp, u64)) -> Option<u64> {
    let time = u128::try_from(now.0.duration_since(before.0).as_nanos()).ok().filter(|time| *time > 0)?;
    let used = u128::from(now.1.checked_sub(before.1)?);
    u64::try_from(used.saturating_mul(1_000_000_000) / time).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn stats(second: i64, id: &str, cpu_seconds: u64) -> ContainerStats {
        ContainerStats {
            id: id.to_owned(),
            name: "main".to_owned(),
            pod_uid: "uid".to_owned(),
            at: at(second),
            cpu_nanoseconds: cpu_seconds * 1_000_000_000,
            memory_working_set_bytes: 2048,
            writable_layer_bytes: 0,
        }
    }

    fn pods() -> [Arc<Pod>; 1] {
        let pod =
            json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "uid", "labels": { "a": "b" } } });
        [Arc::new(serde_json::from_value(pod).unwrap())]
    }

    #[test]
    fn a_rate_needs_two_samples_of_one_container() {
        let (mut sampler, machine) = (Sampler::default(), Measured::default());
        let mut sample = |second, id: &str, cpu| {
            let stats = [stats(second, id, cpu)];
            sampler.sample(at(second), &machine, &stats, &pods(), BTreeMap::new())
        };
        assert_eq!(sample(0, "c1", 1), None);
        let report = sample(10, "c1", 6).unwrap();
        let half = Usage { cpu_nanocores: 500_000_000, memory_bytes: 2048 };
        assert_eq!((report.node, report.window), (half, Duration::from_secs(10)));
        assert_eq!(report.pods[0].containers, [("main".to_owned(), half)]);
        assert_eq!(sample(20, "c2", 0).unwrap().pods, [], "a new container has one sample");
    }

    #[test]
    fn a_machine_is_measured_as_a_whole_where_it_can_be() {
        let mut sampler = Sampler::default();
        let mut sample = |second, cpu_seconds: u64| {
            let machine = Measured {
                cpu_nanoseconds: cpu_seconds * 1_000_000_000,
                memory_bytes: 100,
                memory_available_bytes: 40,
                ..Measured::default()
            };
            sampler.sample(at(second), &machine, &[], &pods(), BTreeMap::new())
        };
        sample(0, 100);
        let used = sample(10, 120).unwrap().node;
        assert_eq!(used, Usage { cpu_nanocores: 2_000_000_000, memory_bytes: 60 });
    }

    #[test]
    fn objects_are_those_of_the_metrics_api() {
        let board = Board::default();
        let used = Usage { cpu_nanocores: 250_000_000, memory_bytes: 1 << 20 };
        let pod = PodUsage {
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            containers: vec![("main".to_owned(), used)],
        };
        let window = Duration::from_secs(15);
        let report = Report { at: at(0), window, labels: BTreeMap::new(), node: used, pods: vec![pod] };
        board.put_asked("n", Report { node: Usage::default(), pods: Vec::new(), ..report.clone() });
        board.put("n", report);
        let objects = |board: &Board| {
            let (mut nodes, mut pods) = (Vec::new(), Vec::new());
            board.nodes(&mut |object| nodes.push(object.clone()));
            board.pods(&mut |object| pods.push(object.clone()));
            (nodes, pods)
        };
        let version = board.version(at(30));
        let (nodes, pods) = objects(&board);
        assert_eq!(nodes.len(), 1, "a node that reports by itself is not asked");
        assert_eq!(nodes[0].get(&["usage"]), Some(&json!({ "cpu": "250000000n", "memory": "1024Ki" })));
        assert_eq!(
            Value::Object(pods[0].0.clone().into_iter().collect()),
            json!({
                "apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
                "metadata": { "name": "p", "namespace": "ns", "labels": { "a": "b" }, "creationTimestamp": "2026-01-01T00:00:00Z" },
                "timestamp": "2026-01-01T00:00:00Z", "window": "15.000s",
                "containers": [{ "name": "main", "usage": { "cpu": "250000000n", "memory": "1024Ki" } }],
            })
        );
        assert_eq!(board.version(at(60)), version);
        assert_ne!(board.version(at(61)), version);
        assert_eq!(objects(&board), (Vec::new(), Vec::new()), "a node that no longer reports");
    }
}
