//! BuildbarnStorage.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{Resource, ResourceExt};
use meta::Timestamp;
use serde_json::{Value, json};

use super::{Parts, Source, base, simple_pod, title};
use crate::{
    catalogue::RELEASE,
    children,
    component::{Component, Design, Workload},
    config,
    observe::World,
    topology::{self, Facts},
    types::{BuildbarnStorage, Common, Geometry, Reference, ReshardingStage, Status, StoreStatus, Topology},
    validate::{self, StorePlan, Vault},
    verdict::{Verdict, Wrong},
};

const PORTS: [(&str, u16); 1] = [("grpc", 8981)];

impl Component for BuildbarnStorage {
    const APP: &'static str = "storage";
    const CONTROLLER: &'static str = "buildbarn-storage";
    const FINALIZER: &'static str = "buildbarnstorage.buildbarn.io";

    fn common(&self) -> &Common {
        &self.spec.common
    }

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn design(world: &World<Self>, now: Timestamp) -> Result<Design, Verdict> {
        let (name, namespace, spec) = (world.name(), world.namespace(), &world.object.spec);
        let mut wrong = Wrong::default();
        let mut vault = validate::vault(&world.object, &mut wrong);
        if let Some(verdict) = wrong.verdict() {
            return Err(verdict);
        }
        let allow_loss = spec.allow_data_loss == Some(true);
        let mut faults = Vec::new();
        if vault.ephemeral && !allow_loss && on_volumes(world) {
            vault.ephemeral = false;
            faults.push(
                "spec.medium: data is on volumes and would be left behind: set it back, or set spec.allowDataLoss to true"
                    .to_owned(),
            );
        }
        let geometry = geometry(world, &vault, allow_loss, &mut faults);
        faults.extend(shrinks(world, &vault));
        faults.extend(other_class(world));
        let (step, waiting) = next(world, &vault, allow_loss, now);
        let put_off = step.put_off && faults.is_empty();
        faults.extend(step.refused.clone());
        let base = base(world, &name, &namespace, None);
        let source = Source::find(world, || {
            let sizes = |plan: &StorePlan| geometry.get(plan.name).copied().unwrap_or(plan.geometry);
            Ok(vec![config::storage(&spec.common, &vault.stores, sizes, vault.maximum_message_bytes)])
        })?;
        let ports = [("grpc", 8981), ("metrics", 9980)];
        let template = simple_pod(
            &base,
            &source,
            ("storage", RELEASE.storage, "storage.jsonnet"),
            &ports,
            parts(&base, &vault),
        );
        let claims =
            claims(world, children::claim_templates(&base, &vault, spec.storage_class_name.as_deref()));
        let replicas = replicas(world, &vault, &step.topology, waiting.is_empty());
        let retention = spec.persistent_volume_claim_retention_policy.as_ref();
        let mut others = vec![children::headless(&base, &name, &PORTS)];
        others.extend(children::budget(&base, 1));
        let mut conditions = Vec::new();
        let resharding = step.topology.stage != ReshardingStage::Stable;
        if resharding {
            let message =
                step.waits_for.clone().unwrap_or_else(|| format!("the shards are {:?}", step.topology.stage));
            conditions.push(("Resharding", true, stage_reason(step.topology.stage), message));
        }
        let status = Status {
            topology: Some(step.topology),
            stores: world.stores.iter().map(|store| filled(store, &geometry)).collect(),
            geometry,
            ..Status::default()
        };
        let set = children::stateful_set(&base, replicas, &template, claims, retention);
        let volumes = if vault.ephemeral {
            Vec::new()
        } else {
            vault.stores.iter().map(|s| (s.name.to_owned(), s.volume_bytes)).collect()
        };
        Ok(Design {
            files: source.into_files(),
            workload: Workload::StatefulSet { set, volumes },
            others,
            replicas,
            map: None,
            status,
            fault: (!faults.is_empty()).then(|| {
                let reason = if put_off { "Resharding" } else { "WouldLoseData" };
                Verdict::not(reason, faults.join("; "))
            }),
            conditions,
            recheck_seconds: Some(if resharding { 15 } else { 60 }),
        })
    }
}

/// A reading with the share of the blocks that hold data.
fn filled(store: &StoreStatus, geometry: &BTreeMap<String, Geometry>) -> StoreStatus {
    let blocks = geometry.get(&store.store).map_or(0, |sizes| {
        i64::from(sizes.old_blocks + sizes.current_blocks + sizes.new_blocks + sizes.spare_blocks)
    });
    let percent = store.blocks_in_use.filter(|_| blocks > 0).map(|used| (used * 100 / blocks).clamp(0, 100));
    StoreStatus { fill_percent: percent, ..store.clone() }
}

fn stage_reason(stage: ReshardingStage) -> &'static str {
    match stage {
        ReshardingStage::Stable => "Stable",
        ReshardingStage::Growing => "Growing",
        ReshardingStage::Preparing => "Preparing",
        ReshardingStage::Fallback => "Fallback",
    }
}

