//! `keelson buildbarn status`: each farm as its objects' status has it, for a reader or for a program. It asks the API
//! server only; what schedulers and stores said, the operator has written down.

use std::{collections::BTreeMap, fmt::Debug, path::Path};

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use operator_buildbarn::{
    BuildbarnBrowser, BuildbarnFrontend, BuildbarnScheduler, BuildbarnStorage, BuildbarnWorker, QueueStatus,
    Shard, Status, StoreStatus, Topology,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cli::{BuildbarnCommand, BuildbarnStatusOptions},
    data_dir::DataDir,
    error::Failure,
    status::{kubeconfig, unreachable, within_patience},
    term,
};

/// A farm: what there is of Buildbarn in one namespace.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Farm {
    namespace: String,
    components: Vec<Component>,
    pools: Vec<Pool>,
    storages: Vec<Storage>,
    /// Queues that no pool of the farm serves.
    other_queues: Vec<QueueStatus>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    kind: &'static str,
    name: String,
    state: String,
    ready: bool,
    ready_replicas: i32,
    replicas: i32,
    message: String,
    /// Conditions besides `Ready` that somebody should know of.
    notes: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pool {
    name: String,
    pods: i32,
    wanted: i32,
    draining: i32,
    autoscaled: bool,
    queues: Vec<QueueStatus>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Storage {
    name: String,
    topology: Topology,
    stores: Vec<StoreStatus>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    frontend: String,
    endpoint: String,
    bazelrc: String,
}

/// The objects of all farms.
#[derive(Default)]
struct Seen {
    schedulers: Vec<BuildbarnScheduler>,
    storages: Vec<BuildbarnStorage>,
    workers: Vec<BuildbarnWorker>,
    frontends: Vec<BuildbarnFrontend>,
    browsers: Vec<BuildbarnBrowser>,
}

pub(crate) async fn buildbarn(command: BuildbarnCommand) -> Result<(), Failure> {
    let BuildbarnCommand::Status(BuildbarnStatusOptions { namespace, cluster }) = command;
    let data = DataDir::locate(&cluster.data)?;
    let path = kubeconfig(&cluster, &data)?;
    let seen = within_patience(&path, look(&path, namespace.as_deref())).await?;
    let farms = farms(&seen);
    if let Some(output) = cluster.output {
        return term::machine(&serde_json::json!({ "farms": farms }), output);
    }
    if farms.is_empty() {
        let place =
            namespace.map_or_else(|| "in this cluster".to_owned(), |name| format!("in namespace {name}"));
        term::line(&format!(
            "no build farm {place}: `kubectl apply -f examples/buildbarn/small.yaml` makes one"
        ));
    }
    farms.iter().for_each(|farm| term::line(&render(farm)));
    Ok(())
}

async fn look(path: &Path, namespace: Option<&str>) -> Result<Seen, Failure> {
    let client = crate::parts::client(path).await?;
    Ok(Seen {
        schedulers: list(&client, path, namespace).await?,
        storages: list(&client, path, namespace).await?,
        workers: list(&client, path, namespace).await?,
        frontends: list(&client, path, namespace).await?,
        browsers: list(&client, path, namespace).await?,
    })
}

async fn list<K>(client: &Client, path: &Path, namespace: Option<&str>) -> Result<Vec<K>, Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::<K>::all(client.clone()),
    };
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(Failure::new(
            "the cluster does not know build farms",
        )
        .advise(
            "run the operator: `keelson up --operators buildbarn`, or `keelson install --operator buildbarn`",
        )),
        Err(error) => Err(unreachable(path, error)),
    }
}

/// Puts what was seen together by namespace. Pure.
fn farms(seen: &Seen) -> Vec<Farm> {
    let Seen { schedulers, storages, workers, frontends, browsers } = seen;
    let mut farms = Farms::default();
    for object in schedulers {
        let status = object.status.clone().unwrap_or_default();
        let farm = farms.at(object);
        farm.components.push(component("scheduler", object, &status));
        farm.other_queues.extend(status.queues);
    }
    for object in storages {
        let status = object.status.clone().unwrap_or_default();
        let farm = farms.at(object);
        farm.components.push(component("storage", object, &status));
        if let Some(topology) = status.topology {
            farm.storages.push(Storage { name: object.name_any(), topology, stores: status.stores });
        }
    }
    for object in workers {
        let status = object.status.clone().unwrap_or_default();
        let farm = farms.at(object);
        farm.components.push(component("worker", object, &status));
        farm.pools.push(Pool {
            name: object.name_any(),
            pods: status.replicas,
            wanted: status.autoscaling.as_ref().map_or(object.spec.replicas.unwrap_or(8), |a| a.replicas),
            draining: status.draining,
            autoscaled: object.spec.autoscaling.is_some(),
            queues: status.queues,
        });
    }
    for object in frontends {
        let status = object.status.clone().unwrap_or_default();
        let farm = farms.at(object);
        farm.components.push(component("frontend", object, &status));
        if let Some(endpoint) = status.endpoint {
            let bazelrc = status.bazelrc.unwrap_or_default();
            farm.endpoints.push(Endpoint { frontend: object.name_any(), endpoint, bazelrc });
        }
    }
    for object in browsers {
        let status = object.status.clone().unwrap_or_default();
        farms.at(object).components.push(component("browser", object, &status));
    }
    farms.finish()
}

