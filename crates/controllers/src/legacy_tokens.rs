//! Takes away tokens that stand in Secrets and that nobody has used for a year: marks them first, which the API server
//! refuses them for, and deletes them after another year (upstream
//! `pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go`).
//!
//! Only Secrets that their ServiceAccount lists are touched: those were made for it, all others by hand. One whose name
//! stands anywhere in a pod is in use.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::{Api, ResourceExt};
use meta::{ObjectKey, Timestamp};
use reconcile::{Change, Context, Error, Plan, Precondition, Reconciler, Result, Watches, key_of};
use serde_json::Value;

const FIELDS: &str = "type=kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Where the API server says since when it writes uses down.
const TRACKING: (&str, &str) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
const DAY_SECONDS: i64 = 24 * 3600;
/// Without use until it is marked, and from then until it is deleted, as upstream.
const UNUSED_SECONDS: i64 = 365 * DAY_SECONDS;
/// Between two looks, as upstream.
const AGAIN: Duration = Duration::from_secs(24 * 3600);

/// The controller.
pub struct LegacyTokenCleaner;

/// What one plan looks at.
pub struct World {
    secret: Arc<Secret>,
    /// The day since when uses are written down.
    tracked_since: Option<String>,
    /// Whether its ServiceAccount lists it.
    listed: bool,
    /// Whether a pod names it.
    mounted: bool,
}

impl Reconciler for LegacyTokenCleaner {
    type World = World;
    const NAME: &'static str = "legacy-serviceaccount-token-cleaner";

    fn watches(&self) -> Watches {
        Watches::default()
            .also_where::<Secret>(FIELDS, |change: &Change<Secret>, _| {
                change.object().map(|secret| key_of(&**secret)).into_iter().collect()
            })
            .reads::<ServiceAccount>()
            .reads::<Pod>()
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let store = cx.stores.with_fields::<Secret>(FIELDS);
        store.ready().await;
        let secret = store.get(key).filter(|secret| secret.metadata.deletion_timestamp.is_none());
        let Some(secret) = secret else { return Ok(None) };
        let mut world = World { secret, tracked_since: None, listed: false, mounted: false };
        // Most are young: nothing else is asked of those.
        if !is_old(&world.secret, cx.clock.now()) {
            return Ok(Some(world));
        }
        world.listed = match world.secret.annotations().get(ACCOUNT) {
            Some(name) => {
                let account =
                    cx.stores.ready::<ServiceAccount>().await.get(&ObjectKey::new(&key.namespace, name));
                account.is_some_and(|account| lists(&account, &world.secret))
            }
            None => false,
        };
        if world.listed {
            let pods = cx.stores.ready::<Pod>().await.in_namespace(&key.namespace);
            world.mounted = pods
                .iter()
                .any(|pod| serde_json::to_value(&pod.spec).is_ok_and(|spec| names(&spec, &key.name)));
            let maps: Api<ConfigMap> = Api::namespaced(cx.client.clone(), TRACKING.0);
            let map =
                maps.get_opt(TRACKING.1).await.map_err(Error::read(format!("config map {}", TRACKING.1)))?;
            world.tracked_since = map.and_then(|map| map.data?.remove("since"));
        }
        Ok(Some(world))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        plan.recheck(AGAIN);
        let secret = &*world.secret;
        if !is_old(secret, now) || !world.listed || world.mounted {
            return plan;
        }
        // From the day after, so that all of the first day counts.
        let tracked = world.tracked_since.as_deref().and_then(begin);
        if tracked.is_none_or(|since| now.as_second() < since + DAY_SECONDS + UNUSED_SECONDS) {
            return plan;
        }
        let recent = day(now.as_second() - UNUSED_SECONDS);
        if secret.labels().get(LAST_USED).is_some_and(|last| begin(last).is_none() || *last >= recent) {
            return plan;
        }
        match secret.labels().get(INVALID_SINCE).filter(|since| begin(since).is_some()) {
            None => {
                let mut marked = secret.clone();
                marked.labels_mut().insert(INVALID_SINCE.to_owned(), day(now.as_second()));
                plan.change(secret, &marked);
            }
            Some(since) if *since >= recent => {}
            // Only this version: it may have been used meanwhile.
            Some(_) => plan.delete.push(Precondition::of(secret).unchanged(secret)),
        }
        plan
    }
}

