//! Server-side apply and field tracking by example; the expectations are what kube-apiserver does.

use meta::Object;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Applied, ApplyError, Request, apply, entries, own, update};
use crate::{
    Schema,
    testing::{config_map, deployment},
};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn at(second: i64) -> meta::Timestamp {
    meta::Timestamp::from_second(second).unwrap()
}

fn request(manager: &str, second: i64) -> Request<'_> {
    Request { manager, api_version: "apps/v1", subresource: "", reset: &["status"], now: at(second) }
}

fn with_spec(spec: Value) -> Object {
    object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}))
}

fn run(live: Option<&Object>, spec: Value, manager: &str, second: i64) -> Result<Applied, ApplyError> {
    apply(&deployment(), live, &with_spec(spec), &request(manager, second), false)
}

fn fields_of<'a>(object: &'a Object, manager: &str) -> &'a Value {
    let entries = object.list(&["metadata", "managedFields"]);
    &entries.iter().find(|e| e["manager"] == manager).unwrap_or_else(|| panic!("{manager}: {entries:?}"))["fieldsV1"]
}

fn managers(object: &Object) -> Vec<&str> {
    object.list(&["metadata", "managedFields"]).iter().map(|e| e["manager"].as_str().unwrap()).collect()
}

#[test]
fn apply_creates_and_owns_what_it_sets() {
    let applied = run(
        None,
        json!({"replicas": 2, "template": {"spec": {"containers": [
            {"name": "a", "image": "i", "args": ["x"], "ports": [{"containerPort": 80}]}]}}}),
        "me",
        1,
    )
    .unwrap();
    assert!(applied.changed);
    assert_eq!(
        applied.object.get(&["metadata", "managedFields"]),
        Some(&json!([{
            "manager": "me", "operation": "Apply", "apiVersion": "apps/v1", "time": "1970-01-01T00:00:01Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {}, "f:args": {}, "f:ports": {
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}}
        }]))
    );
}

#[test]
fn applying_again_changes_nothing() {
    let spec = json!({"replicas": 2, "template": {"metadata": {"labels": {"a": "b"}}}});
    let first = run(None, spec.clone(), "me", 1).unwrap().object;
    let again = run(Some(&first), spec, "me", 9).unwrap();
    assert_eq!(again, Applied { object: first, changed: false });
}

