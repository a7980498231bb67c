//! The controller.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, ResourceExt};
use meta::{ObjectKey, Timestamp};
use reconcile::{Change, Context, Plan, Reconciler, Result, Stores, Watches, key_of};

use crate::{
    observe::{World, observe},
    plan::plan,
    types::Database,
};

/// Reconciles Databases.
pub struct Databases;

impl Reconciler for Databases {
    type World = World;
    const NAME: &'static str = "database-operator";

    fn watches(&self) -> Watches {
        Watches::of::<Database>()
            .owns::<StatefulSet>()
            .owns::<Service>()
            .owns::<ConfigMap>()
            .owns::<PodDisruptionBudget>()
            .also::<Pod>(by_instance)
            .also::<PersistentVolumeClaim>(by_instance)
            .also::<Secret>(by_secret)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        observe(cx, key).await
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        plan(world, now)
    }
}

/// Pods and volumes carry the name of their Database in a label: the StatefulSet owns the former, and nobody
/// the latter.
fn by_instance<K: Resource>(change: &Change<K>, _: &Stores) -> Vec<ObjectKey> {
    let ours = |object: &K| {
        let labels = object.labels();
        let managed = labels.get("app.kubernetes.io/managed-by")? == "database-operator";
        let name = labels.get("app.kubernetes.io/instance")?;
        managed.then(|| ObjectKey::new(object.namespace().unwrap_or_default(), name))
    };
    change.versions().filter_map(|object| ours(object)).collect()
}

/// A Secret leads to every Database of its namespace that takes its password from it.
fn by_secret(change: &Change<Secret>, stores: &Stores) -> Vec<ObjectKey> {
    let Some(secret) = change.versions().next() else { return Vec::new() };
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let databases = stores.of::<Database>().in_namespace(&namespace);
    let uses = |database: &Database| {
        let spec = &database.spec;
        let given = [
            spec.postgresql.as_ref().and_then(|settings| settings.password_secret.as_ref()),
            spec.redis.as_ref().and_then(|settings| settings.password_secret.as_ref()),
        ];
        given.into_iter().flatten().any(|key| key.name == name)
            || name == format!("{}-credentials", database.name_any())
    };
    databases.iter().filter(|database| uses(database)).map(|database| key_of(&**database)).collect()
}
