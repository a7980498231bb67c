//! What holds in every cluster at rest, whatever happened to it before ([`violations`]), and what holds
//! at any moment ([`safety`]). Pure functions of the committed state; each violation is a sentence that
//! names the object.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{Namespace, Node, PersistentVolumeClaim, Pod, Service, ServiceAccount},
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
};
use kinds::quota;
use kube::{Resource, ResourceExt};
use meta::{GroupResource, Object, Quantity, Timestamp};
use serde_json::Value;

use crate::truth::Truth;

type Wrong = Vec<String>;

/// Everything that is wrong with a cluster that is at rest and has room for its pods.
pub fn violations(truth: &Truth, now: Timestamp) -> Vec<String> {
    let mut wrong = safety(truth, now);
    let pods: Vec<Pod> = truth.all();
    everything(truth, &mut wrong);
    nodes(truth, &pods, &mut wrong);
    pods_rest(&pods, &mut wrong);
    deployments(truth, &mut wrong);
    replica_sets(truth, &pods, &mut wrong);
    stateful_sets(truth, &pods, &mut wrong);
    daemon_sets(truth, &pods, &mut wrong);
    jobs(truth, &pods, &mut wrong);
    services(truth, &pods, &mut wrong);
    budgets(truth, &pods, &mut wrong);
    storage(truth, &pods, &mut wrong);
    namespaces(truth, &mut wrong);
    wrong
}

/// What must not happen even for a moment.
pub(crate) fn safety(truth: &Truth, now: Timestamp) -> Vec<String> {
    let mut wrong = Wrong::new();
    let all: Vec<(GroupResource, Object)> = truth
        .everything()
        .into_iter()
        .filter_map(|(kind, value)| Some((kind, Object::from_value(value).ok()?)))
        .collect();
    for (_, found) in
        all.iter().filter(|(kind, _)| kind.group.is_empty() && kind.resource == "resourcequotas")
    {
        let here = all.iter().filter(|(_, object)| object.namespace() == found.namespace());
        let used = quota::total(found, here.map(|(kind, object)| (kind, object)), now);
        let hard = quota::hard(found);
        for (what, used) in
            used.iter().filter(|(what, used)| hard.get(*what).is_some_and(|hard| *used > hard))
        {
            let used = quota::text(found, what, *used);
            let hard = found.str(&["spec", "hard", what]).unwrap_or_default();
            wrong.push(format!("ResourceQuota {}: {used} {what} of {hard}", found.key()));
        }
    }
    wrong
}

fn name<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let namespace = object.namespace().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    format!("{} {namespace}{}", K::kind(&()), object.name_any())
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn owned<'a, K: Resource>(objects: &'a [K], owner: &impl Resource) -> Vec<&'a K> {
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let is_its = |object: &&K| {
        object.owner_references().iter().any(|owner| owner.uid == uid && owner.controller == Some(true))
    };
    objects.iter().filter(is_its).collect()
}

/// Thousandths.
fn amount(quantity: &str) -> i64 {
    quantity.parse::<Quantity>().map(Quantity::milli_value).unwrap_or(0)
}

fn matches(selector: Option<&BTreeMap<String, String>>, object: &impl Resource) -> bool {
    let labels = object.meta().labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
    selector.is_some_and(|selector| !selector.is_empty() && selector.iter().all(has))
}

/// Compares what an object says with what is.
fn same<T: PartialEq + std::fmt::Debug>(wrong: &mut Wrong, of: &str, what: &str, is: T, should: T) {
    if is != should {
        wrong.push(format!("{of}: {what} is {is:?}, should be {should:?}"));
    }
}

