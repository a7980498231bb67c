//! The decision: from the world to writes and a status. Pure.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod},
};
use kube::ResourceExt;
use meta::{ObjectKey, Quantity, Timestamp, format_second};
use reconcile::{Child, Kind, Note, Plan, Precondition, Propagation, Write, key_of};
use serde_json::{Value, json};

use crate::{
    children::{self, CONFIG_HASH},
    component::{Component, Design, Workload},
    drain::{self, Member, Moves, State},
    kinds,
    observe::World,
    queue::{COST, Drains, RELEASED, Release},
    refusals::Accepted,
    status::{self, Seen},
    verdict::Verdict,
};

/// Looked at anew even if nothing changes.
const STEADY: Duration = Duration::from_secs(300);
/// Once the API server has taken what it refused, the status is to say so.
const ACCEPTED: Duration = Duration::from_secs(1);
/// While pods are on their way out: what they run is seen only by asking.
const DRAINING: Duration = Duration::from_secs(2);
/// When a pod was marked to go.
pub(crate) const DRAIN_SINCE: &str = "buildbarn.io/draining-since";
/// Which template a worker's pod is of.
pub(crate) const TEMPLATE: &str = "buildbarn.io/template";

pub(crate) fn plan<K: Component>(world: &World<K>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if world.object.meta().deletion_timestamp.is_some() {
        // Children go with their owner; the original's finalizer would wait for nobody.
        plan.remove_finalizer(&*world.object, K::FINALIZER);
        return plan;
    }
    plan.recheck(STEADY);
    if world.refused.is_some() {
        plan.effects
            .push(Box::new(Accepted { refusals: Arc::clone(&world.refusals), key: key_of(&*world.object) }));
        plan.recheck(ACCEPTED);
    }
    let design = if world.common().paused == Some(true) {
        Err(Verdict::not("Paused", "nothing is changed while spec.paused is true"))
    } else {
        K::design(world, now).and_then(|design| match taken(world, &design) {
            Some(verdict) => Err(verdict),
            None => Ok(design),
        })
    };
    let seen = match &design {
        Ok(design) => build(world, design, now, &mut plan),
        Err(_) => status::seen(world, None),
    };
    finish(world, design, &seen, now, &mut plan);
    plan
}

fn finish<K: Component>(
    world: &World<K>,
    design: Result<Design, Verdict>,
    seen: &Seen,
    now: Timestamp,
    plan: &mut Plan,
) {
    let (after, verdict) = status::status(world, design.as_ref(), seen, now);
    if status::is_news(&world.before(), &after) {
        let (reason, message) = (verdict.reason, verdict.message.clone());
        plan.events.push(if verdict.is_fault() {
            Note::warning(&*world.object, reason, "Reconcile", message)
        } else {
            Note::normal(&*world.object, reason, "Reconcile", message)
        });
    }
    plan.set_status(&*world.object, &after);
}

/// A name that a child would have and that belongs to somebody else.
fn taken<K: Component>(world: &World<K>, design: &Design) -> Option<Verdict> {
    let workload = match &design.workload {
        Workload::Deployment(Some(object)) | Workload::StatefulSet { set: object, .. } => Some(object),
        Workload::Deployment(None) | Workload::Pool { .. } => None,
    };
    let mut all = design.others.iter().chain(workload);
    let (kind, name) = all.find_map(|child| {
        let kind = child.get("kind").and_then(Value::as_str)?;
        let name = name_of(child);
        world.taken.iter().find(|(other, taken)| other.kind == kind && *taken == name)
    })?;
    let message = format!(
        "{} {name:?} exists and belongs to something else: delete it, or give this object another name",
        kind.kind
    );
    Some(Verdict::not("NameTaken", message))
}

