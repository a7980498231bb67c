//! Services: addresses, families and ports that the server chooses (`pkg/registry/core/service`). One
//! address family: a Service that requires two is refused with upstream's words.

use std::net::IpAddr;

use meta::{FieldError, Object, Status, Value, format_second};
use resource::{Claim, Context, Strategy};
use serde_json::json;

use super::{claims, fill, keep, maps_mut, service_fields as is, service_ip, service_rules};
use crate::{Options, validate::Errors};

/// Behaviour of `v1` Service.
pub(crate) struct Service {
    pub(crate) options: Options,
}

impl Strategy for Service {
    fn default(&self, object: &mut Object) {
        affinity(object);
        for port in maps_mut(object, &["spec", "ports"]) {
            let number = port.get("port").cloned().unwrap_or(Value::Null);
            if port.get("targetPort").is_none_or(|v| v.is_null() || *v == json!(0) || *v == json!("")) {
                port.insert("targetPort".to_owned(), number);
            }
            port.retain(|key, value| key != "nodePort" || *value != json!(0));
        }
        for (field, zero) in [("clusterIP", json!("")), ("healthCheckNodePort", json!(0))] {
            if object.get(&["spec", field]) == Some(&zero) {
                object.remove(&["spec", field]);
            }
        }
        if is::is_externally_accessible(object) {
            object.set_default(&["spec", "externalTrafficPolicy"], "Cluster");
        }
        if is::needs_cluster_ip(object) {
            object.set_default(&["spec", "internalTrafficPolicy"], "Cluster");
        }
        if is::of(object) == "LoadBalancer" {
            object.set_default(&["spec", "allocateLoadBalancerNodePorts"], true);
            for ingress in maps_mut(object, &["status", "loadBalancer", "ingress"]) {
                if ingress.get("ip").and_then(Value::as_str).is_some_and(|ip| !ip.is_empty()) {
                    fill(ingress, "ipMode", "VIP");
                }
            }
        }
    }

    fn prepare(&self, cx: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        if cx.attributes.subresource == "status" {
            // Upstream takes a condition without its time, which typed clients send as null, and keeps the null.
            let now = format_second(cx.clock.now());
            for condition in maps_mut(new, &["status", "conditions"]) {
                fill(condition, "lastTransitionTime", now.as_str());
            }
            return Ok(());
        }
        match old {
            None => new.set(&["status"], json!({"loadBalancer": {}})),
            Some(old) => {
                carry_over(new, old);
                drop_by_type(new, old);
            }
        }
        normalize(new, old);
        let mut errors = Errors::new();
        self.families(new, old, &mut errors);
        if errors.is_empty() {
            self.address(cx, new, old, &mut errors)?;
            self.ports(cx, new, old, &mut errors)?;
        }
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "Service", new.name(), &errors)) }
    }

    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        service_rules::check(new, old, errors);
    }

    fn claims(&self, object: &Object) -> Vec<Claim> {
        let mut held: Vec<Claim> = Vec::new();
        if is::needs_cluster_ip(object) && !is::is_headless(object) {
            held.extend(is::cluster_ips(object).iter().map(|ip| claims::address(object, ip)));
        }
        let mut ports = is::node_ports(object);
        ports.push(is::health_check_port(object));
        ports.sort_unstable();
        ports.dedup();
        held.extend(ports.into_iter().filter(|port| *port != 0).map(|port| claims::node_port(object, port)));
        held
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::label(name)
    }
}

fn affinity(service: &mut Object) {
    const TIMEOUT: [&str; 4] = ["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"];
    match service.str(&["spec", "sessionAffinity"]) {
        Some("None") => {
            service.remove(&["spec", "sessionAffinityConfig"]);
        }
        Some("ClientIP") => service.set_default(&TIMEOUT, 10_800),
        _ => {}
    }
}

/// What the server chose before and the request leaves out stays.
fn carry_over(new: &mut Object, old: &Object) {
    if is::needs_cluster_ip(old) && is::needs_cluster_ip(new) {
        if is::cluster_ip(new).is_empty() {
            keep(new, old, &["spec", "clusterIP"]);
        }
        if is::cluster_ips(new).is_empty() && is::cluster_ip(new) == is::cluster_ip(old) {
            keep(new, old, &["spec", "clusterIPs"]);
        }
    }
    if is::needs_node_ports(old) && is::needs_node_ports(new) {
        let mut used = is::node_ports(new);
        for port in maps_mut(new, &["spec", "ports"]) {
            let same = |had: &&Value| ["port", "protocol"].iter().all(|key| had.get(key) == port.get(*key));
            let had = old.list(&["spec", "ports"]).iter().find(same).and_then(|had| had.get("nodePort"));
            let free = had.and_then(Value::as_i64).filter(|number| !used.contains(number));
            if let (None, Some(number)) = (port.get("nodePort"), free) {
                used.push(number);
                port.insert("nodePort".to_owned(), number.into());
            }
        }
    }
    if is::needs_health_check(old) && is::needs_health_check(new) && is::health_check_port(new) == 0 {
        keep(new, old, &["spec", "healthCheckNodePort"]);
    }
}

