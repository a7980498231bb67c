//! BuildbarnWorker.

use kube::ResourceExt;
use meta::Timestamp;
use serde_json::{Value, json};

use super::{Held, Source, base, browser_url, queue_condition};
use crate::{
    autoscale,
    catalogue::RELEASE,
    children::{self, Base, Container, Pod},
    component::{Component, Design, Workload},
    config,
    farm::Farm,
    observe::World,
    queue::{Queue, QueueName},
    types::{BuildbarnWorker, Common, DrainMode, Status},
    validate::{self, Pool, RunnerPlan},
    verdict::{Verdict, Wrong},
};

/// The worker's time to say that it ends, beyond the longest action.
const GRACE_SLACK_S: i64 = 30;

/// The queues that a pool takes actions from.
fn queue_names(pool: &Pool) -> Vec<QueueName> {
    let mut names: Vec<QueueName> = pool
        .runners
        .iter()
        .map(|runner| QueueName {
            prefix: pool.prefix.clone(),
            platform: runner.platform.clone(),
            size_class: runner.size_class,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

impl Component for BuildbarnWorker {
    const APP: &'static str = "worker";
    const CONTROLLER: &'static str = "buildbarn-worker";
    const FINALIZER: &'static str = "buildbarnworker.buildbarn.io";

    fn common(&self) -> &Common {
        &self.spec.common
    }

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn queue(&self, farm: &Farm) -> Option<(String, Option<Vec<QueueName>>)> {
        let scheduler = farm.scheduler(self.spec.scheduler_ref.as_ref()).ok()?;
        // Which queues the user's own configuration serves, nobody knows: all are looked into.
        let given = self.spec.common.config_map_name.is_some();
        let pool = validate::pool(self, Some(scheduler), &mut Wrong::default());
        Some((scheduler.name_any(), (!given).then(|| queue_names(&pool))))
    }

    fn design(world: &World<Self>, now: Timestamp) -> Result<Design, Verdict> {
        let (name, namespace, spec) = (world.name(), world.namespace(), &world.object.spec);
        let scheduler = world.farm.scheduler(spec.scheduler_ref.as_ref());
        let mut wrong = Wrong::default();
        let pool = validate::pool(&world.object, scheduler.as_ref().ok().copied(), &mut wrong);
        validate::conflicts(&world.object, &pool, &world.farm, &mut wrong);
        if let Some(verdict) = wrong.verdict() {
            return Err(verdict);
        }
        let mut map = None;
        let source = Source::find(world, || {
            let scheduler = scheduler?;
            let held = Held::find(&world.farm, spec.storage_ref.as_ref())?;
            let mut wrong = Wrong::default();
            if spec.prefetching == Some(true) {
                held.need("spec.prefetching", "fsac", &mut wrong);
            }
            if let Some(verdict) = wrong.verdict() {
                return Err(verdict);
            }
            let address = format!("{}.{namespace}.svc:8983", scheduler.name_any());
            let given = scheduler.spec.browser_url.as_ref();
            let url = browser_url(&world.farm, given, scheduler.spec.browser_ref.as_ref())?;
            map = Some(held.map());
            let place = held.place(&namespace);
            let mut files = vec![config::worker(spec, &pool, &place, &address, held.message_bytes, url)];
            let runners = pool.runners.iter().enumerate();
            files.extend(runners.map(|(at, runner)| config::runner(&spec.common, &pool, at, runner)));
            Ok(files)
        })?;
        let base = base(world, &name, &namespace, Some(&pool.instance));
        let template = template(world, &base, &source, &pool);
        let mut status = Status::default();
        let replicas = replicas(world, &pool, &mut status, now);
        status.queues = queues(world, &pool);
        // Evictions are refused: the operator empties nodes itself, action by action.
        let others = children::budget(&base, 0).into_iter().collect();
        Ok(Design {
            files: source.into_files(),
            workload: Workload::Pool { template, limit_seconds: pool.drain_seconds },
            others,
            replicas,
            map,
            status,
            fault: None,
            conditions: queue_condition(world).into_iter().collect(),
            recheck_seconds: Some(if pool.autoscaling.is_some() { 5 } else { 30 }),
        })
    }
}

fn served(world: &World<BuildbarnWorker>, pool: &Pool) -> Option<Vec<Queue>> {
    let names = queue_names(pool);
    Some(world.seen()?.queues.iter().filter(|queue| names.contains(&queue.name)).cloned().collect())
}

fn queues(world: &World<BuildbarnWorker>, pool: &Pool) -> Vec<crate::types::QueueStatus> {
    match served(world, pool) {
        Some(queues) => queues.iter().map(Queue::status).collect(),
        None => world.before().queues,
    }
}

/// Pods that are wanted. A scheduler that does not answer changes nothing.
fn replicas(world: &World<BuildbarnWorker>, pool: &Pool, status: &mut Status, now: Timestamp) -> i32 {
    let Some(limits) = pool.autoscaling else { return pool.replicas };
    let before = world.before().autoscaling;
    let next = match served(world, pool) {
        Some(queues) => {
            autoscale::follow(&limits, before.as_ref(), autoscale::demand(pool, &limits, &queues), now)
        }
        None => before.unwrap_or_else(|| crate::types::AutoscalingStatus {
            replicas: limits.min,
            ..Default::default()
        }),
    };
    let replicas = next.replicas.clamp(limits.min, limits.max);
    status.autoscaling = Some(next);
    replicas
}

fn template(world: &World<BuildbarnWorker>, base: &Base<'_>, source: &Source, pool: &Pool) -> Value {
    let spec = &world.object.spec;
    let (config_map, config_hash) = source.reference(base.name);
    let work = json!({"name": "worker", "mountPath": "/worker"});
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let parts = Container {
        name: "worker",
        image: RELEASE.worker,
        file: format!("worker-{}.jsonnet", pool.instance),
        ports: &[("metrics", 9980)],
        env: vec![field("NODE_NAME", "spec.nodeName"), field("POD_NAME", "metadata.name")],
        mounts: vec![work.clone()],
        // No readiness: a pod that is not ready is the first that a ReplicaSet takes away, whatever it runs.
        probes: if source.is_given() { Value::Null } else { children::probes(9980, false) },
        unprivileged: false,
    };
    let worker = children::container(base, parts);
    let sidecar = pool.drain_mode == DrainMode::Sidecar;
    let runners: Vec<Value> = pool
        .runners
        .iter()
        .enumerate()
        .map(|(at, runner)| runner_container(base, source, pool, at, runner, sidecar))
        .collect();
    let mut init = vec![
        json!({
            "name": "bb-runner-installer",
            "image": spec.runner_installer_image.as_deref().unwrap_or(RELEASE.runner_installer),
            "volumeMounts": [{"name": "empty", "mountPath": "/bb/"}],
        }),
        json!({
            "name": "volume-init", "image": base.common.init_image.as_deref().unwrap_or(RELEASE.init),
            "command": ["sh", "-c", prepare(pool)], "volumeMounts": [work],
        }),
    ];
    let mut containers = vec![worker];
    if sidecar {
        init.extend(runners)
    } else {
        containers.extend(runners)
    }
    let mut volume = json!({"name": "worker"});
    match &spec.volume {
        Some(Value::Object(given)) => {
            given.iter().for_each(|(key, value)| children::put(&mut volume, key, Some(value.clone())))
        }
        _ => children::put(&mut volume, "emptyDir", Some(json!({}))),
    }
    children::template(
        base,
        Pod {
            config_map,
            config_hash,
            init,
            containers,
            volumes: vec![json!({"name": "empty", "emptyDir": {}}), volume],
            unprivileged: false,
            grace_seconds: pool.drain_seconds.saturating_add(GRACE_SLACK_S),
        },
    )
}

/// Builds are open to the runner's user, cached inputs are not.
fn prepare(pool: &Pool) -> String {
    let each = pool.runners.iter().map(|runner| {
        let base = config::directory(pool, runner);
        format!("mkdir -pm 0777 {base}/build && mkdir -pm 0700 {base}/cache && chmod 0777 {base}")
    });
    each.collect::<Vec<_>>().join(" && ")
}

fn runner_container(
    base: &Base<'_>,
    source: &Source,
    pool: &Pool,
    at: usize,
    runner: &RunnerPlan,
    sidecar: bool,
) -> Value {
    let given = source.is_given();
    let file =
        if given { format!("runner-{}.jsonnet", pool.instance) } else { config::runner_file(pool, runner) };
    let mut out = json!({
        "name": runner.name, "image": runner.image,
        "command": ["/bb/bb_runner", format!("/config/{file}")],
        "volumeMounts": [
            {"name": "configs", "mountPath": "/config/", "readOnly": true},
            {"name": "worker", "mountPath": "/worker"},
            {"name": "empty", "mountPath": "/bb", "readOnly": true},
        ],
        "securityContext": runner.security_context.clone().unwrap_or_else(
            || json!({"runAsUser": runner.user, "allowPrivilegeEscalation": false})
        ),
    });
    children::put(&mut out, "resources", runner.resources.clone());
    children::put(&mut out, "imagePullPolicy", base.common.image_pull_policy.clone().map(Value::from));
    if sidecar {
        children::put(&mut out, "restartPolicy", Some("Always".into()));
    }
    if !given {
        // The worker starts when its runners answer.
        let probe = json!({
            "httpGet": {"path": "/-/healthy", "port": config::runner_port(at)},
            "periodSeconds": 2, "failureThreshold": 150, "timeoutSeconds": 5,
        });
        children::put(&mut out, "startupProbe", Some(probe));
    }
    out
}
