//! The core group, `v1`.

use std::sync::Arc;

use resource::{Resource, Subresource};

use super::events::{EVENT_FIELDS, EVENT_TTL, event_source};
use crate::{
    Acts, Options,
    columns::{
        AGE, CLAIM, COMPONENT, CONFIG_MAP, CREATED, ENDPOINTS, EVENT, NAMESPACE, NODE, POD, POD_TEMPLATE,
        QUOTA, REPLICATION_CONTROLLER, SECRET, SERVICE, VOLUME,
    },
    entry::Group,
    strategy::{
        Binding, Bindings, ConfigMap, Endpoints, Eviction, LimitRange, Namespace, Node, PersistentVolume,
        PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Rules, Secret,
        Service,
    },
};

const POD_FIELDS: &[(&str, &str)] = &[
    ("spec.nodeName", ""),
    ("spec.restartPolicy", ""),
    ("spec.schedulerName", ""),
    ("spec.serviceAccountName", ""),
    ("spec.hostNetwork", "false"),
    ("status.phase", ""),
    ("status.podIP", ""),
    ("status.nominatedNodeName", ""),
];

const COMPONENT_STATUS_DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";
const ENDPOINTS_DEPRECATED: &str =
    "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>, options: &Options, acts: &Acts) -> Vec<Resource> {
    let mut service_account = group
        .namespaced("ServiceAccount", "serviceaccounts")
        .short("sa")
        .columns(&[AGE])
        .strategy(Rules::new());
    if let Some(token) = &acts.token {
        service_account = service_account.subresource("token", Subresource::Act(Arc::clone(token)));
    }
    vec![
        group.namespaced("Binding", "bindings").answered_by(Arc::new(Bindings)).done(),
        group
            .cluster("ComponentStatus", "componentstatuses")
            .short("cs")
            .deprecated(COMPONENT_STATUS_DEPRECATED)
            .columns(COMPONENT)
            .measured()
            .done(),
        group
            .namespaced("ConfigMap", "configmaps")
            .short("cm")
            .columns(CONFIG_MAP)
            .strategy(ConfigMap)
            .done(),
        group
            .namespaced("Endpoints", "endpoints")
            .short("ep")
            .deprecated(ENDPOINTS_DEPRECATED)
            .columns(ENDPOINTS)
            .strategy(Endpoints)
            .done(),
        group
            .namespaced("Event", "events")
            .short("ev")
            .columns(EVENT)
            .strategy(Rules::new().creates_on_update().expires_after(EVENT_TTL))
            .selectable(EVENT_FIELDS)
            .selectable_by("source", event_source)
            .done(),
        group
            .namespaced("LimitRange", "limitranges")
            .short("limits")
            .columns(CREATED)
            .strategy(LimitRange)
            .done(),
        group
            .cluster("Namespace", "namespaces")
            .short("ns")
            .columns(NAMESPACE)
            .strategy(Namespace)
            .status()
            .subresource("finalize", Subresource::Update)
            .selectable(&[("status.phase", "")])
            .done(),
        group
            .cluster("Node", "nodes")
            .short("no")
            .columns(NODE)
            .strategy(Node)
            .status()
            .connects(&["proxy"])
            .selectable(&[("spec.unschedulable", "false")])
            .done(),
        group
            .namespaced("PersistentVolumeClaim", "persistentvolumeclaims")
            .short("pvc")
            .columns(CLAIM)
            .strategy(PersistentVolumeClaim)
            .status()
            .done(),
        group
            .cluster("PersistentVolume", "persistentvolumes")
            .short("pv")
            .columns(VOLUME)
            .strategy(PersistentVolume)
            .status()
            .done(),
        pods(group),
        group.namespaced("PodTemplate", "podtemplates").columns(POD_TEMPLATE).strategy(PodTemplate).done(),
        group
            .namespaced("ReplicationController", "replicationcontrollers")
            .short("rc")
            .in_all()
            .columns(REPLICATION_CONTROLLER)
            .strategy(ReplicationController)
            .status()
            .scale()
            .selectable(&[("status.replicas", "0")])
            .done(),
        group
            .namespaced("ResourceQuota", "resourcequotas")
            .short("quota")
            .columns(QUOTA)
            .strategy(ResourceQuota)
            .status()
            .done(),
        group
            .namespaced("Secret", "secrets")
            .columns(SECRET)
            .strategy(Secret)
            .selectable(&[("type", "")])
            .done(),
        service_account.done(),
        group
            .namespaced("Service", "services")
            .short("svc")
            .in_all()
            .columns(SERVICE)
            .strategy(Service { options: options.clone() })
            .status()
            .connects(&["proxy"])
            .selectable(&[("spec.clusterIP", ""), ("spec.type", "")])
            .done(),
    ]
}

fn pods(group: &Group<'_>) -> Resource {
    group
        .namespaced("Pod", "pods")
        .short("po")
        .in_all()
        .columns(POD)
        .strategy(Pod)
        .status()
        .subresource("binding", Subresource::Act(Arc::new(Binding)))
        .subresource("ephemeralcontainers", Subresource::Update)
        .subresource("eviction", Subresource::Act(Arc::new(Eviction)))
        .subresource("resize", Subresource::Update)
        .connects(&["attach", "exec", "log", "portforward", "proxy"])
        .selectable(POD_FIELDS)
        .indexed("spec.nodeName")
        .done()
}
