//! Measures a whole control plane: pods from their creation until the scheduler has bound them, in the cases of
//! upstream's `scheduler_perf`; a Deployment until it is ready; a full namespace until it is gone.
//!
//! Guarantees that a rate counts only pods that are bound, and that a case which does not end fails. The cases of the
//! scheduler want a server without controllers and nodes (`keelson apiserver` beside `keelson scheduler`): their nodes
//! are objects made here, which nobody keeps alive. The others want a cluster whose pods run.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    cli::{Case, SchedulerOptions},
    client::Client,
    drive::{Limit, drive},
    failure::{Failure, Result},
    process::{Server, cpu_seconds, load_average, memory_mb},
    report::{Report, Row},
    target::Target,
};

/// Between two looks at whether a case has ended: little beside the seconds that it takes.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Nodes of a zone in turn.
const ZONES: u64 = 3;
/// Between two changes of the case `churn`, as upstream's `MixedChurn`.
const CHURN_EVERY: Duration = Duration::from_millis(100);

pub(crate) async fn run(options: &SchedulerOptions) -> Result<Report> {
    let mut report = Report::default();
    let mut pids = options.process.pid.clone();
    let mut server = None;
    if let Some(command) = &options.process.spawn {
        let (started, ready) = Server::start(command, &options.process, &options.target).await?;
        report.figure("from start to ready", ready.as_secs_f64() * 1000.0, "ms");
        pids.push(started.pid());
        server = Some(started);
    }
    let client = Client::connect(&Target::read(&options.target)?, options.connections).await?;
    report.setting("nodes", options.nodes);
    report.setting("pods", options.pods);
    report.setting("in flight", options.in_flight);
    report.setting("load average", load_average());
    let measured = Run { options, client, pids }.measure(&mut report).await;
    // Stopping may take a while, and must come after the last request.
    tokio::task::spawn_blocking(move || drop(server)).await?;
    measured.map(|()| report)
}

struct Run<'a> {
    options: &'a SchedulerOptions,
    client: Client,
    pids: Vec<u32>,
}

