//! Devices for pods (`pkg/apis/resource/validation`): what a claim asks for never changes, and each request is
//! one of two forms. CEL selectors, counters and the devices of a slice are not looked into: nothing allocates
//! them yet, and the schema checks their form.

use meta::{Object, Value, names};
use resource::{Context, Strategy};

use super::{fill, keep, maps_mut};
use crate::validate::{At, Errors};

/// Requests of one claim, as upstream.
const REQUESTS_MAX: usize = 32;
/// Choices of one request, as upstream.
const CHOICES_MAX: usize = 8;
/// Devices of one slice, as upstream.
const DEVICES_MAX: usize = 128;

/// Behaviour of `resource.k8s.io/v1` DeviceClass.
pub(crate) struct DeviceClass;
/// Behaviour of `resource.k8s.io/v1` ResourceClaim.
pub(crate) struct ResourceClaim;
/// Behaviour of `resource.k8s.io/v1` ResourceClaimTemplate.
pub(crate) struct ResourceClaimTemplate;
/// Behaviour of `resource.k8s.io/v1` ResourceSlice.
pub(crate) struct ResourceSlice;

impl Strategy for DeviceClass {
    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Object) {
        counts(object, &["spec", "devices", "requests"]);
    }

    fn prepare(&self, cx: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), meta::Status> {
        if let Some(old) = old.filter(|_| cx.attributes.subresource == "status") {
            keep(new, old, &["spec"]);
        }
        Ok(())
    }

    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let spec = At::root(new, "spec");
        match old {
            None => claim(&spec, errors),
            Some(old) => spec.immutable(errors, &At::root(old, "spec")),
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Object) {
        counts(object, &["spec", "spec", "devices", "requests"]);
    }

    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let spec = At::root(new, "spec");
        match old {
            None => claim(&spec.get("spec"), errors),
            Some(old) => spec.immutable(errors, &At::root(old, "spec")),
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

impl Strategy for ResourceSlice {
    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let spec = At::root(new, "spec");
        slice(&spec, errors);
        if let Some(old) = old {
            let before = At::root(old, "spec");
            for field in ["driver", "nodeName"] {
                spec.get(field).immutable(errors, &before.get(field));
            }
            spec.at(&["pool", "name"]).immutable(errors, &before.at(&["pool", "name"]));
        }
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// A request for exact devices is for one of them, unless it says otherwise.
fn counts(object: &mut Object, requests: &[&str]) {
    for (form, value) in maps_mut(object, requests).flat_map(serde_json::Map::iter_mut) {
        let devices: Vec<&mut Value> = match (form.as_str(), value) {
            ("exactly", device) => vec![device],
            ("firstAvailable", Value::Array(choices)) => choices.iter_mut().collect(),
            _ => continue,
        };
        for device in devices.into_iter().filter_map(Value::as_object_mut) {
            fill(device, "allocationMode", "ExactCount");
            if device.get("allocationMode").and_then(Value::as_str) == Some("ExactCount") {
                fill(device, "count", 1);
            }
        }
    }
}

fn claim(spec: &At<'_>, errors: &mut Errors) {
    let requests = spec.at(&["devices", "requests"]);
    if requests.len() > REQUESTS_MAX {
        requests.invalid(errors, format!("must have at most {REQUESTS_MAX} items"));
    }
    unique(&requests, errors);
    for request in requests.items() {
        let (exactly, choices) = (request.get("exactly"), request.get("firstAvailable"));
        match (exactly.is_set(), choices.len()) {
            (false, 0) => {
                request.required(errors, "exactly one of `exactly` or `firstAvailable` is required")
            }
            (true, 0) => device(&exactly, errors),
            (true, _) => request.invalid_as(
                errors,
                &Value::Null,
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            ),
            (false, count) => {
                if count > CHOICES_MAX {
                    choices.invalid(errors, format!("must have at most {CHOICES_MAX} items"));
                }
                unique(&choices, errors);
                choices.items().for_each(|choice| device(&choice, errors));
            }
        }
    }
}

/// Names of the items: there, well formed, each once.
fn unique(items: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for name in items.items().map(|item| item.get("name")) {
        if name.is_empty() {
            name.required(errors, "");
            continue;
        }
        name.all(errors, names::dns1123_label);
        if seen.contains(&name.text()) {
            name.duplicate(errors);
        }
        seen.push(name.text());
    }
}

fn device(of: &At<'_>, errors: &mut Errors) {
    let class = of.get("deviceClassName");
    if class.is_empty() {
        class.required(errors, "");
    } else {
        class.all(errors, names::dns1123_subdomain);
    }
    let (mode, count) = (of.get("allocationMode"), of.get("count"));
    if mode.is_set() {
        mode.one_of(errors, &["All", "ExactCount"]);
    }
    match (mode.text(), count.int()) {
        ("All", Some(count_given)) if count_given != 0 => {
            count.invalid(errors, "must not be specified when allocationMode is 'All'");
        }
        ("ExactCount", Some(count_given)) if count_given <= 0 => {
            count.invalid(errors, "must be greater than zero");
        }
        _ => {}
    }
}

fn slice(spec: &At<'_>, errors: &mut Errors) {
    for field in [spec.get("driver"), spec.at(&["pool", "name"])] {
        if field.is_empty() {
            field.required(errors, "");
        }
    }
    if !spec.get("driver").is_empty() {
        spec.get("driver").all(errors, names::dns1123_subdomain);
    }
    let places =
        [spec.get("nodeName").is_set(), spec.get("nodeSelector").is_set(), spec.get("allNodes").flag()];
    let per_device = spec.get("perDeviceNodeSelection").flag();
    if places.into_iter().chain([per_device]).filter(|set| *set).count() != 1 {
        let why =
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        spec.invalid_as(errors, &Value::Null, why);
    }
    let pool = spec.at(&["pool", "resourceSliceCount"]);
    if pool.int().unwrap_or(0) <= 0 {
        pool.invalid(errors, "must be greater than zero");
    }
    let devices = spec.get("devices");
    if devices.len() > DEVICES_MAX {
        devices.invalid(errors, format!("must have at most {DEVICES_MAX} items"));
    }
    unique(&devices, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Cx, object};

    fn check(strategy: &dyn Strategy, new: Value, old: Option<Value>, expected: &[&str]) {
        let cx = Cx::new("resourceclaims", "");
        let mut new = object(new);
        strategy.default(&mut new);
        let old = old.map(object);
        assert_eq!(cx.errors(strategy, &new, old.as_ref()), expected);
    }

    fn claiming(requests: Value) -> Value {
        json!({"metadata": {"name": "c", "namespace": "ns"}, "spec": {"devices": {"requests": requests}}})
    }

    #[test]
    fn claims() {
        let good = claiming(json!([{"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}]));
        check(&ResourceClaim, good.clone(), None, &[]);
        let mut one = object(good.clone());
        ResourceClaim.default(&mut one);
        assert_eq!(one.list(&["spec", "devices", "requests"])[0]["exactly"]["count"], 1);
        check(
            &ResourceClaim,
            claiming(json!([{"name": "a"}, {"name": "a", "exactly": {}}])),
            None,
            &[
                "spec.devices.requests[1].name: Duplicate value: \"a\"",
                "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                "spec.devices.requests[1].exactly.deviceClassName: Required value",
            ],
        );
        let other = claiming(json!([{"name": "x", "exactly": {"deviceClassName": "gpu.example.com"}}]));
        let cx = Cx::new("resourceclaims", "");
        let found = cx.errors(&ResourceClaim, &object(other), Some(&object(good)));
        assert!(found[0].ends_with("field is immutable"), "{found:?}");
    }

    #[test]
    fn slices() {
        let good = json!({"metadata": {"name": "s"}, "spec": {"driver": "d.example.com", "nodeName": "n",
            "pool": {"name": "p", "resourceSliceCount": 1}, "devices": [{"name": "gpu-0"}]}});
        check(&ResourceSlice, good.clone(), None, &[]);
        let mut bad = good.clone();
        bad["spec"]["allNodes"] = json!(true);
        bad["spec"]["driver"] = json!("other.example.com");
        let cx = Cx::new("resourceslices", "");
        let found = cx.errors(&ResourceSlice, &object(bad), Some(&object(good)));
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
