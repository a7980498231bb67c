use super::*;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn fragment(chains: &[(&str, &[&str])], elements: &[(&str, &str)], udp: &[u8]) -> Fragment {
    let front = Front::Address(Ipv4Addr::new(10, 96, 0, 1), 53);
    Fragment {
        chains: chains
            .iter()
            .map(|(name, rules)| ((*name).to_owned(), rules.iter().map(|r| (*r).to_owned()).collect()))
            .collect(),
        affinity: BTreeMap::new(),
        elements: elements
            .iter()
            .map(|(at, v)| ((Table::ServiceIps, (*at).to_owned()), (*v).to_owned()))
            .collect(),
        udp: [(front, udp.iter().map(|n| Ipv4Addr::new(10, 0, 0, *n)).collect())].into(),
    }
}

/// Replaces one service and gives the script of the update.
fn script(ruleset: &mut Ruleset, service: &str, new: Option<Fragment>) -> Vec<String> {
    ruleset.replace(&key(service), new);
    ruleset.update().script.lines().map(str::to_owned).collect()
}

#[test]
fn scripts_name_only_what_changed() {
    let mut ruleset = Ruleset::default();
    let one =
        || fragment(&[("svc-a", &["goto ep-1"]), ("ep-1", &["dnat to 1"])], &[("k", "goto svc-a")], &[]);
    assert_eq!(
        script(&mut ruleset, "a", Some(one())),
        [
            "add chain ip keelson ep-1",
            "add chain ip keelson svc-a",
            "add rule ip keelson ep-1 dnat to 1",
            "add rule ip keelson svc-a goto ep-1",
            "add element ip keelson service-ips { k : goto svc-a }",
        ]
    );
    assert!(script(&mut ruleset, "a", Some(one())).is_empty());
    let moved = fragment(&[("svc-a", &["goto ep-2"]), ("ep-2", &["dnat to 2"])], &[("k", "goto svc-a")], &[]);
    ruleset.replace(&key("a"), Some(moved));
    let update = ruleset.update();
    assert_eq!(
        update.script.lines().collect::<Vec<_>>(),
        [
            "add chain ip keelson ep-2",
            "add chain ip keelson svc-a",
            "add rule ip keelson ep-2 dnat to 2",
            "flush chain ip keelson svc-a",
            "add rule ip keelson svc-a goto ep-2",
            "flush chain ip keelson ep-1",
        ]
    );
    assert_eq!(update.stale_chains, ["ep-1".to_owned()].into());
    assert_eq!(delete(&update.stale_chains, &BTreeSet::new()), "delete chain ip keelson ep-1\n");
    assert!(!ruleset.uses("ep-1") && ruleset.uses("ep-2"));
    // Away and back within one batch is no change.
    ruleset.replace(&key("a"), None);
    let back = fragment(&[("svc-a", &["goto ep-2"]), ("ep-2", &["dnat to 2"])], &[("k", "goto svc-a")], &[]);
    assert!(script(&mut ruleset, "a", Some(back)).is_empty());
}

#[test]
fn the_first_claimant_keeps_an_address_until_it_goes() {
    let mut ruleset = Ruleset::default();
    script(&mut ruleset, "b", Some(fragment(&[], &[("k", "goto b")], &[])));
    let taken = script(&mut ruleset, "a", Some(fragment(&[], &[("k", "goto a")], &[])));
    assert_eq!(
        taken,
        ["delete element ip keelson service-ips { k }", "add element ip keelson service-ips { k : goto a }"]
    );
    assert!(script(&mut ruleset, "c", Some(fragment(&[], &[("k", "goto c")], &[]))).is_empty());
    let back = script(&mut ruleset, "a", None);
    assert_eq!(back[1], "add element ip keelson service-ips { k : goto b }");
    assert!(script(&mut ruleset, "c", None).is_empty());
    assert_eq!(script(&mut ruleset, "b", None), ["delete element ip keelson service-ips { k }"]);
    assert_eq!(ruleset.services(), 0);
}

#[test]
fn udp_connections_to_what_is_gone_are_forgotten() {
    let mut ruleset = Ruleset::default();
    let mut flushes = |endpoints: &[u8]| -> Vec<Option<String>> {
        ruleset.replace(&key("a"), Some(fragment(&[], &[], endpoints)));
        ruleset.update().flushes.iter().map(|f| f.endpoint.map(|ip| ip.to_string())).collect()
    };
    assert!(flushes(&[]).is_empty());
    // Served for the first time: whatever was tracked before went nowhere.
    assert_eq!(flushes(&[1, 2]), [None]);
    assert_eq!(flushes(&[2, 3]), [Some("10.0.0.1".to_owned())]);
    assert_eq!(flushes(&[]), [Some("10.0.0.2".to_owned()), Some("10.0.0.3".to_owned())]);
    assert_eq!(ruleset.rewrite("").flushes.len(), 1);
}

#[test]
fn a_rewrite_says_everything() {
    let mut ruleset = Ruleset::default();
    ruleset.replace(&key("a"), Some(fragment(&[("svc-a", &["r"])], &[("k", "goto svc-a")], &[])));
    let update = ruleset.rewrite("base\n");
    assert_eq!(
        update.script.lines().collect::<Vec<_>>(),
        [
            "base",
            "add chain ip keelson svc-a",
            "add rule ip keelson svc-a r",
            "add element ip keelson service-ips { k : goto svc-a }",
        ]
    );
    assert!(ruleset.update().script.is_empty());
}
