//! Growing claims on local-path volumes (upstream `persistentvolume-expander` and the resizer beside a
//! driver). A directory has no size, so growing one is saying so: first the volume, then the claim.
//! Claims of other provisioners are left to them. Whether a claim may grow was decided at admission.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus},
    apimachinery::pkg::api::resource::Quantity as Text,
};
use kube::ResourceExt;
use meta::{ObjectKey, Quantity, Timestamp};
use reconcile::{Change, Context, Note, Plan, Reconciler, Result, Stores, Watches};

use super::{PROVISIONED_BY, PROVISIONER, matching::refers_to};
use crate::spec::HasSpec;

/// The controller.
pub struct VolumeExpander;

/// What one plan looks at.
pub struct World {
    claim: Arc<PersistentVolumeClaim>,
    volume: Arc<PersistentVolume>,
}

impl Reconciler for VolumeExpander {
    type World = World;
    const NAME: &'static str = "persistentvolume-expander";

    fn watches(&self) -> Watches {
        let claim_of = |change: &Change<PersistentVolume>, _: &Stores| {
            let referred = change.new.iter().filter_map(|volume| {
                let claim = volume.spec().claim_ref.as_ref()?;
                Some(ObjectKey::new(claim.namespace.clone()?, claim.name.clone()?))
            });
            referred.collect()
        };
        Watches::of::<PersistentVolumeClaim>().also::<PersistentVolume>(claim_of)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(claim) = cx.stores.ready::<PersistentVolumeClaim>().await.get(key) else { return Ok(None) };
        let name = claim.spec().volume_name.clone().unwrap_or_default();
        let volume = cx.stores.ready::<PersistentVolume>().await.get(&ObjectKey::new("", &name));
        let ours = |volume: &Arc<PersistentVolume>| {
            volume.annotations().get(PROVISIONED_BY).is_some_and(|by| by == PROVISIONER)
                && refers_to(volume, &claim)
        };
        let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        Ok(volume.filter(ours).filter(|_| bound).map(|volume| World { claim, volume }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let (claim, volume) = (&*world.claim, &*world.volume);
        let Some(asked) = claim.spec().resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage"))
        else {
            return plan;
        };
        if is_less(volume.spec().capacity.as_ref().and_then(|capacity| capacity.get("storage")), asked) {
            let mut grown = volume.clone();
            grown.spec_mut().capacity.get_or_insert_default().insert("storage".to_owned(), asked.clone());
            plan.change(volume, &grown);
        }
        let status = claim.status.clone().unwrap_or_default();
        if is_less(status.capacity.as_ref().and_then(|capacity| capacity.get("storage")), asked) {
            let mut capacity = status.capacity.clone().unwrap_or_default();
            capacity.insert("storage".to_owned(), asked.clone());
            plan.set_status(claim, &PersistentVolumeClaimStatus { capacity: Some(capacity), ..status });
            let text = format!("volume {} has grown to {}", volume.name_any(), asked.0);
            plan.events.push(Note::normal(claim, "VolumeResizeSuccessful", "Resize", text));
        }
        plan
    }
}

/// Whether there is less than `asked`; what cannot be read is not.
fn is_less(have: Option<&Text>, asked: &Text) -> bool {
    let read = |text: &Text| text.0.parse::<Quantity>().ok();
    have.is_none_or(|have| read(have).zip(read(asked)).is_some_and(|(have, asked)| have < asked))
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};
    use serde_json::json;

    use super::*;

    const FIXTURE: &str = r#"
apiVersion: v1
kind: PersistentVolume
metadata: { name: v, annotations: { pv.kubernetes.io/provisioned-by: keelson.dev/local-path } }
spec: { capacity: { storage: 1Gi }, claimRef: { namespace: ns, name: c, uid: uid-c } }
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: { name: c, namespace: ns, uid: uid-c }
spec: { volumeName: v, resources: { requests: { storage: 1024Mi } } }
status: { phase: Bound, capacity: { storage: 1Gi } }
"#;

    /// Storage of the volume and of the claim after the claim has asked for `asked`.
    async fn check(asked: &str, provisioner: &str, expected: [&str; 2]) {
        let (bench, key) = (Bench::new(VolumeExpander), ObjectKey::new("ns", "c"));
        bench.put_yaml(&FIXTURE.replace("keelson.dev/local-path", provisioner));
        bench.settle(&key).await;
        let edit = json!({ "spec": { "resources": { "requests": { "storage": asked } } } });
        bench.api.patch(&Kind::of::<PersistentVolumeClaim>(), &key, "", &edit);
        bench.settle(&key).await;
        let volume = bench.api.get(&Kind::of::<PersistentVolume>(), &ObjectKey::new("", "v")).unwrap();
        let claim = bench.api.get(&Kind::of::<PersistentVolumeClaim>(), &key).unwrap();
        assert_eq!(
            [&volume["spec"]["capacity"]["storage"], &claim["status"]["capacity"]["storage"]],
            expected
        );
    }

    #[tokio::test]
    async fn a_claim_grows_with_its_volume_and_never_shrinks() {
        check("2Gi", PROVISIONER, ["2Gi", "2Gi"]).await;
        check("1Gi", PROVISIONER, ["1Gi", "1Gi"]).await;
        check("512Mi", PROVISIONER, ["1Gi", "1Gi"]).await;
        check("2Gi", "csi.example", ["1Gi", "1Gi"]).await;
    }
}
