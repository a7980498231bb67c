//! What a Job's policies say of its pods: which failures count (`podFailurePolicy`) and when enough
//! indexes have succeeded (`successPolicy`). Pure readings of upstream `pod_failure_policy.go` and
//! `success_policy.go`.

use k8s_openapi::api::{
    batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule},
    core::v1::{ContainerStatus, Pod},
};
use kube::ResourceExt;

use super::indexes::Indexes;

/// What becomes of one failed pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It counts towards the limits.
    Counted,
    /// It is as if it had not been.
    Ignored,
    /// Its index is not tried again.
    FailsIndex,
    /// The whole Job has failed, for this reason.
    FailsJob(String),
}

/// Judges a failed pod by the first rule that matches it.
pub(super) fn judge(spec: &JobSpec, pod: &Pod) -> Failure {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| policy.rules.iter().enumerate());
    for (at, rule) in rules {
        let Some(what) = matched(rule, pod) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Failure::Ignored,
            "Count" => return Failure::Counted,
            "FailIndex" => return Failure::FailsIndex,
            "FailJob" => return Failure::FailsJob(format!("{what} matching FailJob rule at index {at}")),
            // An action of a newer API: upstream goes on to the next rule.
            _ => {}
        }
    }
    Failure::Counted
}

/// What of the pod matches the rule, in upstream's words.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if let Some(wanted) = &rule.on_exit_codes {
        let mut all =
            status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        let (container, code) = all.find_map(|container| Some((container, exit_code(container, wanted)?)))?;
        return Some(format!("Container {} for pod {name} failed with exit code {code}", container.name));
    }
    let patterns = rule.on_pod_conditions.as_ref()?;
    let fits = |kind: &str, status: &str| {
        patterns.iter().any(|p| p.type_ == kind && p.status.as_deref().unwrap_or("True") == status)
    };
    let condition = status.conditions.iter().flatten().find(|c| fits(&c.type_, &c.status))?;
    Some(format!("Pod {name} has condition {}", condition.type_))
}

fn exit_code(container: &ContainerStatus, wanted: &PodFailurePolicyOnExitCodesRequirement) -> Option<i32> {
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let named = wanted.container_name.as_ref().is_none_or(|name| *name == container.name);
    let listed = wanted.values.contains(&code);
    let fits = match wanted.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (named && code != 0 && fits).then_some(code)
}

/// The message of the first rule of the success policy that the succeeded indexes fulfil.
pub(super) fn success(spec: &JobSpec, succeeded: &Indexes) -> Option<String> {
    let rules = &spec.success_policy.as_ref()?.rules;
    let completions = spec.completions.unwrap_or(0);
    let at = rules.iter().position(|rule| {
        let enough = |n: i32| rule.succeeded_count.is_some_and(|count| n >= count);
        match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = Indexes::parse(text, completions);
                let have = wanted.common(succeeded);
                wanted.len() > 0 && (have == wanted.len() || enough(have))
            }
            None => enough(succeeded.len()),
        }
    });
    at.filter(|_| succeeded.len() > 0).map(|at| format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use reconcile::testkit::yaml;

    use super::*;

    const SPEC: &str = r"
completions: 10
podFailurePolicy:
  rules:
  - { action: FailJob, onExitCodes: { containerName: main, operator: In, values: [ 42 ] } }
  - { action: FailIndex, onExitCodes: { operator: In, values: [ 43 ] } }
  - { action: Ignore, onPodConditions: [ { type: DisruptionTarget, status: 'True' } ] }
  - { action: Count, onExitCodes: { operator: NotIn, values: [ 1 ] } }
successPolicy:
  rules:
  - { succeededIndexes: '0,2-3', succeededCount: 2 }
  - { succeededIndexes: '7' }
  - { succeededCount: 5 }
template: {}
";

    fn pod(container: &str, code: i32, condition: &str) -> Pod {
        yaml(&format!(
            "metadata: {{ name: p, namespace: ns }}\nstatus: {{ phase: Failed, conditions: [ {{ type: {condition}, status: 'True' }} ], containerStatuses: [ {{ name: {container}, image: i, imageID: i, ready: false, restartCount: 0, state: {{ terminated: {{ exitCode: {code} }} }} }} ] }}"
        ))
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let spec: JobSpec = yaml(SPEC);
        let message = "Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 0";
        for (container, code, condition, expected) in [
            ("main", 42, "X", Failure::FailsJob(message.to_owned())),
            ("side", 42, "X", Failure::Counted),
            ("side", 43, "DisruptionTarget", Failure::FailsIndex),
            ("main", 1, "DisruptionTarget", Failure::Ignored),
            ("main", 1, "X", Failure::Counted),
            ("main", 0, "X", Failure::Counted),
        ] {
            assert_eq!(judge(&spec, &pod(container, code, condition)), expected, "{container} {code}");
        }
    }

    #[test]
    fn success_needs_the_indexes_or_the_count() {
        let spec: JobSpec = yaml(SPEC);
        for (indexes, rule) in
            [("", None), ("0", None), ("0,3", Some(0)), ("7", Some(1)), ("4-6,8,9", Some(2)), ("4-6", None)]
        {
            let expected = rule.map(|rule| format!("Matched rules at index {rule}"));
            assert_eq!(success(&spec, &Indexes::parse(indexes, 10)), expected, "{indexes}");
        }
    }
}