#[test]
fn what_an_applier_stops_setting_goes() {
    let container = |name: &str, image: &str| json!({"name": name, "image": image});
    let pods = |containers: Value, labels: Value| json!({"template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}});
    let first = run(
        None,
        pods(json!([container("a", "1"), container("b", "1")]), json!({"x": "1", "y": "1"})),
        "me",
        1,
    );
    let second =
        run(Some(&first.unwrap().object), pods(json!([container("b", "1")]), json!({"y": "1"})), "me", 2)
            .unwrap();
    assert_eq!(
        second.object.get(&["spec", "template", "spec", "containers"]),
        Some(&json!([container("b", "1")]))
    );
    assert_eq!(second.object.get(&["spec", "template", "metadata", "labels"]), Some(&json!({"y": "1"})));
    let third = run(Some(&second.object), json!({"replicas": 1}), "me", 3).unwrap();
    assert_eq!(third.object.get(&["spec"]), Some(&json!({"replicas": 1})));
}

#[test]
fn conflicts_name_owner_and_field() {
    let live = run(None, json!({"replicas": 2, "paused": true}), "one", 1).unwrap().object;
    let error = run(Some(&live), json!({"replicas": 3}), "two", 2).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let status = error.status(&meta::GroupResource::new("apps", "deployments"), "d");
    assert_eq!(
        (status.code, status.details.unwrap().causes),
        (
            409,
            vec![meta::Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: "conflict with \"one\"".to_owned(),
                field: ".spec.replicas".to_owned(),
            }]
        )
    );
    let error = run(Some(&live), json!({"replicas": 3, "paused": false}), "two", 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.paused\n- .spec.replicas"
    );
    let forced =
        apply(&deployment(), Some(&live), &with_spec(json!({"replicas": 3})), &request("two", 2), true)
            .unwrap()
            .object;
    assert_eq!(forced.int(&["spec", "replicas"]), Some(3));
    assert_eq!(fields_of(&forced, "one"), &json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(fields_of(&forced, "two"), &json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn the_same_value_is_owned_together_and_stays_until_the_last_leaves() {
    let first = run(None, json!({"replicas": 2}), "one", 1).unwrap().object;
    let both = run(Some(&first), json!({"replicas": 2, "paused": true}), "two", 2).unwrap().object;
    let left = run(Some(&both), json!({}), "one", 3).unwrap().object;
    assert_eq!(left.get(&["spec"]), Some(&json!({"replicas": 2, "paused": true})));
    assert_eq!(managers(&left), ["one", "two"]);
    let none = run(Some(&left), json!({"paused": true}), "two", 4).unwrap().object;
    assert_eq!(none.get(&["spec"]), Some(&json!({"paused": true})));
}

#[test]
fn updates_take_fields_and_appliers_meet_them() {
    let schema = deployment();
    let mut created = with_spec(
        json!({"replicas": 1, "template": {"spec": {"containers": [{"name": "a", "image": "1"}]}}}),
    );
    update(&schema, None, &mut created, &request("kubectl-create", 1));
    assert_eq!(
        fields_of(&created, "kubectl-create"),
        &json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}})
    );
    let mut edited = created.clone();
    edited.set(&["spec", "replicas"], 5);
    edited.set(&["metadata", "labels"], json!({"l": "1"}));
    update(&schema, Some(&created), &mut edited, &request("kubectl-edit", 2));
    assert_eq!(
        fields_of(&edited, "kubectl-edit"),
        &json!({"f:metadata": {"f:labels": {".": {}, "f:l": {}}}, "f:spec": {"f:replicas": {}}})
    );
    let error = run(Some(&edited), json!({"replicas": 1}), "me", 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using apps/v1: .spec.replicas"
    );
    let mut bare = edited.clone();
    bare.remove(&["metadata", "labels"]);
    bare.remove(&["metadata", "managedFields"]);
    update(&schema, Some(&edited), &mut bare, &request("other", 4));
    assert_eq!(managers(&bare), ["kubectl-create", "kubectl-edit"], "a removal gives nothing to own");
    assert_eq!(fields_of(&bare, "kubectl-edit"), &json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn an_update_that_changes_nothing_keeps_the_entries() {
    let schema = deployment();
    let mut created = with_spec(json!({"replicas": 1}));
    update(&schema, None, &mut created, &request("a", 1));
    let mut same = created.clone();
    same.set(&["metadata", "resourceVersion"], "7");
    same.set(&["status"], json!({"replicas": 9}));
    same.remove(&["metadata", "managedFields"]);
    update(&schema, Some(&created), &mut same, &request("b", 2));
    assert_eq!(same.get(&["metadata", "managedFields"]), created.get(&["metadata", "managedFields"]));
}

#[test]
fn clients_may_reset_and_replace_managed_fields() {
    let schema = deployment();
    let mut created = with_spec(json!({"replicas": 1}));
    update(&schema, None, &mut created, &request("a", 1));
    for reset in [json!([]), json!([{}])] {
        let mut object = created.clone();
        object.set(&["metadata", "managedFields"], reset);
        update(&schema, Some(&created), &mut object, &request("b", 2));
        assert_eq!(object.get(&["metadata", "managedFields"]), None);
        let mut next = object.clone();
        next.set(&["spec", "replicas"], 2);
        update(&schema, Some(&object), &mut next, &request("b", 3));
        assert_eq!(next.get(&["metadata", "managedFields"]), None, "untracked until applied");
        let applied = run(Some(&next), json!({"paused": true}), "me", 4).unwrap().object;
        assert_eq!(managers(&applied), ["me", "before-first-apply"]);
    }
    let mut broken = created.clone();
    broken.set(&["metadata", "managedFields"], json!([{"manager": "x", "operation": "Odd"}]));
    update(&schema, Some(&created), &mut broken, &request("b", 2));
    assert_eq!(managers(&broken), ["a"]);
}

#[test]
fn subresources_are_managers_of_their_own() {
    let schema = deployment();
    let mut created = with_spec(json!({"replicas": 1}));
    update(&schema, None, &mut created, &request("a", 1));
    let mut scaled = created.clone();
    scaled.set(&["status"], json!({"replicas": 1, "conditions": [{"type": "Up", "status": "True"}]}));
    let status = Request { subresource: "status", reset: &["spec"], ..request("a", 2) };
    update(&schema, Some(&created), &mut scaled, &status);
    let entries = scaled.list(&["metadata", "managedFields"]);
    assert_eq!(entries.len(), 2);
    assert_eq!(
        entries[1],
        json!({"manager": "a", "operation": "Update", "apiVersion": "apps/v1", "subresource": "status",
            "time": "1970-01-01T00:00:02Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {
                "f:replicas": {}, "f:conditions": {".": {}, "k:{\"type\":\"Up\"}": {".": {}, "f:type": {}, "f:status": {}}}}}})
    );
}

#[test]
fn old_updaters_are_merged() {
    let schema = deployment();
    let mut live = with_spec(json!({"replicas": 0}));
    update(&schema, None, &mut live, &request("m0", 0));
    for n in 1..14 {
        let mut next = live.clone();
        next.set(&["metadata", "annotations", &format!("k{n}")], "v");
        update(&schema, Some(&live), &mut next, &request(&format!("m{n}"), n));
        live = next;
    }
    let names = managers(&live);
    assert_eq!(names.len(), 10);
    assert_eq!(names.iter().filter(|name| **name == "ancient-changes").count(), 1);
    assert!(fields_of(&live, "ancient-changes")["f:metadata"]["f:annotations"]["f:k1"].is_object());
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let schema = deployment();
    let mut config = with_spec(json!({"replicas": 1}));
    let last = serde_json::to_string(&config.0).unwrap();
    config.set(&["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"], last);
    let mut live = config.clone();
    update(&schema, None, &mut live, &request("kubectl-client-side-apply", 1));
    let error = run(Some(&live), json!({"replicas": 2}), "argocd", 2).unwrap_err();
    assert!(matches!(error, ApplyError::Conflicts(_)));
    let taken = run(Some(&live), json!({"replicas": 2}), "kubectl", 2).unwrap().object;
    assert_eq!(taken.int(&["spec", "replicas"]), Some(2));
    let annotation = taken.annotation("kubectl.kubernetes.io/last-applied-configuration").unwrap();
    assert!(annotation.contains("\"replicas\":2"), "{annotation}");
}

#[test]
fn refuses_what_does_not_fit() {
    for (spec, error) in [
        (json!({"nope": 1}), ".spec.nope: field not declared in schema"),
        (json!({"replicas": "x"}), ".spec.replicas: expected numeric (int or float), got x"),
        (
            json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            json!({"template": {"spec": {"containers": [{"image": "a"}]}}}),
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits all \
             key fields [\"name\"] (and doesn't have default values for any key fields)",
        ),
    ] {
        let text = run(None, spec, "me", 1).unwrap_err().to_string();
        assert_eq!(
            text,
            format!("failed to create typed patch object (d; apps/v1, Kind=Deployment): {error}")
        );
    }
    let mut bad = with_spec(json!({}));
    bad.set(&["metadata", "managedFields"], json!([]));
    let error = apply(&deployment(), None, &bad, &request("me", 1), false).unwrap_err();
    assert_eq!(error, ApplyError::Invalid("metadata.managedFields must be nil".to_owned()));
}

#[test]
fn list_items_keep_their_order_around_the_configured_ones() {
    let names = |list: &[&str]| {
        let containers: Vec<Value> = list.iter().map(|name| json!({"name": name})).collect();
        json!({"template": {"spec": {"containers": containers}}})
    };
    for (live, config, merged) in [
        (vec!["a", "b", "c"], vec!["b"], vec!["a", "b", "c"]),
        (vec!["a", "b", "c"], vec!["c", "a"], vec!["b", "c", "a"]),
        (vec!["a", "b"], vec!["x", "a", "y"], vec!["x", "a", "b", "y"]),
        (vec!["a", "b", "c"], vec!["d"], vec!["a", "b", "c", "d"]),
        (vec![], vec!["a"], vec!["a"]),
    ] {
        let live_object = run(None, names(&live), "one", 1).unwrap().object;
        let result = run(Some(&live_object), names(&config), "two", 2).unwrap().object;
        let found: Vec<&str> = result
            .list(&["spec", "template", "spec", "containers"])
            .iter()
            .map(|item| item["name"].as_str().unwrap())
            .collect();
        let mut sorted = (found.clone(), merged.clone());
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        assert_eq!(sorted.0, sorted.1, "{live:?} {config:?}");
        let shared: Vec<&&str> = found.iter().filter(|name| config.contains(name)).collect();
        assert_eq!(shared, config.iter().collect::<Vec<_>>(), "{live:?} {config:?} {found:?}");
    }
}

/// Objects of a ConfigMap-like form with overlapping keys.
fn config_maps() -> impl Strategy<Value = Object> {
    let map = || proptest::collection::btree_map("[a-d]", "[xy]", 0..4);
    (map(), map()).prop_map(|(data, labels)| {
        object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": labels}, "data": data}))
    })
}

fn core(manager: &str, second: i64) -> Request<'_> {
    Request { api_version: "v1", ..request(manager, second) }
}

fn chain(schema: &Schema, configs: &[(bool, Object)]) -> Option<Object> {
    let mut live: Option<Object> = None;
    for (at, (applied, config)) in configs.iter().enumerate() {
        let request = core(["a", "b"][at % 2], 1);
        live = Some(if *applied {
            apply(schema, live.as_ref(), config, &request, true).unwrap().object
        } else {
            let mut new = config.clone();
            update(schema, live.as_ref(), &mut new, &request);
            new
        });
    }
    live
}

proptest! {
    #[test]
    fn apply_then_apply_is_no_op(
        before in proptest::collection::vec((any::<bool>(), config_maps()), 0..5),
        config in config_maps(),
    ) {
        let schema = config_map();
        let live = chain(&schema, &before);
        let first = apply(&schema, live.as_ref(), &config, &core("me", 5), true).unwrap().object;
        let again = apply(&schema, Some(&first), &config, &core("me", 9), true).unwrap();
        prop_assert!(!again.changed);
        prop_assert_eq!(again.object, first.clone());
        for (key, value) in config.get(&["data"]).unwrap().as_object().unwrap() {
            prop_assert_eq!(first.get(&["data", key]), Some(value));
        }
    }

    #[test]
    fn a_create_owns_what_comparing_with_nothing_says(config in config_maps()) {
        let schema = config_map();
        let written = Value::Object(own::created(schema.set(), schema.root(), &config.0, &[]));
        let comparison = own::compare(schema.set(), schema.root(), &serde_json::Map::new(), &config.0, &[]);
        prop_assert_eq!(comparison.added.to_value(), written);
    }

    #[test]
    fn every_owned_field_exists(steps in proptest::collection::vec((any::<bool>(), config_maps()), 1..6)) {
        let schema = config_map();
        let live = chain(&schema, &steps).unwrap();
        let present = own::all_fields(schema.set(), schema.root(), &live.clone().into_value());
        for entry in entries::read(live.get(&["metadata", "managedFields"])).unwrap() {
            for path in entry.fields.difference(&present).paths() {
                // Parents of owned fields need not be fields themselves; leaves must be.
                prop_assert!(path.matches('.').count() < 3, "{} of {}", path, entry.manager);
            }
        }
    }
}