#[derive(Default)]
struct Farms(BTreeMap<String, Farm>);

impl Farms {
    /// The farm that an object belongs to.
    fn at(&mut self, object: &impl ResourceExt) -> &mut Farm {
        let namespace = object.namespace().unwrap_or_default();
        self.0.entry(namespace.clone()).or_insert_with(|| Farm { namespace, ..Farm::default() })
    }

    fn finish(self) -> Vec<Farm> {
        let mut farms: Vec<Farm> = self.0.into_values().collect();
        for Farm { pools, other_queues, .. } in &mut farms {
            other_queues
                .retain(|queue| !pools.iter().flat_map(|pool| &pool.queues).any(|of| same(of, queue)));
        }
        farms
    }
}

fn same(a: &QueueStatus, b: &QueueStatus) -> bool {
    let name =
        |queue: &QueueStatus| (queue.instance_name_prefix.clone(), queue.platform.clone(), queue.size_class);
    name(a) == name(b)
}

fn component(kind: &'static str, object: &impl ResourceExt, status: &Status) -> Component {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    let worth_a_note = |kind: &str, is: &str| {
        matches!((kind, is), ("QueueReachable", "False") | ("RestartPending" | "Resharding", "True"))
    };
    let noted = status.conditions.iter().filter(|c| worth_a_note(&c.type_, &c.status));
    Component {
        kind,
        name: object.name_any(),
        state: status.state.clone().unwrap_or_else(|| "Unknown".to_owned()),
        ready: ready.is_some_and(|ready| ready.status == "True"),
        ready_replicas: status.ready_replicas,
        replicas: status.replicas,
        message: ready.map_or_else(
            || "no operator has looked at it yet".to_owned(),
            |ready| format!("{}: {}", ready.reason, ready.message),
        ),
        notes: noted.map(|c| format!("{}: {}", c.type_, c.message)).collect(),
    }
}

