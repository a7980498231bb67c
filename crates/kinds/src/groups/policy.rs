//! `policy/v1`.

use resource::Resource;

use crate::{columns::DISRUPTION_BUDGET, entry::Group, strategy::DisruptionBudget};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .namespaced("PodDisruptionBudget", "poddisruptionbudgets")
            .short("pdb")
            .columns(DISRUPTION_BUDGET)
            .strategy(DisruptionBudget)
            .status()
            .done(),
    ]
}
