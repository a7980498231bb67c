//! `policy/v1`.

use resource::Resource;

use crate::{columns::AGE, entry::Group, strategy::DisruptionBudget};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .namespaced("PodDisruptionBudget", "poddisruptionbudgets")
            .short("pdb")
            .columns(&[AGE])
            .strategy(DisruptionBudget)
            .status()
            .done(),
    ]
}
