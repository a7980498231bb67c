//! The Node authorizer: a node may read what the pods on it need, and nothing of the others (upstream
//! `plugin/pkg/auth/authorizer/node`).
//!
//! Guarantees: Secrets, ConfigMaps, claims, volumes and service accounts are allowed by name only, and only
//! while a pod that was bound to the node refers to them; of Nodes, Leases and CSINodes a node has its own.
//! Has no opinion of anybody but nodes. Reads the cache at the time of the question, so it is never behind.

mod refers;

use std::sync::Arc;

use meta::{GroupResource, Object};
use resource::{User, View};

use super::{Ask, Asked, Authorizer, Decision, Rule};
use refers::Kind;

pub(crate) const NODES: &str = "system:nodes";
const PREFIX: &str = "system:node:";
const LEASES: &str = "kube-node-lease";

/// The authorizer of users `system:node:NAME` in group `system:nodes`.
pub struct NodeAuthorizer {
    view: Arc<dyn View>,
    rules: Vec<Rule>,
}

/// The name of the node that a user is; `None` for everybody else.
pub fn node_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(PREFIX).filter(|name| !name.is_empty())?;
    user.groups.iter().any(|group| group == NODES).then_some(name)
}

/// A question about objects, taken apart.
struct Question<'a> {
    verb: &'a str,
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
    ask: &'a Ask<'a>,
}

impl NodeAuthorizer {
    /// Reads objects from `view`; `rules` are what every node may do of kinds that have no owner among nodes
    /// (upstream's `bootstrappolicy.NodeRules`).
    pub fn new(view: Arc<dyn View>, rules: Vec<Rule>) -> Self {
        Self { view, rules }
    }

    /// Whether `node` may; why not, where there is something to say.
    fn may(&self, node: &str, ask: &Ask<'_>) -> Result<(), String> {
        if let Asked::Resource { group, version: _, resource, subresource, namespace, name } = ask.object {
            let question = Question { verb: ask.verb, group, resource, subresource, namespace, name, ask };
            if let Some(verdict) = self.owned(node, &question) {
                return verdict;
            }
        }
        if self.rules.iter().any(|rule| rule.allows(ask)) { Ok(()) } else { Err(String::new()) }
    }

    /// The verdict on kinds of which a node has some; `None` for other kinds.
    fn owned(&self, node: &str, q: &Question<'_>) -> Option<Result<(), String>> {
        Some(match (q.group, q.resource) {
            ("", "secrets") => self.read(node, q, Kind::Secret),
            ("", "configmaps") => self.read(node, q, Kind::ConfigMap),
            ("", "persistentvolumeclaims") => match q.subresource {
                "status" => {
                    verbs(q, &["get", "update", "patch"]).and_then(|()| self.related(node, q, Kind::Claim))
                }
                _ => self.get(node, q, Kind::Claim),
            },
            ("", "persistentvolumes") => self.get(node, q, Kind::Volume),
            ("resource.k8s.io", "resourceclaims") => self.get(node, q, Kind::ResourceClaim),
            ("storage.k8s.io", "volumeattachments") => self.get(node, q, Kind::Attachment),
            ("", "serviceaccounts") => match q.subresource {
                "token" => verbs(q, &["create"]).and_then(|()| self.related(node, q, Kind::ServiceAccount)),
                _ => self.get(node, q, Kind::ServiceAccount),
            },
            ("coordination.k8s.io", "leases") => lease(node, q),
            ("storage.k8s.io", "csinodes") => csi_node(node, q),
            ("", "nodes") => nodes(node, q),
            ("", "pods") => self.pods(node, q),
            _ => return None,
        })
    }

    /// get, list and watch of one object by its name.
    fn read(&self, node: &str, q: &Question<'_>, kind: Kind) -> Result<(), String> {
        verbs(q, &["get", "list", "watch"])?;
        whole(q)?;
        self.related(node, q, kind)
    }

    fn get(&self, node: &str, q: &Question<'_>, kind: Kind) -> Result<(), String> {
        verbs(q, &["get"])?;
        whole(q)?;
        self.related(node, q, kind)
    }

