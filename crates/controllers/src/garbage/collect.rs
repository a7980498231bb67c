//! What to do about one object (upstream `attemptToDeleteItem`, `attemptToOrphan`).

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{
    api::GetParams,
    core::{PartialObjectMeta, Request},
};
use meta::{ObjectKey, Timestamp};
use reconcile::{
    Child, Context, Error, Kind, Plan, Precondition, Propagation, Reconciler, Result, Watches, Write,
};
use serde_json::{Value, json};

use super::{
    Graph,
    graph::{FOREGROUND, Node, ORPHAN},
};

/// The controller. Keys are UIDs.
pub struct GarbageCollector {
    pub(crate) graph: Arc<Graph>,
}

/// One object as the API has it now, and the part of the graph around it.
pub struct World {
    node: Node,
    live: ObjectMeta,
    task: Task,
}

enum Task {
    /// Deleted in the foreground: are there dependents that block it?
    Wait { blocked: bool },
    /// Its dependents are to be left behind: they, as the API has them now.
    Orphan { dependents: Vec<(Node, ObjectMeta)> },
    /// Are there owners left?
    Check { owners: Vec<Owner>, has_dependents: bool, dependent_waits: bool },
}

#[derive(Clone, Copy, PartialEq)]
enum Life {
    Alive,
    /// Being deleted in the foreground.
    Waiting,
    Gone,
}

struct Owner {
    uid: String,
    life: Life,
}

impl Reconciler for GarbageCollector {
    type World = World;
    const NAME: &'static str = "garbage-collector";
    /// Upstream's `--concurrent-gc-syncs`.
    const CONCURRENCY: usize = 20;

