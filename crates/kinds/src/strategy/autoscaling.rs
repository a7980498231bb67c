//! HorizontalPodAutoscalers.

use meta::{Object, Value};
use resource::{Context, Strategy};
use serde_json::json;

use crate::validate::{At, Errors};

/// Behaviour of HorizontalPodAutoscaler in the version it is stored in.
pub(crate) struct Autoscaler;

impl Strategy for Autoscaler {
    fn default(&self, object: &mut Object) {
        if object.api_version() != "autoscaling/v2" {
            return;
        }
        if object.list(&["spec", "metrics"]).is_empty() {
            let target = json!({"type": "Utilization", "averageUtilization": 80});
            let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
            object.set(&["spec", "metrics"], metrics);
        }
        if object.get(&["spec", "behavior"]).is_some_and(Value::is_object) {
            let up = json!([
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ]);
            let down = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
            object.set_default(&["spec", "behavior", "scaleUp", "stabilizationWindowSeconds"], 0);
            for (side, policies) in [("scaleUp", up), ("scaleDown", down)] {
                object.set_default(&["spec", "behavior", side, "policies"], policies);
                object.set_default(&["spec", "behavior", side, "selectPolicy"], "Max");
            }
        }
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let spec = At::root(new, "spec");
        let (low, high) = (spec.get("minReplicas"), spec.get("maxReplicas"));
        if low.int().is_some_and(|low| low < 1) {
            low.invalid(errors, "must be greater than or equal to 1");
        }
        if high.int().is_none_or(|high| high < 1) {
            high.invalid_as(errors, &json!(high.int().unwrap_or(0)), "must be greater than 0");
        } else if high.int() < low.int() {
            high.invalid(errors, "must be greater than or equal to `minReplicas`");
        }
        for field in ["kind", "name"] {
            let field = spec.at(&["scaleTargetRef", field]);
            if field.is_empty() {
                field.required(errors, "");
            }
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}