fn name_of(child: &Value) -> String {
    child.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Plans an object to be applied.
fn apply(plan: &mut Plan, namespace: &str, body: Value) {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let plural = match kind.as_str() {
        "Ingress" => "ingresses".to_owned(),
        "NetworkPolicy" => "networkpolicies".to_owned(),
        other => format!("{}s", other.to_lowercase()),
    };
    let kind = Kind::new(group, version, &kind, &plural);
    plan.apply.push(Child::object(kind, ObjectKey::new(namespace, name), Write::Apply, body));
}

/// Children in the order in which they need each other. What there shall not be any more goes last.
fn build<K: Component>(world: &World<K>, design: &Design, now: Timestamp, plan: &mut Plan) -> Seen {
    let (name, namespace) = (world.name(), world.namespace());
    let instance = world.pods.first().and_then(|pod| pod.labels().get("instance").cloned());
    let base = kinds::base(world, &name, &namespace, instance.as_deref());
    if let Some(files) = &design.files {
        apply(plan, &namespace, children::config_map(&base, files));
    }
    for child in &design.others {
        apply(plan, &namespace, child.clone());
    }
    let seen = match &design.workload {
        Workload::Deployment(wanted) => {
            if let Some(wanted) = wanted {
                apply(plan, &namespace, wanted.clone());
            }
            status::seen(world, Some(design))
        }
        Workload::StatefulSet { set, volumes } => {
            match world.stateful_set.as_ref().filter(|present| has_other_claims(present, set)) {
                Some(present) => replace(present, plan),
                None => apply(plan, &namespace, set.clone()),
            }
            grow(world, volumes, plan);
            status::seen(world, Some(design))
        }
        Workload::Pool { template, limit_seconds } => {
            drive(world, design, template, *limit_seconds, now, plan)
        }
    };
    plan.prune(world.services.iter().map(|o| &**o));
    plan.prune(world.ingresses.iter().map(|o| &**o));
    plan.prune(world.budgets.iter().map(|o| &**o));
    plan.prune(world.policies.iter().map(|o| &**o));
    prune_config(world, design, &seen, plan);
    if let Some(seconds) = design.recheck_seconds {
        plan.recheck(Duration::from_secs(seconds));
    }
    seen
}

/// Whether other stores have claims: the API server refuses such a change of a StatefulSet.
fn has_other_claims(present: &StatefulSet, wanted: &Value) -> bool {
    let wanted = wanted.pointer("/spec/volumeClaimTemplates").unwrap_or(&Value::Null);
    children::claim_names(wanted) != children::present_claim_names(present)
}

/// Takes a StatefulSet away from its pods; the next one, made when it is gone, takes them over and restarts them one by
/// one.
fn replace(present: &Arc<StatefulSet>, plan: &mut Plan) {
    if present.metadata.deletion_timestamp.is_none() {
        let orphan = Some(Propagation::Orphan);
        plan.delete.push(Precondition { propagation: orphan, ..Precondition::of::<StatefulSet>(present) });
    }
}

/// Bytes that a claim asks for.
pub(crate) fn requested(claim: &PersistentVolumeClaim) -> i64 {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    requests
        .and_then(|requests| requests.get("storage"))
        .and_then(|size| size.0.parse::<Quantity>().ok())
        .map_or(0, Quantity::value)
}

/// Claims that are smaller than what is asked for grow; a template cannot be changed.
fn grow<K: Component>(world: &World<K>, volumes: &[(String, i64)], plan: &mut Plan) {
    for claim in &world.claims {
        let of = |name: &String| claim.name_any().starts_with(&format!("{name}-"));
        let Some((_, bytes)) = volumes.iter().find(|(name, _)| of(name)) else { continue };
        if requested(claim) < *bytes && claim.metadata.deletion_timestamp.is_none() {
            let patch = json!({"spec": {"resources": {"requests": {"storage": children::amount(*bytes)}}}});
            plan.apply.push(Child::patch_body(Kind::of::<PersistentVolumeClaim>(), &**claim, None, patch));
        }
    }
}

/// ConfigMaps of earlier configurations stay until no pod can be started with them.
fn prune_config<K: Component>(world: &World<K>, design: &Design, seen: &Seen, plan: &mut Plan) {
    if !seen.rolled_out {
        return;
    }
    let wanted = design.files.as_ref().map(|files| children::config_map_name(&world.name(), files));
    let used: BTreeSet<String> = world
        .pods
        .iter()
        .filter_map(|pod| pod.annotations().get(CONFIG_HASH))
        .map(|hash| format!("{}-config-{hash}", world.name()))
        .collect();
    for map in &world.config_maps {
        let name = map.name_any();
        let kept = wanted.as_ref() == Some(&name) || used.contains(&name);
        if !kept && map.metadata.deletion_timestamp.is_none() {
            plan.delete.push(Precondition::of::<ConfigMap>(map));
        }
    }
}

/// One step of a pool.
fn drive<K: Component>(
    world: &World<K>,
    design: &Design,
    template: &Value,
    limit_seconds: i64,
    now: Timestamp,
    plan: &mut Plan,
) -> Seen {
    let (name, namespace) = (world.name(), world.namespace());
    let labels = template.pointer("/metadata/labels/instance").and_then(Value::as_str);
    let base = kinds::base(world, &name, &namespace, labels);
    let current = children::template_hash(template);
    let members: Vec<Member> = world.pods.iter().map(member).collect();
    let deployments = world.asked();
    let moves = drain::moves(&State {
        members: &members,
        deployments: &deployments,
        current: &current,
        desired: design.replicas,
        cordoned: &world.cordoned,
        queue: world.seen(),
        limit_seconds,
        now,
    });
    for (hash, replicas) in &moves.replicas {
        if *hash == current {
            apply(plan, &namespace, children::pool(&base, *replicas, template));
        } else if let Some(old) = deployment(world, hash) {
            let mut next = (**old).clone();
            if let Some(spec) = next.spec.as_mut() {
                spec.replicas = Some(*replicas);
            }
            plan.change(&**old, &next);
        }
    }
    for hash in &moves.remove {
        plan.delete.extend(deployment(world, hash).map(|old| Precondition::of::<Deployment>(old)));
    }
    mark(world, &moves, now, plan);
    effects(world, &moves, plan);
    for pod in world.pods.iter().filter(|pod| moves.delete.contains(&pod.name_any())) {
        plan.delete.push(Precondition::of::<Pod>(pod));
    }
    if moves.look_again {
        plan.recheck(DRAINING);
    }
    status::seen_pool(world, design, &current, &members, moves.draining)
}

fn deployment<'a, K: Component>(world: &'a World<K>, hash: &str) -> Option<&'a Arc<Deployment>> {
    world.deployments.iter().find(|deployment| {
        let labels = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.as_ref());
        labels.and_then(|labels| labels.get(TEMPLATE)).is_some_and(|label| label == hash)
    })
}

