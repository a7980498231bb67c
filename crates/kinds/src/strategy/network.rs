//! Endpoints, EndpointSlices, Ingresses and NetworkPolicies.

use std::collections::BTreeSet;

use meta::{FieldError, FieldErrorKind, Object, Value, names};
use resource::{Context, Strategy};
use serde_json::json;

use crate::validate::{
    At, Errors, cidr, ip, label_selector, port_name, port_number_or_name, usable_ip, wildcard_subdomain,
};

/// Behaviour of `v1` Endpoints.
pub(crate) struct Endpoints;

impl Strategy for Endpoints {
    fn validate(&self, _: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        for subset in At::root(new, "subsets").items() {
            let (ready, other) = (subset.get("addresses"), subset.get("notReadyAddresses"));
            if ready.is_empty() && other.is_empty() {
                subset.required(errors, "must specify `addresses` or `notReadyAddresses`");
            }
            for address in ready.items().chain(other.items()) {
                usable_ip(&address.get("ip"), errors);
            }
            let ports = subset.get("ports");
            for port in ports.items() {
                let name = port.get("name");
                if name.is_empty() && ports.len() > 1 {
                    name.required(errors, "");
                } else if !name.is_empty() {
                    name.all(errors, names::dns1123_label);
                }
                port.get("port").within(errors, 1, 65_535);
            }
        }
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// As many endpoints and ports as a slice may have.
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;

/// Behaviour of `discovery.k8s.io/v1` EndpointSlice.
pub(crate) struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let family = At::root(new, "addressType");
        if family.is_empty() {
            family.required(errors, "");
        }
        let endpoints = At::root(new, "endpoints");
        too_many(&endpoints, ENDPOINTS_MAX, errors);
        for endpoint in endpoints.items() {
            let addresses = endpoint.get("addresses");
            if addresses.is_empty() {
                addresses.required(errors, "must contain at least 1 address");
            }
            too_many(&addresses, 100, errors);
            for address in addresses.items() {
                one_address(&address, &addresses, family.text(), errors);
            }
            for (field, check) in [
                ("hostname", names::dns1123_label as fn(&str) -> Vec<String>),
                ("nodeName", names::dns1123_subdomain),
            ] {
                let field = endpoint.get(field);
                if field.is_set() {
                    field.all(errors, check);
                }
            }
        }
        let ports = At::root(new, "ports");
        too_many(&ports, PORTS_MAX, errors);
        let mut seen = BTreeSet::new();
        for port in ports.items() {
            let name = port.get("name");
            if !name.is_empty() {
                name.all(errors, names::dns1123_label);
            }
            if !seen.insert(name.text()) {
                name.duplicate_as(errors, &json!(name.text()));
            }
        }
        if let Some(old) = old {
            family.immutable(errors, &At::root(old, "addressType"));
        }
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn too_many(at: &At<'_>, max: usize, errors: &mut Errors) {
    if at.len() > max {
        errors.push(FieldError {
            kind: FieldErrorKind::TooMany,
            field: at.path().to_owned(),
            value: Some(at.len().to_string()),
            detail: format!("must have at most {max} items"),
        });
    }
}

fn one_address(at: &At<'_>, list: &At<'_>, family: &str, errors: &mut Errors) {
    match family {
        "FQDN" => at.all(errors, names::dns1123_subdomain),
        "IPv4" | "IPv6" => {
            let before = errors.len();
            usable_ip(at, errors);
            if errors.len() == before && at.text().contains(':') != (family == "IPv6") {
                list.invalid_as(errors, at.value(), format!("must be an {family} address"));
            }
        }
        _ => {}
    }
}

/// Behaviour of `networking.k8s.io/v1` Ingress.
pub(crate) struct Ingress;

impl Strategy for Ingress {
    fn validate(&self, cx: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let spec = At::root(new, "spec");
        let (rules, backend) = (spec.get("rules"), spec.get("defaultBackend"));
        if rules.is_empty() && !backend.is_set() {
            let value = rules.value().clone();
            spec.invalid_as(errors, &value, "either `defaultBackend` or `rules` must be specified");
        }
        if backend.is_set() {
            ingress_backend(&backend, errors);
        }
        for rule in rules.items() {
            ingress_rule(&rule, errors);
        }
        for tls in spec.get("tls").items() {
            for host in tls.get("hosts").items() {
                host.all(errors, host_name);
            }
            let secret = tls.get("secretName");
            if !secret.is_empty() {
                secret.all(errors, names::dns1123_subdomain);
            }
        }
        let class = spec.get("ingressClassName");
        if class.is_set() {
            class.all(errors, names::dns1123_subdomain);
        }
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn host_name(text: &str) -> Vec<String> {
    if text.contains('*') { wildcard_subdomain(text) } else { names::dns1123_subdomain(text) }
}

fn ingress_rule(rule: &At<'_>, errors: &mut Errors) {
    let host = rule.get("host");
    if !host.is_empty() {
        if ip(host.text()).is_empty() {
            host.invalid(errors, "must be a DNS name, not an IP address");
        }
        host.all(errors, host_name);
    }
    let http = rule.get("http");
    if !http.is_set() {
        return;
    }
    let paths = http.get("paths");
    if paths.is_empty() {
        paths.required(errors, "");
    }
    for path in paths.items() {
        let (of, text) = (path.get("pathType"), path.get("path"));
        if !of.is_set() {
            of.required(errors, "pathType must be specified");
            continue;
        }
        let strict = of.text() != "ImplementationSpecific";
        if (strict || !text.is_empty()) && !text.text().starts_with('/') {
            text.invalid_as(errors, &json!(text.text()), "must be an absolute path");
        }
        if strict {
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.text().contains(bad) {
                    text.invalid(errors, format!("must not contain '{bad}'"));
                }
            }
            for bad in ["/..", "/."] {
                if text.text().ends_with(bad) {
                    text.invalid(errors, format!("cannot end with '{bad}'"));
                }
            }
        }
        ingress_backend(&path.get("backend"), errors);
    }
}

fn ingress_backend(at: &At<'_>, errors: &mut Errors) {
    let (service, resource) = (at.get("service"), at.get("resource"));
    let nothing = json!("");
    match (service.is_set(), resource.is_set()) {
        (true, true) => at.invalid_as(errors, &nothing, "cannot set both resource and service backends"),
        (false, false) => at.invalid_as(errors, &nothing, "resource or service backend is required"),
        (false, true) => {
            resource.get("kind").must(errors, |_| Vec::new());
            resource.get("name").must(errors, names::path_segment);
        }
        (true, false) => {
            service.get("name").must(errors, names::dns1123_label);
            let (name, number) = (service.at(&["port", "name"]), service.at(&["port", "number"]));
            match (!name.is_empty(), number.int().is_some_and(|n| n != 0)) {
                (true, true) => at.invalid_as(errors, &nothing, "cannot set both port name & port number"),
                (true, false) => name.all(errors, port_name),
                (false, true) => number.within(errors, 1, 65_535),
                (false, false) => at.required(errors, "port name or number is required"),
            }
        }
    }
}

/// Behaviour of `networking.k8s.io/v1` IngressClass.
pub(crate) struct IngressClass;

impl Strategy for IngressClass {
    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let controller = At::root(new, "spec").get("controller");
        controller.must(errors, names::domain_prefixed_path);
        if let Some(old) = old {
            controller.immutable(errors, &At::root(old, "spec").get("controller"));
        }
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// Behaviour of `networking.k8s.io/v1` NetworkPolicy.
pub(crate) struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Object) {
        let unset = object.list(&["spec", "policyTypes"]).is_empty();
        if unset && object.get(&["spec"]).is_some_and(Value::is_object) {
            let egress = !object.list(&["spec", "egress"]).is_empty();
            let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            object.set(&["spec", "policyTypes"], types);
        }
    }

    fn validate(&self, _: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        let spec = At::root(new, "spec");
        label_selector(&spec.get("podSelector"), errors);
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec.get(direction).items() {
                rule.get("ports").items().for_each(|port| policy_port(&port, errors));
                rule.get(peers).items().for_each(|peer| policy_peer(&peer, errors));
            }
        }
        let types = spec.get("policyTypes");
        if types.len() > 2 {
            types.invalid(errors, "may not specify more than two policyTypes");
        }
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn policy_port(at: &At<'_>, errors: &mut Errors) {
    let (port, end) = (at.get("port"), at.get("endPort"));
    if port.is_set() {
        port_number_or_name(&port, errors);
    }
    match (port.int(), end.int()) {
        (_, None) => {}
        (None, Some(_)) if port.is_set() => {
            end.invalid(errors, "may not be specified when `port` is non-numeric")
        }
        (None, Some(_)) => end.invalid(errors, "may not be specified when `port` is not specified"),
        (Some(first), Some(last)) => {
            if last < first {
                end.invalid_as(errors, port.value(), "must be greater than or equal to `port`");
            }
            end.within(errors, 1, 65_535);
        }
    }
}

fn policy_peer(at: &At<'_>, errors: &mut Errors) {
    let (pods, namespaces, block) = (at.get("podSelector"), at.get("namespaceSelector"), at.get("ipBlock"));
    label_selector(&pods, errors);
    label_selector(&namespaces, errors);
    let selects = pods.is_set() || namespaces.is_set();
    if block.is_set() {
        block.get("cidr").must(errors, cidr);
        for except in block.get("except").items() {
            except.all(errors, cidr);
        }
        if selects {
            at.forbidden(errors, "may not specify both ipBlock and another peer");
        }
    } else if !selects {
        at.required(errors, "must specify a peer");
    }
}

/// Behaviour of `networking.k8s.io/v1` ServiceCIDR.
pub(crate) struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let cidrs = At::root(new, "spec").get("cidrs");
        if cidrs.is_empty() {
            cidrs.required(errors, "at least one CIDR required");
        } else if cidrs.len() > 2 {
            cidrs.invalid(errors, "may only hold up to 2 values");
        }
        for block in cidrs.items() {
            block.all(errors, cidr);
        }
        if let Some(old) = old {
            cidrs.immutable(errors, &At::root(old, "spec").get("cidrs"));
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}
