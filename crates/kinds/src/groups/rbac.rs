//! `rbac.authorization.k8s.io/v1`.

use resource::Resource;

use crate::{columns::AGE, entry::Group};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group.cluster("ClusterRoleBinding", "clusterrolebindings").columns(&[AGE]).done(),
        group.cluster("ClusterRole", "clusterroles").columns(&[AGE]).done(),
        group.namespaced("RoleBinding", "rolebindings").columns(&[AGE]).done(),
        group.namespaced("Role", "roles").columns(&[AGE]).done(),
    ]
}
