//! What is looked at, what is said of it, and that it is said once.

use reconcile::{Kind, testkit::Bench};
use serde_json::{Value, json};

use super::*;

fn document() -> Value {
    let text = json!({ "type": "string" });
    let reference =
        |name: &str| json!({ "allOf": [{ "$ref": format!("#/components/schemas/{name}") }], "default": {} });
    let of = |kind: &str| json!([{ "group": "example.com", "version": "v1", "kind": kind }]);
    json!({ "components": { "schemas": {
        "Meta": { "type": "object", "properties": { "name": text,
            "labels": { "type": "object", "additionalProperties": text } } },
        "Spec": { "type": "object", "properties": {
            "replicas": { "type": "integer" }, "name": text,
            "port": { "format": "int-or-string", "oneOf": [{ "type": "integer" }, text] },
            "size": { "oneOf": [text, { "type": "number" }] },
            "below": { "type": "array", "items": reference("Spec") },
        } },
        "Widget": { "type": "object", "x-kubernetes-group-version-kind": of("Widget"),
            "properties": { "metadata": reference("Meta"), "spec": reference("Spec") } },
        "Limits": { "type": "object", "x-kubernetes-group-version-kind": of("Limits"),
            "properties": { "max": { "type": "integer" } } },
    } } })
}

fn schema(kind: &str) -> schema::Schema {
    schema::openapi::from_document(&document(), "example.com", "v1", kind).unwrap()
}

fn policy(spec: Value) -> Arc<ValidatingAdmissionPolicy> {
    let metadata = json!({ "name": "p", "uid": "1", "generation": 2, "resourceVersion": "7" });
    let status = json!({ "observedGeneration": 1 });
    Arc::new(serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap())
}

fn world(spec: Value) -> World {
    let name = ("example.com".to_owned(), "v1".to_owned(), "Widget".to_owned());
    let types = Types { matched: vec![(name, schema("Widget"))], params: Some(schema("Limits")) };
    World { policy: policy(spec), types }
}

fn check(spec: Value, expected: &[&str]) {
    let world = world(spec);
    let found = check::warnings(&world.policy, &world.types);
    let lines: Vec<String> = found
        .iter()
        .map(|one| {
            let warning = one.warning.strip_prefix("example.com/v1, Kind=Widget: ERROR: <input>:").unwrap();
            format!("{} {}", one.field_ref, warning.lines().next().unwrap())
        })
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn each_part_of_a_policy_is_looked_at() {
    let params = json!({ "apiVersion": "example.com/v1", "kind": "Limits" });
    check(
        json!({
            "paramKind": params,
            "variables": [
                { "name": "count", "expression": "object.spec.replicas" },
                { "name": "twice", "expression": "variables.count * 'a'" },
                { "name": "open", "expression": "variables.twice + 1" },
            ],
            "matchConditions": [{ "name": "a", "expression": "request.userInfo.nope == 'a'" }],
            "validations": [
                { "expression": "object.spec.replicas <= params.max && namespaceObject.metadata.name != ''" },
                { "expression": "variables.count == params.min", "messageExpression": "'a' + variables.count" },
                { "expression": "authorizer.requestResource.check('get').allowed() && oldObject == null" },
                { "expression": "object.spec.below.all(b, b.below.all(c, c.port == 1 || c.name == 1))" },
                { "expression": "quantity(object.spec.size).isInteger() && object.metadata.labels.x == 'y'" },
            ],
            "auditAnnotations": [{ "key": "a", "valueExpression": "request.dryRun + 'a'" }],
        }),
        &[
            "spec.validations[1].expression 1:26: undefined field 'min'",
            "spec.validations[1].messageExpression 1:5: found no matching overload for '_+_' applied to '(string, int)'",
            "spec.validations[3].expression 1:63: found no matching overload for '_==_' applied to '(string, int)'",
            "spec.variables[1].expression 1:17: found no matching overload for '_*_' applied to '(int, string)'",
            "spec.matchConditions[0].expression 1:17: undefined field 'nope'",
            "spec.auditAnnotations[0].valueExpression 1:16: found no matching overload for '_+_' applied to '(bool, string)'",
        ],
    );
    check(
        json!({ "validations": [{ "expression": "params == null" }] }),
        &["spec.validations[0].expression 1:1: undeclared reference to 'params' (in container '')"],
    );
}

#[test]
fn the_status_says_what_was_found() {
    let bad = json!({ "validations": [{ "expression": "object.spec.nope == 1" }] });
    insta::assert_yaml_snapshot!(PolicyStatus.plan(&world(bad), Timestamp::UNIX_EPOCH));
    let mut world = world(json!({ "validations": [{ "expression": "true" }] }));
    let plan = PolicyStatus.plan(&world, Timestamp::UNIX_EPOCH);
    assert_eq!(plan.status[0].body["status"], json!({ "observedGeneration": 2, "typeChecking": {} }));
    Arc::make_mut(&mut world.policy).metadata.generation = Some(1);
    assert!(PolicyStatus.plan(&world, Timestamp::UNIX_EPOCH).is_empty(), "nothing has changed");
}

#[test]
fn what_is_named_in_full_is_looked_at() {
    let rules = |rules: Value| -> Vec<String> {
        let named = types::resources(&policy(json!({ "matchConstraints": { "resourceRules": rules } })));
        named.iter().map(|(group, version, resource)| format!("{group}/{version}/{resource}")).collect()
    };
    let rule = |group: &str, version: &str, resources: &[&str]| json!({ "apiGroups": [group], "apiVersions": [version], "resources": resources });
    assert_eq!(
        rules(json!([
            rule("apps", "v1", &["deployments", "daemonsets", "deployments/scale"]),
            rule("*", "v1", &["jobs"]),
            rule("batch", "*", &["jobs"]),
            rule("", "v1", &["*", "pods", "pods/*"]),
            rule("apps", "v1", &["deployments"]),
        ])),
        ["apps/v1/daemonsets", "apps/v1/deployments", "/v1/pods"]
    );
    let many: Vec<String> = (0..30).map(|at| format!("r{at}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(rules(json!([rule("a", "v1", &many)])).len(), 10);
}

/// A kind that is not served is passed over, and the policy is looked at once.
#[tokio::test]
async fn a_policy_is_looked_at_once() {
    let bench = Bench::new(PolicyStatus);
    let key = ObjectKey::new("", "p");
    let rule = json!({ "apiGroups": ["no.such"], "apiVersions": ["v1"], "resources": ["things"], "operations": ["*"] });
    bench.api.put(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": "p" },
        "spec": { "matchConstraints": { "resourceRules": [rule] }, "validations": [{ "expression": "object.nope" }] },
    }));
    bench.settle(&key).await;
    let found = bench.api.get(&Kind::of::<ValidatingAdmissionPolicy>(), &key).unwrap();
    assert_eq!(found["status"], json!({ "observedGeneration": 1, "typeChecking": {} }));
    assert!(bench.plan(&key).await.is_none());
}
