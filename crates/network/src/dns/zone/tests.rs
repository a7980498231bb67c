use serde_json::json;

use super::*;
use crate::services::tests::{service, slice};

fn zone() -> Zone {
    let mut zone =
        Zone::new(&Name::from_ascii("cluster.local").unwrap(), vec!["10.96.0.10".parse().unwrap()]);
    let http = json!([{"name": "http", "port": 80}]);
    for change in [
        service(
            "web",
            json!({"clusterIPs": ["10.96.0.1", "fd00::1"], "ports": [
            {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}),
        ),
        slice("web-1", "web", http.clone(), json!([{"addresses": ["10.244.0.9"]}])),
        service("db", json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]})),
        slice(
            "db-1",
            "db",
            http.clone(),
            json!([
            {"addresses": ["10.244.0.5"], "hostname": "db-0"},
            {"addresses": ["10.244.0.6"]},
            {"addresses": ["10.244.0.7"], "hostname": "db-2", "conditions": {"ready": false}}]),
        ),
        service("all", json!({"clusterIP": "None", "publishNotReadyAddresses": true})),
        slice(
            "all-1",
            "all",
            json!([]),
            json!([{"addresses": ["10.244.0.7"], "conditions": {"ready": false}}]),
        ),
        service("none", json!({"clusterIP": "None"})),
        service("out", json!({"type": "ExternalName", "externalName": "example.org"})),
    ] {
        zone.apply(change);
    }
    zone
}

/// The answer as text: records by data, `+` before additional ones.
fn check(name: &str, kind: RecordType, expected: &[&str]) {
    let asked = Name::from_ascii(name).unwrap();
    let got: Vec<String> = match zone().resolve(&asked, kind) {
        Answer::Records(answers, more) => {
            assert!(
                answers.iter().all(|r| r.name == asked || r.record_type() == RecordType::SOA),
                "{answers:?}"
            );
            let more = more.iter().map(|r| format!("+{} {}", r.name, r.data));
            answers.iter().map(|r| r.data.to_string()).chain(more).collect()
        }
        Answer::Alias(_, target) => vec![format!("alias {target}")],
        Answer::NoData => vec!["no data".into()],
        Answer::NoName => vec!["no name".into()],
        Answer::Foreign => vec!["foreign".into()],
    };
    assert_eq!(got, expected, "{name} {kind}");
}

#[test]
fn services_and_endpoints() {
    use RecordType::{A, AAAA, MX};
    check("web.ns.svc.cluster.local.", A, &["10.96.0.1"]);
    check("web.ns.svc.cluster.local.", AAAA, &["fd00::1"]);
    check("web.ns.svc.cluster.local.", MX, &["no data"]);
    check("WEB.ns.SVC.cluster.local.", A, &["10.96.0.1"]);
    check("web.other.svc.cluster.local.", A, &["no name"]);
    check("nope.ns.svc.cluster.local.", A, &["no name"]);
    check("db.ns.svc.cluster.local.", A, &["10.244.0.5", "10.244.0.6"]);
    check("db.ns.svc.cluster.local.", AAAA, &["no data"]);
    check("all.ns.svc.cluster.local.", A, &["10.244.0.7"]);
    check("none.ns.svc.cluster.local.", A, &["no name"]);
    check("db-0.db.ns.svc.cluster.local.", A, &["10.244.0.5"]);
    check("10-244-0-6.db.ns.svc.cluster.local.", A, &["10.244.0.6"]);
    check("db-2.db.ns.svc.cluster.local.", A, &["no name"]);
    check("db-9.db.ns.svc.cluster.local.", A, &["no name"]);
    check("out.ns.svc.cluster.local.", A, &["alias example.org."]);
    check("10-1-2-3.ns.pod.cluster.local.", A, &["10.1.2.3"]);
    check("10-1-2.ns.pod.cluster.local.", A, &["no name"]);
    check("10-1-2-3.other.pod.cluster.local.", A, &["no name"]);
}

