//! Fills aggregated ClusterRoles with the rules of the roles they select (upstream
//! `clusterroleaggregation_controller.go`).

use std::sync::Arc;

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, PolicyRule},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{ResourceExt, core::Selector};
use meta::{ObjectKey, Timestamp};
use reconcile::{Context, Error, Plan, Reconciler, Result, Watches};

use crate::claims::matches;

/// The controller.
pub struct ClusterRoleAggregation;

/// What one plan looks at: an aggregated role, and the roles it selects in the order of their names.
pub struct World {
    role: Arc<ClusterRole>,
    parts: Vec<Arc<ClusterRole>>,
}

impl Reconciler for ClusterRoleAggregation {
    type World = World;
    const NAME: &'static str = "clusterrole-aggregation";

    fn watches(&self) -> Watches {
        // Any role may belong to, or no longer belong to, any aggregated one; there are few of those.
        Watches::of::<ClusterRole>().also::<ClusterRole>(|_, stores| {
            let roles = stores.of::<ClusterRole>().all();
            roles.iter().filter(|role| role.aggregation_rule.is_some()).map(|role| key(role)).collect()
        })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let roles = cx.stores.ready::<ClusterRole>().await;
        let Some(role) = roles.get(key).filter(|role| role.aggregation_rule.is_some()) else {
            return Ok(None);
        };
        let wanted =
            role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
        let read = |wanted: &LabelSelector| {
            Selector::try_from(wanted.clone())
                .map_err(|error| Error::Rejected(format!("invalid label selector: {error}")))
        };
        let wanted: Vec<Selector> = wanted.map(read).collect::<Result<_>>()?;
        let mut parts = roles.all();
        parts.retain(|part| part.metadata.name != role.metadata.name);
        parts.retain(|part| wanted.iter().any(|wanted| matches(wanted, &**part)));
        parts.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        Ok(Some(World { role, parts }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let mut rules: Vec<PolicyRule> = Vec::new();
        for rule in world.parts.iter().flat_map(|part| part.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
        let held = world.role.rules.as_deref().unwrap_or_default();
        // The same rules in another order are the same permissions.
        if held.len() != rules.len() || !rules.iter().all(|rule| held.contains(rule)) {
            let wanted = ClusterRole { rules: Some(rules), ..(*world.role).clone() };
            plan.change(&*world.role, &wanted);
        }
        plan
    }
}

fn key(role: &ClusterRole) -> ObjectKey {
    ObjectKey::new("", role.name_any())
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};
    use serde_json::{Value, json};

    use super::*;

    fn role(name: &str, label: &str, rules: Value) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": { "name": name, "labels": { label: "true" } }, "rules": rules,
        })
    }

    #[tokio::test]
    async fn rules_are_gathered_and_taken_back() {
        let bench = Bench::new(ClusterRoleAggregation);
        let (kind, all) = (Kind::of::<ClusterRole>(), ObjectKey::new("", "all"));
        bench.api.register(kind.clone(), false);
        let pods = json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] });
        let nodes = json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["nodes"] });
        bench.api.put(&role("b", "to-all", json!([nodes])));
        bench.api.put(&role("a", "to-all", json!([pods, nodes])));
        bench.api.put(&role(
            "c",
            "other",
            json!([{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }]),
        ));
        let mut aggregated = role("all", "to-all", json!([]));
        let selectors = json!([{ "matchLabels": { "to-all": "true" } }]);
        aggregated["aggregationRule"] = json!({ "clusterRoleSelectors": selectors });
        bench.api.put(&aggregated);
        bench.settle(&all).await;
        assert_eq!(bench.api.get(&kind, &all).unwrap()["rules"], json!([pods, nodes]));
        bench.api.delete(&kind, &ObjectKey::new("", "a"));
        bench.settle(&all).await;
        assert_eq!(bench.api.get(&kind, &all).unwrap()["rules"], json!([nodes]));
        bench.api.delete(&kind, &ObjectKey::new("", "b"));
        bench.settle(&all).await;
        let rules = bench.api.get(&kind, &all).unwrap()["rules"].clone();
        assert!(rules.as_array().is_none_or(Vec::is_empty), "{rules}");
    }
}
