//! Pod Security Standards, as namespaces ask for them by labels (KEP-2579, `k8s.io/pod-security-admission`).

use meta::{FieldError, GroupResource, Object, Status, Value};
use resource::{Context, Operation};

use super::{Plugin, find, forbidden, namespace};

mod baseline;
mod level;
mod restricted;
#[cfg(test)]
mod tests;

use level::{Level, Policy};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods that a change of a namespace looks at, and that its warnings name, as upstream.
const PODS_MAX: usize = 3000;
const NAMED_MAX: usize = 10;

pub(super) struct PodSecurity;

impl Plugin for PodSecurity {
    const NAME: &'static str = "PodSecurity";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        match (resource, operation, subresource) {
            ("pods", Operation::Create, "") | ("pods", Operation::Update, "ephemeralcontainers") => true,
            (_, Operation::Create | Operation::Update, "") => {
                resource == "namespaces" || template(resource).is_some()
            }
            _ => false,
        }
    }

    fn validate(&self, cx: &Context<'_>, object: &Object, old: Option<&Object>) -> Result<(), Status> {
        match cx.attributes.resource.to_string().as_str() {
            "namespaces" => of_namespace(cx, object, old),
            "pods" => of_pod(cx, object),
            resource => of_template(cx, object, template(resource).unwrap_or_default()),
        }
    }
}

/// Where a workload has its pod template's spec.
fn template(resource: &str) -> Option<&'static [&'static str]> {
    match resource {
        "podtemplates" => Some(&["template"]),
        "replicationcontrollers"
        | "replicasets.apps"
        | "deployments.apps"
        | "statefulsets.apps"
        | "daemonsets.apps"
        | "jobs.batch" => Some(&["spec", "template"]),
        "cronjobs.batch" => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// What a namespace asks for in one mode.
fn policy(namespace: &Object, mode: &str) -> Result<Policy, Vec<FieldError>> {
    let mut errors = Vec::new();
    let label = |key: &str| namespace.label(&format!("{PREFIX}{key}"));
    let field = |key: &str| format!("metadata.labels[{PREFIX}{key}]");
    let mut policy = Policy::default();
    if let Some(text) = label(mode) {
        match Level::parse(text) {
            Some(level) => policy.level = level,
            None => {
                let detail = "must be one of privileged, baseline, restricted";
                errors.push(FieldError::invalid(field(mode), &text.into(), detail));
            }
        }
    }
    let key = format!("{mode}-version");
    if let Some(text) = label(&key) {
        match level::minor(text) {
            Some(minor) => policy.minor = minor,
            None => {
                let detail = "must be \"latest\" or \"v1.x\"";
                errors.push(FieldError::invalid(field(&key), &text.into(), detail));
            }
        }
    }
    if errors.is_empty() { Ok(policy) } else { Err(errors) }
}

/// What the namespace of the request asks for. Labels that cannot be read ask for the strictest, as upstream;
/// a namespace that is not there is refused elsewhere.
fn asked(cx: &Context<'_>, mode: &str) -> Result<Policy, Status> {
    let Some(object) = find(cx, "", "namespaces", "", namespace(cx))? else { return Ok(Policy::default()) };
    Ok(policy(&object, mode).unwrap_or(Policy { level: Level::Restricted, minor: level::LATEST }))
}

fn of_pod(cx: &Context<'_>, pod: &Object) -> Result<(), Status> {
    let enforced = asked(cx, "enforce")?;
    cx.attributes.notes.annotate(format!("{PREFIX}enforce-policy"), enforced.to_string());
    let Some(spec) = pod.get(&["spec"]) else { return Ok(()) };
    let metadata = pod.get(&["metadata"]).unwrap_or(&Value::Null);
    if let Some(why) = enforced.violations(metadata, spec) {
        return Err(forbidden(cx, pod.name(), &format!("violates PodSecurity \"{enforced}\": {why}")));
    }
    advise(cx, metadata, spec)
}

fn of_template(cx: &Context<'_>, object: &Object, path: &[&str]) -> Result<(), Status> {
    let template = object.get(path).unwrap_or(&Value::Null);
    let nothing = Value::Null;
    match template.get("spec") {
        Some(spec) => advise(cx, template.get("metadata").unwrap_or(&nothing), spec),
        None => Ok(()),
    }
}

/// Warnings and audit annotations.
fn advise(cx: &Context<'_>, metadata: &Value, spec: &Value) -> Result<(), Status> {
    let audited = asked(cx, "audit")?;
    if let Some(why) = audited.violations(metadata, spec) {
        let text = format!("would violate PodSecurity \"{audited}\": {why}");
        cx.attributes.notes.annotate(format!("{PREFIX}audit-violations"), text);
    }
    let warned = asked(cx, "warn")?;
    if let Some(why) = warned.violations(metadata, spec) {
        cx.attributes.notes.warn(format!("would violate PodSecurity \"{warned}\": {why}"));
    }
    Ok(())
}

fn of_namespace(cx: &Context<'_>, new: &Object, old: Option<&Object>) -> Result<(), Status> {
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        // What was wrong before may stay wrong.
        let was = |old: &Object| policy(old, mode).err();
        let found = policy(new, mode).err();
        if found.is_some() && found != old.and_then(was) {
            errors.extend(found.into_iter().flatten());
        }
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "Namespace", new.name(), &errors));
    }
    let Some(old) = old else { return Ok(()) };
    let (Ok(before), Ok(after)) = (policy(old, "enforce"), policy(new, "enforce")) else { return Ok(()) };
    if after.level <= before.level && after.minor == before.minor {
        return Ok(());
    }
    existing(cx, new.name(), &after)
}

/// Warns of pods that are there and would not be admitted any more.
fn existing(cx: &Context<'_>, name: &str, policy: &Policy) -> Result<(), Status> {
    let mut by_reason: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    let entries = cx.view.list(&GroupResource::new("", "pods"), Some(name));
    for entry in entries.iter().take(PODS_MAX) {
        let pod = entry.object().map_err(Status::internal)?;
        let (Some(metadata), Some(spec)) = (pod.get(&["metadata"]), pod.get(&["spec"])) else { continue };
        if let Some(why) = policy.reasons(metadata, spec) {
            by_reason.entry(why).or_default().push(pod.name().to_owned());
        }
    }
    if by_reason.is_empty() {
        return Ok(());
    }
    let notes = &cx.attributes.notes;
    notes.warn(format!(
        "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{policy}\""
    ));
    for (why, pods) in by_reason.into_iter().take(NAMED_MAX) {
        let others = match pods.len() - 1 {
            0 => String::new(),
            1 => " (and 1 other pod)".to_owned(),
            more => format!(" (and {more} other pods)"),
        };
        notes.warn(format!("{}{others}: {why}", pods.first().map_or("", String::as_str)));
    }
    Ok(())
}
