//! BuildbarnScheduler.

use kube::ResourceExt;
use meta::{Timestamp, format_second};

use super::{Held, Parts, Source, base, browser_url, queue_condition, service_type, simple_pod};
use crate::{
    catalogue::RELEASE,
    children::{self, CONFIG_HASH},
    component::{Component, Design, Workload},
    config::{self, Predeclared},
    farm::Farm,
    model,
    observe::World,
    queue::{QueueName, Snapshot},
    types::{BuildbarnScheduler, Common, RestartPolicy, Status},
    validate,
    verdict::{Verdict, Wrong},
};

/// How long a scheduler that does not tell what runs is waited for before a restart. Workers whose scheduler is
/// silent for so long give up what they run (upstream's own limit), and a restart may be what makes it speak again.
const SILENT_MAX_S: i64 = 60;

const PORTS: [(&str, u16); 5] =
    [("client-grpc", 8982), ("worker-grpc", 8983), ("http", 7982), ("queue-grpc", 8984), ("metrics", 9980)];

impl Component for BuildbarnScheduler {
    const APP: &'static str = "scheduler";
    const CONTROLLER: &'static str = "buildbarn-scheduler";
    const FINALIZER: &'static str = "buildbarnscheduler.buildbarn.io";

    fn common(&self) -> &Common {
        &self.spec.common
    }

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn queue(&self, _: &Farm) -> Option<(String, Option<Vec<QueueName>>)> {
        Some((self.name_any(), Some(Vec::new())))
    }

    fn design(world: &World<Self>, now: Timestamp) -> Result<Design, Verdict> {
        let (name, namespace, spec) = (world.name(), world.namespace(), &world.object.spec);
        let mut wrong = Wrong::default();
        validate::common(&name, &spec.common, &mut wrong);
        let timeouts = validate::execution(spec.execution, &mut wrong);
        let replicas = wrong.range("spec.replicas", spec.replicas, 1, 0, 1);
        let kind = service_type(spec.service_type.as_ref(), "ClusterIP", &mut wrong);
        spec.ingress.iter().for_each(|ingress| validate::ingress("spec.ingress.host", ingress, &mut wrong));
        if let Some(queue) = &spec.build_queue_state {
            validate::address("spec.buildQueueState.address", &queue.address, &mut wrong);
        }
        check_auth(world, &mut wrong);
        if let Some(verdict) = wrong.verdict() {
            return Err(verdict);
        }
        let mut map = None;
        let source = Source::find(world, || {
            let held = Held::find(&world.farm, spec.storage_ref.as_ref())?;
            let mut wrong = Wrong::default();
            if spec.size_class_analysis.is_some() {
                held.need("spec.sizeClassAnalysis", "iscc", &mut wrong);
            }
            if let Some(verdict) = wrong.verdict() {
                return Err(verdict);
            }
            let url = browser_url(&world.farm, spec.browser_url.as_ref(), spec.browser_ref.as_ref())?;
            map = Some(held.map());
            Ok(vec![config::scheduler(spec, &held.place(&namespace), timeouts, url, &predeclared(world))])
        })?;
        let base = base(world, &name, &namespace, None);
        let parts = Parts { init: Vec::new(), mounts: Vec::new(), volumes: Vec::new(), grace_seconds: 30 };
        let template =
            simple_pod(&base, &source, ("scheduler", RELEASE.scheduler, "scheduler.jsonnet"), &PORTS, parts);
        let mut others = vec![children::service(&base, kind, spec.service.as_ref(), &PORTS)];
        others.extend(spec.ingress.as_ref().map(|ingress| children::ingress(&base, ingress, "http")));
        let guarded = spec.network_policy.unwrap_or_default().enabled;
        others.extend(guarded.then(|| children::network_policy(&base)));
        let wanted = template.pointer(&format!("/metadata/annotations/{}", CONFIG_HASH.replace('/', "~1")));
        let pending = pending(world, wanted.and_then(serde_json::Value::as_str).unwrap_or_default(), now);
        let mut status = Status { restart_pending_since: pending.clone(), ..Status::default() };
        status.queues = world
            .seen()
            .map(|seen| seen.queues.iter().map(crate::queue::Queue::status).collect())
            .unwrap_or_else(|| world.before().queues);
        let mut conditions: Vec<_> = queue_condition(world).into_iter().collect();
        if pending.is_some() {
            conditions.push(if world.seen().is_some() {
                let message =
                    "a change waits until nothing is queued or runs, since a restart forgets the queue";
                ("RestartPending", true, "Busy", message.to_owned())
            } else {
                let message =
                    format!("a change waits for the scheduler to tell what runs, at most {SILENT_MAX_S} s");
                ("RestartPending", true, "NoAnswer", message)
            });
        }
        let deployment = children::deployment(&base, replicas, true, &template);
        Ok(Design {
            files: source.into_files(),
            workload: Workload::Deployment(pending.is_none().then_some(deployment)),
            others,
            replicas,
            map,
            status,
            fault: None,
            conditions,
            recheck_seconds: Some(10),
        })
    }
}

