//! The core group, `v1`.

use std::sync::Arc;

use resource::{Resource, Subresource};

use super::events::EVENT_FIELDS;
use crate::{
    Acts, Options,
    columns::AGE,
    entry::Group,
    strategy::{
        Binding, ConfigMap, Endpoints, Eviction, LimitRange, Namespace, Node, PersistentVolume,
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
        group.namespaced("ConfigMap", "configmaps").short("cm").columns(&[AGE]).strategy(ConfigMap).done(),
        group.namespaced("Endpoints", "endpoints").short("ep").columns(&[AGE]).strategy(Endpoints).done(),
        group
            .namespaced("Event", "events")
            .short("ev")
            .columns(&[AGE])
            .strategy(Rules::new().creates_on_update())
            .selectable(EVENT_FIELDS)
            .done(),
        group
            .namespaced("LimitRange", "limitranges")
            .short("limits")
            .columns(&[AGE])
            .strategy(LimitRange)
            .done(),
        group
            .cluster("Namespace", "namespaces")
            .short("ns")
            .columns(&[AGE])
            .strategy(Namespace)
            .status()
            .subresource("finalize", Subresource::Update)
            .selectable(&[("status.phase", "")])
            .done(),
        group
            .cluster("Node", "nodes")
            .short("no")
            .columns(&[AGE])
            .strategy(Node)
            .status()
            .connects(&["proxy"])
            .selectable(&[("spec.unschedulable", "false")])
            .done(),
        group
            .namespaced("PersistentVolumeClaim", "persistentvolumeclaims")
            .short("pvc")
            .columns(&[AGE])
            .strategy(PersistentVolumeClaim)
            .status()
            .done(),
        group
            .cluster("PersistentVolume", "persistentvolumes")
            .short("pv")
            .columns(&[AGE])
            .strategy(PersistentVolume)
            .status()
            .done(),
        pods(group),
        group.namespaced("PodTemplate", "podtemplates").columns(&[AGE]).strategy(PodTemplate).done(),
        group
            .namespaced("ReplicationController", "replicationcontrollers")
            .short("rc")
            .in_all()
            .columns(&[AGE])
            .strategy(ReplicationController)
            .status()
            .scale()
            .selectable(&[("status.replicas", "0")])
            .done(),
        group
            .namespaced("ResourceQuota", "resourcequotas")
            .short("quota")
            .columns(&[AGE])
            .strategy(ResourceQuota)
            .status()
            .done(),
        group
            .namespaced("Secret", "secrets")
            .columns(&[AGE])
            .strategy(Secret)
            .selectable(&[("type", "")])
            .done(),
        service_account.done(),
        group
            .namespaced("Service", "services")
            .short("svc")
            .in_all()
            .columns(&[AGE])
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
        .columns(&[AGE])
        .strategy(Pod)
        .status()
        .subresource("binding", Subresource::Act(Arc::new(Binding)))
        .subresource("ephemeralcontainers", Subresource::Update)
        .subresource("eviction", Subresource::Act(Arc::new(Eviction)))
        .connects(&["attach", "exec", "log", "portforward", "proxy"])
        .selectable(POD_FIELDS)
        .done()
}
