//! `apps/v1`.

use meta::Object;
use resource::Resource;

use crate::{
    columns::AGE,
    entry::Group,
    strategy::{DaemonSet, Deployment, ReplicaSet, Rules, StatefulSet},
    validate::{At, Errors},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .namespaced("ControllerRevision", "controllerrevisions")
            .columns(&[AGE])
            .strategy(Rules::new().checked(revision))
            .done(),
        group
            .namespaced("DaemonSet", "daemonsets")
            .short("ds")
            .in_all()
            .columns(&[AGE])
            .strategy(DaemonSet)
            .status()
            .done(),
        group
            .namespaced("Deployment", "deployments")
            .short("deploy")
            .in_all()
            .columns(&[AGE])
            .strategy(Deployment)
            .status()
            .scale()
            .done(),
        group
            .namespaced("ReplicaSet", "replicasets")
            .short("rs")
            .in_all()
            .columns(&[AGE])
            .strategy(ReplicaSet)
            .status()
            .scale()
            .selectable(&[("status.replicas", "0")])
            .done(),
        group
            .namespaced("StatefulSet", "statefulsets")
            .short("sts")
            .in_all()
            .columns(&[AGE])
            .strategy(StatefulSet)
            .status()
            .scale()
            .done(),
    ]
}

/// The data of a revision is there, a map, and never changes.
fn revision(new: &Object, old: Option<&Object>, errors: &mut Errors) {
    let data = At::root(new, "data");
    if !data.is_set() {
        data.required(errors, "data is mandatory");
    } else if !data.value().is_object() {
        data.required(errors, "data must be a valid JSON object");
    }
    At::root(new, "revision").not_negative(errors);
    if let Some(old) = old {
        data.immutable(errors, &At::root(old, "data"));
    }
}
