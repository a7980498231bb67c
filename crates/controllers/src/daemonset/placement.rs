//! Which nodes a DaemonSet is for, and the pod it makes for one (upstream `NodeShouldRunDaemonPod` and
//! `daemon/util`). The pod names its node by affinity, so that the scheduler binds it there and nowhere
//! else, and tolerates what is wrong with a node rather than with the pod.

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration},
};
use kube::ResourceExt;
use reconcile::owner_reference;

use crate::{node::tolerates, pods, spec::HasSpec};

pub(super) const HASH: &str = "controller-revision-hash";
pub(super) const GENERATION: &str = "pod-template-generation";
const NAME_FIELD: &str = "metadata.name";

/// Taints of a node in trouble that daemon pods bear, with their effects.
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NO_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// How a node stands to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A pod belongs there.
    Wanted,
    /// A pod that is there may stay; none is made.
    Tolerated,
    /// No pod.
    Unwanted,
}

/// How `node` stands to the pods of `set`.
pub(super) fn place(set: &DaemonSet, node: &Node) -> Place {
    let template = set.spec().template.spec.clone().unwrap_or_default();
    let name = node.name_any();
    let named = template.node_name.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == name);
    if !named || !selects(&template, node) {
        return Place::Unwanted;
    }
    let tolerations = tolerations(&template);
    let repelled = |effects: &[&str]| {
        let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        taints.any(|taint| {
            effects.contains(&taint.effect.as_str()) && !tolerations.iter().any(|t| tolerates(t, taint))
        })
    };
    if !repelled(&["NoExecute", "NoSchedule"]) {
        Place::Wanted
    } else if repelled(&["NoExecute"]) {
        Place::Unwanted
    } else {
        Place::Tolerated
    }
}

/// Whether the node selector and the required node affinity admit the node.
fn selects(spec: &PodSpec, node: &Node) -> bool {
    let labelled = |(key, value): (&String, &String)| node.labels().get(key) == Some(value);
    let required = spec.affinity.as_ref().and_then(|affinity| {
        affinity.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
    });
    spec.node_selector.iter().flatten().all(labelled)
        && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| fits(term, node)))
}

/// All requirements of a term; a term without any fits nothing.
fn fits(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels: Vec<_> = term.match_expressions.iter().flatten().collect();
    let fields: Vec<_> = term.match_fields.iter().flatten().collect();
    let name = node.name_any();
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|wanted| meets(wanted, node.labels().get(&wanted.key).map(String::as_str)))
        && fields.iter().all(|wanted| wanted.key == NAME_FIELD && meets(wanted, Some(&name)))
}

fn meets(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let compared = || Some((number(value)?, number(values.first().map(String::as_str))?));
    match wanted.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(value, bound)| value > bound),
        "Lt" => compared().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// The tolerations of the template and those that every daemon pod has.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let network = (spec.host_network == Some(true)).then_some(NO_NETWORK);
    for (key, effect) in BORNE.into_iter().chain(network) {
        let borne = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same = |t: &Toleration| Toleration { toleration_seconds: None, ..t.clone() } == borne;
        all.retain(|present| !same(present));
        all.push(borne);
    }
    all
}

/// A new pod for one node.
pub(super) fn new_pod(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let mut pod = pods::from_template(&set.spec().template, set.namespace(), owner_reference(set));
    pod.metadata.generate_name = Some(format!("{}-", set.name_any()));
    pod.labels_mut().insert(HASH.to_owned(), hash.to_owned());
    if let Some(generation) = template_generation(set) {
        pod.labels_mut().insert(GENERATION.to_owned(), generation.to_owned());
    }
    let spec = pod.spec_mut();
    spec.tolerations = Some(tolerations(spec));
    let by_name = NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NAME_FIELD.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![by_name] });
    pod
}

/// What `kubectl` of old set; a pod with it counts as new whatever its hash.
pub(super) fn template_generation(set: &DaemonSet) -> Option<&str> {
    let text = set.annotations().get("deprecated.daemonset.template.generation")?;
    text.parse::<i64>().ok().map(|_| text.as_str())
}

/// The node a pod is on or is meant for.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let by_name = fields.find(|field| field.key == NAME_FIELD && field.operator == "In")?;
    match by_name.values.as_deref() {
        Some([name]) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use reconcile::testkit::yaml;

    use super::*;

    fn check(spec: &str, node: &str, expected: Place) {
        let set: DaemonSet =
            yaml(&format!("spec: {{ selector: {{}}, template: {{ spec: {{ containers: [], {spec} }} }} }}"));
        let node: Node =
            yaml(&format!("{{ metadata: {{ name: n1, labels: {{ disk: ssd, cpus: '8' }} }}, {node} }}"));
        assert_eq!(place(&set, &node), expected, "{spec} on {node:?}");
    }

    #[test]
    fn nodes_are_chosen_by_selector_affinity_and_taints() {
        let affinity = |term: &str| {
            format!(
                "affinity: {{ nodeAffinity: {{ requiredDuringSchedulingIgnoredDuringExecution: {{ nodeSelectorTerms: [ {term} ] }} }} }}"
            )
        };
        let taint =
            |key: &str, effect: &str| format!("spec: {{ taints: [ {{ key: {key}, effect: {effect} }} ] }}");
        check("", "", Place::Wanted);
        check("nodeSelector: { disk: hdd }", "", Place::Unwanted);
        check("nodeName: n2", "", Place::Unwanted);
        for (term, expected) in [
            (
                "{ matchExpressions: [ { key: cpus, operator: Gt, values: [ '4' ] }, { key: disk, operator: NotIn, values: [ hdd ] } ] }",
                Place::Wanted,
            ),
            (
                "{ matchExpressions: [ { key: cpus, operator: Lt, values: [ '4' ] } ] }, { matchFields: [ { key: metadata.name, operator: In, values: [ n1 ] } ] }",
                Place::Wanted,
            ),
            ("{ matchExpressions: [ { key: gpu, operator: Exists } ] }", Place::Unwanted),
            ("{}", Place::Unwanted),
        ] {
            check(&affinity(term), "", expected);
        }
        check("", &taint("own", "NoSchedule"), Place::Tolerated);
        check("", &taint("own", "NoExecute"), Place::Unwanted);
        check("tolerations: [ { operator: Exists } ]", &taint("own", "NoExecute"), Place::Wanted);
        check("", &taint("node.kubernetes.io/unschedulable", "NoSchedule"), Place::Wanted);
        check("", &taint("node.kubernetes.io/network-unavailable", "NoSchedule"), Place::Tolerated);
        check(
            "hostNetwork: true",
            &taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
            Place::Wanted,
        );
    }
}