impl Run<'_> {
    async fn measure(&self, report: &mut Report) -> Result<()> {
        if self.options.nodes > 0 {
            report.rows.push(self.make_nodes().await?);
        }
        for case in &self.options.cases {
            let before = cpu_seconds(&self.pids)?;
            let mut row = match case {
                Case::Deployment => self.deployment(report).await?,
                Case::Namespace => self.namespace_goes().await?,
                Case::Preemption => self.preemption().await?,
                Case::Basic | Case::Spread | Case::Affinity | Case::AntiAffinity | Case::Churn => {
                    self.placing(*case).await?
                }
            };
            if !self.pids.is_empty() && row.done > 0 {
                row.server_us = Some((cpu_seconds(&self.pids)? - before) * 1e6 / row.done as f64);
            }
            report.rows.push(row);
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.options.seconds_max)
    }

    /// Sends as many requests as there are `count`, of which each is a few in a row.
    async fn all<F>(&self, name: &str, count: u64, requests: F) -> Result<Row>
    where
        F: Fn(u64) -> Vec<(Method, String, Value)> + Send + Sync + 'static,
    {
        let client = self.client.clone();
        let limit = Limit { requests: count, time: self.patience() };
        drive(name, self.options.in_flight, limit, move |lane, index| {
            let (client, requests) = (client.clone(), requests(index));
            async move {
                for (method, path, body) in requests {
                    client.call(lane, method, &path, Bytes::from(body.to_string())).await?;
                }
                Ok(())
            }
        })
        .await
    }

    /// Nodes that are ready and say so for ever, without the taint that admission gives to new ones.
    async fn make_nodes(&self) -> Result<Row> {
        self.all("nodes", self.options.nodes, |index| {
            let node = node(&format!("bench-{index:05}"), index);
            let path = format!("/api/v1/nodes/bench-{index:05}");
            vec![(Method::POST, "/api/v1/nodes".to_owned(), node.clone()), (Method::PUT, path, node)]
        })
        .await
    }

    /// A namespace of a case's own, with the account that its pods run as.
    async fn namespace(&self, case: &str) -> Result<String> {
        let token = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let name = format!("bench-{case}-{token:x}");
        self.post("/api/v1/namespaces", &json!({ "metadata": { "name": name } })).await?;
        let account = json!({ "metadata": { "name": "default" } });
        let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
        match self.post(&accounts, &account).await {
            // Where controllers run, they may have been faster.
            Err(Failure::Refused { status: StatusCode::CONFLICT, .. }) | Ok(()) => Ok(name),
            Err(failure) => Err(failure),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<()> {
        self.client.call(0, Method::POST, path, Bytes::from(body.to_string())).await.map(drop)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.client.json(Method::GET, path, Bytes::new()).await
    }

    /// Creates pods and waits until all of the namespace are bound; the time is of both.
    async fn bind(
        &self,
        name: &str,
        namespace: &str,
        count: u64,
        pod: impl Fn(u64) -> Value + Send + Sync + 'static,
    ) -> Result<Row> {
        let begin = Instant::now();
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let to = path.clone();
        let created =
            self.all(name, count, move |index| vec![(Method::POST, to.clone(), pod(index))]).await?;
        let waiting = format!("{path}?fieldSelector=spec.nodeName%3D&labelSelector=case%3D{name}&limit=1");
        self.until(name, begin, async || {
            let first = self.get(&waiting).await?;
            Ok(first.pointer("/items/0").is_none())
        })
        .await?;
        let mut row = Row::counted(name, created.done, begin.elapsed());
        row.errors = created.errors;
        row.note = Some(format!("created at {:.0}/s", created.per_second));
        Ok(row)
    }

    async fn until(
        &self,
        case: &str,
        begin: Instant,
        mut ended: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        while !ended().await? {
            if begin.elapsed() > self.patience() {
                let why = format!("not so after {} s", self.options.seconds_max);
                return Err(Failure::Answer { path: format!("case {case}"), why });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn placing(&self, case: Case) -> Result<Row> {
        let name = case.name();
        let namespace = self.namespace(name).await?;
        // One on each node at most.
        let bound = if case == Case::AntiAffinity { self.options.nodes } else { u64::MAX };
        let churn =
            (case == Case::Churn).then(|| tokio::spawn(churn(self.client.clone(), namespace.clone())));
        let row =
            self.bind(name, &namespace, self.options.pods.min(bound), move |index| pod(case, index)).await;
        if let Some(churn) = churn {
            // It ends by itself only when it fails, and then the pods had peace.
            if churn.is_finished() {
                churn.await??;
            } else {
                churn.abort();
            }
        }
        let mut row = row?;
        self.delete(&namespace, &mut row).await?;
        Ok(row)
    }

    /// Each node is filled by pods of no importance; as many important ones take their places.
    async fn preemption(&self) -> Result<Row> {
        let namespace = self.namespace("preemption").await?;
        for (name, value) in [("bench-low", -1), ("bench-high", 1000)] {
            let class = json!({ "metadata": { "name": name }, "value": value });
            match self.post("/apis/scheduling.k8s.io/v1/priorityclasses", &class).await {
                Err(Failure::Refused { status: StatusCode::CONFLICT, .. }) | Ok(()) => {}
                Err(failure) => return Err(failure),
            }
        }
        let of = |class: &'static str, case: &'static str| {
            move |index: u64| {
                let mut pod = pod(Case::Basic, index);
                let labels = json!({ "name": format!("{class}-{index:06}"), "labels": { "case": case } });
                merge(&mut pod, "/metadata", labels);
                let spec = json!({ "priorityClassName": class, "terminationGracePeriodSeconds": 0 });
                merge(&mut pod, "/spec", spec);
                merge(&mut pod, "/spec/containers/0/resources/requests", json!({ "cpu": "15" }));
                pod
            }
        };
        self.bind("filled", &namespace, self.options.nodes, of("bench-low", "filled")).await?;
        let count = self.options.pods.min(self.options.nodes);
        let mut row = self.bind("preemption", &namespace, count, of("bench-high", "preemption")).await?;
        self.delete(&namespace, &mut row).await?;
        Ok(row)
    }

    /// Gives the nodes back: without a node agent nobody else ends the pods.
    async fn delete(&self, namespace: &str, row: &mut Row) -> Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let now = Bytes::from(json!({ "gracePeriodSeconds": 0 }).to_string());
        let begin = Instant::now();
        self.client.call(0, Method::DELETE, &path, now).await?;
        let note = row.note.take().unwrap_or_default();
        row.note = Some(format!("{note}, deleted in {:.1} s", begin.elapsed().as_secs_f64()));
        Ok(())
    }

    /// A Deployment from its creation until all replicas are ready; then what it costs to stand there.
    async fn deployment(&self, report: &mut Report) -> Result<Row> {
        let namespace = self.namespace("deployment").await?;
        let (replicas, labels) = (self.options.pods, json!({ "app": "bench" }));
        let spec = json!({
            "replicas": replicas, "selector": { "matchLabels": labels }, "strategy": { "type": "Recreate" },
            "template": {
                "metadata": { "labels": labels },
                "spec": pod(Case::Basic, 0).get("spec"),
            },
        });
        let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        let begin = Instant::now();
        self.post(&deployments, &json!({ "metadata": { "name": "web" }, "spec": spec })).await?;
        let path = format!("{deployments}/web");
        self.until("deployment", begin, async || {
            let ready = self.get(&path).await?;
            Ok(ready.pointer("/status/readyReplicas").and_then(Value::as_u64) == Some(replicas))
        })
        .await?;
        let row = Row::counted("deployment, to ready", replicas, begin.elapsed());
        if !self.pids.is_empty() {
            let half = Duration::from_secs(self.options.process.idle_seconds) / 2;
            tokio::time::sleep(half).await;
            let (before, begin) = (cpu_seconds(&self.pids)?, Instant::now());
            tokio::time::sleep(half).await;
            let share = (cpu_seconds(&self.pids)? - before) / begin.elapsed().as_secs_f64().max(0.001);
            report.figure(format!("memory, {replicas} pods"), memory_mb(&self.pids)?, "MB");
            report.figure(format!("processor at rest, {replicas} pods"), share * 100.0, "% of a core");
        }
        Ok(row)
    }

    /// A namespace full of ConfigMaps, from its deletion until it is gone.
    async fn namespace_goes(&self) -> Result<Row> {
        let namespace = self.namespace("namespace").await?;
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let count = self.options.objects;
        self.all("fill", count, move |index| {
            let map = json!({ "metadata": { "name": format!("object-{index:06}") }, "data": { "a": "b" } });
            vec![(Method::POST, path.clone(), map)]
        })
        .await?;
        let path = format!("/api/v1/namespaces/{namespace}");
        let begin = Instant::now();
        self.client.call(0, Method::DELETE, &path, Bytes::new()).await?;
        self.until("namespace", begin, async || match self.get(&path).await {
            Ok(_) => Ok(false),
            Err(Failure::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(true),
            Err(failure) => Err(failure),
        })
        .await?;
        Ok(Row::counted("namespace, to gone", count, begin.elapsed()))
    }
}

/// Nodes and pods that come and go beside the pods that are measured, until aborted: upstream's `MixedChurn`.
async fn churn(client: Client, namespace: String) -> Result<()> {
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let now = json!({ "gracePeriodSeconds": 0 });
    for index in 0_u64.. {
        let name = format!("passing-{index:06}");
        let mut large = pod(Case::Basic, index);
        merge(&mut large, "/metadata", json!({ "name": name, "labels": { "case": "churning" } }));
        merge(&mut large, "/spec/containers/0/resources/requests", json!({ "cpu": "1k" }));
        let steps = [
            (Method::POST, "/api/v1/nodes".to_owned(), node(&name, index)),
            (Method::POST, pods.clone(), large),
            (Method::DELETE, format!("/api/v1/nodes/{name}"), Value::Null),
            (Method::DELETE, format!("{pods}/{name}"), now.clone()),
        ];
        for (method, path, body) in steps {
            let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
            client.call(0, method, &path, body).await?;
            tokio::time::sleep(CHURN_EVERY / 4).await;
        }
    }
    Ok(())
}

fn node(name: &str, index: u64) -> Value {
    let zone = format!("zone-{}", index % ZONES);
    let amounts = json!({ "cpu": "16", "memory": "64Gi", "ephemeral-storage": "100Gi", "pods": "110" });
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": { "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone },
        },
        "status": {
            "capacity": amounts, "allocatable": amounts,
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
        },
    })
}