/// Nothing is left over: owners and namespaces exist, nothing is stuck in deletion.
fn everything(truth: &Truth, wrong: &mut Wrong) {
    let all = truth.everything();
    let text = |object: &Value, path: &str| {
        object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let uids: HashSet<String> = all.iter().map(|(_, object)| text(object, "/metadata/uid")).collect();
    let namespaces: HashSet<String> = truth.all::<Namespace>().iter().map(ResourceExt::name_any).collect();
    for (kind, object) in &all {
        let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
        let this = format!("{kind} {namespace}/{name}");
        if kind.resource == "events" {
            continue;
        }
        if !namespace.is_empty() && !namespaces.contains(&namespace) {
            wrong.push(format!("{this}: its namespace does not exist"));
        }
        if object.pointer("/metadata/deletionTimestamp").is_some() {
            let held = object.pointer("/metadata/finalizers").cloned().unwrap_or_default();
            wrong.push(format!("{this}: is still being deleted, finalizers {held}"));
        }
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        for owner in owners.into_iter().flatten() {
            if !uids.contains(&text(owner, "/uid")) {
                wrong.push(format!("{this}: its owner {} is gone", text(owner, "/name")));
            }
        }
    }
}

/// Nodes are ready and untainted, and every pod on one fits.
fn nodes(truth: &Truth, pods: &[Pod], wrong: &mut Wrong) {
    let nodes: Vec<Node> = truth.all();
    let names: BTreeSet<String> = nodes.iter().map(ResourceExt::name_any).collect();
    for pod in pods {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        if node.as_ref().is_some_and(|node| !names.contains(node)) {
            wrong.push(format!("{}: its node {} does not exist", name(pod), node.unwrap_or_default()));
        }
    }
    for node in &nodes {
        let this = name(node);
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
        same(wrong, &this, "ready", ready, true);
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let taints: Vec<String> = taints.into_iter().map(|taint| taint.key).collect();
        same(wrong, &this, "taints", taints, Vec::new());
        let here = pods.iter().filter(|pod| {
            !is_terminal(pod)
                && pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == node.metadata.name.as_deref()
        });
        let here: Vec<&Pod> = here.collect();
        let allocatable =
            node.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default();
        for resource in ["cpu", "memory"] {
            let used: i64 = here.iter().map(|pod| requested(pod, resource)).sum();
            let room = allocatable.get(resource).map_or(0, |quantity| amount(&quantity.0));
            if used > room {
                wrong.push(format!("{this}: its pods ask for {used} of {room} thousandths of {resource}"));
            }
        }
        let most = allocatable.get("pods").map_or(0, |quantity| amount(&quantity.0) / 1000);
        if here.len() as i64 > most {
            wrong.push(format!("{this}: has {} pods of {most}", here.len()));
        }
    }
}

fn requested(pod: &Pod, resource: &str) -> i64 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let requests = containers.filter_map(|c| c.resources.as_ref()?.requests.as_ref()?.get(resource));
    requests.map(|quantity| amount(&quantity.0)).sum()
}

/// Every pod that is to run runs.
fn pods_rest(pods: &[Pod], wrong: &mut Wrong) {
    let mut addresses: HashMap<String, String> = HashMap::new();
    for pod in pods.iter().filter(|pod| !is_terminal(pod)) {
        let this = name(pod);
        let of_job = pod.owner_references().iter().any(|owner| owner.kind == "Job");
        if !of_job && !is_ready(pod) {
            let status = serde_json::to_value(&pod.status).unwrap_or_default();
            let why = status.pointer("/containerStatuses/0/state").or(status.pointer("/conditions"));
            let why = why.cloned().unwrap_or_default();
            wrong.push(format!("{this}: is {} and not ready: {why}", phase(pod)));
        }
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        if let Some(ip) = ip
            && let Some(other) = addresses.insert(ip.clone(), this.clone())
        {
            wrong.push(format!("{this}: has the address {ip} of {other}"));
        }
    }
}

