//! `/stats/summary` and `/metrics`: resource use as the runtime and the machine report it.

use std::fmt::Write as _;

use http::{Response, header};
use meta::{Status, Value};
use runtime::stats::ContainerStats;

use super::routes::{Body, full, runtime_error};
use crate::{agent::Agent, pod, summary};

/// The summary API.
pub(super) async fn summary(agent: &Agent) -> Result<Value, Status> {
    let stats = agent.runtime.stats().await.map_err(|error| runtime_error(&error))?;
    let measured = agent.options.host.measure().await.map_err(Status::internal)?;
    let pods = agent.pods.list();
    Ok(summary::write(&agent.options.name, agent.now(), &measured, &stats.containers, &pods))
}

/// Prometheus text, the names of upstream's `/metrics` and `/metrics/resource` for what is measured.
pub(super) async fn metrics(agent: &Agent) -> Result<Response<Body>, Status> {
    let stats = agent.runtime.stats().await.map_err(|error| runtime_error(&error))?;
    let pods = agent.pods.list();
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# TYPE kubelet_active_pods gauge\nkubelet_active_pods {}", pods.len());
    let _ = writeln!(
        text,
        "# TYPE kubelet_running_containers gauge\nkubelet_running_containers {}",
        stats.containers.len()
    );
    let labels = |container: &ContainerStats| {
        let want = pods.iter().find(|want| pod::uid(want) == container.pod_uid);
        let (namespace, name) = want.map_or(("", ""), |want| (pod::namespace(want), pod::name(want)));
        format!("{{container=\"{}\",namespace=\"{namespace}\",pod=\"{name}\"}}", container.name)
    };
    let _ = writeln!(text, "# TYPE container_cpu_usage_seconds_total counter");
    for container in &stats.containers {
        let (whole, part) =
            (container.cpu_nanoseconds / 1_000_000_000, container.cpu_nanoseconds % 1_000_000_000);
        let _ = writeln!(text, "container_cpu_usage_seconds_total{} {whole}.{part:09}", labels(container));
    }
    let _ = writeln!(text, "# TYPE container_memory_working_set_bytes gauge");
    for container in &stats.containers {
        let bytes = container.memory_working_set_bytes;
        let _ = writeln!(text, "container_memory_working_set_bytes{} {bytes}", labels(container));
    }
    let mut response = Response::new(full(text));
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