/// A pod of a case. All of a case have the same label.
fn pod(case: Case, index: u64) -> Value {
    let name = case.name();
    let mine = json!({ "matchLabels": { "case": name } });
    let term = |key: &str| json!([{ "labelSelector": mine, "topologyKey": key }]);
    let required = |key: &str| json!({ "requiredDuringSchedulingIgnoredDuringExecution": term(key) });
    let requests = json!({ "cpu": "100m", "memory": "100Mi" });
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("{name}-{index:06}"), "labels": { "case": name } },
        "spec": { "containers": [{ "name": "c", "image": "image:1", "resources": { "requests": requests } }] },
    });
    let constraint = match case {
        Case::Spread => {
            let constraint = json!({
                "maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": mine,
            });
            json!({ "topologySpreadConstraints": [constraint] })
        }
        Case::Affinity => json!({ "affinity": { "podAffinity": required("topology.kubernetes.io/zone") } }),
        Case::AntiAffinity => {
            json!({ "affinity": { "podAntiAffinity": required("kubernetes.io/hostname") } })
        }
        Case::Basic | Case::Preemption | Case::Churn | Case::Deployment | Case::Namespace => json!({}),
    };
    merge(&mut pod, "/spec", constraint);
    pod
}

/// Puts the fields of `from` into the object at `path`.
fn merge(into: &mut Value, path: &str, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.pointer_mut(path).and_then(Value::as_object_mut), from) {
        into.extend(from);
    }
}
