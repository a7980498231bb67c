use meta::ObjectKey;
use serde_json::{Value, json};

use super::*;
use crate::services::{Change, Services, tests};

fn planned(spec: Value, endpoints: Value) -> Fragment {
    let mut all = Services::default();
    let mut with_ip = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80, "nodePort": 0}]});
    for (key, value) in spec.as_object().unwrap() {
        with_ip[key] = value.clone();
    }
    all.apply(tests::service("web", with_ip));
    all.apply(tests::slice(
        "s",
        "web",
        json!([{"name": "", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]),
        endpoints,
    ));
    let key = ObjectKey::new("ns", "web");
    let place = Place { node: "here".into(), cluster_cidr: "10.244.0.0/16".into(), masquerade_all: false };
    plan(all.get(&key).unwrap(), all.endpoints(&key), &place)
}

/// Elements with hashes cut out of chain names: `table key: verdict`.
fn elements(fragment: &Fragment) -> Vec<String> {
    let plain = |verdict: &str| match verdict.split_once('-') {
        Some((kind, rest)) if rest.contains('/') => format!("{kind} {}", rest.split_once('-').unwrap().1),
        _ => verdict.to_owned(),
    };
    fragment
        .elements
        .iter()
        .map(|((table, key), v)| format!("{} {key}: {}", table.name(), plain(v)))
        .collect()
}

fn rules<'a>(fragment: &'a Fragment, prefix: &str) -> &'a [String] {
    let mut chains = fragment.chains.iter().filter(|(name, _)| name.starts_with(prefix));
    let found = chains.next().unwrap_or_else(|| panic!("no chain {prefix}: {:?}", fragment.chains.keys()));
    assert!(chains.next().is_none(), "more than one {prefix}");
    found.1
}

const HERE: &str = "10.244.0.5";

fn endpoint(ip: &str, more: Value) -> Value {
    let mut endpoint = json!({"addresses": [ip], "nodeName": if ip == HERE { "here" } else { "there" }});
    for (key, value) in more.as_object().unwrap() {
        endpoint[key] = value.clone();
    }
    endpoint
}

#[test]
fn a_cluster_ip_leads_to_its_endpoints() {
    let fragment =
        planned(json!({}), json!([endpoint("10.244.0.5", json!({})), endpoint("10.244.1.5", json!({}))]));
    assert_eq!(
        elements(&fragment),
        ["cluster-ips 10.96.0.1: ", "service-ips 10.96.0.1 . tcp . 80: goto service ns/web/tcp/80"]
    );
    let service = rules(&fragment, "service-");
    assert_eq!(
        service[0],
        "ip daddr 10.96.0.1 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade"
    );
    assert!(
        service[1].starts_with("numgen random mod 2 vmap { 0 : goto endpoint-")
            && service[1].ends_with("__10.244.1.5/8080 }")
    );
    let rewrites = fragment.chains.iter().find(|(name, _)| name.ends_with("__10.244.1.5/8080")).unwrap();
    assert_eq!(
        rewrites.1,
        &["ip saddr 10.244.1.5 jump mark-for-masquerade", "meta l4proto tcp dnat to 10.244.1.5:8080"]
    );
}

#[test]
fn nobody_there_is_refused_and_nobody_here_is_dropped() {
    let reject = "no-endpoint-services 10.96.0.1 . tcp . 80: goto reject-chain";
    let unready = json!([endpoint(HERE, json!({"conditions": {"ready": false}}))]);
    for endpoints in [json!([]), unready] {
        let fragment = planned(json!({}), endpoints);
        assert_eq!(elements(&fragment)[1..], [reject]);
        assert!(fragment.chains.is_empty());
    }
    let there = json!([endpoint("10.244.1.5", json!({}))]);
    let local = planned(json!({"internalTrafficPolicy": "Local"}), there.clone());
    assert_eq!(elements(&local)[1..], ["no-endpoint-services 10.96.0.1 . tcp . 80: drop"]);
    let port = json!({"externalTrafficPolicy": "Local", "ports": [{"port": 80, "nodePort": 30080}]});
    assert!(elements(&planned(port, there)).contains(&"no-endpoint-nodeports tcp . 30080: drop".to_owned()));
    // Named ports must match.
    let named = planned(json!({"ports": [{"port": 80, "name": "http"}]}), json!([endpoint(HERE, json!({}))]));
    assert_eq!(elements(&named)[1..], [reject]);
}

