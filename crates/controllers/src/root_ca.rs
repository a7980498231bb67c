//! Publishes the cluster's CA as ConfigMap `kube-root-ca.crt` in each active namespace, so that pods
//! can verify the API server (upstream `pkg/controller/certificates/rootcacertpublisher`).

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{Child, Context, Plan, Reconciler, Result, Watches};

use crate::service_account::{is_active, namespace_key};

const NAME: &str = "kube-root-ca.crt";
/// Only these ConfigMaps are watched: all of a cluster's would fill the memory for nothing.
const FIELDS: &str = "metadata.name=kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";

/// The controller.
pub struct RootCaPublisher {
    /// The CA bundle in PEM.
    pub root_ca_pem: String,
}

/// What one plan looks at.
pub struct World {
    namespace: Arc<Namespace>,
    published: Option<Arc<ConfigMap>>,
}

impl Reconciler for RootCaPublisher {
    type World = World;
    const NAME: &'static str = "root-ca-certificate-publisher";

    fn watches(&self) -> Watches {
        Watches::of::<Namespace>().also_where::<ConfigMap>(FIELDS, |change, _| {
            change.object().map(|map| namespace_key(&**map)).into_iter().collect()
        })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let namespace =
            cx.stores.ready::<Namespace>().await.get(key).filter(|namespace| is_active(namespace));
        let store = cx.stores.with_fields::<ConfigMap>(FIELDS);
        store.ready().await;
        let published = store.get(&ObjectKey::new(&key.name, NAME));
        Ok(namespace.map(|namespace| World { namespace, published }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let data = BTreeMap::from([("ca.crt".to_owned(), self.root_ca_pem.clone())]);
        let text = "Contains a CA bundle that can be used to verify the API server of this cluster, \
                    also by way of its internal names.";
        match &world.published {
            Some(published) => {
                let mut wanted = (**published).clone();
                wanted.data = Some(data);
                plan.change(&**published, &wanted);
            }
            None => plan.apply.push(Child::create(&ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    namespace: Some(world.namespace.name_any()),
                    annotations: Some([(DESCRIPTION.to_owned(), text.to_owned())].into()),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                ..ConfigMap::default()
            })),
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
    async fn the_certificate_is_published_and_restored() {
        let bench = Bench::new(RootCaPublisher { root_ca_pem: "PEM".to_owned() });
        let (key, map) = (ObjectKey::new("", "ns"), ObjectKey::new("ns", NAME));
        let maps = Kind::of::<ConfigMap>();
        bench.api.put(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "ns" } }));
        bench.step(&key).await;
        bench.api.patch(&maps, &map, "", &json!({ "data": { "ca.crt": "forged", "more": "x" } }));
        bench.settle(&key).await;
        assert_eq!(bench.api.get(&maps, &map).unwrap()["data"], json!({ "ca.crt": "PEM" }));
    }
}
