//! Empties a namespace that is being deleted, then gives it up (upstream `pkg/controller/namespace`).
//!
//! Pods go first and everything else after the last of them (KEP-5080, GA in 1.34), so that a pod never
//! outlives a NetworkPolicy or Secret it depends on. What there is to delete comes from discovery, so
//! CRDs are emptied like built-ins; while part of discovery fails, the namespace stays.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, PropagationPolicy},
    core::{ObjectList, PartialObjectMeta, Request},
};
use meta::{ObjectKey, Timestamp};
use reconcile::{
    Child, Context, Effect, EffectFuture, Error, Kind, Plan, Reconciler, Result, Watches, Write,
};
use serde_json::json;

use crate::{
    discovery::{Found, discover},
    pods::whole_second,
};

const FINALIZER: &str = "kubernetes";
/// Lists in flight for one namespace: enough to be quick, few enough to leave the server to others.
const LISTS_IN_FLIGHT: usize = 8;

/// The controller.
pub struct Namespaces;

/// What one plan looks at: a namespace that is being deleted.
pub struct World {
    namespace: Arc<Namespace>,
    remaining: Vec<Remaining>,
    /// Parts of discovery that failed.
    undiscovered: Vec<String>,
}

/// What is left of one kind.
#[derive(Debug)]
struct Remaining {
    resource: Found,
    count: usize,
    /// Whether something is not being deleted yet.
    untouched: bool,
    finalizers: BTreeMap<String, usize>,
}

impl Reconciler for Namespaces {
    type World = World;
    const NAME: &'static str = "namespace";

