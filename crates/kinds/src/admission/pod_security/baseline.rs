//! What baseline forbids: known ways out of a container. Sorted by upstream's name of the check; marked are
//! those that restricted replaces.

use std::collections::BTreeSet;

use meta::Value;

use super::level::{Check, Forbidden, Pod, containers, forbidden, name, own, plural, quoted};

pub(super) const CHECKS: [(Check, bool); 12] = [
    (app_armor, false),
    (capabilities, true),
    (host_namespaces, false),
    (host_path_volumes, true),
    (host_ports, false),
    (host_probes, false),
    (privileged, false),
    (proc_mount, false),
    (se_linux, false),
    (seccomp, true),
    (sysctls, false),
    (windows_host_process, false),
];

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Sysctls that touch nobody else, and the minor version that came to know them.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.tcp_wmem", 32),
];

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

fn app_armor(pod: &Pod<'_>) -> Option<Forbidden> {
    let bad = |kind: &str| !matches!(kind, "" | "RuntimeDefault" | "Localhost");
    let mut wrong = Vec::new();
    let mut values = BTreeSet::new();
    let own_type = text(pod.context("/appArmorProfile/type"));
    let mut setters = Vec::new();
    if bad(own_type) {
        setters.push("pod".to_owned());
        values.insert(own_type);
    }
    let of = |container| text(own(container, "/appArmorProfile/type"));
    let named = pod.named(|container| bad(of(container)));
    if !named.is_empty() {
        values.extend(pod.containers().map(of).filter(|kind| bad(kind)));
        setters.push(containers(&named));
    }
    if !setters.is_empty() {
        let values: Vec<&str> = values.into_iter().collect();
        let setters = setters.join(" and ");
        wrong.push(format!(
            "{setters} must not set securityContext.appArmorProfile.type to {}",
            quoted(&values)
        ));
    }
    let annotations = pod.metadata.get("annotations").and_then(Value::as_object).into_iter().flatten();
    let mut annotated: Vec<String> = annotations
        .filter(|(key, value)| {
            let value = text(Some(value));
            let allowed = matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
            key.starts_with("container.apparmor.security.beta.kubernetes.io/") && !allowed
        })
        .map(|(key, value)| format!("{key}=\"{}\"", text(Some(value))))
        .collect();
    annotated.sort();
    let count = wrong.len() + annotated.len();
    if !annotated.is_empty() {
        wrong.push(format!(
            "{} {}",
            plural("annotation", "annotations", annotated.len()),
            annotated.join(", ")
        ));
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", count);
    if wrong.is_empty() { None } else { forbidden(reason, wrong.join("; ")) }
}

/// Names of containers that add capabilities outside `allowed`, and which.
pub(super) fn added<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let of = |container: &'a Value| {
        let list = own(container, "/capabilities/add").and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).filter(|capability| !allowed.contains(capability)).collect::<Vec<_>>()
    };
    let found: BTreeSet<&str> = pod.containers().flat_map(of).collect();
    (pod.named(|container| !of(container).is_empty()), found.into_iter().collect())
}

/// `container "a" must not include "X" in securityContext.capabilities.add`.
pub(super) fn must_not_add(names: &[&str], found: &[&str]) -> String {
    format!("{} must not include {} in securityContext.capabilities.add", containers(names), quoted(found))
}

pub(super) fn capabilities(pod: &Pod<'_>) -> Option<Forbidden> {
    let (names, found) = added(pod, &CAPABILITIES);
    if names.is_empty() { None } else { forbidden("non-default capabilities", must_not_add(&names, &found)) }
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Forbidden> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec.get(**field).and_then(Value::as_bool) == Some(true))
        .map(|field| format!("{field}=true"))
        .collect();
    if set.is_empty() { None } else { forbidden("host namespaces", set.join(", ")) }
}