fn is_old(secret: &Secret, now: Timestamp) -> bool {
    let made = secret.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    made.is_some_and(|made| made < now.as_second() - UNUSED_SECONDS)
}

fn lists(account: &ServiceAccount, secret: &Secret) -> bool {
    let meant = secret.annotations().get(ACCOUNT_UID).filter(|uid| !uid.is_empty());
    let same = meant.is_none_or(|uid| account.metadata.uid.as_ref() == Some(uid));
    same && account.secrets.iter().flatten().any(|one| one.name == secret.metadata.name)
}

/// Whether a text in it is this name.
fn names(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text == name,
        Value::Array(list) => list.iter().any(|item| names(item, name)),
        Value::Object(map) => map.values().any(|item| names(item, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Seconds at which a day begins; `None` for what is no day.
fn begin(day: &str) -> Option<i64> {
    format!("{day}T00:00:00Z").parse::<Timestamp>().ok().map(Timestamp::as_second)
}

fn day(second: i64) -> String {
    let at = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};
    use serde_json::json;

    use super::*;

    fn world(labels: Value) -> World {
        let metadata = json!({ "name": "s", "namespace": "ns", "uid": "1", "resourceVersion": "5", "labels": labels,
            "creationTimestamp": "2020-01-01T00:00:00Z" });
        let secret = Arc::new(serde_json::from_value(json!({ "metadata": metadata })).unwrap());
        World { secret, tracked_since: Some("2024-01-01".to_owned()), listed: true, mounted: false }
    }

    fn check(world: &World, expected: &str) {
        let plan = LegacyTokenCleaner.plan(world, "2026-01-01T12:00:00Z".parse().unwrap());
        let marks = plan
            .apply
            .iter()
            .map(|child| format!("mark {}", child.body["metadata"]["labels"][INVALID_SINCE]));
        let deletes = plan.delete.iter().map(|gone| format!("delete {}", gone.key));
        assert_eq!(marks.chain(deletes).collect::<String>(), expected);
        assert_eq!(plan.recheck_after, Some(AGAIN));
    }

    #[test]
    fn what_nobody_uses_is_marked_and_then_goes() {
        let (mark, delete) = ("mark \"2026-01-01\"", "delete ns/s");
        for (labels, expected) in [
            (json!({}), mark),
            (json!({ LAST_USED: "2024-12-31" }), mark),
            (json!({ LAST_USED: "2025-01-01" }), ""),
            (json!({ LAST_USED: "some day" }), ""),
            (json!({ INVALID_SINCE: "some day" }), mark),
            (json!({ INVALID_SINCE: "2025-01-01" }), ""),
            (json!({ INVALID_SINCE: "2024-12-31" }), delete),
            (json!({ INVALID_SINCE: "2024-12-31", LAST_USED: "2025-06-01" }), ""),
        ] {
            check(&world(labels), expected);
        }
        check(&World { listed: false, ..world(json!({})) }, "");
        check(&World { mounted: true, ..world(json!({})) }, "");
        check(&World { tracked_since: None, ..world(json!({})) }, "");
        check(&World { tracked_since: Some("2025-01-01".to_owned()), ..world(json!({})) }, "");
        let young = world(json!({}));
        let mut secret = (*young.secret).clone();
        secret.metadata.creation_timestamp = None;
        check(&World { secret: Arc::new(secret), ..young }, "");
    }

    #[tokio::test]
    async fn a_mark_is_written_once() {
        let bench = Bench::new(LegacyTokenCleaner);
        let key = ObjectKey::new("ns", "s");
        let metadata = |name: &str, namespace: &str| json!({ "name": name, "namespace": namespace });
        bench.api.put(
            &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(TRACKING.1, TRACKING.0),
            "data": { "since": "2026-01-01" } }),
        );
        bench
            .api
            .put(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("a", "ns"),
            "secrets": [{ "name": "s" }] }));
        bench.api.put(
            &json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": { "name": "s", "namespace": "ns", "annotations": { ACCOUNT: "a" } } }),
        );
        bench.advance(UNUSED_SECONDS + DAY_SECONDS + 1);
        insta::assert_yaml_snapshot!(bench.plan(&key).await.unwrap(), { ".**.uid" => "[uid]" });
        bench.settle(&key).await;
        bench.advance(UNUSED_SECONDS + DAY_SECONDS);
        bench.settle(&key).await;
        assert!(bench.api.get(&Kind::of::<Secret>(), &key).is_none());
    }
}
