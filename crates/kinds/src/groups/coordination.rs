//! `coordination.k8s.io/v1`.

use meta::Object;
use resource::Resource;

use crate::{
    columns::LEASE,
    entry::Group,
    strategy::Rules,
    validate::{At, Errors},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .namespaced("Lease", "leases")
            .columns(LEASE)
            .strategy(Rules::new().creates_on_update().conditional().checked(lease))
            .done(),
    ]
}

fn lease(new: &Object, _: Option<&Object>, errors: &mut Errors) {
    let spec = At::root(new, "spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.int().is_some_and(|seconds| seconds <= 0) {
        duration.invalid(errors, "must be greater than 0");
    }
    spec.get("leaseTransitions").not_negative(errors);
}