fn deployments(truth: &Truth, wrong: &mut Wrong) {
    let sets: Vec<ReplicaSet> = truth.all();
    for deployment in truth.all::<Deployment>() {
        let this = name(&deployment);
        let status = deployment.status.clone().unwrap_or_default();
        let spec = deployment.spec.clone().unwrap_or_default();
        let replicas = spec.replicas.unwrap_or(1);
        same(wrong, &this, "observedGeneration", status.observed_generation, deployment.metadata.generation);
        let counts = [
            ("replicas", status.replicas),
            ("updatedReplicas", status.updated_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        for (what, count) in counts {
            same(wrong, &this, what, count.unwrap_or(0), replicas);
        }
        let mine = owned(&sets, &deployment);
        let wanted = |set: &&ReplicaSet| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1) > 0;
        let used = mine.iter().copied().filter(wanted).count();
        same(wrong, &this, "replica sets in use", used, usize::from(replicas > 0));
        let kept = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0) + 1;
        if mine.len() > kept {
            wrong.push(format!("{this}: keeps {} replica sets, limit {kept}", mine.len()));
        }
    }
}

fn replica_sets(truth: &Truth, pods: &[Pod], wrong: &mut Wrong) {
    for set in truth.all::<ReplicaSet>() {
        let this = name(&set);
        let status = set.status.clone().unwrap_or_default();
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let active = owned(pods, &set).into_iter().filter(|pod| !is_terminal(pod)).count();
        same(wrong, &this, "pods", active, usize::try_from(replicas).unwrap_or(0));
        same(wrong, &this, "status.replicas", status.replicas, replicas);
        same(wrong, &this, "observedGeneration", status.observed_generation, set.metadata.generation);
    }
}

fn stateful_sets(truth: &Truth, pods: &[Pod], wrong: &mut Wrong) {
    for set in truth.all::<StatefulSet>() {
        let this = name(&set);
        let (status, spec) = (set.status.clone().unwrap_or_default(), set.spec.clone().unwrap_or_default());
        let replicas = spec.replicas.unwrap_or(1);
        let start = spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0);
        let should: BTreeSet<String> =
            (start..start + replicas).map(|at| format!("{}-{at}", set.name_any())).collect();
        let have: BTreeSet<String> = owned(pods, &set).into_iter().map(ResourceExt::name_any).collect();
        same(wrong, &this, "pods", have, should);
        same(wrong, &this, "readyReplicas", status.ready_replicas.unwrap_or(0), replicas);
        same(wrong, &this, "observedGeneration", status.observed_generation, set.metadata.generation);
        same(wrong, &this, "currentRevision", status.current_revision, status.update_revision);
    }
}

fn daemon_sets(truth: &Truth, pods: &[Pod], wrong: &mut Wrong) {
    let nodes = truth.all::<Node>().len();
    for set in truth.all::<DaemonSet>() {
        let this = name(&set);
        let status = set.status.clone().unwrap_or_default();
        let active = owned(pods, &set).into_iter().filter(|pod| !is_terminal(pod));
        let on: BTreeSet<Option<String>> =
            active.clone().map(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone())).collect();
        same(wrong, &this, "pods", active.count(), nodes);
        same(wrong, &this, "nodes with a pod", on.len(), nodes);
        let all = i32::try_from(nodes).unwrap_or(i32::MAX);
        same(wrong, &this, "numberReady", status.number_ready, all);
        same(wrong, &this, "updatedNumberScheduled", status.updated_number_scheduled.unwrap_or(0), all);
        same(wrong, &this, "observedGeneration", status.observed_generation, set.metadata.generation);
    }
}

