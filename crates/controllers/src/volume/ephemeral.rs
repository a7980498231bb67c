//! Generic ephemeral volumes: a claim for each, which lives as long as its pod (upstream
//! `pkg/controller/volume/ephemeral`, KEP-1698).
//!
//! The claim is called `POD-VOLUME` and controlled by the pod. One of that name that is somebody else's is
//! left alone: scheduler and node refuse to use it, and say so.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{Change, Child, Context, Plan, Reconciler, Result, Stores, Watches, owner_reference};

use crate::{pods, spec::HasSpec};

/// The controller.
pub struct EphemeralVolumes;

/// What one plan looks at.
pub struct World {
    pod: Arc<Pod>,
    /// Names of claims that are missing, and what they are made of.
    missing: Vec<(String, PersistentVolumeClaimTemplate)>,
}

/// The ephemeral volumes of a pod: name of the claim and its template.
fn wanted(pod: &Pod) -> Vec<(String, PersistentVolumeClaimTemplate)> {
    let volumes = pod.spec().volumes.iter().flatten();
    let templates = volumes.filter_map(|volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.clone()?;
        Some((format!("{}-{}", pod.name_any(), volume.name), template))
    });
    templates.collect()
}

impl Reconciler for EphemeralVolumes {
    type World = World;
    const NAME: &'static str = "ephemeral-volume";

    fn watches(&self) -> Watches {
        let pods_of_gone_claim = |change: &Change<PersistentVolumeClaim>, _: &Stores| {
            let (Some(claim), None) = (&change.old, &change.new) else { return Vec::new() };
            let owners = claim.owner_references().iter().filter(|owner| owner.kind == "Pod");
            let namespace = claim.namespace().unwrap_or_default();
            owners.map(|owner| ObjectKey::new(&namespace, &owner.name)).collect()
        };
        Watches::of::<Pod>().also::<PersistentVolumeClaim>(pods_of_gone_claim)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(pod) = cx.stores.ready::<Pod>().await.get(key) else { return Ok(None) };
        let mut missing = wanted(&pod);
        if missing.is_empty() || pods::is_deleting(&pod) || pods::is_terminal(&pod) {
            return Ok(None);
        }
        let claims = cx.stores.ready::<PersistentVolumeClaim>().await;
        missing.retain(|(name, _)| claims.get(&ObjectKey::new(&key.namespace, name)).is_none());
        Ok(Some(World { pod, missing }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        for (name, template) in &world.missing {
            let PersistentVolumeClaimTemplate { metadata, spec } = template;
            let metadata = metadata.clone().unwrap_or_default();
            plan.apply.push(Child::create(&PersistentVolumeClaim {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: world.pod.namespace(),
                    labels: metadata.labels,
                    annotations: metadata.annotations,
                    owner_references: Some(vec![owner_reference(&*world.pod)]),
                    ..ObjectMeta::default()
                },
                spec: Some(spec.clone()),
                status: None,
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

    const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: p, namespace: ns, uid: uid-p }
spec:
  containers: [ { name: c, image: i } ]
  volumes:
    - name: scratch
      ephemeral:
        volumeClaimTemplate:
          metadata: { labels: { a: b } }
          spec: { accessModes: [ ReadWriteOnce ], resources: { requests: { storage: 1Gi } } }
"#;

    #[tokio::test]
    async fn a_pod_has_its_claims_as_long_as_it_runs() {
        let (bench, key) = (Bench::new(EphemeralVolumes), ObjectKey::new("ns", "p"));
        let claim = (Kind::of::<PersistentVolumeClaim>(), ObjectKey::new("ns", "p-scratch"));
        bench.put_yaml(POD);
        bench.settle(&key).await;
        let made = bench.api.get(&claim.0, &claim.1).unwrap();
        assert_eq!(made["metadata"]["labels"], json!({ "a": "b" }));
        assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "uid-p");
        assert_eq!(made["spec"]["resources"]["requests"]["storage"], "1Gi");
        bench.api.delete(&claim.0, &claim.1);
        bench.settle(&key).await;
        assert!(bench.api.get(&claim.0, &claim.1).is_some(), "made anew while the pod runs");
        bench.api.delete(&claim.0, &claim.1);
        bench.api.patch(&Kind::of::<Pod>(), &key, "status", &json!({ "status": { "phase": "Succeeded" } }));
        bench.settle(&key).await;
        assert_eq!(bench.api.get(&claim.0, &claim.1), None, "a pod that has ended needs none");
    }
}
