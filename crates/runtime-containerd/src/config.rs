//! From the contract's specifications to CRI's configurations, and the labels that tie them together.
//! Pure.

use runtime::{
    ContainerSpec, PodSandboxSpec,
    action::{
        Map, Namespaces, PidNamespace, Profile, Propagation, Protocol, Resources, SecurityContext,
        SelinuxLabel,
    },
};

use crate::cri;

/// Label on everything this crate makes; other pods on the same containerd are left alone.
pub(crate) const MANAGED: (&str, &str) = ("io.keelson.managed", "true");

/// Labels as the kubelet sets them (`pkg/kubelet/types/labels.go`), so that crictl shows names.
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// Annotation that keeps the image's name as the pod spec has it: containerd reports another one.
pub(crate) const IMAGE_NAME: &str = "io.keelson.image";

/// Where pods go when no cgroup parent is named.
const CGROUP_PARENT: &str = "/keelson";

/// Length of a CPU period when none is given, microseconds; the kernel's default.
const CPU_PERIOD_US: i64 = 100_000;

/// The labels that were given, without ours.
pub(crate) fn given(mut all: Map) -> Map {
    all.retain(|key, _| {
        ![MANAGED.0, POD_NAME, POD_NAMESPACE, POD_UID, CONTAINER_NAME, IMAGE_NAME].contains(&key.as_str())
    });
    all
}

/// What selects the pods of this crate, or one of them.
pub(crate) fn selector(uid: Option<&str>) -> Map {
    let uid = uid.map(|uid| (POD_UID.to_owned(), uid.to_owned()));
    uid.into_iter().chain([(MANAGED.0.to_owned(), MANAGED.1.to_owned())]).collect()
}

/// The configuration of a sandbox.
pub(crate) fn sandbox(spec: &PodSandboxSpec) -> cri::PodSandboxConfig {
    let PodSandboxSpec {
        uid,
        namespace,
        name,
        attempt,
        hostname,
        dns,
        port_mappings,
        log_dir,
        cgroup_parent,
        namespaces,
        sysctls,
        security,
        runtime_handler: _,
        labels,
        annotations,
    } = spec;
    let no_dns = dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty();
    let dns = cri::DnsConfig {
        servers: dns.servers.clone(),
        searches: dns.searches.clone(),
        options: dns.options.clone(),
    };
    let security_context = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespace_options(*namespaces, None)),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user: int64(security.uid),
        run_as_group: int64(security.gid),
        readonly_rootfs: security.read_only_root,
        supplemental_groups: security.supplemental_groups.clone(),
        privileged: security.privileged,
        seccomp: Some(profile(&security.seccomp)),
        apparmor: security.apparmor.as_ref().map(profile),
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.clone(),
            uid: uid.clone(),
            namespace: namespace.clone(),
            attempt: *attempt,
        }),
        // CRI: empty with the host's network
        hostname: if namespaces.host_network { String::new() } else { hostname.clone() },
        log_directory: log_dir.to_string_lossy().into_owned(),
        dns_config: (!no_dns).then_some(dns),
        port_mappings: port_mappings
            .iter()
            .map(|port| cri::PortMapping {
                protocol: match port.protocol {
                    Protocol::Tcp => 0,
                    Protocol::Udp => 1,
                    Protocol::Sctp => 2,
                },
                container_port: i32::from(port.container_port),
                host_port: i32::from(port.host_port),
                host_ip: port.host_ip.clone(),
            })
            .collect(),
        labels: with_pod(labels, spec),
        annotations: annotations.clone(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: if cgroup_parent.is_empty() {
                CGROUP_PARENT.to_owned()
            } else {
                cgroup_parent.clone()
            },
            security_context: Some(security_context),
            sysctls: sysctls.clone(),
        }),
    }
}

/// The configuration of a container in a sandbox made from `pod`.
pub(crate) fn container(pod: &PodSandboxSpec, spec: &ContainerSpec) -> cri::ContainerConfig {
    let ContainerSpec {
        name,
        attempt,
        role: _,
        image,
        image_name,
        command,
        args,
        working_dir,
        env,
        mounts,
        devices,
        resources: limits,
        security,
        log_path,
        tty,
        stdin,
        stdin_once,
        processes_of,
        labels,
        annotations,
    } = spec;
    let mut labels = with_pod(labels, pod);
    labels.insert(CONTAINER_NAME.to_owned(), name.clone());
    let mut annotations = annotations.clone();
    annotations.insert(IMAGE_NAME.to_owned(), image_name.clone());
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.clone(), attempt: *attempt }),
        image: Some(cri::ImageSpec {
            image: image.clone(),
            annotations: Map::new(),
            user_specified_image: image_name.clone(),
        }),
        command: command.clone(),
        args: args.clone(),
        working_dir: working_dir.clone(),
        envs: env
            .iter()
            .map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: mounts
            .iter()
            .map(|mount| cri::Mount {
                container_path: mount.container_path.clone(),
                host_path: mount.host_path.to_string_lossy().into_owned(),
                readonly: mount.read_only,
                propagation: match mount.propagation {
                    Propagation::Private => 0,
                    Propagation::HostToContainer => 1,
                    Propagation::Bidirectional => 2,
                },
            })
            .collect(),
        devices: devices
            .iter()
            .map(|device| cri::Device {
                container_path: device.container_path.clone(),
                host_path: device.host_path.clone(),
                permissions: device.permissions.clone(),
            })
            .collect(),
        labels,
        annotations,
        log_path: log_path.clone(),
        stdin: *stdin,
        stdin_once: *stdin_once,
        tty: *tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources(*limits)),
            security_context: Some(security_context(
                security,
                namespace_options(pod.namespaces, processes_of.as_deref()),
            )),
        }),
    }
}