    fn watches(&self) -> Watches {
        let graph = Arc::clone(&self.graph);
        Watches::default().fed_by(move |_, enqueue| graph.feed(enqueue))
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(node) = self.graph.node(&key.name) else { return Ok(None) };
        if node.deleting && !node.waits_for_dependents && !node.orphans_dependents {
            return Ok(None);
        }
        let Some(live) =
            get(cx, &node.kind, &node.key).await?.filter(|live| live.uid.as_ref() == Some(&node.uid))
        else {
            self.graph.forget(&node);
            return Ok(None);
        };
        let dependents = self.graph.dependents(&node.uid);
        let task = if node.orphans_dependents {
            let mut found = Vec::new();
            for dependent in dependents {
                let live = get(cx, &dependent.kind, &dependent.key).await?;
                found.extend(
                    live.filter(|live| live.uid.as_ref() == Some(&dependent.uid))
                        .map(|live| (dependent, live)),
                );
            }
            Task::Orphan { dependents: found }
        } else if node.waits_for_dependents {
            let blocks =
                |owner: &OwnerReference| owner.uid == node.uid && owner.block_owner_deletion == Some(true);
            Task::Wait { blocked: dependents.iter().any(|dependent| dependent.owners.iter().any(blocks)) }
        } else {
            let mut owners = Vec::new();
            for owner in live.owner_references.iter().flatten() {
                let life = self.life(cx, &node, owner).await?;
                owners.push(Owner { uid: owner.uid.clone(), life });
            }
            let dependent_waits = dependents.iter().any(|dependent| dependent.waits_for_dependents);
            Task::Check { owners, has_dependents: !dependents.is_empty(), dependent_waits }
        };
        Ok(Some(World { node, live, task }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let World { node, live, task } = world;
        let mut plan = Plan::default();
        match task {
            Task::Wait { blocked: true } => {}
            Task::Wait { blocked: false } => plan.apply.extend(without_finalizer(node, live, FOREGROUND)),
            Task::Orphan { dependents } => {
                for (dependent, live) in dependents {
                    plan.apply.extend(without_owners(dependent, live, &[&node.uid]));
                }
                plan.apply.extend(without_finalizer(node, live, ORPHAN));
            }
            Task::Check { owners, has_dependents, dependent_waits } => {
                check(&mut plan, world, owners, *has_dependents, *dependent_waits);
            }
        }
        plan
    }
}

fn check(plan: &mut Plan, world: &World, owners: &[Owner], has_dependents: bool, dependent_waits: bool) {
    let World { node, live, task: _ } = world;
    let of = |life: Life| owners.iter().filter(move |owner| owner.life == life);
    if owners.is_empty() {
        return;
    }
    if of(Life::Alive).next().is_some() {
        let rest: Vec<&str> =
            of(Life::Gone).chain(of(Life::Waiting)).map(|owner| owner.uid.as_str()).collect();
        if !rest.is_empty() {
            plan.apply.extend(without_owners(node, live, &rest));
        }
        return;
    }
    let has = |finalizer: &str| live.finalizers.iter().flatten().any(|f| f == finalizer);
    let waiting = of(Life::Waiting).next().is_some() && has_dependents;
    if waiting && dependent_waits {
        // A circle would wait for itself for ever.
        plan.apply.push(unblocked(node, live));
    }
    let propagation = match (waiting, has(ORPHAN), has(FOREGROUND)) {
        (true, _, _) | (false, false, true) => Propagation::Foreground,
        (false, true, _) => Propagation::Orphan,
        (false, false, false) => Propagation::Background,
    };
    // The version is no precondition where this plan itself changes it.
    let changes = !plan.apply.is_empty();
    plan.delete.push(Precondition {
        kind: (*node.kind).clone(),
        key: node.key.clone(),
        uid: Some(node.uid.clone()),
        resource_version: live.resource_version.clone().filter(|_| !changes),
        grace_period_seconds: None,
        propagation: Some(propagation),
    });
}

impl GarbageCollector {
    async fn life(&self, cx: &Context, node: &Node, owner: &OwnerReference) -> Result<Life> {
        match self.graph.seen(&owner.uid) {
            Some(true) => return Ok(Life::Waiting),
            Some(false) => return Ok(Life::Alive),
            None => {}
        }
        let Some(resource) = self.graph.resource(owner) else {
            // It may be served any moment (a CRD being installed), and is never taken for absent.
            return Err(Error::NotYet(format!(
                "owner {} {} of {} {}: no such resource is served",
                owner.api_version, owner.kind, node.kind, node.key
            )));
        };
        let namespace = if resource.namespaced { node.key.namespace.as_str() } else { "" };
        if resource.namespaced && namespace.is_empty() {
            // Not a valid reference: never a reason to delete (upstream OwnerRefInvalidNamespace).
            return Ok(Life::Alive);
        }
        let live = get(cx, &resource.kind, &ObjectKey::new(namespace, &owner.name)).await?;
        let Some(live) = live.filter(|live| live.uid.as_ref() == Some(&owner.uid)) else {
            return Ok(Life::Gone);
        };
        let foreground = live.finalizers.iter().flatten().any(|f| f == FOREGROUND);
        let waits = live.deletion_timestamp.is_some() && foreground;
        Ok(if waits { Life::Waiting } else { Life::Alive })
    }
}

async fn get(cx: &Context, kind: &Kind, key: &ObjectKey) -> Result<Option<ObjectMeta>> {
    let request = Request::new(kind.url(&key.namespace)).get_metadata(&key.name, &GetParams::default());
    let request = request.map_err(|source| Error::Request {
        verb: "get",
        key: key.clone(),
        source: Box::new(source),
    })?;
    match cx.client.request::<PartialObjectMeta>(request).await {
        Ok(object) => Ok(Some(object.metadata)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(Error::read(format!("{kind} {key}"))(error)),
    }
}

/// A patch of metadata fields on condition of the live version.
fn patch(node: &Node, live: &ObjectMeta, field: &str, value: Value) -> Child {
    let body =
        json!({ "metadata": { "uid": node.uid, "resourceVersion": live.resource_version, field: value } });
    let (kind, key) = ((*node.kind).clone(), node.key.clone());
    Child { kind, key, write: Write::Patch(None), body, announce: None }
}

fn without_finalizer(node: &Node, live: &ObjectMeta, finalizer: &str) -> Option<Child> {
    let present = live.finalizers.as_ref()?;
    let left: Vec<&String> = present.iter().filter(|f| *f != finalizer).collect();
    (left.len() != present.len()).then(|| patch(node, live, "finalizers", json!(left)))
}

fn without_owners(node: &Node, live: &ObjectMeta, uids: &[&str]) -> Option<Child> {
    let present = live.owner_references.as_ref()?;
    let left: Vec<&OwnerReference> =
        present.iter().filter(|owner| !uids.contains(&owner.uid.as_str())).collect();
    (left.len() != present.len()).then(|| patch(node, live, "ownerReferences", json!(left)))
}

fn unblocked(node: &Node, live: &ObjectMeta) -> Child {
    let mut owners = live.owner_references.clone().unwrap_or_default();
    owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
    patch(node, live, "ownerReferences", json!(owners))
}
