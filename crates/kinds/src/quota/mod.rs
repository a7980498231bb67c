//! What objects take of the ResourceQuotas of their namespace (upstream `pkg/quota/v1`).
//!
//! Pure functions that admission and the quota controller share: both must count the same, or a quota would
//! drift. An amount is named as `spec.hard` names it (`pods`, `requests.cpu`, `count/jobs.batch`).

use std::collections::BTreeMap;

use meta::{GroupResource, Object, Quantity, QuantityForm, Timestamp, Value};

mod pods;
mod scopes;
#[cfg(test)]
mod tests;

pub use pods::unspecified;
pub use scopes::covers;

/// Amounts by the name a quota has for them.
pub type Amounts = BTreeMap<String, Quantity>;

/// Between a class of storage and what is counted of it.
const CLASS: &str = ".storageclass.storage.k8s.io/";

/// What `spec.hard` allows.
pub fn hard(quota: &Object) -> Amounts {
    amounts(quota.get(&["spec", "hard"]))
}

/// What `status.used` says is taken.
pub fn used(quota: &Object) -> Amounts {
    amounts(quota.get(&["status", "used"]))
}

/// The amounts in a map of quantities; what is not a quantity is not there.
pub fn amounts(value: Option<&Value>) -> Amounts {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), crate::validate::quantity(value)?))).collect()
}

/// Amounts as an object holds them, each in the form that `spec.hard` writes it in.
pub fn to_value(quota: &Object, amounts: &Amounts) -> Value {
    amounts.iter().map(|(name, amount)| (name.clone(), Value::from(text(quota, name, *amount)))).collect()
}

/// An amount in the form that `spec.hard` writes it in.
pub fn text(quota: &Object, name: &str, amount: Quantity) -> String {
    let form = quota.str(&["spec", "hard", name]).map(QuantityForm::of).unwrap_or_default();
    amount.canonical(form)
}

/// The kind whose objects an amount counts; `None` for names that nothing takes from.
pub fn counts(name: &str) -> Option<GroupResource> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some(GroupResource::new(group, resource));
    }
    let core = |resource| Some(GroupResource::new("", resource));
    match name {
        "services" | "services.nodeports" | "services.loadbalancers" => core("services"),
        "persistentvolumeclaims" | "requests.storage" => core("persistentvolumeclaims"),
        "configmaps" => core("configmaps"),
        "secrets" => core("secrets"),
        "replicationcontrollers" => core("replicationcontrollers"),
        "resourcequotas" => core("resourcequotas"),
        _ if name.contains(CLASS) => core("persistentvolumeclaims"),
        _ if pods::counts(name) => core("pods"),
        _ => None,
    }
}

/// What one stored object takes. `now` decides whether a pod that is being deleted still counts.
pub fn usage(resource: &GroupResource, object: &Object, now: Timestamp) -> Amounts {
    let one = Quantity::from_value(1);
    let mut taken = Amounts::from([(format!("count/{resource}"), one)]);
    if !resource.group.is_empty() {
        return taken;
    }
    match &*resource.resource {
        "pods" => pods::usage(object, now, &mut taken),
        "services" => services(object, &mut taken),
        "persistentvolumeclaims" => claims(object, &mut taken),
        name @ ("configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
            taken.insert(name.to_owned(), one);
        }
        _ => {}
    }
    taken
}

/// What the quota's objects take together, of every amount in `spec.hard`: `objects` are those of its
/// namespace, of the kinds that [`counts`] names (others do no harm).
pub fn total<'a>(
    quota: &Object,
    objects: impl IntoIterator<Item = (&'a GroupResource, &'a Object)>,
    now: Timestamp,
) -> Amounts {
    let mut total: Amounts = hard(quota).into_keys().map(|name| (name, Quantity::default())).collect();
    for (resource, object) in objects {
        if covers(quota, resource, object) {
            for (name, amount) in usage(resource, object, now) {
                if let Some(sum) = total.get_mut(&name) {
                    *sum += amount;
                }
            }
        }
    }
    total
}

fn services(service: &Object, taken: &mut Amounts) {
    let ports = service.list(&["spec", "ports"]);
    let all = i64::try_from(ports.len()).unwrap_or(i64::MAX);
    let chosen = ports.iter().filter(|port| port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0);
    let chosen = i64::try_from(chosen.count()).unwrap_or(i64::MAX);
    let (node_ports, balancers) = match service.str(&["spec", "type"]) {
        Some("NodePort") => (all, 0),
        Some("LoadBalancer") if service.bool(&["spec", "allocateLoadBalancerNodePorts"]) == Some(false) => {
            (chosen, 1)
        }
        Some("LoadBalancer") => (all, 1),
        _ => (0, 0),
    };
    for (name, count) in
        [("services", 1), ("services.nodeports", node_ports), ("services.loadbalancers", balancers)]
    {
        taken.insert(name.to_owned(), Quantity::from_value(count));
    }
}

fn claims(claim: &Object, taken: &mut Amounts) {
    let one = Quantity::from_value(1);
    let size = |path: &[&str]| claim.get(path).and_then(crate::validate::quantity).unwrap_or_default();
    // A claim that is growing holds what it was given until it shrinks back (KEP-1790).
    let size = size(&["spec", "resources", "requests", "storage"]).max(size(&[
        "status",
        "allocatedResources",
        "storage",
    ]));
    taken.insert("persistentvolumeclaims".to_owned(), one);
    taken.insert("requests.storage".to_owned(), size);
    let beta = claim.annotation("volume.beta.kubernetes.io/storage-class");
    if let Some(class) = beta.or_else(|| claim.str(&["spec", "storageClassName"])).filter(|c| !c.is_empty()) {
        taken.insert(format!("{class}{CLASS}persistentvolumeclaims"), one);
        taken.insert(format!("{class}{CLASS}requests.storage"), size);
    }
}
