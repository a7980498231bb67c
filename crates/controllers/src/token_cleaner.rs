//! Deletes bootstrap tokens that have expired (upstream `pkg/controller/bootstrap/tokencleaner.go`). Until then the API
//! server refuses them; what is gone cannot be looked at.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use meta::{ObjectKey, Timestamp};
use reconcile::{Change, Context, Plan, Precondition, Reconciler, Result, Watches, key_of};

/// Only these Secrets are watched.
const FIELDS: &str = "type=bootstrap.kubernetes.io/token";
/// Where they are tokens.
const NAMESPACE: &str = "kube-system";

/// The controller.
pub struct TokenCleaner;

/// What one plan looks at.
pub struct World {
    secret: Arc<Secret>,
}

impl Reconciler for TokenCleaner {
    type World = World;
    const NAME: &'static str = "bootstrap-token-cleaner";

    fn watches(&self) -> Watches {
        Watches::default().also_where::<Secret>(FIELDS, |change: &Change<Secret>, _| {
            let key = change.object().map(|secret| key_of(&**secret));
            key.filter(|key| key.namespace == NAMESPACE).into_iter().collect()
        })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let store = cx.stores.with_fields::<Secret>(FIELDS);
        store.ready().await;
        let secret = store.get(key).filter(|secret| secret.metadata.deletion_timestamp.is_none());
        Ok(secret.map(|secret| World { secret }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let secret = &*world.secret;
        let Some(until) = secret.data.as_ref().and_then(|data| data.get("expiration")) else { return plan };
        if until.0.is_empty() {
            return plan;
        }
        // A time that cannot be read has passed.
        let until = std::str::from_utf8(&until.0).ok().and_then(|text| text.parse::<Timestamp>().ok());
        let left = until.map_or(0, |until| until.as_second().saturating_sub(now.as_second()));
        match u64::try_from(left) {
            Ok(left) if left > 0 => plan.recheck(Duration::from_secs(left)),
            // Only this version: a later time may have been written meanwhile.
            _ => plan.delete.push(Precondition::of(secret).unchanged(secret)),
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};
    use serde_json::json;

    use super::*;

    fn token(bench: &Bench<TokenCleaner>, name: &str, kind: &str, data: serde_json::Value) -> ObjectKey {
        let metadata = json!({ "name": name, "namespace": "kube-system" });
        bench.api.put(&json!({ "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "data": data }));
        ObjectKey::new("kube-system", name)
    }

    #[tokio::test]
    async fn an_expired_token_goes_and_no_other() {
        let bench = Bench::new(TokenCleaner);
        let kind = "bootstrap.kubernetes.io/token";
        // First, as the cache never shows it.
        let other = token(&bench, "other", "Opaque", json!({ "expiration": "c29tZSBkYXk=" }));
        // At 2026-01-01T00:01:00Z.
        let soon = token(&bench, "soon", kind, json!({ "expiration": "MjAyNi0wMS0wMVQwMDowMTowMFo=" }));
        let odd = token(&bench, "odd", kind, json!({ "expiration": "c29tZSBkYXk=" }));
        let never = token(&bench, "never", kind, json!({ "token-id": "YWJjZGVm" }));
        bench.advance(20);
        assert_eq!(bench.plan(&soon).await.unwrap().recheck_after, Some(Duration::from_secs(40)));
        let (plan, _) = bench.step(&soon).await.unwrap();
        assert!(plan.is_empty());
        bench.advance(40);
        insta::assert_yaml_snapshot!(bench.plan(&soon).await.unwrap(), { ".**.uid" => "[uid]" });
        for key in [&soon, &odd, &never, &other] {
            bench.settle(key).await;
        }
        let mut left: Vec<String> = Vec::new();
        for secret in bench.api.list(&Kind::of::<Secret>(), "kube-system") {
            left.push(secret["metadata"]["name"].as_str().unwrap().to_owned());
        }
        left.sort();
        assert_eq!(left, ["never", "other"]);
    }
}
