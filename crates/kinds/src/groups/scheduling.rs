//! `scheduling.k8s.io/v1`.

use meta::Object;
use resource::Resource;

use crate::{
    columns::PRIORITY_CLASS,
    entry::Group,
    strategy::Rules,
    validate::{At, Errors},
};

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .cluster("PriorityClass", "priorityclasses")
            .short("pc")
            .columns(PRIORITY_CLASS)
            .strategy(Rules::new().generation().checked(priority))
            .done(),
    ]
}

/// Values above this are the system's.
const USER_MAX: i64 = 1_000_000_000;

fn priority(new: &Object, old: Option<&Object>, errors: &mut Errors) {
    let value = At::root(new, "value");
    if !new.name().starts_with("system-") && value.int().is_some_and(|value| value > USER_MAX) {
        let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
        value.forbidden(errors, detail);
    }
    if let Some(old) = old {
        if value.value() != At::root(old, "value").value() {
            value.forbidden(errors, "may not be changed in an update.");
        }
        let policy = At::root(new, "preemptionPolicy");
        policy.immutable(errors, &At::root(old, "preemptionPolicy"));
    }
}