    fn watches(&self) -> Watches {
        Watches::of::<Namespace>()
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(namespace) = cx.stores.ready::<Namespace>().await.get(key) else { return Ok(None) };
        let ours =
            namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()).any(|f| f == FINALIZER);
        if namespace.metadata.deletion_timestamp.is_none() || !ours {
            return Ok(None);
        }
        let discovered = discover(&cx.client).await?;
        let emptied = |found: &Found| found.namespaced && found.can(&["list", "delete"]);
        let kinds: Vec<Found> = discovered.resources.into_iter().filter(emptied).collect();
        let lists =
            stream::iter(kinds).map(|found| remaining(cx, &key.name, found)).buffered(LISTS_IN_FLIGHT);
        let lists: Vec<Result<Option<Remaining>>> = lists.collect().await;
        let remaining = lists.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
        Ok(Some(World { namespace, remaining, undiscovered: discovered.failed }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let namespace = &*world.namespace;
        plan.set_status(namespace, &status(world, None, now));
        if world.remaining.is_empty() && world.undiscovered.is_empty() {
            plan.apply.push(finalize(namespace));
            return plan;
        }
        let pods =
            world.remaining.iter().find(|left| left.resource.kind == Kind::new("", "v1", "Pod", "pods"));
        let due: Vec<&Remaining> = match pods {
            Some(pods) => vec![pods],
            None => world.remaining.iter().collect(),
        };
        for left in due.into_iter().filter(|left| left.untouched) {
            let kind = left.resource.kind.clone();
            plan.effects.push(Box::new(DeleteAll { kind, namespace: namespace.name_any() }));
        }
        plan.recheck(wait(namespace, now));
        plan
    }

    fn failed(&self, world: &World, error: &Error, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if !error.is_conflict() {
            plan.set_status(&*world.namespace, &status(world, Some(error), now));
        }
        plan
    }
}

async fn remaining(cx: &Context, namespace: &str, resource: Found) -> Result<Option<Remaining>> {
    let what = format!("{} in namespace {namespace}", resource.kind);
    let request = Request::new(resource.kind.url(namespace)).list_metadata(&ListParams::default().limit(500));
    let key = ObjectKey::new(namespace, "");
    let request = request.map_err(|source| Error::Request { verb: "list", key, source: Box::new(source) })?;
    let list = match cx.client.request::<ObjectList<PartialObjectMeta>>(request).await {
        Ok(list) => list,
        // The CRD went in the meantime, or the resource cannot be listed: nothing of it is left.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => return Ok(None),
        Err(error) => return Err(Error::read(what)(error)),
    };
    if list.items.is_empty() {
        return Ok(None);
    }
    let mut finalizers = BTreeMap::new();
    for finalizer in list.items.iter().flat_map(|item| item.finalizers()) {
        *finalizers.entry(finalizer.clone()).or_insert(0) += 1;
    }
    let more = list.metadata.remaining_item_count.and_then(|more| usize::try_from(more).ok()).unwrap_or(0);
    let untouched = more > 0 || list.items.iter().any(|item| item.metadata.deletion_timestamp.is_none());
    Ok(Some(Remaining { resource, count: list.items.len() + more, untouched, finalizers }))
}

/// How long until the next look: longer the longer it has taken already.
fn wait(namespace: &Namespace, now: Timestamp) -> Duration {
    let since = namespace.metadata.deletion_timestamp.as_ref().map_or(now, |time| time.0);
    let age_ms = u64::try_from(now.as_millisecond().saturating_sub(since.as_millisecond())).unwrap_or(0);
    Duration::from_millis((age_ms / 4).clamp(200, 15_000))
}

fn finalize(namespace: &Namespace) -> Child {
    let present = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    let left: Vec<&String> = present.filter(|finalizer| *finalizer != FINALIZER).collect();
    let body = json!({ "metadata": namespace.metadata, "spec": { "finalizers": left } });
    let key = ObjectKey::new("", namespace.name_any());
    Child::object(Kind::of::<Namespace>(), key, Write::Put("finalize"), body)
}

/// Upstream's five conditions, worded as upstream's.
fn status(world: &World, failure: Option<&Error>, now: Timestamp) -> NamespaceStatus {
    let mut conditions =
        world.namespace.status.clone().and_then(|status| status.conditions).unwrap_or_default();
    let mut set = |kind: &str, bad: Option<(&str, String)>, good: (&str, &str)| {
        let (status, reason, message) = match bad {
            Some((reason, message)) => ("True", reason.to_owned(), message),
            None => ("False", good.0.to_owned(), good.1.to_owned()),
        };
        let at = conditions.iter().position(|condition| condition.type_ == kind);
        let before = at.and_then(|at| conditions.get(at)).filter(|condition| condition.status == status);
        let since = before.and_then(|condition| condition.last_transition_time.clone());
        let fresh = NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason),
            message: Some(message),
            last_transition_time: since.or_else(|| Some(Time(whole_second(now)))),
        };
        match at.and_then(|at| conditions.get_mut(at)) {
            Some(slot) => *slot = fresh,
            None => conditions.push(fresh),
        }
    };
    let World { namespace: _, remaining, undiscovered } = world;
    let undiscovered = (!undiscovered.is_empty()).then(|| {
        ("DiscoveryFailed", format!("Discovery failed for some groups, {}", undiscovered.join("; ")))
    });
    let good = ("ResourcesDiscovered", "All resources successfully discovered");
    set("NamespaceDeletionDiscoveryFailure", undiscovered, good);
    let good = ("ParsedGroupVersions", "All legacy kube types successfully parsed");
    set("NamespaceDeletionGroupVersionParsingFailure", None, good);
    let failed = failure.map(|error| {
        let text = format!("Failed to delete all resource types, {}", error.text());
        ("ContentDeletionFailed", text)
    });
    let good = ("ContentDeleted", "All content successfully deleted, may be waiting on finalization");
    set("NamespaceDeletionContentFailure", failed, good);
    let counts: Vec<String> = remaining
        .iter()
        .map(|left| format!("{} has {} resource instances", full_name(left), left.count))
        .collect();
    let left = (!counts.is_empty())
        .then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {}", counts.join(", "))));
    set("NamespaceContentRemaining", left, ("ContentRemoved", "All content successfully removed"));
    let mut finalizers: BTreeMap<&String, usize> = BTreeMap::new();
    for (finalizer, count) in remaining.iter().flat_map(|left| &left.finalizers) {
        *finalizers.entry(finalizer).or_insert(0) += count;
    }
    let texts: Vec<String> =
        finalizers.iter().map(|(f, count)| format!("{f} in {count} resource instances")).collect();
    let held = (!texts.is_empty()).then(|| {
        (
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {}", texts.join(", ")),
        )
    });
    let good = ("ContentHasNoFinalizers", "All content-preserving finalizers finished");
    set("NamespaceFinalizersRemaining", held, good);
    NamespaceStatus { phase: Some("Terminating".to_owned()), conditions: Some(conditions) }
}

