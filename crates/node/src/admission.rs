//! Whether this node can take a pod that is bound to it.
//!
//! Guarantees upstream's checks and wording (`pkg/kubelet/lifecycle/predicate.go`): operating system,
//! node selector and affinity, host ports, cpu, memory, ephemeral storage, extended resources, number
//! of pods. Pure. Taints are not checked: the taint manager evicts.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};
use meta::Quantity;
use runtime::action::Role;

use crate::{plan::Rejection, pod, resize::Resize};

/// The node as admission sees it.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// Node name.
    pub name: String,
    /// Labels of the Node object.
    pub labels: BTreeMap<String, String>,
    /// Allocatable.
    pub allocatable: BTreeMap<String, String>,
}

/// `None` when the node takes it. `others` are the pods that it runs already.
pub fn refuse<'a>(
    want: &Pod,
    others: impl Iterator<Item = &'a Pod> + Clone,
    node: &NodeView,
) -> Option<Rejection> {
    let os = want.spec.as_ref().and_then(|spec| spec.os.as_ref()).map(|os| os.name.as_str());
    if os.is_some_and(|os| os != "linux") {
        return Some(rejection(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ));
    }
    if !selects(want, node) {
        return Some(rejection("NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed"));
    }
    let taken: Vec<Port> = others.clone().flat_map(host_ports).collect();
    if host_ports(want).iter().any(|port| taken.iter().any(|other| port.collides(other))) {
        return Some(rejection("NodePorts", "Pod was rejected: Predicate NodePorts failed"));
    }
    resources(want, others, node)
}

/// What the node says to a resize of a pod that it runs (upstream `pkg/kubelet/allocation`). `others` are the other
/// pods that it runs.
pub fn resize<'a>(want: &Pod, others: impl Iterator<Item = &'a Pod>, node: &NodeView) -> Resize {
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    others.for_each(|other| add(&mut used, &requests(other)));
    let mut deferred = None;
    for (name, asked) in requests(want).into_iter().filter(|(name, _)| matches!(&**name, "cpu" | "memory")) {
        let capacity = node.allocatable.get(&name).map_or(0, |text| amount(&name, text));
        let used = used.get(&name).copied().unwrap_or_default();
        if asked > capacity {
            return Resize::Infeasible(format!(
                "Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}"
            ));
        }
        if asked > capacity - used {
            deferred.get_or_insert(format!(
                "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
            ));
        }
    }
    deferred.map_or(Resize::Taken, Resize::Deferred)
}

fn rejection(reason: &str, message: &str) -> Rejection {
    Rejection { reason: reason.to_owned(), message: message.to_owned() }
}

fn resources<'a>(want: &Pod, others: impl Iterator<Item = &'a Pod>, node: &NodeView) -> Option<Rejection> {
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    let mut count = 0;
    for other in others {
        count += 1;
        for (name, amount) in requests(other) {
            *used.entry(name).or_default() += amount;
        }
    }
    let short = |name: &str, asked: i64, used: i64, capacity: i64| {
        let message = format!(
            "Pod was rejected: Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
        );
        Some(Rejection { reason: format!("OutOf{name}"), message })
    };
    if let Some(pods) = node.allocatable.get("pods").map(|text| amount("pods", text))
        && count + 1 > pods
    {
        return short("pods", 1, count, pods);
    }
    for (name, asked) in requests(want) {
        let capacity = node.allocatable.get(&name).map_or(0, |text| amount(&name, text));
        let used = used.get(&name).copied().unwrap_or_default();
        if asked > 0 && asked > capacity - used {
            return short(&name, asked, used, capacity);
        }
    }
    None
}

/// CPU in thousandths, everything else in its own unit.
fn amount(name: &str, text: &str) -> i64 {
    let quantity: Option<Quantity> = text.parse().ok();
    quantity.map_or(0, |quantity| if name == "cpu" { quantity.milli_value() } else { quantity.value() })
}

/// What a pod asks for: the sum of its main containers and sidecars, or what an init container needs
/// beside the sidecars before it, whichever is more (KEP-753), plus overhead.
fn requests(want: &Pod) -> BTreeMap<String, i64> {
    let of = |member: pod::Member<'_>| -> BTreeMap<String, i64> {
        let map = member.container.resources.as_ref().and_then(|r| r.requests.as_ref());
        map.into_iter()
            .flatten()
            .map(|(name, WireQuantity(text))| (name.clone(), amount(name, text)))
            .collect()
    };
    let mut sidecars: BTreeMap<String, i64> = BTreeMap::new();
    let mut most: BTreeMap<String, i64> = BTreeMap::new();
    for member in pod::init(want) {
        let own = of(member);
        if member.role == Role::Sidecar {
            add(&mut sidecars, &own);
            max(&mut most, &sidecars);
        } else {
            let mut beside = sidecars.clone();
            add(&mut beside, &own);
            max(&mut most, &beside);
        }
    }
    let mut total = sidecars;
    for member in pod::main(want) {
        add(&mut total, &of(member));
    }
    max(&mut total, &most);
    let overhead = want.spec.iter().flat_map(|spec| spec.overhead.iter().flatten());
    let overhead = overhead.map(|(name, WireQuantity(text))| (name.clone(), amount(name, text))).collect();
    add(&mut total, &overhead);
    total
}

