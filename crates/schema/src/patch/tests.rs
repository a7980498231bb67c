//! Patches by example and by property.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{OPERATIONS_MAX, PatchError, json as json_patch, merge, strategic};
use crate::testing::{config_map, deployment};

fn patched(current: Value, patch: Value) -> Result<Value, PatchError> {
    let mut value = json!({"spec": {"template": {"spec": current}}});
    strategic(&deployment(), &mut value, &json!({"spec": {"template": {"spec": patch}}}))?;
    Ok(value["spec"]["template"]["spec"].take())
}

fn check(current: Value, patch: Value, expected: Value) {
    assert_eq!(patched(current.clone(), patch.clone()).unwrap(), expected, "{current} {patch}");
}

#[test]
fn maps_merge_and_null_removes() {
    check(
        json!({"restartPolicy": "Always"}),
        json!({"restartPolicy": null, "x": {"y": null, "z": 1}}),
        json!({"x": {"z": 1}}),
    );
    check(
        json!({"nodeSelector": {"a": "1"}}),
        json!({"nodeSelector": {"b": "2"}}),
        json!({"nodeSelector": {"a": "1", "b": "2"}}),
    );
    check(
        json!({"nodeSelector": {"a": "1"}}),
        json!({"nodeSelector": {"$patch": "replace", "b": "2"}}),
        json!({"nodeSelector": {"b": "2"}}),
    );
    check(
        json!({"nodeSelector": {"a": "1"}}),
        json!({"nodeSelector": {"$patch": "delete"}}),
        json!({"nodeSelector": {}}),
    );
    check(json!({}), json!({"nodeSelector": {"$patch": "delete"}}), json!({}));
}

#[test]
fn lists_merge_by_key_or_are_replaced() {
    let named = |name: &str, image: &str| json!({"name": name, "image": image});
    let current = json!({"containers": [named("a", "1"), named("b", "1")]});
    check(
        current.clone(),
        json!({"containers": [{"name": "b", "image": "2"}, {"name": "c"}]}),
        json!({"containers": [named("a", "1"), named("b", "2"), {"name": "c"}]}),
    );
    check(
        current.clone(),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": [named("b", "1")]}),
    );
    check(
        current.clone(),
        json!({"containers": [{"$patch": "replace"}, named("z", "9")]}),
        json!({"containers": [named("z", "9")]}),
    );
    check(
        json!({"tolerations": [{"key": "a"}]}),
        json!({"tolerations": [{"key": "b"}]}),
        json!({"tolerations": [{"key": "b"}]}),
    );
    check(
        json!({"containers": [{"name": "a", "env": [{"name": "x", "value": "1"}], "args": ["1"]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "y", "value": "2"}], "args": ["2"]}]}),
        json!({"containers": [{"name": "a", "env": [{"name": "y", "value": "2"}, {"name": "x", "value": "1"}], "args": ["2"]}]}),
    );
    let error = patched(current.clone(), json!({"containers": [{"image": "x"}]})).unwrap_err();
    assert_eq!(error.to_string(), "map: {\"image\":\"x\"} does not contain declared merge key: name");
    let error = patched(current, json!({"containers": [{"name": "x", "$patch": "nope"}]})).unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.code()),
        ("unknown patch type: nope in map: {\"$patch\":\"nope\",\"name\":\"x\"}", 400)
    );
}

#[test]
fn retain_keys_drops_the_others() {
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
    );
    let bad = json!({"volumes": [{"name": "v", "hostPath": {}, "$retainKeys": ["name"]}]});
    assert!(patched(json!({}), bad).is_err());
}

