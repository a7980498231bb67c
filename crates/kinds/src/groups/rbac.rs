//! `rbac.authorization.k8s.io/v1`.

use resource::Resource;

use crate::{
    columns::AGE,
    entry::Group,
    strategy::{Role, RoleBinding},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .cluster("ClusterRoleBinding", "clusterrolebindings")
            .columns(&[AGE])
            .strategy(RoleBinding { namespaced: false })
            .done(),
        group
            .cluster("ClusterRole", "clusterroles")
            .columns(&[AGE])
            .strategy(Role { namespaced: false })
            .done(),
        group
            .namespaced("RoleBinding", "rolebindings")
            .columns(&[AGE])
            .strategy(RoleBinding { namespaced: true })
            .done(),
        group.namespaced("Role", "roles").columns(&[AGE]).strategy(Role { namespaced: true }).done(),
    ]
}
