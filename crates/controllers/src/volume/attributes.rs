//! A VolumeAttributesClass in use is not removed under its users (upstream `pkg/controller/volume/vacprotection`): a
//! finalizer holds it until no claim and no volume names it.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::VolumeAttributesClass,
};
use meta::{ObjectKey, Timestamp};
use reconcile::{Change, Context, Plan, Reconciler, Result, Watches};

const FINALIZER: &str = "kubernetes.io/vac-protection";

/// The controller.
pub struct AttributesClassProtection;

/// What one plan looks at.
pub struct World {
    class: Arc<VolumeAttributesClass>,
    used: bool,
}

fn of_claim(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let target = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = target.and_then(|modify| modify.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

fn of_volume(volume: &PersistentVolume) -> Option<&str> {
    let name = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    name.filter(|name| !name.is_empty())
}

/// The class that somebody stopped using.
fn left<'a>(before: impl IntoIterator<Item = &'a str>, after: &[&str]) -> Vec<ObjectKey> {
    before.into_iter().filter(|name| !after.contains(name)).map(|name| ObjectKey::new("", name)).collect()
}

impl Reconciler for AttributesClassProtection {
    type World = World;
    const NAME: &'static str = "volumeattributesclass-protection";

    fn watches(&self) -> Watches {
        Watches::of::<VolumeAttributesClass>()
            .also::<PersistentVolumeClaim>(|change: &Change<PersistentVolumeClaim>, _| {
                let after = change.new.as_ref().map(|claim| of_claim(claim)).unwrap_or_default();
                left(change.old.iter().flat_map(|claim| of_claim(claim)), &after)
            })
            .also::<PersistentVolume>(|change: &Change<PersistentVolume>, _| {
                let after: Vec<&str> = change.new.iter().filter_map(|volume| of_volume(volume)).collect();
                left(change.old.iter().filter_map(|volume| of_volume(volume)), &after)
            })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(class) = cx.stores.ready::<VolumeAttributesClass>().await.get(key) else { return Ok(None) };
        let mut used = false;
        if class.metadata.deletion_timestamp.is_some() {
            let volumes = cx.stores.ready::<PersistentVolume>().await.all();
            used = volumes.iter().any(|volume| of_volume(volume) == Some(&*key.name)) || {
                let claims = cx.stores.ready::<PersistentVolumeClaim>().await.all();
                claims.iter().any(|claim| of_claim(claim).contains(&&*key.name))
            };
        }
        Ok(Some(World { class, used }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        plan.add_finalizer(&*world.class, FINALIZER);
        if world.class.metadata.deletion_timestamp.is_some() && !world.used {
            plan.remove_finalizer(&*world.class, FINALIZER);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};
    use serde_json::{Value, json};

    use super::*;

    /// The class is held by a user of each kind until that is gone, and then goes.
    async fn held_by(kind: Kind, user: Value, freed: Value, subresource: &str) {
        let bench = Bench::new(AttributesClassProtection);
        let (class, gold) = (Kind::of::<VolumeAttributesClass>(), ObjectKey::new("", "gold"));
        bench.api.put(&json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": { "name": "gold" },
            "driverName": "d",
        }));
        bench.api.put(&user);
        bench.settle(&gold).await;
        assert_eq!(bench.api.get(&class, &gold).unwrap()["metadata"]["finalizers"], json!([FINALIZER]));
        bench.api.delete(&class, &gold);
        bench.settle(&gold).await;
        assert!(bench.api.get(&class, &gold).is_some(), "in use: {user}");
        let metadata = &user["metadata"];
        let key = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        bench.api.patch(&kind, &ObjectKey::new(key("namespace"), key("name")), subresource, &freed);
        let plan = bench.plan(&gold).await.unwrap();
        insta::allow_duplicates! {
            insta::assert_yaml_snapshot!(plan, { ".**.uid" => "[uid]", ".**.resourceVersion" => "[version]" });
        }
        bench.settle(&gold).await;
        assert!(bench.api.get(&class, &gold).is_none(), "free: {user}");
    }

    #[tokio::test]
    async fn a_class_in_use_stays() {
        let claim = |more: Value| {
            let mut claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": { "name": "c", "namespace": "ns" }, "spec": {}, "status": {} });
            json_patch::merge(&mut claim, &more);
            claim
        };
        let volume = json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "v" },
            "spec": { "volumeAttributesClassName": "gold" } });
        let none = json!({ "spec": { "volumeAttributesClassName": null } });
        held_by(Kind::of::<PersistentVolume>(), volume, none.clone(), "").await;
        let claims = Kind::of::<PersistentVolumeClaim>();
        let wanted = claim(json!({ "spec": { "volumeAttributesClassName": "gold" } }));
        held_by(claims.clone(), wanted, none, "").await;
        for (status, freed) in [
            (
                json!({ "currentVolumeAttributesClassName": "gold" }),
                json!({ "currentVolumeAttributesClassName": "new" }),
            ),
            (
                json!({ "modifyVolumeStatus": { "status": "Pending", "targetVolumeAttributesClassName": "gold" } }),
                json!({ "modifyVolumeStatus": null }),
            ),
        ] {
            held_by(claims.clone(), claim(json!({ "status": status })), json!({ "status": freed }), "status")
                .await;
        }
    }
}
