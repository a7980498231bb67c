//! APIServices as objects (upstream `pkg/apis/apiregistration/validation`). Whether a server answers is found out
//! where it is asked.

use meta::{Condition, ConditionStatus, FieldError, Object, Status, names};
use resource::{Context, Strategy};
use serde_json::json;

use crate::validate::{At, Errors};

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1_000;

/// Behaviour of `apiregistration.k8s.io/v1` APIService.
pub(crate) struct ApiService;

impl Strategy for ApiService {
    fn prepare(&self, cx: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        if old.is_none() && new.get(&["spec", "service"]).is_none_or(serde_json::Value::is_null) {
            Condition::new("Available", ConditionStatus::True, "Local")
                .message("Local APIServices are always available")
                .set_in(new, cx.clock.now());
        }
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let spec = At::root(new, "spec");
        let (group, version) = (spec.get("group"), spec.get("version"));
        let expected = format!("{}.{}", version.text(), group.text());
        if new.name() != expected {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {expected:?}");
            errors.push(FieldError::invalid("metadata.name", &json!(new.name()), detail));
        }
        if group.is_empty() && version.text() != "v1" {
            group.required(errors, "only v1 may have an empty group and it better be legacy kube");
        }
        if !group.is_empty() {
            group.all(errors, names::dns1123_subdomain);
        }
        version.all(errors, names::dns1035_label);
        for (field, most) in
            [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)]
        {
            let priority = spec.get(field);
            if !priority.int().is_some_and(|priority| (1..=most).contains(&priority)) {
                let detail = format!("must be positive and less than {most}");
                priority.invalid_as(errors, &json!(priority.int().unwrap_or(0)), detail);
            }
        }
        place(&spec, errors);
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::segment(name)
    }
}

fn place(spec: &At<'_>, errors: &mut Errors) {
    let (service, ca, skip) = (spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if !service.is_set() {
        if !ca.is_empty() {
            let shown = json!(format!("{} bytes", ca.text().len() / 4 * 3));
            ca.invalid_as(errors, &shown, "local APIServices may not have a caBundle");
        }
        if skip.flag() {
            skip.invalid(errors, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    for field in ["namespace", "name"] {
        if service.get(field).is_empty() {
            service.get(field).required(errors, "");
        }
    }
    let port = service.get("port");
    if port.int().is_some_and(|port| !(1..=65_535).contains(&port)) {
        port.invalid(errors, "port is not valid: must be between 1 and 65535, inclusive");
    }
    if skip.flag() && !ca.is_empty() {
        skip.invalid(errors, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use meta::Value;

    use super::*;
    use crate::testing::{Cx, object};

    fn check(name: &str, spec: Value, expected: &[&str]) {
        let new = object(json!({"metadata": {"name": name}, "spec": spec}));
        assert_eq!(Cx::new("apiservices", "").errors(&ApiService, &new, None), expected);
    }

    #[test]
    fn specs() {
        let remote = |change: Value| {
            let mut spec = json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 1000,
                "versionPriority": 15, "service": {"namespace": "ns", "name": "ext", "port": 443}});
            spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            spec
        };
        check("v1.a.b", remote(json!({})), &[]);
        check("v1.", json!({"version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}), &[]);
        check(
            "x",
            json!({"version": "v2", "groupPriorityMinimum": 0, "versionPriority": 1001, "caBundle": "AAAA",
                "insecureSkipTLSVerify": true}),
            &[
                "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v2.\"",
                "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
                "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ],
        );
        check(
            "v1.a.b",
            remote(json!({"caBundle": "AAAA", "insecureSkipTLSVerify": true, "service": {"port": 0}})),
            &[
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ],
        );
    }

    #[test]
    fn a_local_one_is_available_at_once() {
        let cx = Cx::new("apiservices", "");
        let mut local = object(json!({"metadata": {"name": "v1.apps"}, "spec": {}}));
        ApiService.prepare(&cx.context(), &mut local, None).unwrap();
        assert!(meta::is_condition_true(&local, "Available"));
        let mut remote = object(json!({"metadata": {"name": "v1.a.b"}, "spec": {"service": {"name": "x"}}}));
        ApiService.prepare(&cx.context(), &mut remote, None).unwrap();
        assert_eq!(remote.get(&["status"]), None);
    }
}
