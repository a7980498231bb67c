//! Makes local volumes; the contract with the node agent stands in the header of [`super`].

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{
            HostPathVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
            ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
            VolumeNodeAffinity,
        },
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{Child, Context, Note, Plan, Reconciler, Result, Watches, key_of, reference_to};

use super::{
    CLEANUP, HOSTNAME, PROVISIONED_BY, PROVISIONER, SELECTED_NODE, STORAGE_PROVISIONER,
    matching::{claim_class, requested},
};
use crate::spec::HasSpec;

/// The provisioner.
pub struct LocalPathProvisioner {
    /// Directory on each node below which volumes are made.
    pub root: String,
}

/// What one plan looks at: a claim that was handed to us.
pub struct World {
    claim: Arc<PersistentVolumeClaim>,
    class: Arc<StorageClass>,
    /// The selected node, or any ready one where none needs to be selected.
    node: Option<Arc<Node>>,
    made: bool,
}

impl Reconciler for LocalPathProvisioner {
    type World = World;
    const NAME: &'static str = "local-path-provisioner";

    fn watches(&self) -> Watches {
        Watches::of::<PersistentVolumeClaim>()
            .reads::<StorageClass>()
            .reads::<PersistentVolume>()
            .also::<Node>(|change, stores| {
                // A node becoming known or ready may be what a claim waits for.
                let waiting = stores.of::<PersistentVolumeClaim>().all();
                let turned = change.old.as_ref().is_some_and(|old| is_ready(old))
                    != change.new.as_ref().is_some_and(|new| is_ready(new));
                waiting
                    .iter()
                    .filter(|claim| turned && is_ours(claim))
                    .map(|claim| key_of(&**claim))
                    .collect()
            })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let claim = cx.stores.ready::<PersistentVolumeClaim>().await.get(key);
        let Some(claim) = claim.filter(|claim| is_ours(claim)) else { return Ok(None) };
        let class = cx.stores.ready::<StorageClass>().await.get(&ObjectKey::new("", claim_class(&claim)));
        let Some(class) = class.filter(|class| class.provisioner == PROVISIONER) else { return Ok(None) };
        let nodes = cx.stores.ready::<Node>().await;
        let node = match claim.annotations().get(SELECTED_NODE) {
            Some(name) => nodes.get(&ObjectKey::new("", name)),
            None if class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") => return Ok(None),
            None => nodes.all().into_iter().find(|node| is_ready(node)),
        };
        let made = cx
            .stores
            .ready::<PersistentVolume>()
            .await
            .get(&ObjectKey::new("", volume_name(&claim)))
            .is_some();
        Ok(Some(World { claim, class, node, made }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let claim = &*world.claim;
        if world.made {
            return plan;
        }
        if let Some(why) = unsupported(claim) {
            let text =
                format!("failed to provision volume with StorageClass \"{}\": {why}", world.class.name_any());
            plan.events.push(Note::warning(claim, "ProvisioningFailed", "Provision", text));
            return plan;
        }
        match (&world.node, claim.annotations().contains_key(SELECTED_NODE)) {
            (Some(node), _) => {
                let volume = self.volume(world, node);
                plan.apply.push(Child::create(&volume));
                let text = format!("Successfully provisioned volume {}", volume.name_any());
                plan.events.push(Note::normal(claim, "ProvisioningSucceeded", "Provision", text));
            }
            (None, true) => {
                // The node is gone: the scheduler has to choose again.
                let mut wanted = claim.clone();
                wanted.annotations_mut().remove(SELECTED_NODE);
                plan.change(claim, &wanted);
            }
            (None, false) => {
                let text = "no node is ready to hold the volume; it is made as soon as one is";
                plan.events.push(Note::warning(claim, "ProvisioningFailed", "Provision", text));
            }
        }
        plan
    }
}

fn is_ours(claim: &PersistentVolumeClaim) -> bool {
    let asked = claim.annotations().get(STORAGE_PROVISIONER).is_some_and(|name| name == PROVISIONER);
    let unbound = claim.spec().volume_name.as_deref().is_none_or(str::is_empty);
    asked && unbound && claim.metadata.deletion_timestamp.is_none()
}

fn is_ready(node: &Node) -> bool {
    let unschedulable = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    ready && !unschedulable && node.metadata.deletion_timestamp.is_none()
}

fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.uid().unwrap_or_default())
}

/// What a directory on one node cannot be.
fn unsupported(claim: &PersistentVolumeClaim) -> Option<String> {
    let shared = |mode: &&String| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany");
    if let Some(mode) = claim.spec().access_modes.iter().flatten().find(shared) {
        return Some(format!("access mode {mode} is not supported by local volumes; ask for ReadWriteOnce"));
    }
    if claim.spec().volume_mode.as_deref() == Some("Block") {
        return Some("volumeMode Block is not supported by local volumes; ask for Filesystem".to_owned());
    }
    if claim.spec().selector.is_some() {
        return Some("a claim with a selector is never provisioned; remove spec.selector".to_owned());
    }
    if claim.spec().data_source.is_some() || claim.spec().data_source_ref.is_some() {
        return Some("a data source is not supported by local volumes; remove spec.dataSource".to_owned());
    }
    None
}

impl LocalPathProvisioner {
    fn volume(&self, world: &World, node: &Node) -> PersistentVolume {
        let World { claim, class, node: _, made: _ } = world;
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        let uid = claim.uid().unwrap_or_default();
        let host = node.labels().get(HOSTNAME).cloned().unwrap_or_else(|| node.name_any());
        let affinity = NodeSelectorRequirement {
            key: HOSTNAME.to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![host]),
        };
        let term = NodeSelectorTerm { match_expressions: Some(vec![affinity]), match_fields: None };
        let size = requested(claim).cloned().unwrap_or_default();
        PersistentVolume {
            metadata: ObjectMeta {
                name: Some(volume_name(claim)),
                annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
                finalizers: Some(vec![CLEANUP.to_owned()]),
                ..ObjectMeta::default()
            },
            spec: Some(PersistentVolumeSpec {
                access_modes: claim.spec().access_modes.clone(),
                capacity: Some(BTreeMap::from([("storage".to_owned(), size)])),
                claim_ref: Some(ObjectReference { field_path: None, ..reference_to(&**claim) }),
                host_path: Some(HostPathVolumeSource {
                    path: format!("{}/{namespace}_{name}_{uid}", self.root.trim_end_matches('/')),
                    type_: Some("DirectoryOrCreate".to_owned()),
                }),
                mount_options: class.mount_options.clone(),
                node_affinity: Some(VolumeNodeAffinity {
                    required: Some(NodeSelector { node_selector_terms: vec![term] }),
                }),
                persistent_volume_reclaim_policy: class
                    .reclaim_policy
                    .clone()
                    .or_else(|| Some("Delete".to_owned())),
                storage_class_name: Some(class.name_any()),
                volume_mode: Some("Filesystem".to_owned()),
                ..PersistentVolumeSpec::default()
            }),
            status: None,
        }
    }
}
