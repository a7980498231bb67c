//! The Node object and the Lease: registering, measuring, saying "alive".

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{Node, NodeStatus},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use meta::Timestamp;
use runtime::stats::{Readiness, Status};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{Agent, View};
use crate::{
    admission::NodeView,
    node::object::{self, Findings, Identity},
    options::Options,
};

/// Namespace of the nodes' Leases.
const LEASES: &str = "kube-node-lease";
/// How long a Lease holds without being renewed (upstream `nodeLeaseDurationSeconds`).
const LEASE_SECONDS: i32 = 40;
/// While the node is not ready, it is looked at this often: start-up should not wait for a heartbeat.
const EAGER: Duration = Duration::from_millis(250);
/// Longest to wait for one round with the API server. Behind a connection that died without a word, a node would be
/// given up for as long as TCP tries (upstream bounds its heartbeats so for the same reason).
const ROUND_MAX: Duration = Duration::from_secs(10);
/// A status that did not change is posted anew after this long (upstream `nodeStatusReportFrequency`).
const REPORT_EVERY: Duration = Duration::from_secs(300);

/// Measures the machine, so that admission knows what there is before the first pod comes.
pub(super) async fn measure_first(agent: &Agent) {
    match agent.options.host.measure().await {
        Ok(measured) => {
            let identity = identity(&agent.options, None);
            let node = NodeView {
                name: agent.options.name.clone(),
                labels: object::labels(&identity, &measured),
                allocatable: object::allocatable_quantities(&identity, &measured),
            };
            agent.set_view(View { node, uid: String::new(), memory_bytes: measured.memory_bytes });
        }
        Err(error) => tracing::error!(%error, "cannot measure this machine"),
    }
}

pub(super) fn identity(options: &Options, port: Option<u16>) -> Identity {
    Identity {
        name: options.name.clone(),
        addresses: options.addresses.clone(),
        labels: options.labels.clone(),
        taints: options.taints.clone(),
        max_pods: options.max_pods,
        kubelet_port: port.unwrap_or_default(),
        pod_cidr: options.pod_cidr.clone(),
        thresholds: options.thresholds,
    }
}

/// Keeps the Node object true.
pub(super) async fn keep_status(agent: Arc<Agent>, port: Option<u16>) {
    let identity = identity(&agent.options, port);
    let mut keeper = Keeper { agent, identity, node: None, posted: None, cidr: None };
    loop {
        let ready = keeper.beat().await;
        if ready.is_none() {
            keeper.node = None;
        }
        let ready = ready.unwrap_or(false);
        let heartbeat = keeper.agent.options.heartbeat;
        let jitter = Duration::from_millis(keeper.agent.options.random.below(250));
        tokio::time::sleep(if ready { heartbeat } else { EAGER.min(heartbeat) } + jitter).await;
    }
}

struct Keeper {
    agent: Arc<Agent>,
    identity: Identity,
    node: Option<Node>,
    posted: Option<Instant>,
    cidr: Option<String>,
}

impl Keeper {
    /// One round; says whether the node is ready, `None` when the API server does not hear of it.
    async fn beat(&mut self) -> Option<bool> {
        self.take_cidr().await;
        let Some(findings) = self.findings().await else { return Some(false) };
        match timeout(ROUND_MAX, self.tell(&findings)).await {
            Ok(Ok(ready)) => Some(ready),
            Ok(Err(error)) => {
                tracing::warn!(error = reconcile::text(&error), "cannot keep the Node object");
                None
            }
            Err(_) => {
                tracing::warn!("no answer in time about the Node object");
                None
            }
        }
    }

