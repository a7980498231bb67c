//! From what a user wrote to types that cannot be wrong, or to what has to be changed. Pure.

mod pool;
mod vault;

use serde_json::Value;

pub(crate) use pool::{Pool, RunnerPlan, conflicts, pool, queue_platform};
pub(crate) use vault::{StorePlan, Vault, vault};

use crate::{
    types::{Common, Execution, Ingress},
    verdict::Wrong,
};

/// Longest name of an object: its pods carry it in a label beside a hash, its Services in their names.
const NAME_LENGTH_MAX: usize = 50;

/// Checks what all kinds have.
pub(crate) fn common(name: &str, common: &Common, wrong: &mut Wrong) {
    if name.len() > NAME_LENGTH_MAX {
        wrong.add(
            "metadata.name",
            format!("must have at most {NAME_LENGTH_MAX} characters, it names pods and Services"),
        );
    }
    for why in meta::names::dns1035_label(name) {
        wrong.add("metadata.name", why);
    }
    for (field, image) in [("spec.image", &common.image), ("spec.initImage", &common.init_image)] {
        self::image(field, image.as_deref(), wrong);
    }
    resources("spec.resources", common.resources.as_ref(), wrong);
    if common.config_map_name.is_some() && common.config_overlay.is_some() {
        wrong.add("spec.configOverlay", "is for generated configuration: remove it, or configMapName");
    }
    if common.config_overlay.as_ref().is_some_and(|overlay| !overlay.is_object()) {
        wrong.add("spec.configOverlay", "must be an object");
    }
    let grace = common.termination_grace_period_seconds;
    wrong.range("spec.terminationGracePeriodSeconds", grace, 30, 0, 7 * 86_400);
    if let Some(pdb) = &common.pdb
        && pdb.min_available.is_some()
        && pdb.max_unavailable.is_some()
    {
        wrong.add("spec.pdb", "set minAvailable or maxUnavailable, not both");
    }
    if let Some(tracing) = &common.tracing {
        if tracing.otlp_endpoint.is_empty() {
            wrong.add("spec.tracing.otlpEndpoint", "must be the address of a collector, such as otel:4317");
        }
        wrong.range("spec.tracing.sampleRate", tracing.sample_rate, 1.0, 0.0, 1.0);
    }
    for (key, _) in
        common.pod_labels.iter().filter(|(key, _)| ["app", "component", "instance"].contains(&key.as_str()))
    {
        wrong.add("spec.podLabels", format!("{key} is set by the operator, remove it"));
    }
}

/// A name that an image can have.
pub(crate) fn image(field: &str, image: Option<&str>, wrong: &mut Wrong) {
    let Some(image) = image else { return };
    if image.is_empty() || image.contains(char::is_whitespace) {
        wrong.add(
            field,
            format!("{image:?} is not the name of an image, such as ghcr.io/buildbarn/bb-storage:TAG"),
        );
    }
}

/// Amounts that a container asks for or may take: the API server would not say which one it cannot read.
pub(crate) fn resources(field: &str, given: Option<&Value>, wrong: &mut Wrong) {
    for kind in ["requests", "limits"] {
        let amounts = given.and_then(|given| given.get(kind)).and_then(Value::as_object);
        for (name, amount) in amounts.into_iter().flatten() {
            let text = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
            if text.parse::<meta::Quantity>().is_err() {
                wrong.add(
                    &format!("{field}.{kind}.{name}"),
                    format!("{text:?} is not a quantity, such as 500m or 4Gi"),
                );
            }
        }
    }
}

/// A host, with or without a port; an IPv6 address with a port is in brackets.
pub(crate) fn host(field: &str, text: &str, wrong: &mut Wrong) {
    if text.parse::<std::net::Ipv6Addr>().is_err() && authority(text).is_none() {
        wrong.add(field, format!("must be a host name or address, with or without a port, is {text:?}"));
    }
}

/// Where a program listens.
pub(crate) fn address(field: &str, text: &str, wrong: &mut Wrong) {
    if authority(text).is_none_or(|authority| authority.port_u16().is_none()) {
        wrong.add(field, format!("must be HOST:PORT, is {text:?}"));
    }
}

/// A host and perhaps a port: no scheme, no user, no path.
fn authority(text: &str) -> Option<http::uri::Authority> {
    let authority: http::uri::Authority = text.parse().ok()?;
    (!authority.host().is_empty() && !authority.as_str().contains('@')).then_some(authority)
}

/// The host of an Ingress, which is given by this field.
pub(crate) fn ingress(field: &str, ingress: &Ingress, wrong: &mut Wrong) {
    for why in meta::names::dns1123_subdomain(&ingress.host) {
        wrong.add(field, why);
    }
}

/// Default and maximum execution timeout of a scheduler, in seconds.
pub(crate) fn execution(execution: Option<Execution>, wrong: &mut Wrong) -> (i64, i64) {
    let execution = execution.unwrap_or_default();
    let week = 7 * 86_400;
    let maximum =
        wrong.range("spec.execution.maximumTimeoutSeconds", execution.maximum_timeout_seconds, 7200, 1, week);
    let given = execution.default_timeout_seconds;
    let default = wrong.range("spec.execution.defaultTimeoutSeconds", given, 1800.min(maximum), 1, week);
    if default > maximum {
        wrong.add(
            "spec.execution.defaultTimeoutSeconds",
            format!("{default} must not be greater than maximumTimeoutSeconds, {maximum}"),
        );
    }
    (default, maximum)
}
