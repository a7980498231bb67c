//! ValidatingAdmissionPolicies: what the type check finds in their expressions.

use serde_json::{Value, json};

use crate::kit::Kit;

fn policy(name: &str, group: &str, resource: &str, validations: Value) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "matchConstraints": { "resourceRules": [{
                "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource],
                "operations": ["CREATE", "UPDATE"],
            }] },
            "validations": validations,
        },
    })
}

/// Creates it and waits for the check; its warnings as `FIELD: WARNING`.
async fn warnings(kit: &Kit, policy: Value) -> Vec<String> {
    let at = format!("validatingadmissionpolicies/{}", policy["metadata"]["name"].as_str().unwrap());
    kit.create("validatingadmissionpolicies", policy).await;
    let checked = |policy: &Value| policy["status"]["typeChecking"].is_object();
    let status = kit.until(&at, "its expressions are checked", checked).await["status"].clone();
    assert_eq!(status["observedGeneration"], 1);
    let warnings = status["typeChecking"]["expressionWarnings"].as_array().cloned().unwrap_or_default();
    let text = |warning: &Value, field: &str| warning[field].as_str().unwrap().to_owned();
    warnings.iter().map(|one| format!("{}: {}", text(one, "fieldRef"), text(one, "warning"))).collect()
}

#[tokio::test(start_paused = true)]
async fn validation_expressions_are_type_checked() {
    let kit = Kit::nodes(1).await;
    let right = policy("right", "apps", "deployments", json!([{ "expression": "object.spec.replicas > 1" }]));
    assert_eq!(warnings(&kit, right).await, Vec::<String>::new());
    let confused = json!([{
        "expression": "object.spec.replicas > '1'",
        "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas",
    }]);
    let found = warnings(&kit, policy("confused", "apps", "deployments", confused)).await;
    assert_eq!(
        found,
        [
            "spec.validations[0].expression: apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching \
             overload for '_>_' applied to '(int, string)'\n | object.spec.replicas > '1'\n | \
             .....................^\n",
            "spec.validations[0].messageExpression: apps/v1, Kind=Deployment: ERROR: <input>:1:28: found no matching \
             overload for '_+_' applied to '(string, int)'\n | 'wants replicas > 1, got ' + \
             object.spec.replicas\n | ...........................^\n",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn expressions_over_custom_kinds_are_type_checked() {
    let kit = Kit::nodes(1).await;
    let text = json!({ "type": "string" });
    let spec = json!({ "type": "object", "properties": {
        "cronSpec": text, "image": text, "replicas": { "type": "integer" },
    } });
    let schema = json!({ "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } });
    let names = json!({ "plural": "crontabs", "singular": "crontab", "kind": "CronTab" });
    let definition = json!({
        "metadata": { "name": "crontabs.stable.example.com" },
        "spec": { "group": "stable.example.com", "scope": "Namespaced", "names": names,
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": schema }] },
    });
    kit.create("customresourcedefinitions", definition).await;
    let at = "customresourcedefinitions/crontabs.stable.example.com";
    let established = |definition: &Value| {
        let conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True")
    };
    kit.until(at, "it is served", established).await;
    let validations = json!([
        { "expression": "object.spec.replicas > 1" },
        { "expression": "object.spec.replicas > \"1\"" },
        { "expression": "object.spec.maxRetries < 10" },
    ]);
    let found = warnings(&kit, policy("crontabs", "stable.example.com", "crontabs", validations)).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("spec.validations[1].expression: stable.example.com/v1, Kind=CronTab: "),
        "{found:?}"
    );
    assert!(
        found[0].contains("found no matching overload for '_>_' applied to '(int, string)'"),
        "{found:?}"
    );
    assert!(found[1].starts_with("spec.validations[2].expression: "), "{found:?}");
    assert!(found[1].contains("undefined field 'maxRetries'"), "{found:?}");
}