fn add(total: &mut BTreeMap<String, i64>, more: &BTreeMap<String, i64>) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += amount;
    }
}

fn max(most: &mut BTreeMap<String, i64>, other: &BTreeMap<String, i64>) {
    for (name, amount) in other {
        let had = most.entry(name.clone()).or_default();
        *had = (*had).max(*amount);
    }
}

struct Port {
    number: i32,
    protocol: String,
    ip: String,
}

impl Port {
    fn collides(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        let same_ip = any(&self.ip) || any(&other.ip) || self.ip == other.ip;
        self.number == other.number && self.protocol == other.protocol && same_ip
    }
}

fn host_ports(want: &Pod) -> Vec<Port> {
    let members = pod::members(want).filter(|member| member.role != Role::Init);
    let ports = members.flat_map(|member| member.container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(Port {
                number: port.host_port.filter(|number| *number > 0)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

fn selects(want: &Pod, node: &NodeView) -> bool {
    let Some(spec) = &want.spec else { return true };
    let mut selector = spec.node_selector.iter().flatten();
    if !selector.all(|(key, value)| node.labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| term_selects(term, node)))
}

/// A term without requirements selects nothing, as upstream.
fn term_selects(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let NodeSelectorTerm { match_expressions, match_fields } = term;
    let expressions = match_expressions.as_deref().unwrap_or_default();
    let fields = match_fields.as_deref().unwrap_or_default();
    let by_label = |r: &NodeSelectorRequirement| requirement(r, node.labels.get(&r.key).map(String::as_str));
    let by_field = |r: &NodeSelectorRequirement| {
        requirement(r, (r.key == "metadata.name").then_some(node.name.as_str()))
    };
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(by_label)
        && fields.iter().all(by_field)
}

fn requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|other| other == value));
    let numbers = || {
        let own: i64 = value?.parse().ok()?;
        let bound: i64 = values.first()?.parse().ok()?;
        Some(own.cmp(&bound))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers() == Some(std::cmp::Ordering::Greater),
        "Lt" => numbers() == Some(std::cmp::Ordering::Less),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
    }

    #[test]
    fn reasons() {
        let map =
            |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let node = NodeView {
            name: "n1".into(),
            labels: map(&[("disk", "ssd"), ("size", "5")]),
            allocatable: map(&[("cpu", "2"), ("memory", "1Gi"), ("pods", "2")]),
        };
        let other = pod(json!({ "containers": [{ "name": "c",
            "resources": { "requests": { "cpu": "1500m" } }, "ports": [{ "containerPort": 1, "hostPort": 80 }] }] }));
        let affinity = |expression: serde_json::Value| {
            json!({ "containers": [], "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [expression] } } } })
        };
        let expression = |key: &str, operator: &str, values: &[&str]| {
            affinity(json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }))
        };
        for (spec, expected) in [
            (
                json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": "500m" } } }] }),
                None,
            ),
            (
                json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": "501m" } } }] }),
                Some("OutOfcpu"),
            ),
            (
                json!({ "containers": [{ "name": "c", "resources": { "requests": { "memory": "2Gi" } } }] }),
                Some("OutOfmemory"),
            ),
            (
                json!({ "containers": [{ "name": "c", "resources": { "requests": { "example.com/gpu": "1" } } }] }),
                Some("OutOfexample.com/gpu"),
            ),
            (
                json!({ "containers": [], "initContainers": [{ "name": "i", "resources": { "requests": { "cpu": "1" } } }] }),
                Some("OutOfcpu"),
            ),
            (
                json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 1, "hostPort": 80 }] }] }),
                Some("NodePorts"),
            ),
            (
                json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 1, "hostPort": 80, "protocol": "UDP" }] }] }),
                None,
            ),
            (json!({ "containers": [], "nodeSelector": { "disk": "hdd" } }), Some("NodeAffinity")),
            (json!({ "containers": [], "nodeSelector": { "disk": "ssd" } }), None),
            (expression("disk", "In", &["ssd", "x"]), None),
            (expression("disk", "NotIn", &["ssd"]), Some("NodeAffinity")),
            (expression("size", "Gt", &["4"]), None),
            (expression("size", "Lt", &["4"]), Some("NodeAffinity")),
            (expression("none", "DoesNotExist", &[]), None),
            (
                affinity(
                    json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n2"] }] }),
                ),
                Some("NodeAffinity"),
            ),
            (json!({ "containers": [], "os": { "name": "windows" } }), Some("PodOSNotSupported")),
        ] {
            let got = refuse(&pod(spec.clone()), [&other].into_iter(), &node);
            assert_eq!(got.map(|rejection| rejection.reason).as_deref(), expected, "{spec}");
        }
        for (cpu, expected) in [
            ("500m", Resize::Taken),
            (
                "501m",
                Resize::Deferred(
                    "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000"
                        .into(),
                ),
            ),
            (
                "2001m",
                Resize::Infeasible(
                    "Node didn't have enough capacity: cpu, requested: 2001, capacity: 2000".into(),
                ),
            ),
        ] {
            let wanted =
                pod(json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] }));
            assert_eq!(resize(&wanted, [&other].into_iter(), &node), expected, "{cpu}");
        }
        let full = refuse(&pod(json!({ "containers": [] })), [&other, &other].into_iter(), &node).unwrap();
        assert_eq!(
            full.message,
            "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2"
        );
    }
}