/// A change of type takes with it what only the old type had, unless the request changed that too.
fn drop_by_type(new: &mut Object, old: &Object) {
    if is::needs_cluster_ip(old) && !is::needs_cluster_ip(new) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            drop_same(new, old, field);
        }
    }
    if is::of(old) == "LoadBalancer" && is::of(new) != "LoadBalancer" {
        drop_same(new, old, "allocateLoadBalancerNodePorts");
        drop_same(new, old, "loadBalancerClass");
    }
    if is::needs_health_check(old) && !is::needs_health_check(new) {
        drop_same(new, old, "healthCheckNodePort");
    }
    if is::needs_node_ports(old) && !is::needs_node_ports(new) && is::node_ports(old) == is::node_ports(new) {
        maps_mut(new, &["spec", "ports"]).for_each(|port| {
            port.remove("nodePort");
        });
    }
    if is::is_externally_accessible(old) && !is::is_externally_accessible(new) {
        drop_same(new, old, "externalTrafficPolicy");
    }
    if is::of(new) != "LoadBalancer" {
        new.set(&["status", "loadBalancer"], json!({}));
    }
}

fn drop_same(new: &mut Object, old: &Object, field: &str) {
    if new.get(&["spec", field]) == old.get(&["spec", field]) {
        new.remove(&["spec", field]);
    }
}

/// Keeps `clusterIP` and the first of `clusterIPs` the same when the request gives only one of them.
fn normalize(new: &mut Object, old: Option<&Object>) {
    let one = is::cluster_ip(new).to_owned();
    let many: Vec<String> = is::cluster_ips(new).into_iter().map(str::to_owned).collect();
    let Some(old) = old else {
        if !one.is_empty() && many.is_empty() {
            new.set(&["spec", "clusterIPs"], json!([one]));
        }
        return;
    };
    let same_many = many == is::cluster_ips(old);
    let same_one = one == is::cluster_ip(old);
    if !same_one && same_many {
        if one.is_empty() {
            new.remove(&["spec", "clusterIPs"]);
        } else {
            new.set(&["spec", "clusterIPs"], json!([one]));
        }
    } else if same_one && many.is_empty() {
        new.remove(&["spec", "clusterIP"]);
    }
}

