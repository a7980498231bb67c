//! `apps/v1`.

use meta::Object;
use resource::Resource;

use crate::{
    columns::{CONTROLLER_REVISION, DAEMON_SET, DEPLOYMENT, REPLICA_SET, STATEFUL_SET},
    entry::Group,
    strategy::{DaemonSet, Deployment, ReplicaSet, Rules, StatefulSet},
    validate::{At, Errors},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .namespaced("ControllerRevision", "controllerrevisions")
            .columns(CONTROLLER_REVISION)
            .strategy(Rules::new().checked(revision))
            .done(),
        group
            .namespaced("DaemonSet", "daemonsets")
            .short("ds")
            .in_all()
            .columns(DAEMON_SET)
            .strategy(DaemonSet)
            .status()
            .done(),
        group
            .namespaced("Deployment", "deployments")
            .short("deploy")
            .in_all()
            .columns(DEPLOYMENT)
            .strategy(Deployment)
            .status()
            .scale()
            .done(),
        group
            .namespaced("ReplicaSet", "replicasets")
            .short("rs")
            .in_all()
            .columns(REPLICA_SET)
            .strategy(ReplicaSet)
            .status()
            .scale()
            .selectable(&[("status.replicas", "0")])
            .done(),
        group
            .namespaced("StatefulSet", "statefulsets")
            .short("sts")
            .in_all()
            .columns(STATEFUL_SET)
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
