//! `keelson status`: components, nodes, workloads and databases at a glance.

use std::{
    future::Future,
    path::{Path, PathBuf},
};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{Node, Pod},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde_json::{Value, json};

use crate::{cli::StatusOptions, data_dir::DataDir, error::Failure, term};

/// How long a cluster may take to answer before it counts as not running.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

pub(crate) async fn status(options: StatusOptions) -> Result<(), Failure> {
    let data = DataDir::locate(&options.data)?;
    let path = kubeconfig(&options, &data)?;
    let seen = within_patience(&path, look(&path)).await?;
    match options.output {
        Some(output) => term::machine(&seen, output)?,
        None => show(&seen, &data),
    }
    Ok(())
}

/// The kubeconfig of the cluster that is meant.
pub(crate) fn kubeconfig(options: &StatusOptions, data: &DataDir) -> Result<PathBuf, Failure> {
    let path = options.kubeconfig.clone().unwrap_or_else(|| data.kubeconfig());
    if !path.exists() {
        return Err(Failure::new(format!("there is no cluster in {}", data.path().display()))
            .advise("start one with `keelson up`, or name another with --data-dir or --kubeconfig"));
    }
    Ok(path)
}

/// What a look came to, unless the cluster takes too long.
pub(crate) async fn within_patience<T>(
    path: &Path,
    look: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| {
        Err(Failure::new(format!("the cluster of {} does not answer", path.display()))
            .advise("start it with `keelson up`"))
    })
}

pub(crate) fn unreachable(path: &Path, error: kube::Error) -> Failure {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(at) = cause {
        let io = at.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return Failure::new(format!("the cluster of {} does not run", path.display()))
                .advise("start it with `keelson up`");
        }
        cause = at.source();
    }
    Failure::of(format!("ask the cluster of {}", path.display()), error)
        .advise("is it the cluster that this kubeconfig is for? `keelson up` writes its own anew")
}

async fn look(path: &Path) -> Result<Value, Failure> {
    let client = crate::parts::client(path).await?;
    let unreachable = |error: kube::Error| unreachable(path, error);
    let version = client.apiserver_version().await.map_err(unreachable)?;
    let request = http::Request::get("/readyz?verbose")
        .body(Vec::new())
        .map_err(|error| Failure::of("ask for the components", error))?;
    let ready = client.request_text(request).await.map_err(unreachable)?;
    let all = ListParams::default();
    let nodes = Api::<Node>::all(client.clone()).list(&all).await.map_err(unreachable)?;
    let pods = Api::<Pod>::all(client.clone()).list(&all).await.map_err(unreachable)?;
    let deployments = Api::<Deployment>::all(client.clone()).list(&all).await.map_err(unreachable)?;
    let sets = Api::<StatefulSet>::all(client.clone()).list(&all).await.map_err(unreachable)?;
    Ok(json!({
        "version": version.git_version,
        "components": components(&ready),
        "nodes": nodes.items.iter().map(node).collect::<Vec<_>>(),
        "pods": pod_phases(&pods.items),
        "deployments": {
            "ready": deployments.iter().filter(|d| deployment_ready(d)).count(), "total": deployments.items.len(),
        },
        "statefulSets": { "ready": sets.iter().filter(|s| set_ready(s)).count(), "total": sets.items.len() },
        "databases": databases(client).await.map_err(unreachable)?,
    }))
}

/// The checks of `/readyz?verbose`: `[+]name ok` and `[-]name failed: ...`.
fn components(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| {
            let ok = line.starts_with("[+]");
            let rest = line.strip_prefix("[+]").or_else(|| line.strip_prefix("[-]"))?;
            let (name, state) = rest.split_once(' ').unwrap_or((rest, ""));
            Some(json!({"name": name, "ready": ok, "message": state}))
        })
        .collect()
}

fn node(node: &Node) -> Value {
    let status = node.status.as_ref();
    let ready = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    json!({
        "name": node.metadata.name,
        "ready": ready.is_some_and(|ready| ready.status == "True"),
        "message": ready.and_then(|ready| ready.message.clone()),
        "runtime": status.and_then(|s| s.node_info.as_ref()).map(|info| info.container_runtime_version.clone()),
    })
}