#[test]
fn set_element_order_sorts() {
    let names = |list: &[&str]| list.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
    for (current, patch, order, expected) in [
        (vec!["a", "b", "c"], vec!["d"], vec!["d", "c", "a"], vec!["d", "b", "c", "a"]),
        (vec!["a", "b"], vec!["c"], vec!["a", "c", "b"], vec!["a", "c", "b"]),
        (vec!["a", "x", "b"], vec!["c"], vec!["a", "b", "c"], vec!["a", "x", "b", "c"]),
    ] {
        check(
            json!({"containers": names(&current)}),
            json!({"$setElementOrder/containers": names(&order), "containers": names(&patch)}),
            json!({"containers": names(&expected)}),
        );
    }
    // Without the directive the patch says the order: what is new comes first (a conformance test of StatefulSets).
    for (current, patch, expected) in [
        (vec!["webserver"], vec!["test-ss"], vec!["test-ss", "webserver"]),
        (vec!["a", "b", "c"], vec!["c", "a"], vec!["b", "c", "a"]),
        (vec!["a", "b"], vec!["b", "x"], vec!["a", "b", "x"]),
    ] {
        let patch = json!({"containers": names(&patch)});
        check(json!({"containers": names(&current)}), patch, json!({"containers": names(&expected)}));
    }
    check(
        json!({"containers": names(&["a", "b"])}),
        json!({"$setElementOrder/containers": names(&["b", "a"])}),
        json!({"containers": names(&["b", "a"])}),
    );
    let bad = json!({"$setElementOrder/containers": names(&["a"]), "containers": names(&["z"])});
    assert!(patched(json!({}), bad).is_err());
}

#[test]
fn primitive_lists_lose_and_gain_items() {
    let mut value = json!({"metadata": {"finalizers": ["a", "b"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c", "b"],
        "$setElementOrder/finalizers": ["c", "b"]}});
    strategic(&config_map(), &mut value, &patch).unwrap();
    assert_eq!(value, json!({"metadata": {"finalizers": ["c", "b"]}}));
}

#[test]
fn json_patches_follow_the_rfc_and_their_bounds() {
    let mut value = json!({"a": [1, 2], "b": {"c": 1}});
    let ops = json!([
        {"op": "test", "path": "/a/0", "value": 1}, {"op": "add", "path": "/a/-", "value": 3},
        {"op": "replace", "path": "/b/c", "value": 2}, {"op": "remove", "path": "/a/0"},
        {"op": "copy", "from": "/b", "path": "/d"}, {"op": "move", "from": "/d/c", "path": "/e~1f"}
    ]);
    json_patch(&mut value, &ops).unwrap();
    assert_eq!(value, json!({"a": [2, 3], "b": {"c": 2}, "d": {}, "e/f": 2}));
    for (ops, code) in [
        (json!({"op": "add"}), 400),
        (json!([{"op": "add", "path": "/a"}]), 400),
        (json!([{"op": "replace", "path": "/nope", "value": 1}]), 422),
        (json!([{"op": "test", "path": "/b/c", "value": 9}]), 422),
        (Value::Array(vec![json!({"op": "remove", "path": "/x"}); OPERATIONS_MAX + 1]), 413),
    ] {
        assert_eq!(json_patch(&mut value.clone(), &ops).unwrap_err().code(), code);
    }
    let doubling: Vec<Value> =
        (0..30).map(|n| json!({"op": "copy", "from": "", "path": format!("/k{n}")})).collect();
    assert_eq!(
        json_patch(&mut json!({"a": "x".repeat(1000)}), &Value::Array(doubling)).unwrap_err().code(),
        413
    );
}

#[test]
fn json_patches_cannot_build_towers() {
    let grow = [
        json!({"op": "add", "path": "/t", "value": {}}),
        json!({"op": "move", "from": "/a", "path": "/t/a"}),
        json!({"op": "move", "from": "/t", "path": "/a"}),
    ];
    let ops = Value::Array(grow.iter().cycle().take(9_000).cloned().collect());
    assert_eq!(json_patch(&mut json!({"a": {}}), &ops).unwrap_err().code(), 413);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..4_i64).prop_map(Value::from),
        "[ab]".prop_map(Value::from)
    ];
    let key = prop_oneof![
        Just("spec"),
        Just("template"),
        Just("containers"),
        Just("name"),
        Just("env"),
        Just("volumes"),
        Just("strategy"),
        Just("$patch"),
        Just("$retainKeys"),
        Just("$setElementOrder/containers"),
        Just("$deleteFromPrimitiveList/env"),
    ]
    .prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn patches_never_panic(mut value in any_json(), patch in any_json(), ops in any_json()) {
        let _: Result<(), PatchError> = strategic(&deployment(), &mut value.clone(), &patch);
        let _: Result<(), PatchError> = json_patch(&mut value.clone(), &ops);
        merge(&mut value, &patch);
    }

    #[test]
    fn merging_twice_is_merging_once(mut value in any_json(), patch in any_json()) {
        merge(&mut value, &patch);
        let once = value.clone();
        merge(&mut value, &patch);
        prop_assert_eq!(value, once);
    }
}
