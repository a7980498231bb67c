//! A Pod as the specification of a sandbox. Pure.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use runtime::{
    PodSandboxSpec,
    action::{DnsConfig, Namespaces, PidNamespace, PortMapping, Profile, Protocol, SecurityContext},
};

use crate::{pod, qos::Qos};

/// Annotation in which the node keeps the pod's grace, so that an orphan found after a restart is
/// stopped as its pod asked.
pub const GRACE: &str = "node.keelson.dev/grace-seconds";

/// What surrounds the pod.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Host name in the pod.
    pub hostname: String,
    /// Resolver configuration.
    pub dns: DnsConfig,
    /// Log files of all pods.
    pub log_dir: PathBuf,
    /// Whether the pod gets a cgroup by quality of service.
    pub pod_cgroups: bool,
}

/// Where log files of a pod go: `LOG_DIR/NAMESPACE_NAME_UID`, as upstream.
pub fn log_dir(root: &std::path::Path, want: &Pod) -> PathBuf {
    root.join(format!("{}_{}_{}", pod::namespace(want), pod::name(want), pod::uid(want)))
}

/// The sandbox of `want`, without the handler of its RuntimeClass, which no pod knows.
pub fn spec(want: &Pod, attempt: u32, around: &Surroundings) -> PodSandboxSpec {
    let wanted = want.spec.clone().unwrap_or_default();
    let context = wanted.security_context.unwrap_or_default();
    let pid = if wanted.host_pid.unwrap_or_default() {
        PidNamespace::Host
    } else if wanted.share_process_namespace.unwrap_or_default() {
        PidNamespace::Pod
    } else {
        PidNamespace::Container
    };
    let mut groups = context.supplemental_groups.unwrap_or_default();
    groups.extend(context.fs_group);
    let mut annotations = want.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(GRACE.to_owned(), pod::grace(want).as_secs().to_string());
    PodSandboxSpec {
        uid: pod::uid(want).to_owned(),
        namespace: pod::namespace(want).to_owned(),
        name: pod::name(want).to_owned(),
        attempt,
        hostname: around.hostname.clone(),
        dns: around.dns.clone(),
        port_mappings: if pod::is_host_network(want) { Vec::new() } else { port_mappings(want) },
        log_dir: log_dir(&around.log_dir, want),
        cgroup_parent: if around.pod_cgroups { Qos::of(want).cgroup(pod::uid(want)) } else { String::new() },
        namespaces: Namespaces {
            host_network: pod::is_host_network(want),
            host_ipc: wanted.host_ipc.unwrap_or_default(),
            pid,
        },
        sysctls: context.sysctls.into_iter().flatten().map(|sysctl| (sysctl.name, sysctl.value)).collect(),
        security: SecurityContext {
            uid: context.run_as_user,
            gid: context.run_as_user.and(context.run_as_group),
            supplemental_groups: groups,
            privileged: is_privileged(want),
            selinux: context.se_linux_options.as_ref().map(crate::security::selinux_label),
            seccomp: Profile::RuntimeDefault,
            ..SecurityContext::default()
        },
        runtime_handler: String::new(),
        labels: want.metadata.labels.clone().unwrap_or_default(),
        annotations,
    }
}

/// What the pod asks of its sandbox that this node does not do.
pub fn not_supported(want: &Pod) -> Option<&'static str> {
    let spec = want.spec.as_ref()?;
    (spec.host_users == Some(false)).then_some("hostUsers: false")
}

/// A privileged container needs a sandbox that lets it be one.
fn is_privileged(want: &Pod) -> bool {
    pod::members(want).any(|member| {
        let context = member.container.security_context.as_ref();
        context.and_then(|context| context.privileged).unwrap_or_default()
    })
}

fn port_mappings(want: &Pod) -> Vec<PortMapping> {
    let ports = pod::members(want).flat_map(|member| member.container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let host_port =
                port.host_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
            Some(PortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                container_port: u16::try_from(port.container_port).ok()?,
                host_port,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_named() {
        for (spec, expected) in [
            (serde_json::json!({ "containers": [] }), None),
            (serde_json::json!({ "containers": [], "hostUsers": false }), Some("hostUsers: false")),
        ] {
            let want = serde_json::from_value(serde_json::json!({ "metadata": {}, "spec": spec })).unwrap();
            assert_eq!(not_supported(&want), expected);
        }
    }

    #[test]
    fn a_pod_as_a_sandbox() {
        let want: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u", "labels": { "a": "b" } },
            "spec": { "shareProcessNamespace": true, "terminationGracePeriodSeconds": 7,
                "securityContext": { "fsGroup": 5, "runAsUser": 9, "sysctls": [{ "name": "net.x", "value": "1" }] },
                "containers": [{ "name": "c", "ports": [{ "containerPort": 53, "hostPort": 53, "protocol": "UDP" }, { "containerPort": 80 }] }] }
        }))
        .unwrap();
        let around = Surroundings {
            hostname: "p".into(),
            log_dir: "/logs".into(),
            pod_cgroups: true,
            ..Surroundings::default()
        };
        insta::assert_debug_snapshot!(spec(&want, 2, &around));
    }
}
