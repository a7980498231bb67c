//! `pods/eviction`: deletes a pod unless a PodDisruptionBudget forbids it
//! (`pkg/registry/core/pod/storage/eviction.go`).

use meta::{
    Cause, Condition, ConditionStatus, GroupResource, LabelSelector, Object, Reason, Status, Value,
    format_second, is_condition_true,
};
use resource::{Act, Acted, Context};
use serde_json::json;

use super::label_map;

/// As many evictions as a budget may have open before its controller confirms them.
const DISRUPTED_MAX: usize = 2000;

const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Deletes a pod if its budget allows.
pub(crate) struct Eviction;

impl Act for Eviction {
    fn body(&self) -> (&'static str, &'static str, &'static str) {
        ("policy", "v1", "Eviction")
    }

    fn act(&self, cx: &Context<'_>, object: Option<&Object>, body: &Object) -> Result<Acted, Status> {
        let resource = GroupResource::new("", "pods");
        let pod = object.ok_or_else(|| Status::not_found(&resource, body.name()))?;
        if !body.name().is_empty() && body.name() != pod.name() {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let also = if ignores_budgets(pod) { Vec::new() } else { charge(cx, pod)? };
        let options = body.get(&["deleteOptions"]).cloned().unwrap_or_else(|| json!({}));
        let answer =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        let condition = Condition::new("DisruptionTarget", ConditionStatus::True, "EvictionByEvictionAPI")
            .message("Eviction API: evicting");
        Ok(Acted::Delete { options, answer, also, condition: Some(condition) })
    }
}

/// A pod that serves nobody: not started, finished, or already going.
fn ignores_budgets(pod: &Object) -> bool {
    pod.is_deleting() || matches!(pod.str(&["status", "phase"]), Some("Succeeded" | "Failed" | "Pending"))
}

/// The budgets to write before the pod may go: none, or the one that selects it with one disruption less.
fn charge(cx: &Context<'_>, pod: &Object) -> Result<Vec<Object>, Status> {
    let mut budgets = budgets(cx, pod)?;
    let Some(mut budget) = budgets.pop() else { return Ok(Vec::new()) };
    if !budgets.is_empty() {
        let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not \
                   support.";
        let mut status = Status::internal("");
        (status.reason, status.message) = (None, why.to_owned());
        return Err(status);
    }
    if !is_condition_true(pod, "Ready") {
        let always = budget.str(&["spec", "unhealthyPodEvictionPolicy"]) == Some("AlwaysAllow");
        let desired = count(&budget, "desiredHealthy");
        if always || (desired > 0 && count(&budget, "currentHealthy") >= desired) {
            return Ok(Vec::new());
        }
    }
    decrement(cx, pod, &mut budget)?;
    Ok(vec![budget])
}

fn budgets(cx: &Context<'_>, pod: &Object) -> Result<Vec<Object>, Status> {
    let labels = label_map(pod.get(&["metadata", "labels"]));
    let resource = GroupResource::new("policy", "poddisruptionbudgets");
    let mut found = Vec::new();
    for entry in cx.view.list(&resource, Some(pod.namespace())) {
        let budget = entry.object().map_err(Status::internal)?;
        let selector = budget.get(&["spec", "selector"]).unwrap_or(&Value::Null);
        let selector = LabelSelector::from_value(selector).map_err(Status::internal)?;
        if selector.matches(&labels) {
            found.push(budget);
        }
    }
    Ok(found)
}

fn count(budget: &Object, field: &str) -> i64 {
    budget.int(&["status", field]).unwrap_or(0)
}

fn decrement(cx: &Context<'_>, pod: &Object, budget: &mut Object) -> Result<(), Status> {
    let resource = GroupResource::new("policy", "poddisruptionbudget");
    let name = budget.name().to_owned();
    let observed = count(budget, "observedGeneration");
    if observed < budget.int(&["metadata", "generation"]).unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(too_many(why, 10));
    }
    let allowed = count(budget, "disruptionsAllowed");
    let disrupted = budget.get(&["status", "disruptedPods"]).and_then(Value::as_object);
    if allowed < 0 {
        return Err(Status::forbidden(&resource, &name, "pdb disruptions allowed is negative"));
    }
    if disrupted.is_some_and(|pods| pods.len() > DISRUPTED_MAX) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden(&resource, &name, why));
    }
    if allowed == 0 {
        return Err(too_many(why_not(budget, &name), 0));
    }
    budget.set(&["status", "disruptionsAllowed"], allowed - 1);
    let now = cx.clock.now();
    if allowed == 1 {
        Condition::new("DisruptionAllowed", ConditionStatus::False, "InsufficientPods")
            .observed(observed)
            .set_in(budget, now);
    }
    budget.set(&["status", "disruptedPods", pod.name()], format_second(now));
    Ok(())
}

fn why_not(budget: &Object, name: &str) -> String {
    let (current, desired) = (count(budget, "currentHealthy"), count(budget, "desiredHealthy"));
    let condition = meta::find_condition(budget, "DisruptionAllowed").filter(|c| c["status"] == "False");
    let text = |field: &str| condition.and_then(|c| c.get(field)?.as_str()).unwrap_or_default();
    let (reason, message) = (text("reason"), text("message"));
    if reason == "SyncFailed" && !message.is_empty() {
        let because = "does not allow evicting pods currently because it failed sync";
        format!("The disruption budget {name} {because}: {message}")
    } else if current <= desired {
        format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
    } else if !message.is_empty() {
        format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {message}")
    } else {
        format!("The disruption budget {name} does not allow evicting pods currently")
    }
}

fn too_many(cause: String, retry_after: u32) -> Status {
    let mut status = Status::new(429, Reason::TooManyRequests, VIOLATES).retry_after(retry_after);
    let cause = Cause { reason: "DisruptionBudget".to_owned(), message: cause, field: String::new() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cx, object};

    fn check(phase: &str, budget: Value) -> Result<Vec<Object>, (u16, String)> {
        let pod = object(json!({
            "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "a"}},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]}
        }));
        let mut stored = json!({
            "metadata": {"name": "b", "namespace": "ns"}, "spec": {"selector": {"matchLabels": {"app": "a"}}}
        });
        stored["status"] = budget;
        let cx = Cx::new("pods", "eviction").with("policy", "poddisruptionbudgets", stored);
        match Eviction.act(&cx.context(), Some(&pod), &object(json!({"metadata": {"name": "p"}}))) {
            Ok(Acted::Delete { also, .. }) => Ok(also),
            Ok(_) => panic!("not a deletion"),
            Err(status) => {
                let cause = status.details.and_then(|d| d.causes.first().map(|c| c.message.clone()));
                Err((status.code, cause.unwrap_or(status.message)))
            }
        }
    }

    #[test]
    fn budget_is_charged() {
        let also =
            check("Running", json!({"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1}));
        let also = also.unwrap();
        assert_eq!(also[0].int(&["status", "disruptionsAllowed"]), Some(0));
        assert_eq!(also[0].str(&["status", "disruptedPods", "p"]), Some("1970-01-01T00:00:00Z"));
        assert_eq!(check("Pending", json!({"disruptionsAllowed": 0})).unwrap(), []);
    }

    #[test]
    fn budget_refuses() {
        let none = json!({"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1});
        let words = "The disruption budget b needs 1 healthy pods and has 1 currently".to_owned();
        assert_eq!(check("Running", none).unwrap_err(), (429, words));
    }
}
