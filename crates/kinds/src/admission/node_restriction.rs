//! What a node may write: its own objects, its own pods' status, and nothing that would make it more than it is
//! (`plugin/pkg/admission/noderestriction`).
//!
//! The Node authorizer decides by verb and name; this looks into the objects.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::{BoxFuture, ready};
use meta::{GroupResource, Object, Status, Value};
use resource::{Admission, Attributes, Context, Operation, User};

use super::find;

const PREFIX: &str = "system:node:";
const NODES: &str = "system:nodes";
/// Labels under this are for administrators, so that workloads can be kept from nodes that were taken over.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Labels that a node sets on itself below `kubernetes.io` and `k8s.io`.
const OWN_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];
const OWN_LABEL_SUFFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The plugin.
pub(super) struct NodeRestriction;

pub(super) fn plugin() -> Arc<dyn Admission> {
    Arc::new(NodeRestriction)
}

impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        is_node(&attributes.user)
    }

    fn validate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: Option<&'a Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(ready(check(cx, object, old)))
    }
}

fn is_node(user: &User) -> bool {
    user.name.starts_with(PREFIX) && user.groups.iter().any(|group| group == NODES)
}

fn refuse(cx: &Context<'_>, why: impl AsRef<str>) -> Result<(), Status> {
    let Attributes { resource, name, .. } = cx.attributes;
    Err(Status::forbidden(resource, name, why.as_ref()))
}

fn check(cx: &Context<'_>, object: Option<&Object>, old: Option<&Object>) -> Result<(), Status> {
    let Attributes { user, resource, subresource, operation, .. } = cx.attributes;
    let node = user.name.strip_prefix(PREFIX).unwrap_or_default();
    if node.is_empty() {
        return refuse(cx, format!("could not determine node from user {:?}", user.name));
    }
    match (resource.group.as_str(), resource.resource.as_str(), subresource.as_str()) {
        ("", "pods", "") => match (operation, object, old) {
            (Operation::Create, Some(pod), _) => mirror(cx, node, pod),
            (Operation::Delete, _, Some(pod)) => own_pod(cx, node, pod, "delete"),
            _ => refuse(
                cx,
                format!(
                    "unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"
                ),
            ),
        },
        ("", "pods", "status") => match (object, old) {
            (Some(new), Some(old)) => pod_status(cx, node, new, old),
            _ => refuse(cx, "unexpected operation"),
        },
        ("", "pods", "eviction") => {
            match find(cx, "", "pods", &cx.attributes.namespace, &cx.attributes.name)? {
                Some(pod) => own_pod(cx, node, &pod, "evict"),
                // Not there: answered as such by the engine.
                None => Ok(()),
            }
        }
        ("", "pods", other) => refuse(cx, format!("node {node:?} may not write pods/{other}")),
        ("", "nodes", _) => own_node(cx, node, object, old),
        ("", "persistentvolumeclaims", "status") => claim_status(cx, object, old),
        ("", "serviceaccounts", "token") => token(cx, node, object),
        ("coordination.k8s.io", "leases", _) => named_as(cx, node, object, "lease", "kube-node-lease"),
        ("storage.k8s.io", "csinodes", _) => named_as(cx, node, object, "CSINode", ""),
        ("certificates.k8s.io", "certificatesigningrequests", "") => request(cx, node, object),
        _ => Ok(()),
    }
}

fn bound_to(pod: &Object) -> &str {
    pod.str(&["spec", "nodeName"]).unwrap_or_default()
}

fn own_pod(cx: &Context<'_>, node: &str, pod: &Object, verb: &str) -> Result<(), Status> {
    if bound_to(pod) == node {
        return Ok(());
    }
    refuse(cx, format!("node {node:?} can only {verb} pods with spec.nodeName set to itself"))
}

