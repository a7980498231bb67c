//! Admission plugins about built-in kinds: what upstream's server adds to objects and refuses, beyond the
//! kinds' own rules. One file each, in upstream's names.
//!
//! They read only the view they are given, so none waits. Not here: webhooks and policies (the server's),
//! NamespaceLifecycle (the server's).

use std::{collections::BTreeSet, sync::Arc};

use futures::future::{BoxFuture, ready};
use meta::{GroupResource, Object, ObjectKey, Status};
use resource::{Admission, Attributes, Context, Operation};

mod ingress_class;
mod limit_ranger;
mod limits;
mod node_restriction;
mod pod_security;
mod priority;
mod quota;
mod runtime_class;
mod service_account;
mod storage;
mod taint_nodes;
mod tolerations;
mod topology;

pub(crate) use limits::of_pod;

/// Every plugin, in the order they run.
pub fn admission() -> Vec<Arc<dyn Admission>> {
    vec![
        node_restriction::plugin(),
        plugin(limit_ranger::LimitRanger),
        plugin(service_account::ServiceAccount),
        plugin(taint_nodes::TaintNodesByCondition),
        plugin(pod_security::PodSecurity),
        plugin(priority::Priority),
        plugin(tolerations::DefaultTolerationSeconds),
        plugin(storage::DefaultStorageClass),
        plugin(storage::ObjectInUseProtection),
        plugin(storage::ClaimResize),
        plugin(runtime_class::RuntimeClass),
        plugin(ingress_class::DefaultIngressClass),
        plugin(topology::PodTopologyLabels),
        plugin(quota::ResourceQuota),
    ]
}

fn plugin(plugin: impl Plugin + 'static) -> Arc<dyn Admission> {
    Arc::new(Ready(plugin))
}

/// A plugin that never waits.
trait Plugin: Send + Sync {
    const NAME: &'static str;

    /// Whether it wants requests for this kind.
    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool;

    fn mutate(&self, cx: &Context<'_>, object: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        let _ = (cx, object, old);
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, object: &Object, old: Option<&Object>) -> Result<(), Status> {
        let _ = (cx, object, old);
        Ok(())
    }

    fn charge(
        &self,
        cx: &Context<'_>,
        object: &Object,
        old: Option<&Object>,
        taken: &BTreeSet<ObjectKey>,
    ) -> Result<Vec<Object>, Status> {
        let _ = (cx, object, old, taken);
        Ok(Vec::new())
    }
}

struct Ready<P>(P);

impl<P: Plugin> Admission for Ready<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        self.0.handles(&attributes.resource.to_string(), attributes.operation, &attributes.subresource)
    }

    fn mutate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: Option<&'a mut Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let done = object.map_or(Ok(()), |object| self.0.mutate(cx, object, old));
        Box::pin(ready(done))
    }

    fn validate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: Option<&'a Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let done = object.map_or(Ok(()), |object| self.0.validate(cx, object, old));
        Box::pin(ready(done))
    }

    fn charge(
        &self,
        cx: &Context<'_>,
        object: &Object,
        old: Option<&Object>,
        taken: &BTreeSet<ObjectKey>,
    ) -> Result<Vec<Object>, Status> {
        self.0.charge(cx, object, old, taken)
    }
}

/// 403 about the object of the request.
fn forbidden(cx: &Context<'_>, name: &str, why: &str) -> Status {
    Status::forbidden(&cx.attributes.resource, name, why)
}

/// An object of another kind.
fn find(
    cx: &Context<'_>,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Object>, Status> {
    let entry = cx.view.get(&GroupResource::new(group, plural), namespace, name);
    entry.map(|entry| entry.object().map_err(Status::internal)).transpose()
}

/// All objects of another kind.
fn list(cx: &Context<'_>, group: &str, plural: &str, namespace: Option<&str>) -> Result<Vec<Object>, Status> {
    let entries = cx.view.list(&GroupResource::new(group, plural), namespace);
    entries.iter().map(|entry| entry.object().map_err(Status::internal)).collect()
}

/// The namespace of the request, which a new object may not repeat.
fn namespace<'a>(cx: &'a Context<'_>) -> &'a str {
    &cx.attributes.namespace
}

/// Whether it stands for a pod that a node runs of itself.
fn is_mirror(pod: &Object) -> bool {
    pod.annotation("kubernetes.io/config.mirror").is_some()
}

#[cfg(test)]
mod tests;
