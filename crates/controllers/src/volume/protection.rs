//! Claims and volumes in use are not removed under their users (upstream `pvcprotection`,
//! `pvprotection`): a finalizer holds them until the last user is gone.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, ResourceExt, api::ListParams};
use meta::{ObjectKey, Timestamp};
use reconcile::{Change, Context, Error, Plan, Reconciler, Result, Stores, Watches, key_of};

use super::{
    CLEANUP,
    matching::{is_reachable, phase},
};
use crate::spec::HasSpec;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Protects claims that a scheduled pod uses.
pub struct ClaimProtection;

/// What one plan looks at.
pub struct ClaimWorld {
    claim: Arc<PersistentVolumeClaim>,
    used: bool,
}

fn claims_of(pod: &Pod) -> impl Iterator<Item = String> {
    pod.spec().volumes.iter().flatten().filter_map(|volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
        named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), volume.name)))
    })
}

/// A pod on a node uses its claims until it is gone; one not scheduled yet will not be started on a
/// claim that is being deleted.
fn uses(pod: &Pod, claim: &str) -> bool {
    let scheduled = pod.spec().node_name.as_deref().is_some_and(|node| !node.is_empty());
    scheduled && claims_of(pod).any(|name| name == claim)
}

impl Reconciler for ClaimProtection {
    type World = ClaimWorld;
    const NAME: &'static str = "persistentvolumeclaim-protection";

    fn watches(&self) -> Watches {
        Watches::of::<PersistentVolumeClaim>().also::<Pod>(|change: &Change<Pod>, _: &Stores| {
            let (Some(pod), None) = (&change.old, &change.new) else { return Vec::new() };
            let namespace = pod.namespace().unwrap_or_default();
            claims_of(pod).map(|name| ObjectKey::new(&namespace, name)).collect()
        })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<ClaimWorld>> {
        let Some(claim) = cx.stores.ready::<PersistentVolumeClaim>().await.get(key) else { return Ok(None) };
        let mut used = false;
        if claim.metadata.deletion_timestamp.is_some() && has(&*claim, CLAIM_FINALIZER) {
            let cached = cx.stores.ready::<Pod>().await.in_namespace(&key.namespace);
            used = cached.iter().any(|pod| uses(pod, &key.name));
            if !used {
                let api = Api::<Pod>::namespaced(cx.client.clone(), &key.namespace);
                let what = format!("pods of namespace {}", key.namespace);
                let live = api.list(&ListParams::default()).await.map_err(Error::read(what))?;
                used = live.items.iter().any(|pod| uses(pod, &key.name));
            }
        }
        Ok(Some(ClaimWorld { claim, used }))
    }

    fn plan(&self, world: &ClaimWorld, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        plan.add_finalizer(&*world.claim, CLAIM_FINALIZER);
        if world.claim.metadata.deletion_timestamp.is_some() && !world.used {
            plan.remove_finalizer(&*world.claim, CLAIM_FINALIZER);
        }
        plan
    }
}

/// Protects volumes that are bound, and frees local ones whose node is gone.
pub struct VolumeProtection;

/// What one plan looks at.
pub struct VolumeWorld {
    volume: Arc<PersistentVolume>,
    node_gone: bool,
}

impl Reconciler for VolumeProtection {
    type World = VolumeWorld;
    const NAME: &'static str = "persistentvolume-protection";

    fn watches(&self) -> Watches {
        Watches::of::<PersistentVolume>().also::<Node>(|change: &Change<Node>, stores: &Stores| {
            if change.new.is_some() {
                return Vec::new();
            }
            let volumes = stores.of::<PersistentVolume>().all();
            volumes.iter().filter(|volume| has(&***volume, CLEANUP)).map(|volume| key_of(&**volume)).collect()
        })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<VolumeWorld>> {
        let Some(volume) = cx.stores.ready::<PersistentVolume>().await.get(key) else { return Ok(None) };
        let mut node_gone = false;
        if volume.metadata.deletion_timestamp.is_some() && has(&*volume, CLEANUP) {
            let live = Api::<Node>::all(cx.client.clone()).list(&ListParams::default()).await;
            node_gone =
                !live.map_err(Error::read("nodes"))?.items.iter().any(|node| is_reachable(&volume, node));
        }
        Ok(Some(VolumeWorld { volume, node_gone }))
    }

    fn plan(&self, world: &VolumeWorld, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let volume = &*world.volume;
        plan.add_finalizer(volume, VOLUME_FINALIZER);
        if volume.metadata.deletion_timestamp.is_some() {
            if phase(volume) != "Bound" {
                plan.remove_finalizer(volume, VOLUME_FINALIZER);
            }
            // One finalizer at a time; the next plan takes the other.
            if plan.finalizer.is_none() && world.node_gone {
                plan.remove_finalizer(volume, CLEANUP);
            }
        }
        plan
    }
}

fn has<K: kube::Resource>(object: &K, finalizer: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|present| present == finalizer)
}
