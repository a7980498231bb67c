//! Admission policies.

use super::*;

const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";

impl Server {
    /// A policy for ConfigMaps and its binding, `more` over its spec, `bound` over the binding's.
    async fn policy(&self, mutating: bool, name: &str, more: Value, bound: Value) -> Result<(), Status> {
        let mut spec = json!({"matchConstraints": {"resourceRules": [
            {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}});
        let mut binding = json!({"policyName": name});
        let (policies, bindings) = if mutating {
            spec["reinvocationPolicy"] = json!("Never");
            ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings")
        } else {
            binding["validationActions"] = json!(["Deny"]);
            (POLICIES, BINDINGS)
        };
        schema::patch::merge(&mut spec, &more);
        schema::patch::merge(&mut binding, &bound);
        let policy = json!({"metadata": {"name": name}, "spec": spec});
        self.create(request::GROUP, policies, "", policy).await?;
        let binding = json!({"metadata": {"name": format!("{name}-binding")}, "spec": binding});
        self.create(request::GROUP, bindings, "", binding).await.map(|_| ())
    }
}

fn said(result: Result<Made, Status>) -> Result<Vec<String>, String> {
    result.map(|made| made.warnings).map_err(|status| format!("{} {}", status.code, status.message))
}

#[tokio::test]
async fn validating_policies() {
    let denied = |message: &str| {
        Err(format!(
            "422 configmaps \"cm\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: {message}"
        ))
    };
    let validation = |validation: Value| json!({"validations": [validation]});
    let small = "object.data.size == 'small'";
    for (spec, binding, expected) in [
        (validation(json!({"expression": "object.data.size == 'big'"})), json!({}), Ok(vec![])),
        (
            validation(json!({"expression": small})),
            json!({}),
            denied("failed expression: object.data.size == 'small'"),
        ),
        (validation(json!({"expression": small, "message": "too big"})), json!({}), denied("too big")),
        (
            validation(json!({"expression": small, "message": "too big",
                "messageExpression": "'not ' + object.data.size"})),
            json!({}),
            denied("not big"),
        ),
        (
            validation(
                json!({"expression": small, "message": "too big", "messageExpression": "object.data.none"}),
            ),
            json!({}),
            denied("too big"),
        ),
        (
            validation(json!({"expression": small, "message": "m"})),
            json!({"validationActions": ["Warn"]}),
            Ok(vec![
                "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-binding': m".to_owned(),
            ]),
        ),
        (validation(json!({"expression": small})), json!({"validationActions": ["Audit"]}), Ok(vec![])),
        (
            validation(json!({"expression": "object.data.none == ''"})),
            json!({}),
            denied("expression 'object.data.none == ''' resulted in error: no such key: none"),
        ),
        (
            json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.none == ''"}]}),
            json!({}),
            Ok(vec![]),
        ),
        (
            json!({"variables": [{"name": "size", "expression": "object.data.size"},
                {"name": "shown", "expression": "'<' + variables.size + '>'"}],
                "validations": [{"expression": "variables.size == 'small'", "messageExpression": "variables.shown"}]}),
            json!({}),
            denied("<big>"),
        ),
        // A variable that is not reached is not computed.
        (
            json!({"variables": [{"name": "none", "expression": "object.data.none"}],
                "validations": [{"expression": "!has(object.data.none) || variables.none == ''"}]}),
            json!({}),
            Ok(vec![]),
        ),
        (
            json!({"matchConditions": [{"name": "c", "expression": "object.metadata.name != 'cm'"}],
                "validations": [{"expression": small}]}),
            json!({}),
            Ok(vec![]),
        ),
        (
            validation(json!({"expression": small})),
            json!({"matchResources": {"namespaceSelector": {"matchLabels": {"skip": "yes"}}}}),
            Ok(vec![]),
        ),
        (
            validation(json!({"expression": "namespaceObject.metadata.name == 'other'", "message": "place"})),
            json!({}),
            denied("place"),
        ),
        (
            validation(json!({"expression": "authorizer.group('').resource('pods').namespace('x').name('y')\
                .check('delete').allowed() || request.userInfo.username == ''", "message": "m"})),
            json!({}),
            Ok(vec![]),
        ),
    ] {
        let server = Server::start().await;
        server.policy(false, "p", spec.clone(), binding).await.unwrap();
        assert_eq!(said(server.config_map("cm", json!({"size": "big"})).await), expected, "{spec}");
    }
}

#[tokio::test]
async fn reasons_and_annotations() {
    let server = Server::start().await;
    let spec = json!({
        "validations": [{"expression": "object.data.size == 'small'", "reason": "Forbidden"}],
        "auditAnnotations": [{"key": "size", "valueExpression": "'is ' + object.data.size"},
            {"key": "none", "valueExpression": "null"}],
    });
    server.policy(false, "p", spec.clone(), json!({})).await.unwrap();
    assert_eq!(server.config_map("cm", json!({"size": "big"})).await.unwrap_err().code, 403);
    let made = server.config_map("cm", json!({"size": "small"})).await.unwrap();
    assert_eq!(made.notes.get("p/size").map(String::as_str), Some("is small"));
    assert!(!made.notes.contains_key("p/none"));
    let server = Server::start().await;
    server.policy(false, "p", spec, json!({"validationActions": ["Audit"]})).await.unwrap();
    let made = server.config_map("cm", json!({"size": "big"})).await.unwrap();
    let failures: Value =
        serde_json::from_str(&made.notes["validation.policy.admission.k8s.io/validation_failure"]).unwrap();
    assert_eq!(
        failures,
        json!([{"message": "failed expression: object.data.size == 'small'", "policy": "p", "binding": "p-binding",
            "expressionIndex": 0, "validationActions": ["Audit"]}])
    );
}

#[tokio::test]
async fn params() {
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "Secret"},
        "validations": [{"expression": "params.metadata.labels.allows == object.data.size",
            "messageExpression": "'only ' + params.metadata.labels.allows"}]});
    let denied = |message: &str| {
        Err(format!(
            "422 configmaps \"cm\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: {message}"
        ))
    };
    let by = |param: Value| json!({"paramRef": param});
    let absent =
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    for (binding, expected) in [
        (by(json!({"name": "big", "parameterNotFoundAction": "Deny"})), Ok(vec![])),
        (by(json!({"name": "small", "parameterNotFoundAction": "Deny"})), denied("only small")),
        (by(json!({"name": "none", "parameterNotFoundAction": "Deny"})), denied(absent)),
        (by(json!({"name": "none", "parameterNotFoundAction": "Allow"})), Ok(vec![])),
        (by(json!({"selector": {}, "parameterNotFoundAction": "Deny"})), denied("only small")),
        (
            by(json!({"selector": {"matchLabels": {"allows": "big"}}, "parameterNotFoundAction": "Deny"})),
            Ok(vec![]),
        ),
        (by(json!({"name": "big", "namespace": "free", "parameterNotFoundAction": "Deny"})), denied(absent)),
    ] {
        let server = Server::start().await;
        for size in ["big", "small"] {
            let secret = json!({"metadata": {"name": size, "labels": {"allows": size}}});
            server.create("", "secrets", "default", secret).await.unwrap();
        }
        server.policy(false, "p", spec.clone(), binding.clone()).await.unwrap();
        assert_eq!(said(server.config_map("cm", json!({"size": "big"})).await), expected, "{binding}");
    }
}