/// The next step of the map, and the readers that do not use the present one.
fn next(
    world: &World<BuildbarnStorage>,
    vault: &Vault,
    allow_loss: bool,
    now: Timestamp,
) -> (topology::Step, Vec<String>) {
    let recorded = world.before().topology;
    let waiting = recorded.as_ref().map(|topology| waiting(world, topology)).unwrap_or_default();
    let set = world.stateful_set.as_ref();
    let status = set.and_then(|set| set.status.as_ref());
    let facts = Facts {
        now,
        ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
        waiting: &waiting,
        window_seconds: vault.window_seconds,
        allow_loss,
        drop_data: vault.drop_data,
    };
    let step = topology::step(recorded.as_ref(), &vault.shards, &facts);
    (step, waiting)
}

/// Readers and writers of this storage some pod of which uses another map.
fn waiting(world: &World<BuildbarnStorage>, topology: &Topology) -> Vec<String> {
    fn lags<'a, K: Component>(
        objects: impl IntoIterator<Item = (&'a K, Option<&'a Reference>)>,
        world: &World<BuildbarnStorage>,
        map: &str,
        waiting: &mut Vec<String>,
    ) {
        let own = world.name();
        for (object, by) in objects {
            let ours = world.farm.storage(by).is_ok_and(|storage| storage.name_any() == own);
            let given = object.common().config_map_name.is_some();
            let there = object.status().is_some_and(|status| status.storage_map.as_deref() == Some(map));
            if ours && !given && !there {
                waiting.push(title(object));
            }
        }
    }
    let map = config::map_name(topology);
    let farm = &world.farm;
    let mut out = Vec::new();
    lags(farm.schedulers.iter().map(|o| (&**o, o.spec.storage_ref.as_ref())), world, &map, &mut out);
    lags(farm.workers.iter().map(|o| (&**o, o.spec.storage_ref.as_ref())), world, &map, &mut out);
    lags(farm.frontends.iter().map(|o| (&**o, o.spec.storage_ref.as_ref())), world, &map, &mut out);
    lags(farm.browsers.iter().map(|o| (&**o, o.spec.storage_ref.as_ref())), world, &map, &mut out);
    out
}

/// Pods go only when nobody reads them.
fn replicas(world: &World<BuildbarnStorage>, vault: &Vault, topology: &Topology, all_there: bool) -> i32 {
    if vault.shards.is_empty() {
        return 0;
    }
    let wanted = topology::pods(topology);
    let present = match &world.stateful_set {
        Some(set) => set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
        // It is being replaced, or somebody took it away: its pods are what there is.
        None => world.pods.iter().filter_map(ordinal).max().map_or(0, |highest| highest + 1),
    };
    let stopped = present == 0;
    // What is recorded is what readers were compared with; a map that was just decided nobody can use yet.
    let settled = all_there && world.before().topology.as_ref() == Some(topology);
    if settled || stopped { wanted } else { wanted.max(present) }
}

/// Sizes that stores have: those that they were made with, unless data may be lost.
fn geometry(
    world: &World<BuildbarnStorage>,
    vault: &Vault,
    allow_loss: bool,
    faults: &mut Vec<String>,
) -> BTreeMap<String, Geometry> {
    let recorded = world.before().geometry;
    let mut out = BTreeMap::new();
    for store in &vault.stores {
        let sizes = match recorded.get(store.name) {
            None => store.geometry,
            Some(_) if allow_loss => store.geometry,
            Some(made) => {
                // Volumes grow without the blocks; only sizes that somebody asks for are at odds.
                let asked = asked(world, store);
                if let Some(field) = asked.filter(|_| *made != store.geometry) {
                    faults.push(format!(
                        "spec.{}.{field}: the sizes of a store cannot change without losing what is in it: set it back, or \
                         set spec.allowDataLoss to true",
                        store.name
                    ));
                }
                *made
            }
        };
        out.insert(store.name.to_owned(), sizes);
    }
    for (name, made) in &recorded {
        if !out.contains_key(name) && !allow_loss {
            faults.push(format!(
                "spec.{name}.enabled: the store has data: set it back to true, or set spec.allowDataLoss to true"
            ));
            out.insert(name.clone(), *made);
        }
    }
    out
}