#[test]
fn ports() {
    use RecordType::{A, SRV};
    check(
        "_http._tcp.web.ns.svc.cluster.local.",
        SRV,
        &[
            "0 100 80 web.ns.svc.cluster.local.",
            "+web.ns.svc.cluster.local. 10.96.0.1",
            "+web.ns.svc.cluster.local. fd00::1",
        ],
    );
    check(
        "_dns._udp.web.ns.svc.cluster.local.",
        SRV,
        &[
            "0 100 53 web.ns.svc.cluster.local.",
            "+web.ns.svc.cluster.local. 10.96.0.1",
            "+web.ns.svc.cluster.local. fd00::1",
        ],
    );
    check("_dns._tcp.web.ns.svc.cluster.local.", SRV, &["no name"]);
    check("_http._tcp.web.ns.svc.cluster.local.", A, &["no data"]);
    check("_tcp.web.ns.svc.cluster.local.", A, &["no data"]);
    check(
        "_http._tcp.db.ns.svc.cluster.local.",
        SRV,
        &[
            "0 50 80 10-244-0-6.db.ns.svc.cluster.local.",
            "0 50 80 db-0.db.ns.svc.cluster.local.",
            "+10-244-0-6.db.ns.svc.cluster.local. 10.244.0.6",
            "+db-0.db.ns.svc.cluster.local. 10.244.0.5",
        ],
    );
}

#[test]
fn the_zone_itself() {
    use RecordType::{A, NS, SOA, TXT};
    check("dns-version.cluster.local.", TXT, &["1.1.0"]);
    check("dns-version.cluster.local.", A, &["no data"]);
    check("cluster.local.", A, &["no data"]);
    check("cluster.local.", NS, &["ns.dns.cluster.local."]);
    check("ns.dns.cluster.local.", A, &["10.96.0.10"]);
    check("svc.cluster.local.", A, &["no data"]);
    check("ns.svc.cluster.local.", A, &["no data"]);
    check("other.svc.cluster.local.", A, &["no name"]);
    check("a.b.c.d.svc.cluster.local.", A, &["no name"]);
    check("example.org.", A, &["foreign"]);
    check("xcluster.local.", SOA, &["foreign"]);
}

#[test]
fn reverse_names() {
    use RecordType::{A, PTR};
    check("1.0.96.10.in-addr.arpa.", PTR, &["web.ns.svc.cluster.local."]);
    check("1.0.96.10.in-addr.arpa.", A, &["no data"]);
    check("5.0.244.10.in-addr.arpa.", PTR, &["db-0.db.ns.svc.cluster.local."]);
    check("7.0.244.10.in-addr.arpa.", PTR, &["10-244-0-7.all.ns.svc.cluster.local."]);
    check("8.8.8.8.in-addr.arpa.", PTR, &["foreign"]);
    check("8.8.8.in-addr.arpa.", PTR, &["foreign"]);
    let fd00 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    check(fd00, PTR, &["web.ns.svc.cluster.local."]);
}

#[test]
fn what_goes_is_forgotten() {
    let mut zone = zone();
    let before = zone.start_of_authority();
    for name in ["web", "db", "all", "none", "out"] {
        zone.apply(Change::ServiceGone(ObjectKey::new("ns", name)));
    }
    let resolve = |name: &str, kind| zone.resolve(&Name::from_ascii(name).unwrap(), kind);
    assert_eq!(resolve("ns.svc.cluster.local.", RecordType::A), Answer::NoName);
    assert_eq!(resolve("1.0.96.10.in-addr.arpa.", RecordType::PTR), Answer::Foreign);
    assert!(zone.owners.is_empty() && zone.addresses.is_empty());
    assert_ne!(zone.start_of_authority(), before, "the serial moves with every change");
    assert_eq!(before.ttl, TTL_SHORT);
}