/// Limits.
pub(crate) fn resources(limits: Resources) -> cri::LinuxContainerResources {
    let Resources { cpu_shares, cpu_quota_us, cpu_period_us, memory_limit_bytes, oom_score_adj } = limits;
    let cpu_period = if cpu_quota_us > 0 && cpu_period_us == 0 { CPU_PERIOD_US } else { cpu_period_us };
    cri::LinuxContainerResources {
        cpu_period,
        cpu_quota: cpu_quota_us,
        cpu_shares,
        memory_limit_in_bytes: memory_limit_bytes,
        oom_score_adj,
    }
}

fn security_context(
    security: &SecurityContext,
    namespaces: cri::NamespaceOption,
) -> cri::LinuxContainerSecurityContext {
    let SecurityContext {
        uid,
        gid,
        supplemental_groups,
        privileged,
        add_capabilities,
        drop_capabilities,
        read_only_root,
        no_new_privileges,
        masked_paths,
        read_only_paths,
        selinux: label,
        seccomp,
        apparmor,
    } = security;
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: add_capabilities.clone(),
            drop_capabilities: drop_capabilities.clone(),
        }),
        privileged: *privileged,
        namespace_options: Some(namespaces),
        selinux_options: label.as_ref().map(selinux),
        run_as_user: int64(*uid),
        run_as_group: int64(*gid),
        readonly_rootfs: *read_only_root,
        supplemental_groups: supplemental_groups.clone(),
        no_new_privs: *no_new_privileges,
        masked_paths: masked_paths.clone().unwrap_or_default(),
        readonly_paths: read_only_paths.clone().unwrap_or_default(),
        seccomp: Some(profile(seccomp)),
        apparmor: apparmor.as_ref().map(profile),
    }
}

fn selinux(label: &SelinuxLabel) -> cri::SelinuxOption {
    let SelinuxLabel { user, role, r#type, level } = label.clone();
    cri::SelinuxOption { user, role, r#type, level }
}

/// `target` is the id of the container whose processes are seen, if it is one's.
fn namespace_options(namespaces: Namespaces, target: Option<&str>) -> cri::NamespaceOption {
    let Namespaces { host_network, host_ipc, pid } = namespaces;
    let shared = |host| if host { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod };
    let pid = match (target, pid) {
        (Some(_), _) => cri::NamespaceMode::Target,
        (None, PidNamespace::Container) => cri::NamespaceMode::Container,
        (None, PidNamespace::Pod) => cri::NamespaceMode::Pod,
        (None, PidNamespace::Host) => cri::NamespaceMode::Node,
    };
    cri::NamespaceOption {
        network: shared(host_network).into(),
        pid: pid.into(),
        ipc: shared(host_ipc).into(),
        target_id: target.unwrap_or_default().to_owned(),
    }
}

fn profile(profile: &Profile) -> cri::SecurityProfile {
    let (kind, file) = match profile {
        Profile::Unconfined => (cri::ProfileType::Unconfined, ""),
        Profile::RuntimeDefault => (cri::ProfileType::RuntimeDefault, ""),
        Profile::Localhost(file) => (cri::ProfileType::Localhost, file.as_str()),
    };
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: file.to_owned() }
}

fn int64(value: Option<i64>) -> Option<cri::Int64Value> {
    value.map(|value| cri::Int64Value { value })
}

fn with_pod(labels: &Map, pod: &PodSandboxSpec) -> Map {
    let mut labels = labels.clone();
    labels.insert(MANAGED.0.to_owned(), MANAGED.1.to_owned());
    labels.insert(POD_NAME.to_owned(), pod.name.clone());
    labels.insert(POD_NAMESPACE.to_owned(), pod.namespace.clone());
    labels.insert(POD_UID.to_owned(), pod.uid.clone());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_labels_come_and_go() {
        let labels: Map = [("app".to_owned(), "x".to_owned())].into();
        let pod = PodSandboxSpec { uid: "u".into(), labels: labels.clone(), ..PodSandboxSpec::default() };
        let config = sandbox(&pod);
        assert_eq!(config.labels.get(POD_UID).map(String::as_str), Some("u"));
        assert_eq!(given(config.labels), labels);
    }

    #[test]
    fn nothing_is_confined_that_was_not_asked_for_and_quotas_have_a_period() {
        let config = container(&PodSandboxSpec::default(), &ContainerSpec::default()).linux.unwrap();
        let security = config.security_context.unwrap();
        assert_eq!(security.seccomp.unwrap().profile_type(), cri::ProfileType::Unconfined);
        assert!(security.apparmor.is_none() && security.run_as_user.is_none());
        assert_eq!(security.namespace_options.unwrap().pid(), cri::NamespaceMode::Container);
        let limits = resources(Resources { cpu_quota_us: 50_000, ..Resources::default() });
        assert_eq!(limits.cpu_period, 100_000);
        assert_eq!(resources(Resources::default()), cri::LinuxContainerResources::default());
    }

    #[test]
    fn the_hosts_network_has_the_hosts_name() {
        let mut pod = PodSandboxSpec { hostname: "x".into(), ..PodSandboxSpec::default() };
        assert_eq!(sandbox(&pod).hostname, "x");
        pod.namespaces.host_network = true;
        let config = sandbox(&pod);
        assert_eq!(config.hostname, "");
        let options = config.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
        assert_eq!(options.network(), cri::NamespaceMode::Node);
    }
}
