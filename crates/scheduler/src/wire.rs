//! A Pod as it comes over a watch, reduced while it is decoded: fields the scheduler does not look at
//! (environments, probes, managed fields, most of the status) are skipped, not built and dropped.
//! Pods are by far the most frequent events, and most of a pod is such fields.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    api::core::v1::{
        Affinity, Container, ContainerPort, ContainerStatus, EphemeralVolumeSource,
        PersistentVolumeClaimVolumeSource, Pod, PodCondition, PodResourceClaim, PodSchedulingGate, PodSpec,
        PodStatus, ResourceRequirements, Toleration, TopologySpreadConstraint, Volume,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference, Time},
    },
};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// A pod with only the fields that [`crate::PodInfo`] is made from.
#[derive(Clone, Debug)]
pub struct SlimPod(pub Pod);

impl Resource for SlimPod {
    type DynamicType = ();
    type Scope = <Pod as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

impl<'de> Deserialize<'de> for SlimPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let SlimObject { metadata, spec, status } = SlimObject::deserialize(deserializer)?;
        let metadata = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            labels: metadata.labels,
            annotations: metadata.annotations,
            owner_references: metadata.owner_references,
            ..ObjectMeta::default()
        };
        Ok(Self(Pod { metadata, spec: spec.map(SlimSpec::whole), status: status.map(SlimStatus::whole) }))
    }
}