/// `pods.` or `deployments.apps`, as upstream writes it.
fn full_name(left: &Remaining) -> String {
    format!("{}.{}", left.resource.kind.plural, left.resource.kind.group)
}

/// Deletes all of one kind in one namespace.
#[derive(Debug)]
struct DeleteAll {
    kind: Kind,
    namespace: String,
}

impl Effect for DeleteAll {
    fn name(&self) -> &'static str {
        "delete collection"
    }

    fn run<'a>(&'a self, cx: &'a Context) -> EffectFuture<'a> {
        Box::pin(async move {
            let params = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                ..DeleteParams::default()
            };
            let request = Request::new(self.kind.url(&self.namespace));
            let request = request.delete_collection(&params, &ListParams::default())?;
            match cx.client.request::<serde_json::Value>(request).await {
                Ok(_) => Ok(()),
                // Gone in the meantime.
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use reconcile::testkit::Bench;

    use super::*;

    const FIXTURE: &str = r#"
apiVersion: v1
kind: Namespace
metadata: { name: ns }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: held, namespace: ns, finalizers: [ example.com/hold ] }
---
apiVersion: v1
kind: Secret
metadata: { name: free, namespace: ns }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: other, namespace: elsewhere }
---
apiVersion: v1
kind: Pod
metadata: { name: runs, namespace: ns }
spec: { nodeName: n1 }
"#;

    #[tokio::test]
    async fn pods_first_then_the_rest_then_itself() {
        let bench = Bench::new(Namespaces);
        bench.put_yaml(FIXTURE);
        let key = ObjectKey::new("", "ns");
        let (namespaces, maps) = (Kind::of::<Namespace>(), Kind::of::<ConfigMap>());
        assert!(bench.plan(&key).await.is_none(), "not being deleted");
        bench.api.delete(&namespaces, &key);
        insta::assert_yaml_snapshot!("pods_go_first", bench.plan(&key).await.unwrap());
        bench.settle(&key).await;
        assert!(
            bench.api.get(&Kind::new("", "v1", "Secret", "secrets"), &ObjectKey::new("ns", "free")).is_some()
        );

        bench.api.delete(&Kind::of::<Pod>(), &ObjectKey::new("ns", "runs"));
        bench.settle(&key).await;
        let conditions = bench.api.get(&namespaces, &key).unwrap()["status"]["conditions"].clone();
        insta::assert_yaml_snapshot!("a_finalizer_holds", conditions);

        bench.api.patch(
            &maps,
            &ObjectKey::new("ns", "held"),
            "",
            &json!({ "metadata": { "finalizers": null } }),
        );
        bench.settle(&key).await;
        assert_eq!(bench.api.get(&namespaces, &key), None);
        assert_eq!(bench.api.list(&maps, "").len(), 1, "other namespaces keep their content");
    }

    #[tokio::test]
    async fn a_kind_from_a_crd_is_emptied_too_and_failed_discovery_holds() {
        let bench = Bench::new(Namespaces);
        let widgets = Kind::new("example.com", "v1", "Widget", "widgets");
        bench.api.register(widgets.clone(), true);
        bench.api.put(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "ns" } }));
        bench.api.put(&json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": "w", "namespace": "ns" } }));
        let key = ObjectKey::new("", "ns");
        bench.api.delete(&Kind::of::<Namespace>(), &key);
        let down = meta::Status::new(503, meta::Reason::ServiceUnavailable, "down");
        bench.api.fail_next(http::Method::GET, "/apis/example.com/v1", down);
        bench.step(&key).await;
        assert!(bench.api.get(&Kind::of::<Namespace>(), &key).is_some());
        bench.settle(&key).await;
        assert!(bench.api.list(&widgets, "").is_empty());
        assert_eq!(bench.api.get(&Kind::of::<Namespace>(), &key), None);
    }
}
