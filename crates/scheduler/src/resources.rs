//! Amounts of node resources, and how much of them a pod asks for.
//!
//! The request of a pod follows upstream `component-helpers/resource.PodRequests`: the larger of
//! (containers + sidecars) and the most demanding moment of initialisation, pod-level requests over
//! both, plus overhead.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, PodSpec, PodStatus},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};
use meta::Quantity;

/// What upstream assumes for scoring when a container requests no cpu (`DefaultMilliCPURequest`).
const ASSUMED_CPU_MILLI: i64 = 100;
/// The same for memory, in bytes (`DefaultMemoryRequest`).
const ASSUMED_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts by resource. Everything but `pods`, which the snapshot counts itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Thousandths of a cpu.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Hugepages and extended resources by name, in whole units.
    pub extended: BTreeMap<Arc<str>, i64>,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Cpu, in thousandths.
    Cpu,
    /// Memory, in bytes.
    Memory,
    /// Local storage, in bytes.
    EphemeralStorage,
    /// Any other, in whole units.
    Extended(Arc<str>),
}

impl Measure {
    /// The resource of this name.
    pub fn of(name: &str) -> Self {
        match name {
            "cpu" => Self::Cpu,
            "memory" => Self::Memory,
            "ephemeral-storage" => Self::EphemeralStorage,
            other => Self::Extended(other.into()),
        }
    }
}

impl Resources {
    /// The amount of one resource.
    pub fn get(&self, measure: &Measure) -> i64 {
        match measure {
            Measure::Cpu => self.cpu_milli,
            Measure::Memory => self.memory,
            Measure::EphemeralStorage => self.ephemeral_storage,
            Measure::Extended(name) => self.extended.get(name).copied().unwrap_or_default(),
        }
    }

    /// Reads a wire map; `pods` is skipped. An amount that does not parse (the API server admits
    /// none) counts as `unreadable`.
    pub fn read(amounts: &BTreeMap<String, WireQuantity>, unreadable: i64) -> Self {
        let mut out = Self::default();
        for (name, amount) in amounts {
            let parsed = amount.0.parse::<Quantity>().ok();
            let value = parsed.map_or(unreadable, Quantity::value);
            match name.as_str() {
                "cpu" => out.cpu_milli = parsed.map_or(unreadable, Quantity::milli_value),
                "memory" => out.memory = value,
                "ephemeral-storage" => out.ephemeral_storage = value,
                "pods" => {}
                other => {
                    out.extended.insert(other.into(), value);
                }
            }
        }
        out
    }

    /// Adds, saturating.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    /// The larger in each dimension.
    pub fn max(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }

    fn merge(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        let Self { cpu_milli, memory, ephemeral_storage, extended } = other;
        self.cpu_milli = with(self.cpu_milli, *cpu_milli);
        self.memory = with(self.memory, *memory);
        self.ephemeral_storage = with(self.ephemeral_storage, *ephemeral_storage);
        for (name, amount) in extended {
            let mine = self.extended.entry(Arc::clone(name)).or_default();
            *mine = with(*mine, *amount);
        }
    }

    /// What the pod asks for. With a status, what a container was already given counts when it is
    /// more than what it now asks for (in-place resize).
    pub fn of_pod(spec: &PodSpec, status: Option<&PodStatus>) -> Self {
        total(spec, status, false)
    }

    /// The same for scoring: containers that ask for no cpu or memory count with upstream's
    /// assumed amounts, so that best-effort pods spread.
    pub fn of_pod_nonzero(spec: &PodSpec, status: Option<&PodStatus>) -> Self {
        total(spec, status, true)
    }
}