/// A farm for a reader.
fn render(farm: &Farm) -> String {
    let Farm { namespace, components, pools, storages, other_queues, endpoints } = farm;
    let mut lines = vec![format!("{} {namespace}", term::bold("farm"))];
    for Component { kind, name, ready, ready_replicas, replicas, message, notes, state: _ } in components {
        let mark = if *ready { term::good("✓") } else { term::warn("✗") };
        let note = if *ready { String::new() } else { term::dim(message) };
        let pods = format!("{ready_replicas}/{replicas}");
        lines.push(format!("  {mark} {kind:<10} {name:<24} {pods:>9}  {note}"));
        lines.extend(notes.iter().map(|note| format!("    {} {}", term::warn("!"), term::dim(note))));
    }
    lines.extend(pool_lines(pools));
    if !other_queues.is_empty() {
        lines.push(term::bold("  queues that no pool serves"));
        lines.extend(other_queues.iter().map(|queue| format!("    {}", counts(queue))));
    }
    for storage in storages {
        lines.extend(storage_lines(storage));
    }
    for Endpoint { frontend, endpoint, bazelrc } in endpoints {
        lines.push(format!("{} {frontend}", term::bold("  endpoint of")));
        lines.push(format!("    {endpoint}"));
        lines.extend(bazelrc.lines().map(|line| format!("    {}", term::dim(line))));
    }
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

fn pool_lines(pools: &[Pool]) -> Vec<String> {
    if pools.is_empty() {
        return Vec::new();
    }
    let head = format!("  {:<28} {:>6} {:>6} {:>6}", "pools", "pods", "wanted", "going");
    let mut lines = vec![format!("{}{}", term::bold(&head), term::dim("  threads running waiting  queue"))];
    for Pool { name, pods, wanted, draining, autoscaled, queues } in pools {
        let wanted = if *autoscaled { format!("~{wanted}") } else { wanted.to_string() };
        let pool = format!("    {name:<26} {pods:>6} {wanted:>6} {draining:>6}");
        let (first, rest) = match queues.split_first() {
            Some((first, rest)) => (counts(first), rest),
            None => (term::dim("      -       -       -  the scheduler has told of none yet"), [].as_slice()),
        };
        lines.push(format!("{pool}  {first}"));
        lines.extend(rest.iter().map(|queue| format!("{:<51}  {}", "", counts(queue))));
    }
    lines
}

/// The numbers of a queue, and which it is.
fn counts(queue: &QueueStatus) -> String {
    let QueueStatus { instance_name_prefix, platform, size_class, workers, executing, queued } = queue;
    let prefix =
        if instance_name_prefix.is_empty() { String::new() } else { format!(" of {instance_name_prefix:?}") };
    let class = if *size_class == 0 { String::new() } else { format!(" size class {size_class}") };
    format!("{workers:>7} {executing:>7} {queued:>7}  {platform}{class}{prefix}")
}

fn storage_lines(storage: &Storage) -> Vec<String> {
    let Storage { name, topology, stores } = storage;
    let Topology { stage, shards, previous, since: _ } = topology;
    let mut lines =
        vec![format!("{} {name} {}", term::bold("  shards of"), term::dim(&format!("{stage:?}")))];
    lines.extend(shards.iter().map(|shard| shard_line(name, shard, "")));
    lines.extend(
        previous.iter().filter(|shard| !shards.contains(shard)).map(|shard| shard_line(name, shard, " goes")),
    );
    if !stores.is_empty() {
        lines.push(format!("{} {name}", term::bold("  stores of")));
    }
    for StoreStatus { pod, store, retention_hours, map_too_full, blocks_in_use: _, fill_percent } in stores {
        let mut parts = Vec::new();
        parts.extend(fill_percent.map(|percent| format!("{percent} % full")));
        parts.extend(retention_hours.map(|hours| format!("keeps {hours} h")));
        let full = map_too_full.filter(|puts| *puts > 0);
        parts.extend(full.map(|puts| term::warn(&format!("key-location map too small for {puts} puts"))));
        lines.push(format!("    {pod:<26} {store:<5} {}", parts.join(", ")));
    }
    lines
}

fn shard_line(storage: &str, shard: &Shard, note: &str) -> String {
    let Shard { key, weight, pods } = shard;
    let pods: Vec<String> = pods.iter().map(|pod| format!("{storage}-{pod}")).collect();
    format!("    {key:<26} weight {weight:<4} {}{note}", pods.join(" = "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    fn object<K: DeserializeOwned>(kind: &str, name: &str, spec: Value, status: Value) -> K {
        from_value(json!({
            "apiVersion": "buildbarn.io/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "ci"},
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_farm_reads_well() {
        let ready = condition("Ready", "True", "Ready", "1 of 1 pod(s) are ready");
        let queue = |platform: &str, queued: u32| {
            json!({"instanceNamePrefix": "", "platform": platform, "sizeClass": 0,
            "workers": 4, "executing": 2, "queued": queued})
        };
        let seen = Seen {
            schedulers: vec![object(
                "BuildbarnScheduler",
                "scheduler",
                json!({}),
                json!({
                    "state": "Ready", "replicas": 1, "readyReplicas": 1, "queues": [queue("os=a", 3), queue("os=b", 9)],
                    "conditions": [ready, condition("RestartPending", "True", "Busy", "a change waits")],
                }),
            )],
            storages: vec![object(
                "BuildbarnStorage",
                "storage",
                json!({}),
                json!({
                    "state": "Ready", "replicas": 2, "readyReplicas": 2, "conditions": [ready],
                    "topology": {"stage": "Fallback", "shards": [{"key": "red", "weight": 1, "pods": [0, 1]}],
                        "previous": [{"key": "red", "weight": 1, "pods": [0, 1]}, {"key": "blue", "weight": 2, "pods": [2, 3]}]},
                    "stores": [{"pod": "storage-0", "store": "cas", "retentionHours": 48, "mapTooFull": 0, "fillPercent": 63}],
                }),
            )],
            workers: vec![object(
                "BuildbarnWorker",
                "ubuntu",
                json!({"autoscaling": {"min": 0, "max": 4}}),
                json!({
                    "state": "NotReady", "replicas": 2, "readyReplicas": 1, "draining": 1, "queues": [queue("os=a", 3)],
                    "autoscaling": {"replicas": 1},
                    "conditions": [condition("Ready", "False", "Draining", "1 pod(s) end when their actions have")],
                }),
            )],
            frontends: vec![object(
                "BuildbarnFrontend",
                "frontend",
                json!({}),
                json!({
                    "state": "Ready", "replicas": 1, "readyReplicas": 1, "conditions": [ready],
                    "endpoint": "grpc://f:8980", "bazelrc": "build --remote_executor=grpc://f:8980\n",
                }),
            )],
            browsers: vec![object("BuildbarnBrowser", "browser", json!({}), json!({}))],
        };
        let farms = farms(&seen);
        assert_eq!(farms.len(), 1);
        let wanted = "\
farm ci
  ✓ scheduler  scheduler                      1/1
    ! RestartPending: a change waits
  ✓ storage    storage                        2/2
  ✗ worker     ubuntu                         1/2  Draining: 1 pod(s) end when their actions have
  ✓ frontend   frontend                       1/1
  ✗ browser    browser                        0/0  no operator has looked at it yet
  pools                          pods wanted  going  threads running waiting  queue
    ubuntu                          2     ~1      1        4       2       3  os=a
  queues that no pool serves
          4       2       9  os=b
  shards of storage Fallback
    red                        weight 1    storage-0 = storage-1
    blue                       weight 2    storage-2 = storage-3 goes
  stores of storage
    storage-0                  cas   63 % full, keeps 48 h
  endpoint of frontend
    grpc://f:8980
    build --remote_executor=grpc://f:8980";
        assert_eq!(farms.iter().map(render).collect::<Vec<_>>().join("\n"), wanted);
    }
}
