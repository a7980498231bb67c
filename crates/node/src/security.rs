//! `securityContext` of pod and container as what the runtime is told.
//!
//! Guarantees: the container's word wins over the pod's; `runAsNonRoot` is checked against the image.
//! SELinux options are told to the runtime, which passes over them where the machine has no SELinux, as upstream.
//! Not supported and refused: supplementalGroupsPolicy Strict.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile,
};
use runtime::{
    Image,
    action::{Profile, SecurityContext, SelinuxLabel},
};

use crate::pod;

/// Why a container may not be made: `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// `runAsNonRoot` and `runAsUser: 0`.
    #[error("container's runAsUser breaks non-root policy (pod: {0:?}, container: {1})")]
    RootUser(String, String),
    /// `runAsNonRoot` and the image runs as root.
    #[error("container has runAsNonRoot and image will run as root (pod: {0:?}, container: {1})")]
    RootImage(String, String),
    /// `runAsNonRoot` and the image names its user.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    NamedUser {
        /// The image's user.
        user: String,
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// This node does not do that.
    #[error("{0} is not supported by this node")]
    NotSupported(&'static str),
}

/// Privileges of `container`, whose image is `image`.
pub fn context(
    pod: &Pod,
    container: &Container,
    image: Option<&Image>,
) -> Result<SecurityContext, SecurityError> {
    let none = PodSecurityContext::default();
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()).unwrap_or(&none);
    let own = container.security_context.clone().unwrap_or_default();
    if of_pod.supplemental_groups_policy.as_deref() == Some("Strict") {
        return Err(SecurityError::NotSupported("supplementalGroupsPolicy: Strict"));
    }
    let uid = own.run_as_user.or(of_pod.run_as_user);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        verify_non_root(pod, container, uid, image)?;
    }
    let gid = own.run_as_group.or(of_pod.run_as_group);
    let mut groups = of_pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(of_pod.fs_group);
    let privileged = own.privileged.unwrap_or_default();
    let unmasked = match own.proc_mount.as_deref() {
        Some("Unmasked") => Some(Vec::new()),
        _ => None,
    };
    let capabilities = own.capabilities.unwrap_or_default();
    let seccomp = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let selinux = own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref());
    let apparmor = own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref());
    // The runtime wants a user beside a group; the image's own is meant.
    let uid = uid.or_else(|| gid.map(|_| image.and_then(|image| image.uid).unwrap_or_default()));
    Ok(SecurityContext {
        uid,
        gid,
        supplemental_groups: groups,
        privileged,
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        read_only_root: own.read_only_root_filesystem.unwrap_or_default(),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        masked_paths: unmasked.clone(),
        read_only_paths: unmasked,
        selinux: selinux.map(selinux_label),
        seccomp: if privileged { Profile::Unconfined } else { seccomp_profile(seccomp) },
        apparmor: if privileged { Some(Profile::Unconfined) } else { apparmor_profile(apparmor) },
    })
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    uid: Option<i64>,
    image: Option<&Image>,
) -> Result<(), SecurityError> {
    let names = || (pod::long_name(pod), container.name.clone());
    match (uid, image) {
        (Some(0), _) => {
            let (pod, container) = names();
            Err(SecurityError::RootUser(pod, container))
        }
        (Some(_), _) | (None, None) => Ok(()),
        (None, Some(image)) => match (image.uid, image.username.as_str()) {
            (Some(uid), _) if uid != 0 => Ok(()),
            (None, user) if !user.is_empty() && user != "root" => {
                let (pod, container) = names();
                Err(SecurityError::NamedUser { user: user.to_owned(), pod, container })
            }
            _ => {
                let (pod, container) = names();
                Err(SecurityError::RootImage(pod, container))
            }
        },
    }
}

/// What the runtime is told of SELinux.
pub(crate) fn selinux_label(options: &SELinuxOptions) -> SelinuxLabel {
    let SELinuxOptions { level, role, type_, user } = options.clone();
    let text = Option::unwrap_or_default;
    SelinuxLabel { user: text(user), role: text(role), r#type: text(type_), level: text(level) }
}

/// Without a profile the kubelet's default is Unconfined (`seccompDefault` is off by default).
fn seccomp_profile(profile: Option<&SeccompProfile>) -> Profile {
    match profile.map(|profile| (profile.type_.as_str(), profile.localhost_profile.clone())) {
        Some(("RuntimeDefault", _)) => Profile::RuntimeDefault,
        Some(("Localhost", path)) => Profile::Localhost(path.unwrap_or_default()),
        _ => Profile::Unconfined,
    }
}

/// Without a profile it is the runtime's to choose, where the kernel has AppArmor.
fn apparmor_profile(profile: Option<&AppArmorProfile>) -> Option<Profile> {
    let profile = profile?;
    Some(match profile.type_.as_str() {
        "Unconfined" => Profile::Unconfined,
        "Localhost" => Profile::Localhost(profile.localhost_profile.clone().unwrap_or_default()),
        _ => Profile::RuntimeDefault,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(
        of_pod: serde_json::Value,
        own: serde_json::Value,
        image: &Image,
    ) -> Result<SecurityContext, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
            "spec": { "securityContext": of_pod, "containers": [{ "name": "c", "securityContext": own }] }
        }))
        .unwrap();
        context(&pod, &pod.spec.as_ref().unwrap().containers[0], Some(image))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_container_wins() {
        let root = Image { uid: Some(0), ..Image::default() };
        let got = check(
            json!({ "runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4],
                    "seccompProfile": { "type": "RuntimeDefault" } }),
            json!({ "runAsUser": 10, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": { "add": ["NET_ADMIN"], "drop": ["ALL"] } }),
            &root,
        )
        .unwrap();
        assert_eq!((got.uid, got.gid, got.supplemental_groups), (Some(10), Some(2), vec![4, 3]));
        assert!(got.no_new_privileges && got.read_only_root && !got.privileged);
        assert_eq!(got.seccomp, Profile::RuntimeDefault);
        assert_eq!(
            (got.add_capabilities, got.drop_capabilities),
            (vec!["NET_ADMIN".into()], vec!["ALL".into()])
        );
    }

    #[test]
    fn non_root_is_verified() {
        let image = |uid: Option<i64>, name: &str| Image { uid, username: name.into(), ..Image::default() };
        for (own, image, expected) in [
            (json!({ "runAsNonRoot": true, "runAsUser": 5 }), image(Some(0), ""), None),
            (json!({ "runAsNonRoot": true }), image(Some(5), ""), None),
            (
                json!({ "runAsNonRoot": true, "runAsUser": 0 }),
                image(Some(5), ""),
                Some("container's runAsUser breaks non-root policy (pod: \"p_ns(u)\", container: c)"),
            ),
            (
                json!({ "runAsNonRoot": true }),
                image(Some(0), ""),
                Some(
                    "container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: c)",
                ),
            ),
            (
                json!({ "runAsNonRoot": true }),
                image(None, ""),
                Some(
                    "container has runAsNonRoot and image will run as root (pod: \"p_ns(u)\", container: c)",
                ),
            ),
            (
                json!({ "runAsNonRoot": true }),
                image(None, "redis"),
                Some(
                    "container has runAsNonRoot and image has non-numeric user (redis), cannot verify user is non-root (pod: \"p_ns(u)\", container: c)",
                ),
            ),
            (json!({ "seLinuxOptions": { "level": "s0" } }), image(Some(1), ""), None),
        ] {
            let got = check(json!({}), own.clone(), &image);
            assert_eq!(got.err().as_deref(), expected, "{own}");
        }
    }
}