    fn related(&self, node: &str, q: &Question<'_>, kind: Kind) -> Result<(), String> {
        if q.name.is_empty() {
            return Err(format!("No Object name found, node {node:?} can only read {} by name", q.resource));
        }
        let found = match kind {
            Kind::Volume => self.volume(node, q.name),
            Kind::Attachment => self
                .object(q.group, q.resource, "", q.name)
                .is_some_and(|attachment| attachment.str(&["spec", "nodeName"]) == Some(node)),
            _ => self.refers(node, q.namespace, kind, q.name),
        };
        if found {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    }

    /// Whether a pod of the node refers to the object.
    fn refers(&self, node: &str, namespace: &str, kind: Kind, name: &str) -> bool {
        if namespace.is_empty() {
            return false;
        }
        let pods = self.view.indexed(&GroupResource::new("", "pods"), Some(namespace), node);
        let here = pods.iter().filter(|entry| {
            // Selectable fields are in the header: only pods of the node are parsed.
            let fields = &entry.header.fields;
            fields.is_empty() || fields.iter().any(|field| field == node)
        });
        here.filter_map(|entry| entry.object().ok())
            .any(|pod| pod.str(&["spec", "nodeName"]) == Some(node) && kind.is_used_by(&pod, name))
    }

    /// Whether a pod of the node uses the claim that the volume is bound to.
    fn volume(&self, node: &str, name: &str) -> bool {
        let Some(volume) = self.object("", "persistentvolumes", "", name) else { return false };
        let (Some(namespace), Some(claim)) =
            (volume.str(&["spec", "claimRef", "namespace"]), volume.str(&["spec", "claimRef", "name"]))
        else {
            return false;
        };
        let bound = self
            .object("", "persistentvolumeclaims", namespace, claim)
            .is_some_and(|claim| claim.str(&["spec", "volumeName"]) == Some(name));
        bound && self.refers(node, namespace, Kind::Claim, claim)
    }

    fn pods(&self, node: &str, q: &Question<'_>) -> Result<(), String> {
        match (q.subresource, q.verb) {
            // What may be created, changed and deleted is NodeRestriction's matter.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            ("", "get") => {
                let pod = self.object("", "pods", q.namespace, q.name);
                match pod.is_some_and(|pod| pod.str(&["spec", "nodeName"]) == Some(node)) {
                    true => Ok(()),
                    false => Err(format!("no relationship found between node '{node}' and this object")),
                }
            }
            ("", "list" | "watch") => {
                let of_node = q.ask.fields.and_then(|fields| fields.requires("spec.nodeName")) == Some(node);
                let by_name = !q.name.is_empty()
                    && self
                        .object("", "pods", q.namespace, q.name)
                        .is_some_and(|pod| pod.str(&["spec", "nodeName"]) == Some(node));
                if of_node || by_name {
                    Ok(())
                } else {
                    Err("can only list/watch pods with spec.nodeName field selector".to_owned())
                }
            }
            _ => Err(format!("a node cannot {} pods/{}", q.verb, q.subresource)),
        }
    }

    fn object(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Object> {
        self.view.get(&GroupResource::new(group, resource), namespace, name)?.object().ok()
    }
}

fn verbs(q: &Question<'_>, allowed: &[&str]) -> Result<(), String> {
    if allowed.contains(&q.verb) {
        return Ok(());
    }
    Err(format!("can only {} resources of this type", allowed.join("/")))
}

fn whole(q: &Question<'_>) -> Result<(), String> {
    if q.subresource.is_empty() { Ok(()) } else { Err("cannot read subresource".to_owned()) }
}

fn lease(node: &str, q: &Question<'_>) -> Result<(), String> {
    verbs(q, &["get", "create", "update", "patch", "delete"])?;
    if q.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    own(node, q, "can only access node lease with the same name as the requesting node")
}

fn csi_node(node: &str, q: &Question<'_>) -> Result<(), String> {
    verbs(q, &["get", "create", "update", "patch", "delete"])?;
    whole(q)?;
    own(node, q, "can only access CSINode with the same name as the requesting node")
}

/// The name, which a create has only in its body: NodeRestriction looks there.
fn own(node: &str, q: &Question<'_>, why: &str) -> Result<(), String> {
    if q.verb == "create" || q.name == node { Ok(()) } else { Err(why.to_owned()) }
}

fn nodes(node: &str, q: &Question<'_>) -> Result<(), String> {
    match (q.subresource, q.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if q.name == node => Ok(()),
        _ => Err(format!("node '{node}' cannot read '{}', only its own Node object", q.name)),
    }
}

impl Authorizer for NodeAuthorizer {
    fn allows(&self, ask: &Ask<'_>) -> bool {
        node_of(ask.user).is_some_and(|node| self.may(node, ask).is_ok())
    }

    fn decide(&self, ask: &Ask<'_>) -> Decision {
        let Some(node) = node_of(ask.user) else { return Decision::NoOpinion(String::new()) };
        match self.may(node, ask) {
            Ok(()) => Decision::Allow(String::new()),
            Err(why) => Decision::NoOpinion(why),
        }
    }

    /// None, as upstream: what a node may depends on objects, which rules cannot say; nobody may grant it.
    fn rules(&self, _: &User, _: &str) -> Vec<Rule> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