/// A mirror pod shows what the node runs of itself; it can use nothing that the API has.
fn mirror(cx: &Context<'_>, node: &str, pod: &Object) -> Result<(), Status> {
    if !super::is_mirror(pod) {
        return refuse(
            cx,
            format!(
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
            ),
        );
    }
    own_pod(cx, node, pod, "create")?;
    let owners = pod.list(&["metadata", "ownerReferences"]);
    let itself = find(cx, "", "nodes", "", node)?;
    let by_itself = |owner: &Value| {
        owner["kind"] == "Node"
            && owner["name"] == node
            && itself.as_ref().is_some_and(|node| owner["uid"] == node.uid())
            && owner.get("blockOwnerDeletion").and_then(Value::as_bool) != Some(true)
    };
    if owners.len() > 1 || !owners.iter().all(by_itself) {
        return refuse(
            cx,
            format!("node {node:?} can only create pods with an owner reference set to itself"),
        );
    }
    if pod.str(&["spec", "serviceAccountName"]).is_some_and(|name| !name.is_empty()) {
        return refuse(cx, format!("node {node:?} can not create pods that reference a service account"));
    }
    let spec = pod.get(&["spec"]).cloned().unwrap_or_default();
    let refers = [
        "secretName",
        "secretRef",
        "secretKeyRef",
        "imagePullSecrets",
        "configMapRef",
        "configMapKeyRef",
        "persistentVolumeClaim",
        "resourceClaims",
        "secret",
        "configMap",
        "serviceAccountToken",
    ];
    if mentions(&spec, &refers) {
        let why = "secrets, configmaps, persistentvolumeclaims or resourceclaims";
        return refuse(cx, format!("node {node:?} can not create pods that reference {why}"));
    }
    Ok(())
}

/// Whether one of the keys has a value anywhere below.
fn mentions(value: &Value, keys: &[&str]) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| {
            let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            (keys.contains(&key.as_str()) && !empty) || mentions(value, keys)
        }),
        Value::Array(list) => list.iter().any(|value| mentions(value, keys)),
        _ => false,
    }
}

fn pod_status(cx: &Context<'_>, node: &str, new: &Object, old: &Object) -> Result<(), Status> {
    if bound_to(old) != node {
        return refuse(
            cx,
            format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"),
        );
    }
    if new.get(&["metadata", "labels"]) != old.get(&["metadata", "labels"]) {
        return refuse(cx, format!("node {node:?} cannot update labels through pod status"));
    }
    if new.get(&["status", "resourceClaimStatuses"]) != old.get(&["status", "resourceClaimStatuses"]) {
        return refuse(cx, format!("node {node:?} cannot update resource claim statuses"));
    }
    Ok(())
}

