//! `coordination.k8s.io/v1`.

use resource::Resource;

use crate::{columns::AGE, entry::Group};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![group.namespaced("Lease", "leases").columns(&[AGE]).done()]
}
