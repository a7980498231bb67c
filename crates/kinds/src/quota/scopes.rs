//! Which objects a quota counts (upstream `pkg/quota/v1/evaluator/core/pods.go` and
//! `persistent_volume_claims.go`).

use meta::{GroupResource, Object, Value};

/// Whether a quota counts objects like this one: all its scopes say so. A kind that a scope does not know is
/// not counted.
pub fn covers(quota: &Object, resource: &GroupResource, object: &Object) -> bool {
    let scopes = quota.list(&["spec", "scopes"]).iter().filter_map(Value::as_str);
    let selected = quota.list(&["spec", "scopeSelector", "matchExpressions"]);
    scopes.map(|scope| (scope, "Exists", &[][..])).chain(selected.iter().map(expression)).all(
        |(scope, operator, values)| match (&*resource.group, &*resource.resource, scope) {
            ("", "pods", "PriorityClass") => {
                let class = object.str(&["spec", "priorityClassName"]).filter(|class| !class.is_empty());
                selects(operator, values, &class.into_iter().collect::<Vec<_>>())
            }
            ("", "pods", scope) => pod(object, scope),
            ("", "persistentvolumeclaims", "VolumeAttributesClass") => {
                selects(operator, values, &attributes_classes(object))
            }
            _ => false,
        },
    )
}

fn expression(value: &Value) -> (&str, &str, &[Value]) {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let values = value.get("values").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    (text("scopeName"), text("operator"), values)
}

fn selects(operator: &str, values: &[Value], of: &[&str]) -> bool {
    let listed = || of.iter().any(|name| values.iter().any(|value| value.as_str() == Some(name)));
    match operator {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => !of.is_empty(),
        "DoesNotExist" => of.is_empty(),
        _ => false,
    }
}

fn pod(pod: &Object, scope: &str) -> bool {
    let ends = pod.int(&["spec", "activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0);
    let best_effort = || crate::strategy::qos_class(pod) == "BestEffort";
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// Whether an affinity term looks at pods of other namespaces.
fn crosses_namespaces(pod: &Object) -> bool {
    let crosses = |term: &Value| {
        let named = term.get("namespaces").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        named || term.get("namespaceSelector").is_some_and(|selector| !selector.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|affinity| {
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        let weighted = pod.list(&["spec", "affinity", affinity, preferred]).iter();
        let weighted = weighted.filter_map(|weighted| weighted.get("podAffinityTerm"));
        pod.list(&["spec", "affinity", affinity, required]).iter().chain(weighted).any(crosses)
    })
}

/// The class that a claim asks for, has, and is being moved to.
fn attributes_classes(claim: &Object) -> Vec<&str> {
    let paths: [&[&str]; 3] = [
        &["spec", "volumeAttributesClassName"],
        &["status", "currentVolumeAttributesClassName"],
        &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
    ];
    paths.iter().filter_map(|path| claim.str(path)).filter(|class| !class.is_empty()).collect()
}
