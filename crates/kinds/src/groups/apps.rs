//! `apps/v1`.

use resource::Resource;

use crate::{columns::AGE, entry::Group};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group.namespaced("ControllerRevision", "controllerrevisions").columns(&[AGE]).done(),
        group.namespaced("DaemonSet", "daemonsets").short("ds").in_all().columns(&[AGE]).status().done(),
        group
            .namespaced("Deployment", "deployments")
            .short("deploy")
            .in_all()
            .columns(&[AGE])
            .status()
            .scale()
            .done(),
        group
            .namespaced("ReplicaSet", "replicasets")
            .short("rs")
            .in_all()
            .columns(&[AGE])
            .status()
            .scale()
            .selectable(&[("status.replicas", "0")])
            .done(),
        group
            .namespaced("StatefulSet", "statefulsets")
            .short("sts")
            .in_all()
            .columns(&[AGE])
            .status()
            .scale()
            .done(),
    ]
}