#[test]
fn the_terminating_serve_when_nobody_else_does() {
    let going = json!({"conditions": {"ready": false, "serving": true, "terminating": true}});
    let fragment = planned(json!({}), json!([endpoint(HERE, going.clone())]));
    assert!(rules(&fragment, "service-")[1].contains("numgen random mod 1"));
    let both = planned(json!({}), json!([endpoint(HERE, going), endpoint("10.244.1.5", json!({}))]));
    assert!(!both.chains.keys().any(|name| name.ends_with("__10.244.0.5/8080")));
}

#[test]
fn outside_traffic_follows_its_policy() {
    let ports = json!([{"port": 80, "nodePort": 30080}]);
    let endpoints = json!([endpoint(HERE, json!({})), endpoint("10.244.1.5", json!({}))]);
    let spec = json!({"ports": ports, "externalIPs": ["192.0.2.1"]});
    let cluster = planned(spec.clone(), endpoints.clone());
    assert_eq!(
        elements(&cluster)[1..],
        [
            "service-ips 10.96.0.1 . tcp . 80: goto service ns/web/tcp/80",
            "service-ips 192.0.2.1 . tcp . 80: goto external ns/web/tcp/80",
            "service-nodeports tcp . 30080: goto external ns/web/tcp/80",
        ]
    );
    assert_eq!(rules(&cluster, "external-")[0], "jump mark-for-masquerade");
    let mut spec = spec;
    spec["externalTrafficPolicy"] = "Local".into();
    let local = planned(spec, endpoints);
    assert!(rules(&local, "external-").last().unwrap().starts_with("goto local-"));
    assert!(rules(&local, "local-").last().unwrap().contains("mod 1"));
    assert!(rules(&local, "service-").last().unwrap().contains("mod 2"));
}

#[test]
fn affinity_remembers_clients() {
    let spec =
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
    let fragment = planned(spec, json!([endpoint(HERE, json!({}))]));
    let (set, seconds) = fragment.affinity.iter().next().unwrap();
    assert_eq!(*seconds, 60);
    assert!(rules(&fragment, "service-")[1].starts_with(&format!("ip saddr @{set} goto endpoint-")));
    assert_eq!(rules(&fragment, "endpoint-")[1], format!("update @{set} {{ ip saddr timeout 60s }}"));
}

#[test]
fn source_ranges_guard_load_balancers_only() {
    let mut all = Services::default();
    let wire = json!({"metadata": {"namespace": "ns", "name": "lb"}, "spec": {
        "clusterIP": "10.96.0.1", "ports": [{"port": 80}], "externalIPs": ["192.0.2.9"],
        "loadBalancerSourceRanges": ["203.0.113.0/24", "nonsense; drop table"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}]}}});
    all.apply(Change::Service(Box::new(Service::read(&serde_json::from_value(wire).unwrap()))));
    let key = ObjectKey::new("ns", "lb");
    let place = Place { node: "here".into(), cluster_cidr: "10.244.0.0/16".into(), masquerade_all: false };
    let fragment = plan(all.get(&key).unwrap(), all.endpoints(&key), &place);
    let guarded: Vec<_> = fragment.elements.keys().filter(|(table, _)| *table == Table::Firewall).collect();
    assert_eq!(guarded, [&(Table::Firewall, "192.0.2.1 . tcp . 80".to_owned())]);
    assert_eq!(rules(&fragment, "firewall-"), ["ip saddr 203.0.113.0/24 return", "drop"]);
}

#[test]
fn headless_and_external_names_need_nothing() {
    for spec in [
        json!({"clusterIP": "None"}),
        json!({"clusterIP": null, "type": "ExternalName", "externalName": "a.b"}),
    ] {
        assert_eq!(planned(spec, json!([endpoint(HERE, json!({}))])), Fragment::default());
    }
}

#[test]
fn names_fit_the_kernel_and_stay_apart() {
    let long = "n".repeat(63);
    let port = |name: &str| ServicePort { name: name.into(), protocol: Protocol::Tcp, port: 1, node_port: 0 };
    let Change::Service(mut service) = tests::service(&long, json!({"clusterIP": "10.96.0.1"})) else {
        panic!("not a service")
    };
    service.key.namespace.clone_from(&long);
    let name = |port: &ServicePort| {
        let place = Place { node: String::new(), cluster_cidr: String::new(), masquerade_all: false };
        let (all, local) = (BTreeSet::new(), BTreeSet::new());
        Port { service: &service, port, place: &place, all, local }.name("endpoint")
    };
    assert!(name(&port("a")).len() + "__255.255.255.255/65535".len() <= 127);
    assert_ne!(name(&port("a")), name(&port("b")));
}
