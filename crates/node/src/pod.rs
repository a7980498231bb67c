//! Reading a Pod: the questions that plan, status and driver all ask of the object.
//!
//! Guarantees: one answer to "which containers, in which role, under which restart policy". Pure.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};
use meta::Timestamp;
use runtime::action::Role;

/// Seconds of grace where the pod says nothing (upstream `DefaultTerminationGracePeriodSeconds`).
pub const GRACE_DEFAULT_SECONDS: i64 = 30;

/// A container of the pod and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its spec.
    pub container: &'a Container,
    /// What it is for.
    pub role: Role,
}

/// The pod as it is kept: without `managedFields`, the largest part of it, by which nothing is planned.
pub fn lean(mut pod: Pod) -> Arc<Pod> {
    pod.metadata.managed_fields = None;
    Arc::new(pod)
}

/// UID; empty only for an object that never came from an API server.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Namespace.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// Name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, as upstream's messages name a pod.
pub fn long_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// Init containers in order; sidecars among them.
pub fn init(pod: &Pod) -> impl Iterator<Item = Member<'_>> {
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    containers.map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        Member { container, role: if sidecar { Role::Sidecar } else { Role::Init } }
    })
}

/// Main containers.
pub fn main(pod: &Pod) -> impl Iterator<Item = Member<'_>> {
    let containers = pod.spec.iter().flat_map(|spec| spec.containers.iter());
    containers.map(|container| Member { container, role: Role::Main })
}

/// Init and main containers: those that count for resources, ports and quality of service.
pub fn members(pod: &Pod) -> impl Iterator<Item = Member<'_>> {
    init(pod).chain(main(pod))
}

/// The init or main container called `name`.
pub fn member<'a>(pod: &'a Pod, name: &str) -> Option<Member<'a>> {
    members(pod).find(|member| member.container.name == name)
}

/// An ephemeral container, in the form of the others.
#[derive(Clone, Debug)]
pub struct Ephemeral {
    container: Container,
    /// `targetContainerName`: whose processes it sees.
    pub target: Option<String>,
}

impl Ephemeral {
    /// What the other containers of the pod are.
    pub fn member(&self) -> Member<'_> {
        Member { container: &self.container, role: Role::Ephemeral }
    }
}

/// Ephemeral containers in order (KEP-277).
pub fn ephemeral(pod: &Pod) -> impl Iterator<Item = Ephemeral> {
    let containers = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    containers.cloned().map(as_container)
}

/// Field by field, so that a field that upstream adds is not forgotten.
fn as_container(ephemeral: EphemeralContainer) -> Ephemeral {
    let EphemeralContainer {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
        target_container_name: target,
    } = ephemeral;
    let container = Container {
        args,
        command,
        env,
        env_from,
        image,
        image_pull_policy,
        lifecycle,
        liveness_probe,
        name,
        ports,
        readiness_probe,
        resize_policy,
        resources,
        restart_policy,
        restart_policy_rules,
        security_context,
        startup_probe,
        stdin,
        stdin_once,
        termination_message_path,
        termination_message_policy,
        tty,
        volume_devices,
        volume_mounts,
        working_dir,
    };
    Ephemeral { container, target: target.filter(|target| !target.is_empty()) }
}

/// Whether the pod has a container of this name, of whatever kind.
pub fn has(pod: &Pod, name: &str) -> bool {
    member(pod, name).is_some() || ephemeral(pod).any(|own| own.container.name == name)
}

/// The image that the container of this name asks for, of whatever kind it is.
pub fn image(pod: &Pod, name: &str) -> String {
    let own = |member: Member<'_>| member.container.image.clone();
    let found = match member(pod, name) {
        Some(member) => own(member),
        None => ephemeral(pod).find(|own| own.container.name == name).and_then(|found| own(found.member())),
    };
    found.unwrap_or_default()
}

/// `spec.restartPolicy`.
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether `phase` is one that a pod never leaves.
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// `status.phase`.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether deletion has begun.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The grace its containers get: that of the deletion when there is one.
pub fn grace(pod: &Pod) -> Duration {
    let asked = pod.metadata.deletion_timestamp.as_ref().and(pod.metadata.deletion_grace_period_seconds);
    let spec = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = asked.or(spec).unwrap_or(GRACE_DEFAULT_SECONDS);
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// Whether a member that exited with `code` runs again (KEP-753 sidecars, KEP-5307 container rules).
pub fn restarts(pod: &Pod, member: Member<'_>, code: i32) -> bool {
    if member.role == Role::Ephemeral {
        return false;
    }
    let Container { restart_policy: own, restart_policy_rules: rules, .. } = member.container;
    for rule in rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|value| *value == code);
        let matches = if codes.operator == "NotIn" { !listed } else { listed };
        if matches && rule.action == "Restart" {
            return true;
        }
    }
    let policy = own.as_deref().unwrap_or_else(|| restart_policy(pod));
    match (policy, member.role) {
        ("Never", _) => false,
        ("OnFailure", _) | (_, Role::Init) => code != 0,
        (_, Role::Main | Role::Sidecar) => true,
        (_, Role::Ephemeral) => false,
    }
}

/// What a change of makes a running container be replaced: name and image, as upstream since 1.31
/// (`pkg/kubelet/container/helpers.go`, `pickFieldsToHash`). FNV-1a, stable across builds.
pub fn spec_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let bytes = container.name.bytes().chain([0]).chain(image.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// When `spec.activeDeadlineSeconds` has passed; `None` without a deadline or before the pod began.
pub fn deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    start.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()
}

/// Whether the pod lives in the host's network.
pub fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn restart_policies() {
        let rule = json!([{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }]);
        for (policy, container, init, code, expected) in [
            ("Always", json!({ "name": "c" }), false, 0, true),
            ("OnFailure", json!({ "name": "c" }), false, 0, false),
            ("OnFailure", json!({ "name": "c" }), false, 1, true),
            ("Never", json!({ "name": "c" }), false, 1, false),
            ("Always", json!({ "name": "c" }), true, 0, false),
            ("Always", json!({ "name": "c" }), true, 1, true),
            ("Never", json!({ "name": "c" }), true, 1, false),
            ("Never", json!({ "name": "c", "restartPolicy": "Always" }), true, 0, true),
            ("Always", json!({ "name": "c", "restartPolicy": "Never" }), false, 1, false),
            (
                "Never",
                json!({ "name": "c", "restartPolicy": "Never", "restartPolicyRules": rule }),
                false,
                42,
                true,
            ),
            (
                "Never",
                json!({ "name": "c", "restartPolicy": "Never", "restartPolicyRules": rule }),
                false,
                1,
                false,
            ),
        ] {
            let (inits, mains) =
                if init { (json!([container]), json!([])) } else { (json!([]), json!([container])) };
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {},
                "spec": { "restartPolicy": policy, "initContainers": inits, "containers": mains }
            }))
            .unwrap();
            let member = members(&pod).next().unwrap();
            assert_eq!(restarts(&pod, member, code), expected, "{policy} {container} {code}");
        }
    }

    #[test]
    fn hash_moves_with_the_image_only() {
        let container = |image: &str, args: &str| Container {
            name: "c".into(),
            image: Some(image.into()),
            args: Some(vec![args.into()]),
            ..Container::default()
        };
        assert_eq!(spec_hash(&container("a", "1")), spec_hash(&container("a", "2")));
        assert_ne!(spec_hash(&container("a", "1")), spec_hash(&container("b", "1")));
    }
}