fn jobs(truth: &Truth, pods: &[Pod], wrong: &mut Wrong) {
    let jobs: Vec<Job> = truth.all();
    for job in &jobs {
        let this = name(job);
        let status = job.status.clone().unwrap_or_default();
        let done = status.conditions.iter().flatten();
        let done = done.filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
        same(wrong, &this, "ends", done.count(), 1);
        same(wrong, &this, "active", status.active.unwrap_or(0), 0);
        let completions = job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or(0);
        let complete =
            status.conditions.iter().flatten().any(|c| c.type_ == "Complete" && c.status == "True");
        if complete {
            same(wrong, &this, "succeeded", status.succeeded.unwrap_or(0), completions);
        }
        for pod in owned(pods, job) {
            if !is_terminal(pod) {
                wrong.push(format!("{}: runs although its job has ended", name(pod)));
            }
            if pod.finalizers().iter().any(|f| f == "batch.kubernetes.io/job-tracking") {
                wrong.push(format!("{}: is still tracked", name(pod)));
            }
        }
    }
    let uids: HashSet<Option<String>> = jobs.iter().map(ResourceExt::uid).collect();
    for cron in truth.all::<CronJob>() {
        let active = cron.status.iter().flat_map(|status| status.active.iter().flatten());
        for gone in active.filter(|active| !uids.contains(&active.uid)) {
            wrong.push(format!("{}: counts {:?} as active", name(&cron), gone.name));
        }
    }
}

/// What is behind a Service are the ready pods that it selects.
fn services(truth: &Truth, pods: &[Pod], wrong: &mut Wrong) {
    let slices: Vec<EndpointSlice> = truth.all();
    for service in truth.all::<Service>() {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        if selector.is_none_or(BTreeMap::is_empty) {
            continue;
        }
        let selected = |pod: &&Pod| {
            pod.namespace() == service.namespace()
                && matches(selector, *pod)
                && is_ready(pod)
                && !is_terminal(pod)
        };
        let ip = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let should: BTreeSet<String> = pods.iter().filter(selected).filter_map(ip).collect();
        let of_service = slices.iter().filter(|slice| {
            slice.namespace() == service.namespace()
                && slice.labels().get("kubernetes.io/service-name") == service.metadata.name.as_ref()
        });
        let endpoints = of_service.flat_map(|slice| slice.endpoints.iter().flatten());
        let ready = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        let have: BTreeSet<String> = ready.flat_map(|endpoint| endpoint.addresses.clone()).collect();
        same(wrong, &name(&service), "ready endpoints", have, should);
    }
}

fn budgets(truth: &Truth, pods: &[Pod], wrong: &mut Wrong) {
    for budget in truth.all::<PodDisruptionBudget>() {
        let this = name(&budget);
        let status = budget.status.clone().unwrap_or_default();
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()?.match_labels.as_ref());
        let selected =
            |pod: &&Pod| pod.namespace() == budget.namespace() && matches(selector, *pod) && is_ready(pod);
        let healthy = i32::try_from(pods.iter().filter(selected).count()).unwrap_or(i32::MAX);
        same(wrong, &this, "observedGeneration", status.observed_generation, budget.metadata.generation);
        same(wrong, &this, "currentHealthy", status.current_healthy.unwrap_or(0), healthy);
    }
}

/// Claims that pods use are bound.
fn storage(truth: &Truth, pods: &[Pod], wrong: &mut Wrong) {
    let used: HashSet<(Option<String>, String)> = pods
        .iter()
        .filter(|pod| !is_terminal(pod))
        .flat_map(|pod| {
            let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            let claims = volumes
                .filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone()));
            claims.map(|claim| (pod.namespace(), claim)).collect::<Vec<_>>()
        })
        .collect();
    for claim in truth.all::<PersistentVolumeClaim>() {
        let phase = claim.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        if used.contains(&(claim.namespace(), claim.name_any())) {
            same(wrong, &name(&claim), "phase", phase.as_str(), "Bound");
        }
    }
}

fn namespaces(truth: &Truth, wrong: &mut Wrong) {
    let accounts: Vec<ServiceAccount> = truth.all();
    for namespace in truth.all::<Namespace>() {
        let has = accounts
            .iter()
            .any(|account| account.namespace() == namespace.metadata.name && account.name_any() == "default");
        same(wrong, &name(&namespace), "has its ServiceAccount", has, true);
    }
}
