//! `rbac.authorization.k8s.io/v1`.

use resource::Resource;

use crate::{
    columns::{CREATED, ROLE_BINDING},
    entry::Group,
    strategy::{Role, RoleBinding},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .cluster("ClusterRoleBinding", "clusterrolebindings")
            .columns(ROLE_BINDING)
            .strategy(RoleBinding { namespaced: false })
            .done(),
        group
            .cluster("ClusterRole", "clusterroles")
            .columns(CREATED)
            .strategy(Role { namespaced: false })
            .done(),
        group
            .namespaced("RoleBinding", "rolebindings")
            .columns(ROLE_BINDING)
            .strategy(RoleBinding { namespaced: true })
            .done(),
        group.namespaced("Role", "roles").columns(CREATED).strategy(Role { namespaced: true }).done(),
    ]
}
