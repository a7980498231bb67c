//! What pods take (upstream `pkg/quota/v1/evaluator/core/pods.go`).

use std::collections::{BTreeMap, BTreeSet};

use meta::{Object, Quantity, Timestamp, Value};

use super::{Amounts, amounts};
use crate::admission::of_pod;

/// What a node has by name; everything else of a pod is an extended resource with a domain.
const NATIVE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Amounts that every container must state where a quota counts them.
const STATED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Whether a name is an amount of pods.
pub(super) fn counts(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    let extended = name.strip_prefix("requests.").is_some_and(|rest| rest.contains('/'));
    name == "pods" || NATIVE.contains(&bare) || bare.starts_with("hugepages-") || extended
}

/// Adds what a pod takes. A pod that has ended takes nothing but its place in the store, nor does one whose
/// grace period is over: its node may never report that it ended.
pub(super) fn usage(pod: &Object, now: Timestamp, taken: &mut Amounts) {
    let ended = matches!(pod.str(&["status", "phase"]), Some("Succeeded" | "Failed"));
    if ended || overdue(pod, now) {
        return;
    }
    taken.insert("pods".to_owned(), Quantity::from_value(1));
    for (name, amount) in asked(pod, "requests") {
        if NATIVE.contains(&&*name) || name.starts_with("hugepages-") {
            taken.insert(name.clone(), amount);
        }
        taken.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in asked(pod, "limits") {
        if NATIVE.contains(&&*name) {
            taken.insert(format!("limits.{name}"), amount);
        }
    }
}

/// Requests or limits of the whole pod: its own where it states them, else its containers' together, and
/// what its runtime class adds.
fn asked(pod: &Object, side: &str) -> Amounts {
    let mut asked = of_pod(pod, side);
    asked.extend(amounts(pod.get(&["spec", "resources", side])));
    for (name, amount) in amounts(pod.get(&["spec", "overhead"])) {
        // As upstream: overhead makes no limit where there is none.
        match asked.get_mut(&name) {
            Some(sum) => *sum += amount,
            None if side == "requests" => {
                asked.insert(name, amount);
            }
            None => {}
        }
    }
    asked
}

/// A deletion time already has the grace period in it; upstream waits for as long again.
fn overdue(pod: &Object, now: Timestamp) -> bool {
    let deleted = pod.str(&["metadata", "deletionTimestamp"]).and_then(|at| at.parse::<Timestamp>().ok());
    let grace = pod.int(&["metadata", "deletionGracePeriodSeconds"]);
    deleted
        .zip(grace)
        .is_some_and(|(at, grace)| at.checked_add(seconds(grace)).is_ok_and(|until| now > until))
}

fn seconds(count: i64) -> std::time::Duration {
    std::time::Duration::from_secs(u64::try_from(count).unwrap_or_default())
}

/// The amounts of `hard` that containers of a new pod leave open, with the containers' names, in upstream's
/// words (`must specify limits.cpu for: a,b; memory for: a`).
pub fn unspecified<'a>(pod: &Object, hard: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let needed: Vec<&str> = hard.into_iter().filter(|name| STATED.contains(name)).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in ["containers", "initContainers"].iter().flat_map(|list| pod.list(&["spec", list])) {
        let states = |side: &str, name: &str| {
            let own = container.get("resources").and_then(|resources| resources.get(side)?.get(name));
            own.is_some() || pod.get(&["spec", "resources", side, name]).is_some()
        };
        for name in &needed {
            let stated = match name.split_once('.') {
                Some((side, of)) => states(side, of),
                None => states("requests", name),
            };
            if !stated {
                let container = container.get("name").and_then(Value::as_str).unwrap_or_default();
                missing.entry(name).or_default().insert(container);
            }
        }
    }
    let parts: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| {
            format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","))
        })
        .collect();
    (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
}