impl Service {
    /// `ipFamilyPolicy` and `ipFamilies`.
    fn families(&self, new: &mut Object, old: Option<&Object>, errors: &mut Errors) {
        if !is::needs_cluster_ip(new) {
            return;
        }
        const POLICY: [&str; 2] = ["spec", "ipFamilyPolicy"];
        const FAMILIES: [&str; 2] = ["spec", "ipFamilies"];
        let own = self.options.service_cidr.family();
        let free = is::is_headless(new)
            && new
                .get(&["spec", "selector"])
                .and_then(Value::as_object)
                .is_none_or(serde_json::Map::is_empty);
        if new.get(&POLICY).is_none_or(Value::is_null) {
            let before = old.and_then(|old| old.str(&POLICY));
            let policy = before.unwrap_or(if free { "RequireDualStack" } else { "SingleStack" }).to_owned();
            new.set(&POLICY, policy);
        }
        service_rules::addresses(new, errors);
        let single = new.str(&POLICY) == Some("SingleStack");
        for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if single && new.list(&["spec", field]).len() > 1 {
                let detail = format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                );
                errors.push(FieldError::invalid("spec.ipFamilyPolicy", &json!("SingleStack"), detail));
            }
        }
        if free {
            if new.list(&FAMILIES).is_empty() {
                let other = if own == "IPv4" { "IPv6" } else { "IPv4" };
                new.set(&FAMILIES, if single { json!([own]) } else { json!([own, other]) });
            }
            return;
        }
        if new.str(&POLICY) == Some("RequireDualStack") {
            let detail = "this cluster is not configured for dual-stack services";
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", &json!("RequireDualStack"), detail));
        }
        for (i, family) in new.list(&FAMILIES).iter().enumerate() {
            if family != own {
                let field = format!("spec.ipFamilies[{i}]");
                errors.push(FieldError::invalid(field, family, "not configured on this cluster"));
            }
        }
        if new.list(&FAMILIES).is_empty() {
            new.set(&FAMILIES, json!([own]));
        }
    }

    /// `clusterIP`: the one asked for, if it is free, or one that is.
    fn address(
        &self,
        cx: &Context<'_>,
        new: &mut Object,
        old: Option<&Object>,
        errors: &mut Errors,
    ) -> Result<(), Status> {
        if !is::needs_cluster_ip(new) || is::is_headless(new) {
            return Ok(());
        }
        let held = old.filter(|old| is::needs_cluster_ip(old));
        if held.is_some() {
            return Ok(()); // it cannot change; validation says so
        }
        let ranges = service_ip::ranges(cx, self.options.service_cidr);
        let asked = is::cluster_ip(new).to_owned();
        let chosen = if asked.is_empty() {
            let free =
                ranges.iter().find_map(|range| service_ip::free_address(cx, *range)).ok_or_else(|| {
                    let name = new.name();
                    Status::internal(format!(
                        "failed to allocate a serviceIP for Service \"{name}\": range is full"
                    ))
                })?;
            free.to_string()
        } else {
            let within = |address: IpAddr| ranges.iter().any(|range| range.contains(address));
            let why = if !asked.parse::<IpAddr>().is_ok_and(within) {
                let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
                format!(
                    "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {}",
                    ranges.join(", ")
                )
            } else if cx.view.get(&claims::addresses(), "", &asked).is_some() {
                "provided IP is already allocated".to_owned()
            } else {
                String::new()
            };
            if !why.is_empty() {
                let detail = format!("failed to allocate IP {asked}: {why}");
                errors.push(FieldError::invalid("spec.clusterIPs", &json!([asked]), detail));
                return Ok(());
            }
            asked
        };
        new.set(&["spec", "clusterIPs"], json!([chosen]));
        new.set(&["spec", "clusterIP"], chosen);
        Ok(())
    }

    /// Node ports, and the port that load balancers ask for health.
    fn ports(
        &self,
        cx: &Context<'_>,
        new: &mut Object,
        old: Option<&Object>,
        errors: &mut Errors,
    ) -> Result<(), Status> {
        let mut held = old.map(is::node_ports).unwrap_or_default();
        held.extend(old.map(is::health_check_port));
        if is::needs_node_ports(new) {
            let mut mine = is::node_ports(new);
            let choose = is::chooses_node_ports(new);
            let full = || Status::internal("failed to allocate a nodePort: range is full");
            let mut by_protocol: Vec<(i64, Value)> = Vec::new();
            for (i, port) in maps_mut(new, &["spec", "ports"]).enumerate() {
                let number = match port.get("nodePort").and_then(Value::as_i64).filter(|n| *n != 0) {
                    Some(asked) => {
                        let why = if held.contains(&asked) { None } else { self.port_refused(cx, asked) };
                        let field = format!("spec.ports[{i}].nodePort");
                        errors.extend(why.map(|why| FieldError::invalid(field, &json!(asked), why)));
                        asked
                    }
                    None if choose => {
                        // The same port for another protocol gets the same node port (upstream does so for
                        // DNS, which is TCP and UDP on 53).
                        let same = by_protocol.iter().find(|(_, p)| Some(p) == port.get("port"));
                        let chosen = same.map(|(number, _)| *number);
                        match chosen
                            .or_else(|| service_ip::free_port(cx, self.options.node_port_range, &mine))
                        {
                            Some(number) => number,
                            None => return Err(full()),
                        }
                    }
                    None => continue,
                };
                mine.push(number);
                by_protocol.push((number, port.get("port").cloned().unwrap_or(Value::Null)));
                port.insert("nodePort".to_owned(), number.into());
            }
        }
        if is::needs_health_check(new) && old.is_none_or(|old| !is::needs_health_check(old)) {
            let asked = is::health_check_port(new);
            if asked == 0 {
                let mine = is::node_ports(new);
                let free = service_ip::free_port(cx, self.options.node_port_range, &mine);
                let why = "failed to allocate a HealthCheck NodePort: range is full";
                new.set(&["spec", "healthCheckNodePort"], free.ok_or_else(|| Status::internal(why))?);
            } else if let Some(why) = self.port_refused(cx, asked).filter(|_| !held.contains(&asked)) {
                let text = format!("failed to allocate requested HealthCheck NodePort {asked}: {why}");
                return Err(Status::internal(text));
            }
        }
        Ok(())
    }

    /// Why a port that the user asked for cannot be had.
    fn port_refused(&self, cx: &Context<'_>, port: i64) -> Option<String> {
        let (low, high) = self.options.node_port_range;
        if !(i64::from(low)..=i64::from(high)).contains(&port) {
            let text = "provided port is not in the valid range. The range of valid ports is";
            return Some(format!("{text} {low}-{high}"));
        }
        let claimed = cx.view.get(&claims::node_ports(), "", &port.to_string());
        claimed.map(|_| "provided port is already allocated".to_owned())
    }
}
