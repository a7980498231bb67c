//! What restricted forbids beyond baseline: current practice of hardening. Sorted by upstream's name of the
//! check.

use std::collections::BTreeSet;

use meta::Value;

use super::{
    baseline::{self, added, must_not_add, unconfined, unconfined_setters},
    level::{Check, Forbidden, Pod, containers, forbidden, name, own, plural, quoted},
};

pub(super) const CHECKS: [Check; 6] =
    [privilege_escalation, capabilities, volumes, run_as_non_root, run_as_user, seccomp];

/// Types of volumes that may be used.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
];

fn privilege_escalation(pod: &Pod<'_>) -> Option<Forbidden> {
    if pod.is_windows() {
        return None;
    }
    let off = |container| own(container, "/allowPrivilegeEscalation").and_then(Value::as_bool) == Some(false);
    let names = pod.named(|container| !off(container));
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    forbidden("allowPrivilegeEscalation != false", detail)
}

fn capabilities(pod: &Pod<'_>) -> Option<Forbidden> {
    if pod.is_windows() {
        return None;
    }
    if pod.minor < 22 {
        return baseline::capabilities(pod);
    }
    let drops_all = |container| {
        let list = own(container, "/capabilities/drop").and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).any(|capability| capability == "ALL")
    };
    let mut wrong = Vec::new();
    let keeping = pod.named(|container| !drops_all(container));
    if !keeping.is_empty() {
        wrong.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    let (names, found) = added(pod, &["NET_BIND_SERVICE"]);
    if !names.is_empty() {
        wrong.push(must_not_add(&names, &found));
    }
    if wrong.is_empty() { None } else { forbidden("unrestricted capabilities", wrong.join("; ")) }
}

fn volumes(pod: &Pod<'_>) -> Option<Forbidden> {
    let volumes = pod.spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let mut names = Vec::new();
    let mut types = BTreeSet::new();
    for volume in volumes {
        let sources = volume.as_object().into_iter().flatten();
        let source =
            sources.filter(|(key, value)| *key != "name" && !value.is_null()).map(|(key, _)| key).next();
        match source {
            Some(source) if VOLUMES.contains(&source.as_str()) => {}
            source => {
                names.push(name(volume));
                types.insert(source.map_or("unknown", String::as_str));
            }
        }
    }
    if names.is_empty() {
        return None;
    }
    let types: Vec<&str> = types.into_iter().collect();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", types.len()),
        quoted(&types)
    );
    forbidden("restricted volume types", detail)
}

fn run_as_non_root(pod: &Pod<'_>) -> Option<Forbidden> {
    let whole = pod.context("/runAsNonRoot").and_then(Value::as_bool);
    let of = |container| own(container, "/runAsNonRoot").and_then(Value::as_bool);
    let explicit = pod.named(|container| of(container) == Some(false));
    let implicit = pod.named(|container| of(container).is_none() && whole.is_none());
    let mut setters = Vec::new();
    // A pod that says no is wrong only where a container relies on it.
    if whole == Some(false) {
        setters.push("pod".to_owned());
    }
    if !explicit.is_empty() {
        setters.push(containers(&explicit));
    }
    let detail = if !setters.is_empty() {
        format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and "))
    } else if !implicit.is_empty() {
        format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit))
    } else {
        return None;
    };
    forbidden("runAsNonRoot != true", detail)
}

fn run_as_user(pod: &Pod<'_>) -> Option<Forbidden> {
    let root = |value: Option<&Value>| value.and_then(Value::as_i64) == Some(0);
    let names = pod.named(|container| root(own(container, "/runAsUser")));
    let mut setters = Vec::new();
    if root(pod.context("/runAsUser")) {
        setters.push("pod".to_owned());
    }
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    if setters.is_empty() || pod.minor < 23 {
        return None;
    }
    forbidden("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and ")))
}

fn seccomp(pod: &Pod<'_>) -> Option<Forbidden> {
    if pod.is_windows() {
        return None;
    }
    if pod.minor < 19 {
        return baseline::seccomp(pod);
    }
    let bad = unconfined_setters(pod);
    if !bad.is_empty() {
        return forbidden("seccompProfile", bad);
    }
    let set = |value: Option<&Value>| {
        value.and_then(Value::as_str).is_some_and(|kind| !kind.is_empty() && !unconfined(kind))
    };
    if set(pod.context("/seccompProfile/type")) {
        return None;
    }
    let names = pod.named(|container| !set(own(container, "/seccompProfile/type")));
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers(&names)
    );
    forbidden("seccompProfile", detail)
}