#[tokio::test]
async fn mutating_policies() {
    let apply = |expression: &str| json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]});
    let json_patch = |expression: &str| json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]});
    let denied = |message: &str| {
        Err(format!(
            "422 configmaps \"cm\" is forbidden: MutatingAdmissionPolicy 'p' with binding 'p-binding' denied request: {message}"
        ))
    };
    for (spec, expected) in [
        (
            apply("Object{metadata: Object.metadata{annotations: {'a': 'b'}}, data: {'more': object.data.size + '!'}}"),
            Ok(json!([{"a": "b"}, {"size": "big", "more": "big!"}])),
        ),
        (
            json_patch(
                "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {}}, JSONPatch{op: 'add', \
                 path: '/metadata/annotations/' + jsonpatch.escapeKey('a/b'), value: 'x'}]",
            ),
            Ok(json!([{"a/b": "x"}, {"size": "big"}])),
        ),
        (
            json_patch("has(object.data.size) ? [JSONPatch{op: 'remove', path: '/data/size'}] : []"),
            Ok(json!([null, null])),
        ),
        (apply("Object{data: {'more': object.data.none}}"), denied("expression 'Object{data: {'more': object.data.none}}' resulted in error: no such key: none")),
        (apply("Object{unheard: 'x'}"), denied("invalid ApplyConfiguration: .unheard: field not declared in schema")),
        (
            apply("Object{metadata: Object.metadata{name: 'x'}}"),
            denied("invalid ApplyConfiguration: may not set metadata.name"),
        ),
        (
            json_patch("[JSONPatch{op: 'replace', path: '/metadata/name', value: 'x'}]"),
            Err("500 Internal error occurred: admission changed the object: metadata.name must not be changed".to_owned()),
        ),
    ] {
        let server = Server::start().await;
        server.policy(true, "p", spec.clone(), json!({})).await.unwrap();
        let made = server.config_map("cm", json!({"size": "big"})).await;
        let seen = made
            .map(|made| json!([made.object.get(&["metadata", "annotations"]), made.object.get(&["data"])]))
            .map_err(|status| format!("{} {}", status.code, status.message));
        assert_eq!(seen, expected, "{spec}");
    }
    let server = Server::start().await;
    let wrong = apply("Object{metadata: Object.spec{annotations: {'a': 'b'}}}");
    let refused = server.policy(true, "p", wrong, json!({})).await.unwrap_err();
    assert!(
        refused.message.contains("compilation failed: unexpected type name \"Object.spec\""),
        "{refused}"
    );
}

#[tokio::test]
async fn policies_are_exempt_from_policies() {
    let server = Server::start().await;
    let all = json!({"matchConstraints": {"resourceRules": [
        {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]},
        "validations": [{"expression": "false"}]});
    server.policy(false, "p", all.clone(), json!({})).await.unwrap();
    assert_eq!(server.config_map("cm", json!({})).await.unwrap_err().code, 422);
    server.policy(false, "q", all, json!({})).await.unwrap();
}