fn pod_phases(pods: &[Pod]) -> Value {
    let mut phases = std::collections::BTreeMap::<String, usize>::new();
    for pod in pods {
        let phase =
            pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_else(|| "Unknown".into());
        *phases.entry(phase).or_default() += 1;
    }
    json!(phases)
}

fn deployment_ready(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0) >= wanted
}

fn set_ready(set: &StatefulSet) -> bool {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0) >= wanted
}

async fn databases(client: Client) -> Result<Vec<Value>, kube::Error> {
    let resource = ApiResource {
        group: "databases.database-operator.io".into(),
        version: "v1alpha1".into(),
        api_version: "databases.database-operator.io/v1alpha1".into(),
        kind: "Database".into(),
        plural: "databases".into(),
    };
    let list = match Api::<DynamicObject>::all_with(client, &resource).list(&ListParams::default()).await {
        Ok(list) => list,
        // The operator is not installed in this cluster.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(list
        .items
        .into_iter()
        .map(|database| {
            let text = |pointer: &str| database.data.pointer(pointer).cloned().unwrap_or(Value::Null);
            json!({
                "namespace": database.metadata.namespace, "name": database.metadata.name,
                "type": text("/spec/type"), "version": text("/spec/version"), "phase": text("/status/phase"),
                "readyReplicas": text("/status/readyReplicas"), "replicas": text("/spec/replicas"),
                "message": text("/status/message"),
            })
        })
        .collect())
}

fn show(seen: &Value, data: &DataDir) {
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |key: &str| seen.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    term::line(&format!("{} {}", term::bold("cluster"), text(seen, "version")));
    if let Some(pid) = data.running() {
        term::line(&format!("  process {}, data in {}", pid.as_raw_nonzero(), data.path().display()));
    }
    for (title, rows) in [("components", list("components")), ("nodes", list("nodes"))] {
        term::line(&term::bold(title));
        for row in rows {
            let ready = row.get("ready").and_then(Value::as_bool) == Some(true);
            let mark = if ready { term::good("✓") } else { term::warn("✗") };
            let note = if ready { text(&row, "runtime") } else { text(&row, "message") };
            term::line(&format!("  {mark} {:<24} {}", text(&row, "name"), term::dim(&note)));
        }
    }
    let count = |key: &str| {
        let of = seen.get(key);
        let number = |field: &str| of.and_then(|of| of.get(field)).and_then(Value::as_u64).unwrap_or(0);
        format!("{}/{}", number("ready"), number("total"))
    };
    term::line(&term::bold("workloads"));
    term::line(&format!(
        "  deployments {} ready, statefulsets {} ready",
        count("deployments"),
        count("statefulSets")
    ));
    let phases = seen.get("pods").and_then(Value::as_object).cloned().unwrap_or_default();
    let phases: Vec<String> = phases.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
    term::line(&format!("  pods {}", if phases.is_empty() { "none".to_owned() } else { phases.join(", ") }));
    let databases = list("databases");
    if !databases.is_empty() {
        term::line(&term::bold("databases"));
    }
    for database in databases {
        let phase = text(&database, "phase");
        let mark = if phase == "Ready" { term::good("✓") } else { term::warn("✗") };
        let name = format!("{}/{}", text(&database, "namespace"), text(&database, "name"));
        let kind = format!("{} {}", text(&database, "type"), text(&database, "version"));
        let note = if phase == "Ready" { String::new() } else { text(&database, "message") };
        term::line(&format!("  {mark} {name:<24} {kind:<16} {phase:<10} {}", term::dim(&note)));
    }
}

/// The small part of YAML that a status needs.
pub(crate) fn yaml(value: &Value, depth: usize) -> String {
    let pad = "  ".repeat(depth);
    let nested = |value: &Value| match value {
        Value::Object(map) if !map.is_empty() => format!("\n{}", yaml(value, depth + 1)),
        Value::Array(list) if !list.is_empty() => format!("\n{}", yaml(value, depth + 1)),
        other => format!(" {other}"),
    };
    match value {
        Value::Object(map) => {
            let lines: Vec<String> =
                map.iter().map(|(key, value)| format!("{pad}{key}:{}", nested(value))).collect();
            lines.join("\n")
        }
        Value::Array(list) => {
            let lines: Vec<String> = list.iter().map(|value| format!("{pad}-{}", nested(value))).collect();
            lines.join("\n")
        }
        other => format!("{pad}{other}"),
    }
}
