use serde_json::json;

use super::*;

fn volumes() -> Volumes {
    let mut all = Volumes::default();
    for (name, mode, provisioner) in [
        ("local", "WaitForFirstConsumer", "keelson.dev/local-path"),
        ("static", "WaitForFirstConsumer", "kubernetes.io/no-provisioner"),
        ("now", "Immediate", "x"),
    ] {
        let class =
            json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
        all.set_class(StorageClass::read(&serde_json::from_value(class).unwrap()));
    }
    all
}

fn claim(name: &str, class: &str, size: &str, more: serde_json::Value) -> Claim {
    let mut claim = json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    });
    merge(&mut claim, more);
    Claim::read(&serde_json::from_value(claim).unwrap())
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (k, v) in from {
                merge(into.entry(k).or_insert(serde_json::Value::Null), v);
            }
        }
        (into, from) => *into = from,
    }
}

fn volume(name: &str, class: &str, size: &str, node: &str) -> Volume {
    Volume::read(
        &serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}
            },
            "status": {"phase": "Available"}
        }))
        .unwrap(),
    )
}

fn shape(claims: &[&str]) -> Shape {
    Shape {
        claims_namespace: "ns".into(),
        claims: claims.iter().map(|c| (*c).to_owned()).collect(),
        ..Shape::default()
    }
}

fn fit(all: &Volumes, claims: &[&str], node: &str) -> Result<Bindings, String> {
    let plan = all.plan(&shape(claims)).map_err(|r| r.to_string())?;
    all.fit(&plan, node, &BTreeMap::new()).map_err(|r| r.join(", "))
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

#[test]
fn claims_that_stop_a_pod_everywhere() {
    let mut all = volumes();
    all.set_claim(claim("immediate", "now", "1Gi", json!({})));
    all.set_claim(claim("classless", "", "1Gi", json!({})));
    all.set_claim(claim(
        "going",
        "local",
        "1Gi",
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    ));
    all.set_claim(claim(
        "lost",
        "local",
        "1Gi",
        json!({"spec": {"volumeName": "v"}, "status": {"phase": "Lost"}}),
    ));
    all.set_claim(claim("half", "local", "1Gi", json!({"spec": {"volumeName": "v"}})));
    for (name, expected) in [
        ("absent", "persistentvolumeclaim \"absent\" not found"),
        ("immediate", UNBOUND_IMMEDIATE),
        ("classless", UNBOUND_IMMEDIATE),
        ("half", UNBOUND_IMMEDIATE),
        ("going", "persistentvolumeclaim \"going\" is being deleted"),
        ("lost", "persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"v\""),
    ] {
        assert_eq!(fit(&all, &[name], "n1"), Err(expected.into()));
    }
}

#[test]
fn bound_claims_follow_their_volume() {
    let mut all = volumes();
    all.set_claim(claim(
        "c",
        "local",
        "1Gi",
        json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound"}}),
    ));
    assert_eq!(fit(&all, &["c"], "n1"), Err(NO_VOLUME.into()));
    all.set_volume(volume("v", "local", "1Gi", "n1"));
    assert_eq!(fit(&all, &["c"], "n1"), Ok(Bindings::default()));
    assert_eq!(fit(&all, &["c"], "n2"), Err(CONFLICT.into()));
    assert_eq!(all.progress(&shape(&["c"]), "n1", &BTreeMap::new()), Progress::Bound);
    assert!(matches!(all.progress(&shape(&["c"]), "n2", &BTreeMap::new()), Progress::Failed(_)));
}

#[test]
fn waiting_claims_are_provisioned_where_the_pod_goes() {
    let mut all = volumes();
    all.set_claim(claim("c", "local", "1Gi", json!({})));
    let bindings = fit(&all, &["c"], "n1").unwrap();
    assert_eq!(bindings, Bindings { provision: vec![key("c")], ..Bindings::default() });
    // A second pod with the same claim must follow the first, before and after the write is seen.
    all.assume(&bindings, &"n1".into());
    assert_eq!(fit(&all, &["c"], "n2"), Err(NOTHING_TO_BIND.into()));
    assert!(fit(&all, &["c"], "n1").is_ok());
    all.forget(&bindings);
    assert!(fit(&all, &["c"], "n2").is_ok());
    all.set_claim(claim("c", "local", "1Gi", json!({"metadata": {"annotations": {SELECTED_NODE: "n1"}}})));
    assert_eq!(fit(&all, &["c"], "n2"), Err(NOTHING_TO_BIND.into()));
    assert_eq!(all.progress(&shape(&["c"]), "n1", &BTreeMap::new()), Progress::Waiting);
}

#[test]
fn static_volumes_are_matched_smallest_first_and_never_twice() {
    let mut all = volumes();
    all.set_claim(claim("small", "static", "1Gi", json!({})));
    all.set_claim(claim("large", "static", "5Gi", json!({})));
    assert_eq!(fit(&all, &["small"], "n1"), Err(NOTHING_TO_BIND.into()));
    all.set_volume(volume("ten", "static", "10Gi", "n1"));
    all.set_volume(volume("two", "static", "2Gi", "n1"));
    all.set_volume(volume("other", "local", "1Gi", "n1"));
    let small = fit(&all, &["small"], "n1").unwrap();
    assert_eq!(small.reserve, [("two".into(), key("small"), "small".into())]);
    let both = fit(&all, &["large", "small"], "n1").unwrap();
    assert_eq!(
        both.reserve,
        [("ten".into(), key("large"), "large".into()), ("two".into(), key("small"), "small".into())]
    );
    assert_eq!(fit(&all, &["small"], "n2"), Err(NOTHING_TO_BIND.into()));
    // Reserved for one, gone for the other.
    all.assume(&small, &"n1".into());
    all.remove_volume("ten");
    all.set_claim(claim("rival", "static", "1Gi", json!({})));
    assert_eq!(fit(&all, &["rival"], "n1"), Err(NOTHING_TO_BIND.into()));
}

#[test]
fn topologies_bound_where_a_class_provisions() {
    let mut all = volumes();
    let class = json!({"metadata": {"name": "zonal"}, "provisioner": "p", "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]});
    all.set_class(StorageClass::read(&serde_json::from_value(class).unwrap()));
    all.set_claim(claim("c", "zonal", "1Gi", json!({})));
    let plan = all.plan(&shape(&["c"])).unwrap();
    let zone = |z: &str| BTreeMap::from([("zone".to_owned(), z.to_owned())]);
    assert!(all.fit(&plan, "n", &zone("a")).is_ok());
    assert!(all.fit(&plan, "n", &zone("b")).is_err());
}