fn total(spec: &PodSpec, status: Option<&PodStatus>, assume: bool) -> Resources {
    let statuses = |kind: fn(&PodStatus) -> &Option<Vec<ContainerStatus>>| {
        status.and_then(|s| kind(s).as_deref()).unwrap_or_default()
    };
    let running = statuses(|s| &s.container_statuses);
    let starting = statuses(|s| &s.init_container_statuses);

    let mut steady = Resources::default();
    for container in &spec.containers {
        steady.add(&of_container(container, running, assume));
    }
    let mut sidecars = Resources::default();
    let mut peak = Resources::default();
    for container in spec.init_containers.as_deref().unwrap_or_default() {
        let mut moment = of_container(container, starting, assume);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&moment);
            moment = sidecars.clone();
        } else {
            moment.add(&sidecars);
        }
        peak.max(&moment);
    }
    steady.add(&sidecars);
    steady.max(&peak);
    if let Some(requests) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let pod = Resources::read(requests, i64::MAX);
        if requests.contains_key("cpu") {
            steady.cpu_milli = pod.cpu_milli;
        }
        if requests.contains_key("memory") {
            steady.memory = pod.memory;
        }
        steady.extended.extend(pod.extended);
    }
    if let Some(overhead) = &spec.overhead {
        steady.add(&Resources::read(overhead, i64::MAX));
    }
    steady
}

fn of_container(container: &Container, statuses: &[ContainerStatus], assume: bool) -> Resources {
    let mut out = Resources::default();
    if let Some(requests) = container.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        out = Resources::read(requests, i64::MAX);
    }
    if let Some(status) = statuses.iter().find(|s| s.name == container.name) {
        if let Some(given) = &status.allocated_resources {
            out.max(&Resources::read(given, 0));
        }
        if let Some(actual) = status.resources.as_ref().and_then(|r| r.requests.as_ref()) {
            out.max(&Resources::read(actual, 0));
        }
    }
    if assume {
        if out.cpu_milli == 0 {
            out.cpu_milli = ASSUMED_CPU_MILLI;
        }
        if out.memory == 0 {
            out.memory = ASSUMED_MEMORY;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: serde_json::Value, cpu_milli: i64, memory: i64) {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let got = Resources::of_pod(&spec, None);
        assert_eq!((got.cpu_milli, got.memory), (cpu_milli, memory), "{spec:?}");
    }

    fn container(cpu: &str, memory: &str) -> serde_json::Value {
        serde_json::json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn sidecar(cpu: &str, memory: &str) -> serde_json::Value {
        let mut c = container(cpu, memory);
        c["restartPolicy"] = "Always".into();
        c
    }

    #[test]
    fn pod_requests() {
        use serde_json::json;
        check(json!({"containers": [container("1", "10"), container("500m", "5")]}), 1500, 15);
        check(
            json!({"containers": [container("1", "10")], "initContainers": [container("2", "5"), container("1", "30")]}),
            2000,
            30,
        );
        // A sidecar stays: it counts beside the containers and beside every later init container.
        check(
            json!({"containers": [container("1", "10")], "initContainers": [sidecar("1", "1"), container("2", "5")]}),
            3000,
            11,
        );
        // An init container before the sidecar does not overlap with it.
        check(
            json!({"containers": [container("1", "10")], "initContainers": [container("2", "5"), sidecar("1", "1")]}),
            2000,
            11,
        );
        check(
            json!({"containers": [container("1", "10")], "overhead": {"cpu": "250m", "memory": "3"}}),
            1250,
            13,
        );
        check(
            json!({"containers": [container("1", "10")], "resources": {"requests": {"cpu": "4"}}}),
            4000,
            10,
        );
    }

    #[test]
    fn scoring_assumes_something_for_silent_containers() {
        let spec: PodSpec =
            serde_json::from_value(serde_json::json!({"containers": [{"name": "c"}]})).unwrap();
        assert_eq!(Resources::of_pod(&spec, None), Resources::default());
        let assumed = Resources::of_pod_nonzero(&spec, None);
        assert_eq!((assumed.cpu_milli, assumed.memory), (ASSUMED_CPU_MILLI, ASSUMED_MEMORY));
    }

    #[test]
    fn what_was_given_counts_until_it_is_given_back() {
        let spec = serde_json::from_value(serde_json::json!({"containers": [container("1", "10")]})).unwrap();
        let status = serde_json::from_value(serde_json::json!({"containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": {"cpu": "2"}, "resources": {"requests": {"memory": "20"}}
        }]}))
        .unwrap();
        let got = Resources::of_pod(&spec, Some(&status));
        assert_eq!((got.cpu_milli, got.memory), (2000, 20));
    }
}