fn host_path_volumes(pod: &Pod<'_>) -> Option<Forbidden> {
    let volumes = pod.spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<&str> = volumes
        .filter(|volume| volume.get("hostPath").is_some_and(|path| !path.is_null()))
        .map(name)
        .collect();
    if names.is_empty() {
        return None;
    }
    forbidden("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
}

fn host_ports(pod: &Pod<'_>) -> Option<Forbidden> {
    let of = |container: &Value| -> Vec<u64> {
        let ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
        ports.filter_map(|port| port.get("hostPort")?.as_u64()).filter(|port| *port != 0).collect()
    };
    let names = pod.named(|container| !of(container).is_empty());
    if names.is_empty() {
        return None;
    }
    let found: BTreeSet<String> = pod.containers().flat_map(of).map(|port| port.to_string()).collect();
    let found: Vec<String> = found.into_iter().collect();
    let verb = plural("uses", "use", names.len());
    let what = plural("hostPort", "hostPorts", found.len());
    forbidden("hostPort", format!("{} {verb} {what} {}", containers(&names), found.join(", ")))
}

/// Hosts that a kubelet is made to ask, since v1.34.
fn host_probes(pod: &Pod<'_>) -> Option<Forbidden> {
    if pod.minor < 34 {
        return None;
    }
    let of = |container: &Value| -> Vec<String> {
        let handlers =
            ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle/postStart", "lifecycle/preStop"];
        let actions = handlers
            .iter()
            .flat_map(|handler| ["httpGet", "tcpSocket"].map(|action| format!("/{handler}/{action}/host")));
        let hosts = actions.filter_map(|pointer| container.pointer(&pointer)?.as_str().map(str::to_owned));
        hosts.filter(|host| !matches!(host.as_str(), "" | "127.0.0.1" | "::1")).collect()
    };
    let names = pod.named(|container| !of(container).is_empty());
    if names.is_empty() {
        return None;
    }
    let found: BTreeSet<String> = pod.containers().flat_map(of).collect();
    let found: Vec<String> = found.into_iter().collect();
    let verb = plural("uses", "use", names.len());
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", found.len());
    forbidden("probe or lifecycle host", format!("{} {verb} {what} {}", containers(&names), quoted(&found)))
}

fn privileged(pod: &Pod<'_>) -> Option<Forbidden> {
    let names = pod.named(|container| own(container, "/privileged").and_then(Value::as_bool) == Some(true));
    if names.is_empty() {
        return None;
    }
    forbidden("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

fn proc_mount(pod: &Pod<'_>) -> Option<Forbidden> {
    let of = |container| text(own(container, "/procMount"));
    let bad = |mount: &str| !matches!(mount, "" | "Default");
    let names = pod.named(|container| bad(of(container)));
    if names.is_empty() {
        return None;
    }
    let found: BTreeSet<&str> = pod.containers().map(of).filter(|mount| bad(mount)).collect();
    let found: Vec<&str> = found.into_iter().collect();
    forbidden(
        "procMount",
        format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(&found)),
    )
}

fn se_linux(pod: &Pod<'_>) -> Option<Forbidden> {
    const TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let bad = |options: Option<&Value>| {
        let field = |key: &str| text(options.and_then(|options| options.get(key)));
        !TYPES.contains(&field("type")) || !field("user").is_empty() || !field("role").is_empty()
    };
    let own_options = pod.context("/seLinuxOptions");
    let names = pod.named(|container| bad(own(container, "/seLinuxOptions")));
    let mut setters = Vec::new();
    if bad(own_options) {
        setters.push("pod".to_owned());
    }
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    if setters.is_empty() {
        return None;
    }
    let all: Vec<&Value> = own_options
        .into_iter()
        .chain(pod.containers().filter_map(|container| own(container, "/seLinuxOptions")))
        .collect();
    let types: BTreeSet<&str> =
        all.iter().map(|options| text(options.get("type"))).filter(|of| !TYPES.contains(of)).collect();
    let types: Vec<&str> = types.into_iter().collect();
    let sets = |key: &str| all.iter().any(|options| !text(options.get(key)).is_empty());
    let mut wrong = Vec::new();
    if !types.is_empty() {
        wrong.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    for field in ["user", "role"] {
        if sets(field) {
            wrong.push(format!("{field} may not be set"));
        }
    }
    forbidden(
        "seLinuxOptions",
        format!(
            "{} set forbidden securityContext.seLinuxOptions: {}",
            setters.join(" and "),
            wrong.join("; ")
        ),
    )
}

/// Whether a seccomp profile leaves system calls as they are, or is nothing known.
pub(super) fn unconfined(kind: &str) -> bool {
    !matches!(kind, "" | "RuntimeDefault" | "Localhost")
}

/// Who sets a seccomp profile that must not be, in words; empty when nobody.
pub(super) fn unconfined_setters(pod: &Pod<'_>) -> String {
    let of = |container| text(own(container, "/seccompProfile/type"));
    let own_type = text(pod.context("/seccompProfile/type"));
    let names = pod.named(|container| unconfined(of(container)));
    let mut setters = Vec::new();
    if unconfined(own_type) {
        setters.push("pod".to_owned());
    }
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    if setters.is_empty() {
        return String::new();
    }
    let types: BTreeSet<&str> =
        pod.containers().map(of).chain([own_type]).filter(|kind| unconfined(kind)).collect();
    let types: Vec<&str> = types.into_iter().collect();
    format!(
        "{} must not set securityContext.seccompProfile.type to {}",
        setters.join(" and "),
        quoted(&types)
    )
}

pub(super) fn seccomp(pod: &Pod<'_>) -> Option<Forbidden> {
    let detail = unconfined_setters(pod);
    if detail.is_empty() { None } else { forbidden("seccompProfile", detail) }
}

fn sysctls(pod: &Pod<'_>) -> Option<Forbidden> {
    let set = pod.context("/sysctls").and_then(Value::as_array).into_iter().flatten().map(name);
    let known = |sysctl: &str| SYSCTLS.iter().any(|(name, since)| *name == sysctl && *since <= pod.minor);
    let found: Vec<&str> = set.filter(|sysctl| !known(sysctl)).collect();
    if found.is_empty() { None } else { forbidden("forbidden sysctls", found.join(", ")) }
}

fn windows_host_process(pod: &Pod<'_>) -> Option<Forbidden> {
    let on = |value: Option<&Value>| value.and_then(Value::as_bool) == Some(true);
    let names = pod.named(|container| on(own(container, "/windowsOptions/hostProcess")));
    let mut setters = Vec::new();
    if on(pod.context("/windowsOptions/hostProcess")) {
        setters.push("pod".to_owned());
    }
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    if setters.is_empty() {
        return None;
    }
    forbidden(
        "hostProcess",
        format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.join(" and ")),
    )
}
