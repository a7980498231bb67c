//! CRD schemas: what is read, what is refused, what comes out again.

use serde_json::{Value, json};

use super::{from_crd, to_v2, to_v3};
use crate::{default, prune, testing::deployment, validate};

fn widget() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {
    "spec": {"type": "object", "required": ["size"], "properties": {
        "size": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 10},
        "name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$", "default": "abc"},
        "mode": {"type": "string", "enum": ["Slow", "Fast"]},
        "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "note": {"type": "string", "nullable": true, "default": "n"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "maxItems": 2,
            "items": {"type": "object", "required": ["id"], "properties": {
                "id": {"type": "string"}, "on": {"type": "boolean", "default": true}}}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "when": {"type": "string", "format": "date-time"},
        "either": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    }}}})
}

#[test]
fn defaults_and_prunes_as_upstream() {
    let schema = from_crd(&widget(), "s").unwrap();
    let mut value = json!({"apiVersion": "x/v1", "kind": "W", "metadata": {"name": "w", "nope": 1}, "top": 1,
        "spec": {"size": 1, "name": null, "note": null, "mode": null, "extra": 1, "free": {"kept": {"x": 1}},
            "parts": [{"id": "a", "odd": 1}]}});
    default::apply(&schema, &mut value);
    let unknown = prune::unknown(&schema, &mut value, prune::Mode::Report);
    assert_eq!(
        unknown,
        ["metadata.nope", "spec.parts[0].odd", "spec.extra", "top"]
            .map(|path| format!("unknown field \"{path}\""))
    );
    assert_eq!(
        value,
        json!({"apiVersion": "x/v1", "kind": "W", "metadata": {"name": "w"},
            "spec": {"size": 1, "name": "abc", "note": null, "free": {"kept": {"x": 1}}, "parts": [{"id": "a", "on": true}]}})
    );
}

#[test]
fn validates_in_upstreams_words() {
    let schema = from_crd(&widget(), "s").unwrap();
    for (spec, expected) in [
        (json!({"size": 1, "port": "http"}), vec![]),
        (json!({}), vec!["spec.size: Required value"]),
        (
            json!({"size": "1"}),
            vec![
                "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
            ],
        ),
        (
            json!({"size": 11}),
            vec!["spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10"],
        ),
        (
            json!({"size": 0}),
            vec!["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"],
        ),
        (
            json!({"size": 1, "name": "A"}),
            vec!["spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'"],
        ),
        (json!({"size": 1, "name": "abcdef"}), vec!["spec.name: Too long: may not be more than 5 bytes"]),
        (
            json!({"size": 1, "mode": "X"}),
            vec!["spec.mode: Unsupported value: \"X\": supported values: \"Fast\", \"Slow\""],
        ),
        (
            json!({"size": 1, "port": true}),
            vec![
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            ],
        ),
        (
            json!({"size": 1, "labels": {"a": 1}}),
            vec![
                "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\"",
            ],
        ),
        (json!({"size": 1, "tags": ["a", "b", "a"]}), vec!["spec.tags[2]: Duplicate value: \"a\""]),
        (
            json!({"size": 1, "parts": [{"id": "a"}, {"id": "a"}]}),
            vec!["spec.parts[1]: Duplicate value: {\"id\":\"a\"}"],
        ),
        (
            json!({"size": 1, "parts": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}),
            vec!["spec.parts: Too many: 3: must have at most 2 items"],
        ),
        (
            json!({"size": 1, "when": "now"}),
            vec!["spec.when: Invalid value: \"now\": spec.when in body must be of type date-time: \"now\""],
        ),
        (
            json!({"size": 1, "either": {}}),
            vec![
                "<nil>: Invalid value: \"\": \"spec.either\" must validate one and only one schema (oneOf). Found none valid",
                "spec.either.a: Required value",
            ],
        ),
    ] {
        let errors = validate::value(&schema, &json!({"spec": spec}), None);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors, expected, "{spec}");
    }
}

#[test]
fn what_was_wrong_and_stays_is_not_reported() {
    let schema = from_crd(&widget(), "s").unwrap();
    let old = json!({"spec": {"size": 99, "parts": [{"id": "a", "on": 1}], "tags": ["a", "a"]}});
    let mut new = old.clone();
    assert_eq!(validate::value(&schema, &new, Some(&old)), []);
    new["spec"]["name"] = json!("ok");
    new["spec"]["parts"] = json!([{"id": "b"}, {"id": "a", "on": 1}]);
    assert_eq!(validate::value(&schema, &new, Some(&old)), []);
    new["spec"]["size"] = json!(98);
    assert_eq!(validate::value(&schema, &new, Some(&old)).len(), 1);
}

