//! The objects of a farm: one of each kind, with what the operator chooses where nothing needs to be said.

use serde_json::{Value, json};

pub(crate) const GROUP: &str = "/apis/buildbarn.io/v1alpha1";
/// The platform of every pool.
pub(crate) const PLATFORM: &[(&str, &str)] = &[("OSFamily", "linux")];
/// Actions that a worker runs at a time.
pub(crate) const CONCURRENCY: u32 = 4;
/// Every kind, by its plural, and what its object of a farm is called; in the order in which they are made.
pub(crate) const NAMES: [(&str, &str); 5] = [
    ("buildbarnstorages", "storage"),
    ("buildbarnschedulers", "scheduler"),
    ("buildbarnworkers", "pool"),
    ("buildbarnfrontends", "frontend"),
    ("buildbarnbrowsers", "browser"),
];

/// Where an object is, or all of a kind when the name is empty.
pub(crate) fn path(namespace: &str, kind: &str, name: &str) -> String {
    let slash = if name.is_empty() { "" } else { "/" };
    format!("{GROUP}/namespaces/{namespace}/{kind}{slash}{name}")
}

/// The five objects, each with the plural of its kind. `pool`: the fields that say how many workers there are.
pub(crate) fn farm(scheduler: &str, pool: &Value) -> Vec<(&'static str, Value)> {
    let platform: Vec<Value> =
        PLATFORM.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let mut worker = json!({ "concurrency": CONCURRENCY, "platform": { "properties": platform } });
    if let (Some(worker), Value::Object(pool)) = (worker.as_object_mut(), pool.clone()) {
        worker.extend(pool);
    }
    let specs = [
        ("BuildbarnStorage", json!({})),
        ("BuildbarnScheduler", json!({ "buildQueueState": { "address": scheduler } })),
        ("BuildbarnWorker", worker),
        ("BuildbarnFrontend", json!({ "replicas": 1, "serviceType": "ClusterIP" })),
        ("BuildbarnBrowser", json!({ "replicas": 1 })),
    ];
    let object = |((kind, spec), (plural, name)): ((&str, Value), (&'static str, &str))| {
        let object = json!({
            "apiVersion": "buildbarn.io/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        });
        (plural, object)
    };
    specs.into_iter().zip(NAMES).map(object).collect()
}

/// Whether the operator has looked at the present spec.
pub(crate) fn is_observed(object: &Value) -> bool {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64);
    number("/status/observedGeneration").is_some_and(|seen| number("/metadata/generation") == Some(seen))
}

/// Whether the operator says of the present spec that it is carried out.
pub(crate) fn is_ready(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let ready = |condition: &&Value| {
        let is = |key: &str, value: &str| condition.get(key).and_then(Value::as_str) == Some(value);
        is("type", "Ready") && is("status", "True")
    };
    is_observed(object) && conditions.into_iter().flatten().any(|condition| ready(&condition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farm_is_ready_when_its_present_spec_is() {
        let check = |generation: i64, observed: Value, status: &str, wanted: (bool, bool)| {
            let object = json!({
                "metadata": { "generation": generation },
                "status": {
                    "observedGeneration": observed,
                    "conditions": [{ "type": "Other", "status": "True" }, { "type": "Ready", "status": status }],
                },
            });
            assert_eq!((is_observed(&object), is_ready(&object)), wanted, "{object}");
        };
        check(2, json!(2), "True", (true, true));
        check(2, json!(2), "False", (true, false));
        check(2, json!(1), "True", (false, false));
        check(2, Value::Null, "True", (false, false));
        assert!(!is_observed(&json!({})));
    }

    #[test]
    fn a_farm_has_one_object_of_each_kind_that_the_operator_knows() {
        let known: Vec<(String, String)> = operator_buildbarn::crds()
            .iter()
            .map(|definition| {
                let text = |path: &str| definition.pointer(path).unwrap().as_str().unwrap().to_owned();
                (text("/spec/names/plural"), text("/spec/names/kind"))
            })
            .collect();
        let farm = farm("127.0.0.1:1", &json!({ "replicas": 7 }));
        let mut made: Vec<(String, String)> = farm
            .iter()
            .map(|(plural, object)| ((*plural).to_owned(), object["kind"].as_str().unwrap().to_owned()))
            .collect();
        made.sort();
        let mut known = known;
        known.sort();
        assert_eq!(made, known);
        let pool = &farm.iter().find(|(plural, _)| *plural == "buildbarnworkers").unwrap().1;
        assert_eq!(
            (&pool["spec"]["replicas"], &pool["spec"]["concurrency"]),
            (&json!(7), &json!(CONCURRENCY))
        );
    }
}
