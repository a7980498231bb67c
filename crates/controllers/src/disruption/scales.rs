//! How many pods the controllers of a budget's pods want: those we know from caches, any other by its
//! `scale` subresource (upstream `finders` of `pkg/controller/disruption`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        autoscaling::v1::Scale,
        core::v1::{Pod, ReplicationController},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::ResourceExt;
use meta::ObjectKey;
use reconcile::{Context, controller_of};

use crate::{scale, spec::HasSpec};

/// The wanted pods of each of the controllers of `pods`, by UID. Pods without a controller count for nothing, as upstream.
pub(super) async fn of(
    cx: &Context,
    namespace: &str,
    pods: &[Arc<Pod>],
) -> Result<BTreeMap<String, i32>, String> {
    let sets = cx.stores.ready::<ReplicaSet>().await;
    let deployments = cx.stores.ready::<Deployment>().await;
    let stateful = cx.stores.ready::<StatefulSet>().await;
    let old = cx.stores.ready::<ReplicationController>().await;
    let mut scales = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for pod in pods {
        let Some(owner) = controller_of(&**pod).filter(|owner| seen.insert(owner.uid.clone())) else {
            continue;
        };
        let key = ObjectKey::new(namespace, &owner.name);
        let is = |uid: Option<String>| uid.as_deref() == Some(&owner.uid);
        let scale = match owner.kind.as_str() {
            "ReplicaSet" => sets.get(&key).filter(|set| is(set.uid())).map(|set| {
                let above = controller_of(&*set).filter(|above| above.kind == "Deployment");
                let above = above.and_then(|above| {
                    let deployment = deployments.get(&ObjectKey::new(namespace, &above.name))?;
                    (deployment.uid().as_deref() == Some(&above.uid)).then_some(deployment)
                });
                match above {
                    Some(above) => (above.uid(), above.spec().replicas),
                    None => (set.uid(), set.spec().replicas),
                }
            }),
            "StatefulSet" => {
                stateful.get(&key).filter(|set| is(set.uid())).map(|set| (set.uid(), set.spec().replicas))
            }
            "ReplicationController" => old
                .get(&key)
                .filter(|set| is(set.uid()))
                .map(|set| (set.uid(), set.spec.as_ref().and_then(|spec| spec.replicas))),
            _ => scale_of(cx, namespace, owner).await?,
        };
        let Some((uid, replicas)) = scale else {
            return Err(format!("found no controllers for pod \"{}\"", pod.name_any()));
        };
        scales.insert(uid.unwrap_or_default(), replicas.unwrap_or(1));
    }
    Ok(scales)
}

/// A controller's UID and scale.
type Scaled = Option<(Option<String>, Option<i32>)>;

/// What the `scale` subresource of any kind says; `None` when the kind has none or the object is gone.
async fn scale_of(cx: &Context, namespace: &str, owner: &OwnerReference) -> Result<Scaled, String> {
    let read = scale::read(&cx.client, &owner.api_version, &owner.kind, namespace, &owner.name).await?;
    let own = read.filter(|(_, scale)| scale.metadata.uid.as_deref() == Some(&owner.uid));
    // A scale of none leaves the number out.
    let replicas = |scale: &Scale| scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    Ok(own.map(|(_, scale)| (scale.metadata.uid.clone(), Some(replicas(&scale)))))
}