#[derive(Deserialize)]
struct SlimObject {
    #[serde(default)]
    metadata: SlimMeta,
    spec: Option<SlimSpec>,
    status: Option<SlimStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    /// Bookmarks that end the initial list carry an annotation.
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimSpec {
    #[serde(default)]
    containers: Option<Vec<SlimContainer>>,
    init_containers: Option<Vec<SlimContainer>>,
    volumes: Option<Vec<SlimVolume>>,
    node_name: Option<String>,
    node_selector: Option<BTreeMap<String, String>>,
    affinity: Option<Affinity>,
    tolerations: Option<Vec<Toleration>>,
    topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    scheduling_gates: Option<Vec<PodSchedulingGate>>,
    scheduler_name: Option<String>,
    priority: Option<i32>,
    preemption_policy: Option<String>,
    overhead: Option<BTreeMap<String, Quantity>>,
    resources: Option<ResourceRequirements>,
    resource_claims: Option<Vec<PodResourceClaim>>,
}

impl SlimSpec {
    fn whole(self) -> PodSpec {
        let containers = |list: Vec<SlimContainer>| list.into_iter().map(SlimContainer::whole).collect();
        PodSpec {
            containers: self.containers.map(containers).unwrap_or_default(),
            init_containers: self.init_containers.map(containers),
            volumes: self.volumes.map(|list| list.into_iter().filter_map(SlimVolume::whole).collect()),
            node_name: self.node_name,
            node_selector: self.node_selector,
            affinity: self.affinity,
            tolerations: self.tolerations,
            topology_spread_constraints: self.topology_spread_constraints,
            scheduling_gates: self.scheduling_gates,
            scheduler_name: self.scheduler_name,
            priority: self.priority,
            preemption_policy: self.preemption_policy,
            overhead: self.overhead,
            resources: self.resources,
            resource_claims: self.resource_claims,
            ..PodSpec::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimContainer {
    #[serde(default)]
    name: String,
    image: Option<String>,
    ports: Option<Vec<ContainerPort>>,
    resources: Option<ResourceRequirements>,
    restart_policy: Option<String>,
}

impl SlimContainer {
    fn whole(self) -> Container {
        Container {
            name: self.name,
            image: self.image,
            ports: self.ports,
            resources: self.resources,
            restart_policy: self.restart_policy,
            ..Container::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimVolume {
    #[serde(default)]
    name: String,
    persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
    ephemeral: Option<serde::de::IgnoredAny>,
}

impl SlimVolume {
    /// `None` for volumes that bind a pod to nothing.
    fn whole(self) -> Option<Volume> {
        (self.persistent_volume_claim.is_some() || self.ephemeral.is_some()).then(|| Volume {
            name: self.name,
            persistent_volume_claim: self.persistent_volume_claim,
            ephemeral: self.ephemeral.map(|_| EphemeralVolumeSource::default()),
            ..Volume::default()
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimStatus {
    phase: Option<String>,
    start_time: Option<Time>,
    nominated_node_name: Option<String>,
    conditions: Option<Vec<PodCondition>>,
    container_statuses: Option<Vec<SlimContainerStatus>>,
    init_container_statuses: Option<Vec<SlimContainerStatus>>,
}

impl SlimStatus {
    fn whole(self) -> PodStatus {
        let statuses =
            |list: Vec<SlimContainerStatus>| list.into_iter().map(SlimContainerStatus::whole).collect();
        PodStatus {
            phase: self.phase,
            start_time: self.start_time,
            nominated_node_name: self.nominated_node_name,
            conditions: self.conditions,
            container_statuses: self.container_statuses.map(statuses),
            init_container_statuses: self.init_container_statuses.map(statuses),
            ..PodStatus::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimContainerStatus {
    #[serde(default)]
    name: String,
    allocated_resources: Option<BTreeMap<String, Quantity>>,
    resources: Option<ResourceRequirements>,
}

impl SlimContainerStatus {
    fn whole(self) -> ContainerStatus {
        ContainerStatus {
            name: self.name,
            allocated_resources: self.allocated_resources,
            resources: self.resources,
            ..ContainerStatus::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::PodInfo;

    #[test]
    fn the_slim_pod_projects_like_the_whole_one() {
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
                "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T03:04:06Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "o", "controller": true}],
                "annotations": {"k": "v"}, "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}]},
            "spec": {
                "nodeName": "n", "schedulerName": "s", "priority": 5, "preemptionPolicy": "Never", "nodeSelector": {"x": "y"},
                "overhead": {"cpu": "1m"}, "resources": {"requests": {"memory": "1Gi"}},
                "schedulingGates": [{"name": "g"}], "tolerations": [{"operator": "Exists"}],
                "resourceClaims": [{"name": "r"}],
                "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]},
                    "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "q", "operator": "Exists"}]}]}}},
                "initContainers": [{"name": "i", "restartPolicy": "Always", "resources": {"requests": {"cpu": "2"}}}],
                "containers": [{"name": "c", "image": "app", "env": [{"name": "E", "value": "v"}],
                    "ports": [{"containerPort": 1, "hostPort": 1}], "resources": {"requests": {"cpu": "1", "e/x": "3"}}}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "t", "ephemeral": {}},
                    {"name": "z", "emptyDir": {}}]
            },
            "status": {"phase": "Running", "podIP": "1.2.3.4", "startTime": "2026-01-02T03:04:06Z",
                "nominatedNodeName": "m", "conditions": [{"type": "DisruptionTarget", "status": "True",
                    "reason": "PreemptionByScheduler"}, {"type": "PodScheduled", "status": "True", "reason": "r", "message": "m"}],
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "allocatedResources": {"cpu": "4"}}]}
        });
        let whole: Pod = serde_json::from_value(pod.clone()).unwrap();
        let slim: SlimPod = serde_json::from_value(pod).unwrap();
        // Debug names every field, so none that is projected can be forgotten here.
        assert_eq!(format!("{:?}", PodInfo::read(&slim.0)), format!("{:?}", PodInfo::read(&whole)));
        assert_eq!(slim.meta().resource_version.as_deref(), Some("7"));
        assert_eq!(slim.meta().annotations.as_ref().map(BTreeMap::len), Some(1));
        // What ends an initial list has nothing but a version and an annotation.
        let bookmark = json!({"kind": "Pod", "metadata": {"resourceVersion": "9"}, "spec": {"containers": null}, "status": {}});
        assert!(serde_json::from_value::<SlimPod>(bookmark).is_ok());
    }
}
