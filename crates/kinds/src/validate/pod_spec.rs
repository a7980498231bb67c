//! What a pod may be, wherever it is written: in a Pod or in a template
//! (`pkg/apis/core/validation.ValidatePodSpec`). Enumerations are the schema's.

use meta::names;

use super::{
    At, Errors, env_name, header_name, ip, label_selector, labels, no_backsteps, node_selector,
    port_number_or_name, selectors::node_selector_term, volumes::volumes,
};

mod containers;
use containers::{containers, ephemeral_containers, init_containers};

/// A template: labels and spec, and nothing that only a Pod may have.
pub(crate) fn pod_template(at: &At<'_>, errors: &mut Errors) {
    labels(&at.at(&["metadata", "labels"]).named(&format!("{}.labels", at.path())), errors);
    let spec = at.get("spec");
    pod_spec(&spec, errors);
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden(errors, "ephemeral containers not allowed in pod template");
    }
}

/// Kernel parameters (`validateSysctls`): names in parts between dots or slashes, each once. Which of them a node
/// sets is the node's to say.
fn sysctls(at: &At<'_>, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for sysctl in at.items() {
        let name = sysctl.get("name");
        let text = name.text();
        if name.is_empty() {
            name.required(errors, "");
        } else if text.len() > SYSCTL_MAX || !is_sysctl(text) {
            name.invalid(
                errors,
                format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL}"),
            );
        } else if !seen.insert(text) {
            name.duplicate(errors);
        }
    }
}

const SYSCTL_MAX: usize = 253;
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Whether a text matches [`SYSCTL`].
fn is_sysctl(text: &str) -> bool {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.split(['.', '/']).all(|part| {
        part.starts_with(end) && part.ends_with(end) && part.chars().all(|c| end(c) || matches!(c, '-' | '_'))
    })
}

/// A PodSpec.
pub(crate) fn pod_spec(at: &At<'_>, errors: &mut Errors) {
    let found = volumes(&at.get("volumes"), errors);
    containers(at, &found, errors);
    init_containers(at, &found, errors);
    ephemeral_containers(at, &found, errors);
    labels(&at.get("nodeSelector"), errors);
    security_context(&at.get("securityContext"), errors);
    sysctls(&at.at(&["securityContext", "sysctls"]), errors);
    affinity(&at.get("affinity"), errors);
    dns(at, errors);
    for gate in at.get("readinessGates").items() {
        gate.get("conditionType").all(errors, names::qualified_name);
    }
    scheduling_gates(&at.get("schedulingGates"), errors);
    spread(&at.get("topologySpreadConstraints"), errors);
    for (field, check) in [
        ("serviceAccountName", names::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns1123_subdomain),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
    ] {
        let field = at.get(field);
        if !field.is_empty() {
            field.all(errors, check);
        }
    }
    at.get("activeDeadlineSeconds").within(errors, 1, i64::from(i32::MAX));
    tolerations(&at.get("tolerations"), errors);
    for alias in at.get("hostAliases").items() {
        alias.get("ip").all(errors, ip);
        for hostname in alias.get("hostnames").items() {
            hostname.all(errors, names::dns1123_subdomain);
        }
    }
}

fn security_context(at: &At<'_>, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        at.get(field).within(errors, 0, i64::from(i32::MAX));
    }
    for group in at.get("supplementalGroups").items() {
        group.within(errors, 0, i64::from(i32::MAX));
    }
}

fn affinity(at: &At<'_>, errors: &mut Errors) {
    let node = at.get("nodeAffinity");
    let required = node.get("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        node_selector(&required, errors);
    }
    for term in node.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&term.get("weight"), errors);
        node_selector_term(&term.get("preference"), errors);
    }
    for side in ["podAffinity", "podAntiAffinity"] {
        let side = at.get(side);
        for term in side.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            pod_affinity_term(&term, errors);
        }
        for term in side.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&term.get("weight"), errors);
            pod_affinity_term(&term.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(at: &At<'_>, errors: &mut Errors) {
    if !at.int().is_some_and(|weight| (1..=100).contains(&weight)) {
        at.invalid(errors, "must be in the range 1-100");
    }
}

fn pod_affinity_term(at: &At<'_>, errors: &mut Errors) {
    label_selector(&at.get("labelSelector"), errors);
    label_selector(&at.get("namespaceSelector"), errors);
    let key = at.get("topologyKey");
    if key.is_empty() {
        key.required(errors, "can not be empty");
    }
    key.all(errors, names::qualified_name);
}

fn dns(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.get("dnsConfig");
    let servers = config.get("nameservers");
    if spec.get("dnsPolicy").text() == "None" {
        if !config.is_set() {
            return config.required(errors, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return servers.required(errors, detail);
        }
    }
    if servers.len() > 3 {
        servers.invalid(errors, "must not have more than 3 nameservers");
    }
    for server in servers.items() {
        server.all(errors, ip);
    }
    let searches = config.get("searches");
    if searches.len() > 32 {
        searches.invalid(errors, "must not have more than 32 search paths");
    }
    for option in config.get("options").items() {
        if option.get("name").is_empty() {
            option.required(errors, "must not be empty");
        }
    }
}

fn scheduling_gates(at: &At<'_>, errors: &mut Errors) {
    let mut seen = Vec::new();
    for gate in at.items() {
        let name = gate.get("name");
        for message in names::qualified_name(name.text()) {
            gate.invalid_as(errors, name.value(), message);
        }
        if seen.contains(&name.text()) {
            gate.duplicate_as(errors, name.value());
        }
        seen.push(name.text());
    }
}

fn spread(at: &At<'_>, errors: &mut Errors) {
    for constraint in at.items() {
        let skew = constraint.get("maxSkew");
        if skew.int().is_none_or(|skew| skew <= 0) {
            skew.invalid(errors, "must be greater than zero");
        }
        let key = constraint.get("topologyKey");
        if key.is_empty() {
            key.required(errors, "can not be empty")
        } else {
            key.all(errors, names::qualified_name)
        }
        let domains = constraint.get("minDomains");
        if domains.int().is_some_and(|domains| domains <= 0) {
            domains.invalid(errors, "must be greater than zero");
        }
        if domains.is_set() && constraint.get("whenUnsatisfiable").text() != "DoNotSchedule" {
            let detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
            domains.invalid(errors, detail);
        }
        label_selector(&constraint.get("labelSelector"), errors);
    }
}

/// Tolerations of a pod.
fn tolerations(at: &At<'_>, errors: &mut Errors) {
    for toleration in at.items() {
        let (key, operator, value, effect) = (
            toleration.get("key"),
            toleration.get("operator"),
            toleration.get("value"),
            toleration.get("effect"),
        );
        if !key.is_empty() {
            key.all(errors, names::qualified_name);
        } else if operator.text() != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            operator.invalid_as(errors, &operator.text().into(), detail);
        }
        if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            effect.invalid_as(errors, &effect.text().into(), detail);
        }
        match operator.text() {
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                operator.invalid_as(errors, value.value(), detail);
            }
            "Equal" | "" => {
                let messages = names::label_value(value.text());
                if !messages.is_empty() {
                    operator.invalid_as(errors, value.value(), messages.join(";"));
                }
            }
            _ => {}
        }
    }
}