fn check_auth(world: &World<BuildbarnScheduler>, wrong: &mut Wrong) {
    let auth = world.object.spec.auth.clone().unwrap_or_default();
    let policies = [
        ("client", auth.client, "grpc.AuthenticationPolicy"),
        ("worker", auth.worker, "grpc.AuthenticationPolicy"),
        ("admin", auth.admin, "http.server.AuthenticationPolicy"),
        ("execute", auth.execute, "auth.AuthorizerConfiguration"),
        ("synchronize", auth.synchronize, "auth.AuthorizerConfiguration"),
        ("modifyDrains", auth.modify_drains.clone(), "auth.AuthorizerConfiguration"),
        ("killOperations", auth.kill_operations, "auth.AuthorizerConfiguration"),
    ];
    if auth.modify_drains.as_ref().is_some_and(|given| given.get("deny").is_some()) {
        wrong.add(
            "spec.auth.modifyDrains",
            "must not be deny: the operator, which has no credentials, drains workers before their pods go",
        );
    }
    for (field, given, message) in policies {
        for fault in given.iter().flat_map(|given| model::message(message, given)) {
            wrong.add(&format!("spec.auth.{field}"), fault);
        }
    }
}

/// Queues that must exist without workers: those asked for, those of pools that may have none, and those of
/// platforms with size classes, whose largest class the scheduler has to know.
fn predeclared(world: &World<BuildbarnScheduler>) -> Vec<Predeclared> {
    let own = world.name();
    let mut queues: Vec<Predeclared> = world
        .object
        .spec
        .predeclared_queues
        .iter()
        .map(|queue| Predeclared {
            prefix: queue.instance_name_prefix.clone().unwrap_or_default(),
            platform: queue.platform.clone(),
            size_classes: if queue.size_classes.is_empty() { vec![0] } else { queue.size_classes.clone() },
        })
        .collect();
    for worker in world.farm.workers.iter().filter(|worker| worker.spec.common.config_map_name.is_none()) {
        let of = world.farm.scheduler(worker.spec.scheduler_ref.as_ref());
        let mut wrong = Wrong::default();
        let pool = validate::pool(worker, of.as_ref().ok().copied(), &mut wrong);
        validate::conflicts(worker, &pool, &world.farm, &mut wrong);
        if !of.is_ok_and(|of| of.name_any() == own) || !wrong.0.is_empty() {
            continue;
        }
        let to_zero = pool.autoscaling.is_some_and(|limits| limits.min == 0);
        for runner in pool.runners.iter().filter(|runner| to_zero || runner.size_class > 0) {
            match queues
                .iter_mut()
                .find(|queue| queue.prefix == pool.prefix && queue.platform == runner.platform)
            {
                Some(queue) if queue.size_classes.contains(&runner.size_class) => {}
                Some(queue) => queue.size_classes.push(runner.size_class),
                None => queues.push(Predeclared {
                    prefix: pool.prefix.clone(),
                    platform: runner.platform.clone(),
                    size_classes: vec![runner.size_class],
                }),
            }
        }
    }
    queues.iter_mut().for_each(|queue| queue.size_classes.sort_unstable());
    queues.sort();
    queues
}

/// Since when a restart waits; none when there is nothing to wait for.
fn pending(world: &World<BuildbarnScheduler>, wanted: &str, now: Timestamp) -> Option<String> {
    let spec = &world.object.spec;
    let deployment = world.deployments.first()?;
    let template = deployment.spec.as_ref()?.template.metadata.as_ref()?;
    let current = template.annotations.as_ref()?.get(CONFIG_HASH)?;
    let runs = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0) > 0;
    let at_once = spec.restart_policy.unwrap_or_default() == RestartPolicy::Immediate;
    if current == wanted || !runs || at_once || spec.replicas == Some(0) || world.seen().is_some_and(idle) {
        return None;
    }
    if silent_seconds(world, now) >= SILENT_MAX_S {
        return None;
    }
    let since = world.before().restart_pending_since;
    let began = since.as_ref().and_then(|since| since.parse::<Timestamp>().ok()).unwrap_or(now);
    let waited = now.as_second().saturating_sub(began.as_second());
    (waited < spec.restart_max_wait_seconds.unwrap_or(600))
        .then(|| since.unwrap_or_else(|| format_second(now)))
}

/// For how long the scheduler has not answered, as its condition has it.
fn silent_seconds(world: &World<BuildbarnScheduler>, now: Timestamp) -> i64 {
    if world.seen().is_some() {
        return 0;
    }
    let conditions = world.before().conditions;
    let said = conditions.iter().find(|c| c.type_ == "QueueReachable" && c.status == "False");
    said.map_or(0, |said| now.as_second().saturating_sub(said.last_transition_time.0.as_second()))
}

fn idle(seen: &Snapshot) -> bool {
    seen.queues.iter().all(|queue| queue.executing == 0 && queue.queued == 0)
}
