//! Each active namespace has a ServiceAccount `default` (upstream `serviceaccounts_controller.go`).

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{Child, Context, Plan, Reconciler, Result, Watches};

/// The controller.
pub struct ServiceAccounts;

/// What one plan looks at.
pub struct World {
    namespace: Arc<Namespace>,
    present: bool,
}

/// The key of the namespace an object is in.
pub(crate) fn namespace_key<K: kube::Resource>(object: &K) -> ObjectKey {
    ObjectKey::new("", object.meta().namespace.clone().unwrap_or_default())
}

/// Whether things may be created in a namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

impl Reconciler for ServiceAccounts {
    type World = World;
    const NAME: &'static str = "serviceaccount";

    fn watches(&self) -> Watches {
        Watches::of::<Namespace>().also::<ServiceAccount>(|change, _| {
            let gone = change.old.iter().filter(|_| change.new.is_none());
            gone.filter(|account| account.name_any() == "default")
                .map(|account| namespace_key(&**account))
                .collect()
        })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let namespace =
            cx.stores.ready::<Namespace>().await.get(key).filter(|namespace| is_active(namespace));
        let accounts = cx.stores.ready::<ServiceAccount>().await;
        let present = accounts.get(&ObjectKey::new(&key.name, "default")).is_some();
        Ok(namespace.map(|namespace| World { namespace, present }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if !world.present {
            plan.apply.push(Child::create(&ServiceAccount {
                metadata: ObjectMeta {
                    name: Some("default".to_owned()),
                    namespace: Some(world.namespace.name_any()),
                    ..ObjectMeta::default()
                },
                ..ServiceAccount::default()
            }));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_namespace_has_its_account_until_it_goes() {
        let bench = Bench::new(ServiceAccounts);
        let (key, account) = (ObjectKey::new("", "ns"), ObjectKey::new("ns", "default"));
        let accounts = Kind::of::<ServiceAccount>();
        bench.api.put(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "ns" } }));
        bench.settle(&key).await;
        assert!(bench.api.get(&accounts, &account).is_some());
        bench.api.delete(&accounts, &account);
        bench.settle(&key).await;
        assert!(bench.api.get(&accounts, &account).is_some(), "made again");
        bench.api.delete(&Kind::of::<Namespace>(), &key);
        bench.api.delete(&accounts, &account);
        bench.settle(&key).await;
        assert_eq!(bench.api.get(&accounts, &account), None, "not in a namespace that is going away");
    }
}
