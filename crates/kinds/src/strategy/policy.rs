//! PodDisruptionBudgets.

use meta::Object;
use resource::{Context, Strategy};

use crate::validate::{At, Errors, at_most_all, count_or_percent, label_selector};

/// Behaviour of `policy/v1` PodDisruptionBudget.
pub(crate) struct DisruptionBudget;

impl Strategy for DisruptionBudget {
    fn validate(&self, cx: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            let status = At::root(new, "status");
            for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
                status.get(field).not_negative(errors);
            }
            return;
        }
        let spec = At::root(new, "spec");
        let (available, unavailable) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
        if available.is_set() && unavailable.is_set() {
            let detail = "minAvailable and maxUnavailable cannot be both set";
            spec.invalid(errors, detail);
        }
        for field in [&available, &unavailable] {
            if field.is_set() {
                count_or_percent(field, errors);
                at_most_all(field, errors);
            }
        }
        label_selector(&spec.get("selector"), errors);
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}
