//! `apiextensions.k8s.io/v1`: the kind of kinds. Serving what it defines is the server's.

use resource::Resource;

use crate::{columns::CREATED, entry::Group, strategy::Definition};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .cluster("CustomResourceDefinition", "customresourcedefinitions")
            .short("crd")
            .short("crds")
            .category("api-extensions")
            .columns(CREATED)
            .strategy(Definition)
            .status()
            .done(),
    ]
}
