//! Resizing containers while they run (KEP-1287): what is to change, whether the node has it, and how.
//!
//! Guarantees: pure; only cpu and memory count; a container keeps what it has until the node has taken the whole
//! resize. What a container has is known from when it was made and from what the API server was told, so that a
//! restart of the agent forgets nothing.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};
use meta::Quantity;
use runtime::action::Role;

use crate::{
    plan::Observed,
    pod::{self, Member},
};

const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// What the node says to a resize that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resize {
    /// None is asked for.
    #[default]
    None,
    /// It is taken.
    Taken,
    /// Not now: others use what it needs.
    Deferred(String),
    /// Never on this node.
    Infeasible(String),
}

/// Containers that can be resized.
fn resizable(role: Role) -> bool {
    matches!(role, Role::Main | Role::Sidecar)
}

/// What a running container has; what the spec says where nobody knows better.
pub(crate) fn actual<'a>(have: &'a Observed, container: &'a Container) -> Option<&'a ResourceRequirements> {
    let known = have.facts.get(&container.name).and_then(|facts| facts.resources.as_ref());
    known.or(container.resources.as_ref())
}

/// What of cpu and memory differs.
fn changed(one: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>) -> Vec<&'static str> {
    let amount = |of: Option<&ResourceRequirements>, name: &str| {
        let side = |map: Option<&BTreeMap<String, WireQuantity>>| -> Option<Quantity> {
            let WireQuantity(text) = map?.get(name)?;
            text.parse().ok()
        };
        (side(of.and_then(|of| of.requests.as_ref())), side(of.and_then(|of| of.limits.as_ref())))
    };
    RESIZABLE.into_iter().filter(|name| amount(one, name) != amount(other, name)).collect()
}

/// What of a container is to be resized; nothing of one that does not run.
pub(crate) fn wanted(member: Member<'_>, have: &Observed) -> Vec<&'static str> {
    let running = have.current(&member.container.name).is_some_and(runtime::ObservedContainer::is_running);
    if !resizable(member.role) || !running {
        return Vec::new();
    }
    changed(actual(have, member.container), member.container.resources.as_ref())
}

/// Whether a resize is asked for.
pub(crate) fn is_wanted(want: &Pod, have: &Observed) -> bool {
    pod::members(want).any(|member| !wanted(member, have).is_empty())
}

/// Whether a change of these has to restart the container (`resizePolicy`).
pub(crate) fn restarts(container: &Container, changed: &[&str]) -> bool {
    let mut policies = container.resize_policy.iter().flatten();
    policies.any(|policy| {
        policy.restart_policy == "RestartContainer" && changed.contains(&policy.resource_name.as_str())
    })
}

/// The pod with what its containers have, for those that have to be started again while a resize is not taken.
pub(crate) fn as_allocated(want: &Arc<Pod>, have: &Observed) -> Arc<Pod> {
    if matches!(have.resize, Resize::None | Resize::Taken) {
        return Arc::clone(want);
    }
    let mut pod = Pod::clone(want);
    let spec = pod.spec.iter_mut();
    let containers =
        spec.flat_map(|spec| spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()));
    for container in containers {
        if let Some(facts) = have.facts.get(&container.name)
            && let Some(resources) = &facts.resources
        {
            container.resources = Some(resources.clone());
        }
    }
    Arc::new(pod)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn requirements(value: serde_json::Value) -> ResourceRequirements {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_amounts_of_cpu_and_memory_count() {
        let base = requirements(json!({"requests": {"cpu": "1", "memory": "1Gi"}}));
        for (other, expected) in [
            (json!({"requests": {"cpu": "1000m", "memory": "1024Mi"}}), &[][..]),
            (json!({"requests": {"cpu": "2", "memory": "1Gi"}}), &["cpu"]),
            (json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}), &["memory"]),
            (json!({"requests": {"cpu": "1", "memory": "1Gi", "x.io/y": "1"}}), &[]),
            (json!({}), &["cpu", "memory"]),
        ] {
            assert_eq!(changed(Some(&base), Some(&requirements(other.clone()))), expected, "{other}");
        }
        assert_eq!(changed(None, Some(&ResourceRequirements::default())), [""; 0]);
    }
}