    async fn tell(&mut self, findings: &Findings) -> Result<bool, kube::Error> {
        let nodes: Api<Node> = Api::all(self.agent.client.clone());
        let ready = findings.runtime.is_ready() && findings.network.is_ready();
        // Read each time, as upstream does: others write to it (spec.podCIDR, a Ready that turned Unknown
        // while nothing was heard), and that has to be answered at once.
        let node = self.registered(&nodes, findings).await?;
        let node = self.labelled(&nodes, node, findings).await?;
        let now = self.agent.now();
        let status = object::status(&self.identity, findings, node.status.as_ref(), now);
        let due = self.posted.is_none_or(|posted| posted.elapsed() >= REPORT_EVERY);
        let node = if due || is_news(node.status.as_ref(), &status) {
            let patch = Patch::Strategic(status_patch(node.status.as_ref(), &status));
            let node = nodes.patch_status(&self.identity.name, &PatchParams::default(), &patch).await?;
            self.posted = Some(Instant::now());
            node
        } else {
            node
        };
        let mut allocatable = object::allocatable_quantities(&self.identity, &findings.measured);
        allocatable.extend(node.status.as_ref().map(object::extended).unwrap_or_default());
        self.agent.set_view(View {
            node: NodeView {
                name: self.identity.name.clone(),
                labels: node.metadata.labels.clone().unwrap_or_default(),
                allocatable,
            },
            uid: node.metadata.uid.clone().unwrap_or_default(),
            memory_bytes: findings.measured.memory_bytes,
        });
        self.node = Some(node);
        self.take_cidr().await;
        Ok(ready)
    }

    async fn findings(&self) -> Option<Findings> {
        let measured = match self.agent.options.host.measure().await {
            Ok(measured) => measured,
            Err(error) => {
                tracing::error!(%error, "cannot measure this machine");
                return None;
            }
        };
        let runtime = &self.agent.runtime;
        let away = |error: runtime::Error| {
            let not =
                Readiness::NotReady { reason: "RuntimeUnavailable".to_owned(), message: error.to_string() };
            Status { runtime: not.clone(), network: not, handlers: Vec::new() }
        };
        let Status { runtime: ready, network, handlers } = runtime.status().await.unwrap_or_else(away);
        let images = runtime.list_images().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot list images");
            Vec::new()
        });
        let version = runtime.version().await.ok();
        Some(Findings { measured, version, runtime: ready, network, images, handlers })
    }

    async fn registered(&self, nodes: &Api<Node>, findings: &Findings) -> Result<Node, kube::Error> {
        if let Some(node) = nodes.get_opt(&self.identity.name).await? {
            return Ok(node);
        }
        let new = object::node(&self.identity, findings, self.agent.now());
        match nodes.create(&PostParams::default(), &new).await {
            Ok(node) => {
                tracing::info!(node = self.identity.name, "registered");
                Ok(node)
            }
            // Somebody was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => nodes.get(&self.identity.name).await,
            Err(error) => Err(error),
        }
    }

    /// Puts back labels that the node keeps on itself.
    async fn labelled(
        &self,
        nodes: &Api<Node>,
        node: Node,
        findings: &Findings,
    ) -> Result<Node, kube::Error> {
        let has = node.metadata.labels.clone().unwrap_or_default();
        let mut wanted = object::labels(&self.identity, &findings.measured);
        wanted.retain(|key, value| has.get(key) != Some(value));
        if wanted.is_empty() {
            return Ok(node);
        }
        let patch = Patch::Merge(json!({ "metadata": { "labels": wanted } }));
        nodes.patch(&self.identity.name, &PatchParams::default(), &patch).await
    }

    /// Hands the pod address range to the runtime once it is known.
    async fn take_cidr(&mut self) {
        let given = self.node.as_ref().and_then(|node| node.spec.as_ref()?.pod_cidr.clone());
        let Some(cidr) = given.or_else(|| self.agent.options.pod_cidr.clone()) else { return };
        if self.cidr.as_ref() == Some(&cidr) {
            return;
        }
        match self.agent.runtime.set_pod_cidr(&cidr).await {
            Ok(()) => self.cidr = Some(cidr),
            Err(error) => tracing::warn!(%error, cidr, "cannot set the pod address range"),
        }
    }
}

/// Whether anything but the time of the heartbeat and figures that always move is new.
fn is_news(old: Option<&NodeStatus>, new: &NodeStatus) -> bool {
    let Some(old) = old else { return true };
    let conditions = |status: &NodeStatus| -> Vec<(String, String, Option<String>, Option<String>)> {
        let list = status.conditions.iter().flatten();
        list.map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.message.clone())).collect()
    };
    let had = conditions(old);
    conditions(new).iter().any(|condition| !had.contains(condition))
        || old.addresses != new.addresses
        || old.capacity != new.capacity
        || old.allocatable != new.allocatable
        || old.node_info != new.node_info
        || kubelet_port(old) != kubelet_port(new)
        || handlers(new).is_some_and(|new| handlers(old) != Some(new))
        || old.images.as_deref().unwrap_or_default() != new.images.as_deref().unwrap_or_default()
}