#[test]
fn structural_rules_are_upstreams() {
    let spec = |schema: Value| json!({"type": "object", "properties": {"spec": schema}});
    for (schema, expected) in [
        (json!(null), "s: Required value: schemas are required"),
        (json!({}), "s.type: Required value: must not be empty at the root"),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            "s.type: Invalid value: \"array\": must be object at the root",
        ),
        (
            spec(json!({})),
            "s.properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (spec(json!({"type": "array"})), "s.properties[spec].items: Required value: must be specified"),
        (
            spec(json!({"type": "array", "items": {}})),
            "s.properties[spec].items.type: Required value: must not be empty for specified array items",
        ),
        (
            spec(
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            ),
            "s.properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            spec(json!({"type": "string", "pattern": "("})),
            "s.properties[spec].pattern: Invalid value: \"(\": must be a valid regular expression",
        ),
        (
            spec(json!({"type": "object", "anyOf": [{"type": "object"}]})),
            "s.properties[spec].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            spec(json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}})),
            "s.properties[spec].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            spec(
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object"}}),
            ),
            "s.properties[spec].x-kubernetes-list-map-keys: Invalid value: [\"k\"]: entries must all be names of item properties",
        ),
        (
            spec(json!({"type": "integer", "default": "x"})),
            "s.properties[spec].default: Invalid value: \"string\"",
        ),
        (spec(json!({"type": "string", "$ref": "#/x"})), "s.properties[spec].$ref: Forbidden"),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName",
        ),
    ] {
        let errors = from_crd(&schema, "s").unwrap_err();
        assert!(errors[0].to_string().starts_with(expected), "{schema}: {errors:?}");
    }
}

#[test]
fn names_may_be_restricted() {
    let schema = json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 3}}}}});
    let schema = from_crd(&schema, "s").unwrap();
    let errors = validate::value(&schema, &json!({"metadata": {"name": "abcd", "labels": {"a": "b"}}}), None);
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn publishes_what_it_read() {
    let schema = from_crd(&widget(), "s").unwrap();
    let v3 = to_v3(schema.set(), schema.root(), &|_, _| None);
    let spec = &v3["properties"]["spec"];
    assert_eq!(
        spec["properties"]["size"],
        json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 10})
    );
    assert_eq!(spec["properties"]["port"], json!({"x-kubernetes-int-or-string": true}));
    assert_eq!(spec["properties"]["either"]["oneOf"], json!([{"required": ["a"]}, {"required": ["b"]}]));
    assert_eq!(spec["required"], json!(["size"]));
    assert_eq!(
        v3["properties"]["metadata"],
        json!({"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"})
    );
    let v2 = to_v2(schema.set(), schema.root(), &|_, _| None);
    assert_eq!(v2["properties"]["spec"]["properties"]["note"].get("type"), None, "null is not in Swagger 2");
    assert_eq!(v2["properties"]["spec"]["properties"]["either"].get("oneOf"), None);
    // What is published can be read again.
    let mut again = v3.clone();
    again["properties"].as_object_mut().unwrap().remove("metadata");
    let again = from_crd(&again, "s").unwrap();
    assert_eq!(to_v3(again.set(), again.root(), &|_, _| None), v3);
}

#[test]
fn built_in_kinds_carry_patch_strategies_and_descriptions() {
    let schema = deployment();
    let spec = schema.set().find("io.k8s.api.core.v1.PodSpec").unwrap();
    let describe =
        |of: &str, field: &str| (of.ends_with("PodSpec") && field == "containers").then(|| "All.".to_owned());
    let v2 = to_v2(schema.set(), spec, &describe);
    assert_eq!(
        v2["properties"]["containers"],
        json!({"type": "array", "description": "All.", "items": {"$ref": "#/definitions/io.k8s.api.core.v1.Container"},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"})
    );
    let v3 = to_v3(schema.set(), schema.set().find("io.k8s.api.apps.v1.DeploymentSpec").unwrap(), &describe);
    assert_eq!(
        v3["properties"]["strategy"],
        json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"}], "x-kubernetes-patch-strategy": "retainKeys"})
    );
}

#[test]
fn what_may_be_any_json_has_no_type() {
    let mut set = crate::TypeSet::new();
    for (name, typed) in [
        ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", false),
        ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", false),
        ("io.k8s.apimachinery.pkg.runtime.RawExtension", true),
    ] {
        let of = set.add(crate::Node { name: Some(name.into()), ..crate::Node::default() });
        for written in [to_v2(&set, of, &|_, _| None), to_v3(&set, of, &|_, _| None)] {
            assert_eq!(written.get("type").is_some(), typed, "{name}");
        }
    }
}
