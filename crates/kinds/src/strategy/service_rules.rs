//! What a Service may say (`ValidateService`, `ValidateServiceUpdate`).

use std::collections::BTreeSet;

use meta::{FieldError, Object, names};
use serde_json::{Value, json};

use super::service_fields as is;
use crate::validate::{At, Errors, cidr, ip, labels, port_number_or_name, usable_ip};

/// Checks a Service, and a change of it.
pub(super) fn check(new: &Object, old: Option<&Object>, errors: &mut Errors) {
    if let Some(old) = old {
        unchanged(new, old, errors);
    }
    let spec = At::root(new, "spec");
    by_type(new, &spec, errors);
    ports(new, &spec.get("ports"), errors);
    labels(&spec.get("selector"), errors);
    session_affinity(&spec, errors);
    if is::needs_cluster_ip(new) {
        addresses(new, errors);
    }
    for address in spec.get("externalIPs").items() {
        usable_ip(&address, errors);
    }
    load_balancer(new, &spec, errors);
    traffic(new, &spec, errors);
}

/// What may not change once set.
fn unchanged(new: &Object, old: &Object, errors: &mut Errors) {
    if is::needs_cluster_ip(new)
        && is::needs_cluster_ip(old)
        && !(is::is_headless(new) && is::is_headless(old))
    {
        let (have, had) = (is::cluster_ips(new), is::cluster_ips(old));
        if let Some(first) = had.first() {
            if have.is_empty() {
                let detail = "primary clusterIP can not be unset";
                errors.push(FieldError::invalid("spec.clusterIPs[0]", &json!(have), detail));
            } else if have.first() != Some(first) {
                errors.push(FieldError::invalid(
                    "spec.clusterIPs[0]",
                    &json!(have),
                    "may not change once set",
                ));
            }
        }
        let families = |service: &Object| service.list(&["spec", "ipFamilies"]).first().cloned();
        if is::is_headless(new) == is::is_headless(old)
            && families(old).is_some()
            && families(new) != families(old)
        {
            let value = json!(new.list(&["spec", "ipFamilies"]));
            errors.push(FieldError::invalid("spec.ipFamilies[0]", &value, "may not change once set"));
        }
    }
    let (have, had) = (new.get(&["spec", "loadBalancerClass"]), old.get(&["spec", "loadBalancerClass"]));
    if is::of(new) == "LoadBalancer" && is::of(old) == "LoadBalancer" && have != had {
        let value = have.cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid("spec.loadBalancerClass", &value, "may not change once set"));
    }
    if is::needs_health_check(new)
        && is::needs_health_check(old)
        && is::health_check_port(new) != is::health_check_port(old)
    {
        errors.push(FieldError::forbidden("spec.healthCheckNodePort", "field is immutable"));
    }
}

fn by_type(service: &Object, spec: &At<'_>, errors: &mut Errors) {
    let of = is::of(service);
    if matches!(of, "NodePort" | "LoadBalancer") && is::is_headless(service) {
        let detail = format!("may not be set to 'None' for {of} services");
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &json!("None"), detail));
    }
    if spec.get("ports").is_empty() && of != "ExternalName" && !is::is_headless(service) {
        spec.get("ports").required(errors, "");
    }
    if of == "ExternalName" {
        for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let field = spec.get(field);
            if !field.is_empty() {
                field.forbidden(errors, "may not be set for ExternalName services");
            }
        }
        let name = spec.get("externalName");
        match name.text().trim_end_matches('.') {
            "" => name.required(errors, ""),
            text => names::dns1123_subdomain(text).into_iter().for_each(|m| name.invalid(errors, m)),
        }
    }
}

