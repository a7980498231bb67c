//! `node.k8s.io/v1`.

use meta::{Object, names};
use resource::Resource;

use crate::{
    columns::RUNTIME_CLASS,
    entry::Group,
    strategy::Rules,
    validate::{At, Errors},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .cluster("RuntimeClass", "runtimeclasses")
            .columns(RUNTIME_CLASS)
            .strategy(Rules::new().creates_on_update().conditional().checked(handler))
            .done(),
    ]
}

fn handler(new: &Object, old: Option<&Object>, errors: &mut Errors) {
    let handler = At::root(new, "handler");
    handler.all(errors, names::dns1123_label);
    if let Some(old) = old {
        handler.immutable(errors, &At::root(old, "handler"));
    }
}