fn member(pod: &Arc<Pod>) -> Member {
    let annotation = |key: &str| pod.annotations().get(key);
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default();
    Member {
        name: pod.name_any(),
        template: pod.labels().get(TEMPLATE).cloned().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        ready: status::is_ready(pod),
        deleting: pod.metadata.deletion_timestamp.is_some() || status::is_finished(pod),
        created,
        draining_since: annotation(DRAIN_SINCE).map(|since| since.parse().unwrap_or(created)),
        released: annotation(RELEASED).is_some(),
    }
}

fn mark<K: Component>(world: &World<K>, moves: &Moves, now: Timestamp, plan: &mut Plan) {
    for pod in &world.pods {
        let name = pod.name_any();
        let annotations = if moves.mark.contains(&name) {
            json!({DRAIN_SINCE: format_second(now)})
        } else if moves.unmark.contains(&name) {
            json!({DRAIN_SINCE: null})
        } else if moves.revoke.contains(&name) {
            json!({RELEASED: null, COST: null})
        } else {
            continue;
        };
        let patch = json!({"metadata": {"annotations": annotations}});
        plan.apply.push(Child::patch_body(Kind::of::<Pod>(), &**pod, None, patch));
    }
}

/// What the scheduler is told. Drains go before anything is asked to be promised.
fn effects<K: Component>(world: &World<K>, moves: &Moves, plan: &mut Plan) {
    let Some((queue, seen)) = &world.queue else { return };
    let names = || match world.object.queue(&world.farm) {
        Some((_, Some(names))) => names,
        _ => seen.as_ref().map(|seen| seen.drains.keys().cloned().collect()).unwrap_or_default(),
    };
    for (pods, add) in [(&moves.drain, true), (&moves.undrain, false)] {
        for pod in pods {
            let drains = Drains { queue: Arc::clone(queue), names: names(), pod: pod.clone(), add };
            plan.effects.push(Box::new(drains));
        }
    }
    for (pods, ask) in [(&moves.release, true), (&moves.give_up, false)] {
        for pod in world.pods.iter().filter(|pod| pods.contains(&pod.name_any())) {
            plan.effects.push(Box::new(Release {
                queue: ask.then(|| Arc::clone(queue)),
                namespace: world.namespace(),
                pod: pod.name_any(),
                uid: pod.uid().unwrap_or_default(),
            }));
        }
    }
}