/// The field by which the user decides the sizes of a store, where there is one.
fn asked(world: &World<BuildbarnStorage>, store: &StorePlan) -> Option<&'static str> {
    let spec = &world.object.spec;
    let settings = match store.name {
        "cas" => spec.cas.clone(),
        "ac" => spec.ac.clone(),
        "iscc" => spec.iscc.clone(),
        _ => spec.fsac.clone(),
    };
    let settings = settings.unwrap_or_default();
    let made = world.before().geometry.get(store.name).copied().unwrap_or_default();
    let sizes = &store.geometry;
    [
        ("size", settings.size.is_some() && made.blocks_bytes != sizes.blocks_bytes),
        (
            "keyLocationMapSize",
            settings.key_location_map_size.is_some()
                && made.key_location_map_bytes != sizes.key_location_map_bytes,
        ),
        ("oldBlocks", made.old_blocks != sizes.old_blocks),
        ("currentBlocks", made.current_blocks != sizes.current_blocks),
        ("newBlocks", made.new_blocks != sizes.new_blocks),
        ("spareBlocks", made.spare_blocks != sizes.spare_blocks),
        ("expectedAverageObjectSize", settings.expected_average_object_size.is_some()),
    ]
    .into_iter()
    .find_map(|(field, differs)| differs.then_some(field))
}

/// Volumes that are larger than what is asked for.
fn shrinks(world: &World<BuildbarnStorage>, vault: &Vault) -> Vec<String> {
    let mut faults = Vec::new();
    for store in &vault.stores {
        let larger = world.claims.iter().find(|claim| {
            claim.meta().name.as_ref().is_some_and(|name| name.starts_with(&format!("{}-", store.name)))
                && crate::plan::requested(claim) > store.volume_bytes
        });
        if let Some(claim) = larger {
            faults.push(format!(
                "spec.{}.volumeSize: claim {:?} has {} and volumes cannot shrink: set it back",
                store.name,
                claim.name_any(),
                children::amount(crate::plan::requested(claim))
            ));
        }
    }
    faults
}

/// The number at the end of a pod's name.
fn ordinal(pod: &Arc<Pod>) -> Option<i32> {
    pod.metadata.name.as_ref()?.rsplit_once('-')?.1.parse().ok()
}

/// Whether data is on volumes: those of the pods there are, or those that are left while there is no StatefulSet.
fn on_volumes(world: &World<BuildbarnStorage>) -> bool {
    match &world.stateful_set {
        Some(set) => !templates(set).is_empty(),
        None => !world.claims.is_empty(),
    }
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default()
}

/// A class that volumes do not have, and cannot get.
fn other_class(world: &World<BuildbarnStorage>) -> Option<String> {
    let asked = world.object.spec.storage_class_name.as_ref()?;
    let present = templates(world.stateful_set.as_ref()?);
    let other = present.iter().find_map(|template| {
        let class = template.spec.as_ref()?.storage_class_name.as_ref();
        let by_template = world.object.spec.volume_claim_templates.iter().any(|given| {
            given.pointer("/metadata/name").and_then(Value::as_str) == template.metadata.name.as_deref()
        });
        (!by_template && class != Some(asked)).then(|| class.map_or("the default class", String::as_str))
    })?;
    Some(format!(
        "spec.storageClassName: the volumes there are have {other}, and their data would not move to {asked}: set it back"
    ))
}

/// The claim templates that there shall be. Those there are cannot be changed, and need not be: claims themselves grow.
/// Where stores come or go, the StatefulSet is replaced and its pods stay.
fn claims(world: &World<BuildbarnStorage>, wanted: Value) -> Value {
    let Some(set) = &world.stateful_set else { return wanted };
    if children::claim_names(&wanted) != children::present_claim_names(set) {
        wanted
    } else {
        present_claims(set)
    }
}

fn present_claims(set: &StatefulSet) -> Value {
    let templates = templates(set);
    if templates.is_empty() {
        return Value::Null;
    }
    let kept = templates.iter().map(|template| {
        let spec = template.spec.clone().unwrap_or_default();
        let mut claim = json!({
            "accessModes": spec.access_modes,
            "resources": {"requests": spec.resources.and_then(|resources| resources.requests)},
        });
        children::put(&mut claim, "storageClassName", spec.storage_class_name.map(Value::from));
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": template.name_any(), "labels": template.labels()}, "spec": claim,
        })
    });
    kept.collect()
}

fn parts(base: &children::Base<'_>, vault: &Vault) -> Parts {
    let directories: Vec<String> =
        vault.stores.iter().map(|store| format!("/storage-{}/persistent_state", store.name)).collect();
    let mounts: Vec<Value> = vault
        .stores
        .iter()
        .map(|store| json!({"name": store.name, "mountPath": format!("/storage-{}", store.name)}))
        .collect();
    let volumes = if vault.ephemeral {
        let volume = |store: &StorePlan| json!({"name": store.name, "emptyDir": {"sizeLimit": children::amount(store.volume_bytes)}});
        vault.stores.iter().map(volume).collect()
    } else {
        Vec::new()
    };
    let init = json!({
        "name": "volume-init", "image": base.common.init_image.as_deref().unwrap_or(RELEASE.init),
        "command": ["sh", "-c", format!("mkdir -m 0700 -p {}", directories.join(" "))],
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        },
    });
    // The last state of the blocks is written down at the end.
    Parts { init: vec![init], mounts, volumes, grace_seconds: 120 }
}