/// Their names; a runtime that does not answer tells none.
fn handlers(status: &NodeStatus) -> Option<Vec<&str>> {
    let list = status.runtime_handlers.as_ref()?;
    Some(list.iter().map(|handler| handler.name.as_deref().unwrap_or_default()).collect())
}

/// The API server shows port 0 where there is none.
fn kubelet_port(status: &NodeStatus) -> i32 {
    let endpoints = status.daemon_endpoints.as_ref();
    endpoints.and_then(|endpoints| endpoints.kubelet_endpoint.as_ref()).map_or(0, |endpoint| endpoint.port)
}

/// Conditions are merged by type, so those of others stay; addresses are replaced as a whole, because
/// merging by type would lose the second of two addresses of one type (kubernetes #30480).
fn status_patch(old: Option<&NodeStatus>, new: &NodeStatus) -> Value {
    let mut status = json!(new);
    if let Some(map) = status.as_object_mut() {
        if old.is_some_and(|old| old.addresses == new.addresses) {
            map.remove("addresses");
        } else if let Some(list) = map.get_mut("addresses").and_then(Value::as_array_mut) {
            list.push(json!({ "$patch": "replace" }));
        }
    }
    json!({ "status": status })
}

/// Renews the Lease of the node.
pub(super) async fn keep_lease(agent: Arc<Agent>) {
    let mut exists = false;
    loop {
        match timeout(ROUND_MAX, renew(&agent, exists)).await {
            Ok(Ok(())) => exists = true,
            Ok(Err(error)) => {
                tracing::debug!(error = reconcile::text(&error), "cannot renew the node's Lease");
                exists = false;
            }
            Err(_) => {
                tracing::debug!("no answer in time about the node's Lease");
                exists = false;
            }
        }
        let options = &agent.options;
        let jitter = Duration::from_millis(options.random.below(400));
        let pause = match (exists, options.renew_together) {
            (false, _) => Duration::from_secs(1) + jitter,
            (true, false) => options.heartbeat + jitter,
            (true, true) => until_slot(agent.now(), options.heartbeat, &options.name),
        };
        tokio::time::sleep(pause).await;
    }
}

/// How long it is until the next moment at which this node renews: a whole second of each period that
/// the name decides. At most a period.
fn until_slot(now: Timestamp, period: Duration, name: &str) -> Duration {
    let period = i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1);
    let seconds = (period / 1000).max(1);
    let hash = name.bytes().fold(0_i64, |hash, byte| (hash * 31 + i64::from(byte)) % seconds);
    let gone = (now.as_millisecond() - hash * 1000).rem_euclid(period);
    Duration::from_millis((period - gone).unsigned_abs())
}

async fn renew(agent: &Agent, exists: bool) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(agent.client.clone(), LEASES);
    let name = &agent.options.name;
    let now = MicroTime(agent.now());
    if exists {
        let patch = Patch::Merge(json!({ "spec": { "renewTime": now, "holderIdentity": name } }));
        leases.patch(name, &PatchParams::default(), &patch).await?;
        return Ok(());
    }
    let uid = agent.view().uid;
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.clone(),
        uid: uid.clone(),
        ..OwnerReference::default()
    };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            owner_references: (!uid.is_empty()).then(|| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now.clone()),
            ..LeaseSpec::default()
        }),
    };
    match leases.create(&PostParams::default(), &lease).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = Patch::Merge(json!({ "spec": { "renewTime": now, "holderIdentity": name } }));
            leases.patch(name, &PatchParams::default(), &patch).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, now_ms: i64, expected_ms: u64) {
        let now = Timestamp::from_millisecond(now_ms).unwrap();
        let wait = until_slot(now, Duration::from_secs(10), name);
        assert_eq!(wait, Duration::from_millis(expected_ms), "{name} at {now_ms}");
    }

    #[test]
    fn a_node_renews_at_its_second_of_each_period() {
        // 'b' is 98: second 8 of each ten.
        check("b", 0, 8_000);
        check("b", 7_999, 1);
        check("b", 8_000, 10_000);
        check("b", 8_001, 9_999);
        check("c", 20_500, 8_500);
    }
}
