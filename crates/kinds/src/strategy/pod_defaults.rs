//! Defaults of a pod that depend on its other fields (`pkg/apis/core/v1/defaults.go`).

use meta::Value;
use serde_json::{Map, json};

use super::fill;

/// Defaults of a PodSpec wherever it is: volumes without a source, pull policies, and the two names of the
/// service account kept the same.
pub(crate) fn pod_spec(spec: &mut Map<String, Value>) {
    for volume in maps(spec, "volumes") {
        if volume.keys().all(|key| key == "name") {
            volume.insert("emptyDir".to_owned(), json!({}));
        }
        if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
            pull_policy(image, "reference", "pullPolicy");
        }
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in maps(spec, list) {
            pull_policy(container, "image", "imagePullPolicy");
        }
    }
    let text = |spec: &Map<String, Value>, key: &str| {
        spec.get(key).and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned)
    };
    if let Some(name) = text(spec, "serviceAccountName").or_else(|| text(spec, "serviceAccount")) {
        spec.insert("serviceAccount".to_owned(), json!(name));
        spec.insert("serviceAccountName".to_owned(), json!(name));
    }
}

/// Defaults that only a Pod has, not a template: requests from limits, service links, host ports.
pub(crate) fn pod(spec: &mut Map<String, Value>) {
    fill(spec, "enableServiceLinks", true);
    let host = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    for list in ["containers", "initContainers"] {
        for container in maps(spec, list) {
            requests_from_limits(container);
            if host {
                for port in maps(container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned()
                        && port.get("hostPort").is_none_or(|host| host == &json!(0))
                    {
                        port.insert("hostPort".to_owned(), number);
                    }
                }
            }
        }
    }
}

fn requests_from_limits(container: &mut Map<String, Value>) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { return };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if let Some(requests) = requests.as_object_mut() {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// `Always` for the tag `latest`, which is also the tag of an image without one.
fn pull_policy(map: &mut Map<String, Value>, image: &str, policy: &str) {
    let image = map.get(image).and_then(Value::as_str).unwrap_or_default();
    let value = if is_latest(image) { "Always" } else { "IfNotPresent" };
    if map.get(policy).and_then(Value::as_str).is_none_or(str::is_empty) {
        map.insert(policy.to_owned(), json!(value));
    }
}

fn is_latest(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => !digest && !image.is_empty(),
    }
}

/// The maps in a list of a map.
pub(crate) fn maps<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = map.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_is_pulled_always() {
        for (image, latest) in [
            ("busybox", true),
            ("busybox:latest", true),
            ("busybox:1.36", false),
            ("localhost:5000/busybox", true),
            ("localhost:5000/busybox:1", false),
            ("busybox@sha256:0", false),
            ("busybox:latest@sha256:0", true),
            ("", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }
}