fn own_node(
    cx: &Context<'_>,
    node: &str,
    object: Option<&Object>,
    old: Option<&Object>,
) -> Result<(), Status> {
    let name = match object.map(Object::name).filter(|name| !name.is_empty()) {
        Some(name) => name,
        None => cx.attributes.name.as_str(),
    };
    if name != node {
        return refuse(cx, format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = object else {
        return refuse(cx, format!("node {node:?} is not allowed to delete itself"));
    };
    if new.get(&["spec", "configSource"]).is_some_and(|source| !source.is_null())
        && old.is_none_or(|old| old.get(&["spec", "configSource"]) != new.get(&["spec", "configSource"]))
    {
        return refuse(cx, format!("node {node:?} is not allowed to set spec.configSource"));
    }
    if let Some(old) = old {
        // A node that was cordoned off could let itself back in.
        if new.get(&["spec", "taints"]) != old.get(&["spec", "taints"]) {
            return refuse(cx, format!("node {node:?} is not allowed to modify taints"));
        }
        if new.get(&["metadata", "ownerReferences"]) != old.get(&["metadata", "ownerReferences"]) {
            return refuse(cx, format!("node {node:?} is not allowed to modify ownerReferences"));
        }
    } else if !new.list(&["metadata", "ownerReferences"]).is_empty() {
        return refuse(cx, format!("node {node:?} is not allowed to set ownerReferences"));
    }
    labels(cx, node, new, old)
}

fn labels(cx: &Context<'_>, node: &str, new: &Object, old: Option<&Object>) -> Result<(), Status> {
    let of = |object: Option<&Object>| {
        let map = object.and_then(|object| object.get(&["metadata", "labels"])).and_then(Value::as_object);
        map.cloned().unwrap_or_default()
    };
    let (new, before) = (of(Some(new)), of(old));
    let changed = new
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .chain(before.iter().filter(|(key, _)| !new.contains_key(*key)))
        .map(|(key, _)| key.as_str());
    let mut forbidden: Vec<&str> = changed.filter(|key| !may_label(key)).collect();
    if forbidden.is_empty() {
        return Ok(());
    }
    forbidden.sort_unstable();
    refuse(cx, format!("node {node:?} is not allowed to modify labels: {}", forbidden.join(", ")))
}

fn may_label(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return true };
    let below = |suffix: &str| domain == suffix || domain.ends_with(&format!(".{suffix}"));
    if below(RESTRICTED) {
        return false;
    }
    if !below("kubernetes.io") && !below("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&key) || OWN_LABEL_SUFFIXES.iter().any(|suffix| below(suffix))
}

/// Of a claim a node reports how large it has become.
fn claim_status(cx: &Context<'_>, object: Option<&Object>, old: Option<&Object>) -> Result<(), Status> {
    let (Some(new), Some(old)) = (object, old) else { return refuse(cx, "unexpected operation") };
    let rest = |object: &Object| {
        let mut object = object.clone();
        for field in [
            "capacity",
            "conditions",
            "allocatedResources",
            "allocatedResourceStatuses",
            "modifyVolumeStatus",
            "currentVolumeAttributesClassName",
        ] {
            object.remove(&["status", field]);
        }
        object.remove(&["metadata", "managedFields"]);
        object.remove(&["metadata", "resourceVersion"]);
        if object.get(&["status"]).and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
            object.remove(&["status"]);
        }
        object
    };
    if rest(new) == rest(old) {
        return Ok(());
    }
    refuse(
        cx,
        "node is not allowed to update fields other than status.capacity and status.conditions of a claim",
    )
}

/// Tokens are for pods that run on the node, and for audiences that the pod asks for.
fn token(cx: &Context<'_>, node: &str, body: Option<&Object>) -> Result<(), Status> {
    let Some(body) = body else { return refuse(cx, "unexpected operation") };
    let field = |name| body.str(&["spec", "boundObjectRef", name]).unwrap_or_default();
    if (field("apiVersion"), field("kind")) != ("v1", "Pod") || field("name").is_empty() {
        return refuse(cx, "node requested token not bound to a pod");
    }
    if field("uid").is_empty() {
        return refuse(cx, "node requested token with a pod binding without a uid");
    }
    let Some(pod) = find(cx, "", "pods", &cx.attributes.namespace, field("name"))? else {
        let resource = GroupResource::new("", "pods");
        return Err(Status::not_found(&resource, field("name")));
    };
    if pod.uid() != field("uid") {
        return refuse(cx, "the UID in the bound object reference does not match the UID in record");
    }
    if bound_to(&pod) != node {
        return refuse(cx, "node requested token bound to a pod scheduled on a different node");
    }
    let asked = body.list(&["spec", "audiences"]).iter().filter_map(Value::as_str);
    let granted: Vec<&str> = pod
        .list(&["spec", "volumes"])
        .iter()
        .filter_map(|volume| volume.pointer("/projected/sources")?.as_array())
        .flatten()
        .filter_map(|source| source.pointer("/serviceAccountToken/audience")?.as_str())
        .collect();
    let mut foreign = asked.filter(|audience| !audience.is_empty() && !granted.contains(audience));
    match foreign.next() {
        Some(audience) => refuse(cx, format!("audience {audience:?} not found in pod spec volume")),
        None => Ok(()),
    }
}

fn named_as(
    cx: &Context<'_>,
    node: &str,
    object: Option<&Object>,
    what: &str,
    namespace: &str,
) -> Result<(), Status> {
    if cx.attributes.namespace != namespace {
        return refuse(cx, format!("can only access leases in the {namespace:?} system namespace"));
    }
    let name = object.map_or(cx.attributes.name.as_str(), Object::name);
    if name == node {
        return Ok(());
    }
    refuse(cx, format!("can only access {what} with the same name as the requesting node"))
}

/// A node asks for its own certificates only.
fn request(cx: &Context<'_>, node: &str, object: Option<&Object>) -> Result<(), Status> {
    let Some(object) = object.filter(|_| cx.attributes.operation == Operation::Create) else { return Ok(()) };
    let signer = object.str(&["spec", "signerName"]).unwrap_or_default();
    if signer != csr::KUBELET_CLIENT && signer != csr::KUBELET_SERVING {
        return Ok(());
    }
    let pem =
        object.str(&["spec", "request"]).and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    match csr::Request::parse(&pem) {
        Ok(request) if request.common_name == format!("{PREFIX}{node}") => Ok(()),
        Ok(_) => refuse(cx, format!("can only create a node CSR with CN={PREFIX}{node}")),
        Err(error) => refuse(cx, format!("unable to parse csr: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cx, object};
    use serde_json::json;

    fn cx(group: &str, resource: &str, subresource: &str, operation: Operation, name: &str) -> Cx {
        let mut cx = Cx::new(resource, subresource)
            .with("", "pods", json!({"metadata": {"name": "mine", "namespace": "ns", "uid": "u"}, "spec": {
                "nodeName": "n1",
                "volumes": [{"projected": {"sources": [{"serviceAccountToken": {"audience": "vault"}}]}}],
            }}))
            .with("", "pods", json!({"metadata": {"name": "theirs", "namespace": "ns", "uid": "t"}, "spec": {"nodeName": "n2"}}));
        cx.attributes.resource = GroupResource::new(group, resource);
        cx.attributes.operation = operation;
        cx.attributes.name = name.to_owned();
        cx.attributes.user =
            User { name: "system:node:n1".to_owned(), groups: vec![NODES.to_owned()], ..User::default() };
        cx
    }

    fn verdict(cx: &Cx, new: Option<Value>, old: Option<Value>) -> Result<(), String> {
        let (new, old) = (new.map(object), old.map(object));
        assert!(NodeRestriction.handles(&cx.attributes));
        let context = cx.context();
        let verdict = NodeRestriction.validate(&context, new.as_ref(), old.as_ref());
        futures::executor::block_on(verdict).map_err(|status| status.message)
    }

    fn refused(cx: &Cx, new: Option<Value>, old: Option<Value>, words: &str) {
        let why = verdict(cx, new, old).unwrap_err();
        assert!(why.contains(words), "{why}");
    }

    #[test]
    fn pods() {
        let pod =
            |node: &str| json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"nodeName": node}});
        let create = cx("", "pods", "", Operation::Create, "p");
        refused(&create, Some(pod("n1")), None, "can only create mirror pods");
        let mirror = |change: &dyn Fn(&mut Value)| {
            let mut pod = pod("n1");
            pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
            change(&mut pod);
            Some(pod)
        };
        verdict(&create, mirror(&|_| {}), None).unwrap();
        refused(&create, mirror(&|p| p["spec"]["nodeName"] = json!("n2")), None, "set to itself");
        refused(&create, mirror(&|p| p["spec"]["serviceAccountName"] = json!("x")), None, "service account");
        let volume = |v: Value| mirror(&|p| p["spec"]["volumes"] = json!([v]));
        refused(
            &create,
            volume(json!({"secret": {"secretName": "x"}})),
            None,
            "can not create pods that reference",
        );
        verdict(&create, volume(json!({"hostPath": {"path": "/x"}})), None).unwrap();
        let owner = json!([{"kind": "Node", "name": "n2", "uid": "x"}]);
        refused(
            &create,
            mirror(&|p| p["metadata"]["ownerReferences"] = owner.clone()),
            None,
            "owner reference",
        );
        let delete = cx("", "pods", "", Operation::Delete, "p");
        verdict(&delete, None, Some(pod("n1"))).unwrap();
        refused(&delete, None, Some(pod("n2")), "can only delete pods");
        let status = cx("", "pods", "status", Operation::Update, "p");
        verdict(&status, Some(pod("n1")), Some(pod("n1"))).unwrap();
        refused(&status, Some(pod("n1")), Some(pod("n2")), "can only update pod status");
        let mut labelled = pod("n1");
        labelled["metadata"]["labels"] = json!({"a": "b"});
        refused(&status, Some(labelled), Some(pod("n1")), "cannot update labels");
        for (name, allowed) in [("mine", true), ("theirs", false)] {
            let evict = cx("", "pods", "eviction", Operation::Create, name);
            assert_eq!(verdict(&evict, Some(json!({})), None).is_ok(), allowed);
        }
    }

    #[test]
    fn nodes() {
        let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
        let create = cx("", "nodes", "", Operation::Create, "n1");
        let own =
            json!({"kubernetes.io/hostname": "n1", "example.com/x": "y", "node.kubernetes.io/exclude": ""});
        verdict(&create, Some(node("n1", own)), None).unwrap();
        refused(&create, Some(node("n2", json!({}))), None, "not allowed to modify node \"n2\"");
        for key in [
            "node-restriction.kubernetes.io/x",
            "a.node-restriction.kubernetes.io/x",
            "node-role.kubernetes.io/control-plane",
            "k8s.io/x",
        ] {
            refused(&create, Some(node("n1", json!({key: ""}))), None, "modify labels");
        }
        let update = cx("", "nodes", "", Operation::Update, "n1");
        let mut tainted = node("n1", json!({}));
        tainted["spec"] = json!({"taints": [{"key": "x"}]});
        refused(&update, Some(node("n1", json!({}))), Some(tainted.clone()), "modify taints");
        verdict(&create, Some(tainted), None).unwrap();
        let kept = node("n1", json!({"node-restriction.kubernetes.io/x": "y"}));
        verdict(&update, Some(kept.clone()), Some(kept.clone())).unwrap();
        refused(&update, Some(node("n1", json!({}))), Some(kept), "modify labels");
        refused(&cx("", "nodes", "", Operation::Delete, "n1"), None, None, "not allowed to delete itself");
    }

    #[test]
    fn tokens_are_for_pods_of_the_node() {
        let cx = cx("", "serviceaccounts", "token", Operation::Create, "default");
        let ask = |pod: &str, uid: &str, audiences: Value| {
            let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid});
            Some(json!({"spec": {"boundObjectRef": bound, "audiences": audiences}}))
        };
        verdict(&cx, ask("mine", "u", json!([])), None).unwrap();
        verdict(&cx, ask("mine", "u", json!(["vault"])), None).unwrap();
        refused(&cx, ask("mine", "u", json!(["other"])), None, "audience \"other\" not found");
        refused(&cx, ask("mine", "x", json!([])), None, "does not match the UID");
        refused(&cx, ask("mine", "", json!([])), None, "without a uid");
        refused(&cx, ask("theirs", "t", json!([])), None, "scheduled on a different node");
        refused(&cx, ask("gone", "t", json!([])), None, "not found");
        refused(&cx, Some(json!({"spec": {}})), None, "not bound to a pod");
    }

    #[test]
    fn other_kinds() {
        let named = |name: &str| Some(json!({"metadata": {"name": name}}));
        let mut lease = cx("coordination.k8s.io", "leases", "", Operation::Create, "");
        refused(&lease, named("n1"), None, "kube-node-lease");
        lease.attributes.namespace = "kube-node-lease".to_owned();
        verdict(&lease, named("n1"), None).unwrap();
        refused(&lease, named("n2"), None, "same name as the requesting node");
        let claim = cx("", "persistentvolumeclaims", "status", Operation::Update, "c");
        let of = |capacity: &str, phase: &str| {
            Some(json!({"status": {"capacity": {"storage": capacity}, "phase": phase}}))
        };
        verdict(&claim, of("2Gi", "Bound"), of("1Gi", "Bound")).unwrap();
        refused(&claim, of("1Gi", "Lost"), of("1Gi", "Bound"), "fields other than");
        let csr = cx("certificates.k8s.io", "certificatesigningrequests", "", Operation::Create, "");
        let pem = STANDARD.encode(include_str!("../strategy/certificates_request.pem"));
        let ask = |signer: &str| Some(json!({"spec": {"signerName": signer, "request": pem}}));
        refused(&csr, ask(csr::KUBELET_CLIENT), None, "CN=system:node:n1");
        verdict(&csr, ask("example.com/x"), None).unwrap();
        let mut ann = cx("", "nodes", "", Operation::Update, "n2");
        ann.attributes.user.groups.clear();
        assert!(!NodeRestriction.handles(&ann.attributes));
    }
}