fn ports(service: &Object, at: &At<'_>, errors: &mut Errors) {
    let (mut named, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for port in at.items() {
        let (name, number, protocol) = (port.get("name"), port.get("port"), port.get("protocol"));
        if !name.is_empty() {
            name.all(errors, names::dns1123_label);
            if !named.insert(name.text()) {
                name.duplicate(errors);
            }
        } else if at.len() > 1 {
            name.required(errors, "");
        }
        if number.int().is_some() {
            number.within(errors, 1, 65_535);
        } else {
            number.invalid_as(errors, &json!(0), "must be between 1 and 65535, inclusive");
        }
        if port.get("targetPort").is_set() {
            port_number_or_name(&port.get("targetPort"), errors);
        }
        let application = port.get("appProtocol");
        if application.is_set() {
            application.all(errors, names::qualified_name);
        }
        if !numbers.insert((protocol.text(), number.int())) {
            port.duplicate_as(errors, &json!({"protocol": protocol.text(), "port": number.value()}));
        }
        let node_port = port.get("nodePort");
        let Some(node) = node_port.int().filter(|node| *node != 0) else { continue };
        if is::of(service) == "ClusterIP" {
            node_port.forbidden(errors, "may not be used when `type` is 'ClusterIP'");
        }
        if !node_ports.insert((protocol.text(), node)) {
            node_port.duplicate(errors);
        }
    }
}

fn session_affinity(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.get("sessionAffinityConfig");
    if spec.get("sessionAffinity").text() == "ClientIP" {
        let timeout = config.at(&["clientIP", "timeoutSeconds"]);
        if !timeout.int().is_some_and(|seconds| (1..=86_400).contains(&seconds)) {
            timeout.invalid(errors, "must be greater than 0 and less than 86400");
        }
    } else if config.is_set() {
        config.forbidden(errors, "must not be set when session affinity is None");
    }
}

/// `clusterIP`, `clusterIPs` and `ipFamilies` agree with each other.
pub(super) fn addresses(service: &Object, errors: &mut Errors) {
    let spec = At::root(service, "spec");
    let (one, many) = (spec.get("clusterIP"), spec.get("clusterIPs"));
    let first = many.items().next().map(|at| at.text()).unwrap_or_default();
    if one.is_empty() {
        if !many.is_empty() {
            many.invalid(errors, "must be empty when `clusterIP` is not specified");
        }
    } else if many.is_empty() {
        many.required(errors, "");
    } else if first != one.text() {
        many.invalid(errors, "first value must match `clusterIP`");
    }
    let mut families = BTreeSet::new();
    for family in spec.get("ipFamilies").items() {
        if !families.insert(family.text()) {
            family.duplicate(errors);
        }
    }
    for (i, address) in many.items().enumerate() {
        if i == 0 && address.text() == "None" {
            if many.len() > 1 {
                many.invalid(errors, "'None' must be the first and only value");
            }
            continue;
        }
        let before = errors.len();
        address.all(errors, ip);
        let family = spec.get("ipFamilies").items().nth(i).map(|at| at.text().to_owned());
        let own = if address.text().contains(':') { "IPv6" } else { "IPv4" };
        if let Some(wanted) = family.filter(|wanted| errors.len() == before && wanted != own) {
            let detail = format!("expected an {wanted} value as indicated by `ipFamilies[{i}]`");
            address.invalid(errors, detail);
        }
    }
    if many.len() > 2 {
        many.invalid(errors, "may only hold up to 2 values");
    }
}

fn load_balancer(service: &Object, spec: &At<'_>, errors: &mut Errors) {
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = spec.get("loadBalancerSourceRanges");
    if !ranges.is_empty() {
        // Upstream writes the field with a capital letter here.
        let ranges = ranges.named("spec.LoadBalancerSourceRanges");
        if is::of(service) != "LoadBalancer" {
            ranges.forbidden(errors, only);
        }
        for range in ranges.items() {
            range.all(errors, |text| cidr(text.trim()));
        }
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        let field = spec.get(field);
        if field.is_set() && is::of(service) != "LoadBalancer" {
            field.forbidden(errors, only);
        }
    }
    let class = spec.get("loadBalancerClass");
    if class.is_set() && is::of(service) == "LoadBalancer" {
        class.all(errors, names::qualified_name);
    }
}

fn traffic(service: &Object, spec: &At<'_>, errors: &mut Errors) {
    let external = spec.get("externalTrafficPolicy");
    if !is::is_externally_accessible(service) && !external.is_empty() {
        external.invalid(errors, "may only be set for externally-accessible services");
    }
    let health = spec.get("healthCheckNodePort");
    if health.is_set() && !is::needs_health_check(service) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        health.invalid(errors, detail);
    }
    let distribution = spec.get("trafficDistribution");
    if distribution.is_set() {
        distribution.one_of(errors, &["PreferClose", "PreferSameNode", "PreferSameZone"]);
    }
}
