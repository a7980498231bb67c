//! What a runtime can be told to do. One action is one step that either happened or did not.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::image::{Credentials, PullPolicy};

/// Annotation in which the node keeps the hash of the container spec it created a container from.
pub const SPEC_HASH: &str = "node.keelson.dev/spec-hash";

/// Strings by key, ordered: labels and annotations.
pub type Map = BTreeMap<String, String>;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Makes a sandbox with its network. Answers [`Done::Sandbox`].
    CreateSandbox(Box<PodSandboxSpec>),
    /// Stops every container in a sandbox without grace and gives its network back.
    StopSandbox {
        /// Sandbox id.
        id: String,
    },
    /// Removes a sandbox and all its containers, stopping what still runs.
    RemoveSandbox {
        /// Sandbox id.
        id: String,
    },
    /// Makes sure that an image is on the machine. Answers [`Done::Image`].
    PullImage {
        /// Name as in the pod spec.
        image: String,
        /// When to ask the registry.
        policy: PullPolicy,
        /// Login; `None` for anonymous.
        credentials: Option<Credentials>,
    },
    /// Removes an image by name or id.
    RemoveImage {
        /// Name or id.
        image: String,
    },
    /// Makes a container in a sandbox. Answers [`Done::Container`].
    CreateContainer {
        /// Sandbox id.
        sandbox: String,
        /// The specification the sandbox was made from.
        pod: Box<PodSandboxSpec>,
        /// What to make.
        spec: Box<ContainerSpec>,
    },
    /// Starts a created container; it runs when this returns.
    StartContainer {
        /// Container id.
        id: String,
    },
    /// Changes the resources of a running container in place.
    UpdateContainer {
        /// Container id.
        id: String,
        /// The new resources.
        resources: Resources,
    },
    /// Sends the image's stop signal (SIGTERM by default), waits at most `grace`, then kills. Returns
    /// when the process is gone.
    StopContainer {
        /// Container id.
        id: String,
        /// How long the process may take.
        grace: Duration,
    },
    /// Removes a container, killing it when it still runs. Its log file stays.
    RemoveContainer {
        /// Container id.
        id: String,
    },
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is done; there is nothing to tell.
    Done,
    /// A sandbox was made.
    Sandbox {
        /// Its id.
        id: String,
    },
    /// A container was made.
    Container {
        /// Its id.
        id: String,
    },
    /// An image is on the machine.
    Image {
        /// What to name in [`ContainerSpec::image`]: the image's id.
        id: String,
    },
}

impl Done {
    /// The id it carries; empty for [`Done::Done`].
    pub fn id(&self) -> &str {
        match self {
            Self::Done => "",
            Self::Sandbox { id } | Self::Container { id } | Self::Image { id } => id,
        }
    }
}

/// How to make a sandbox. Runtimes derive the identity of a sandbox from `uid` and `attempt`; creating
/// the same attempt twice is an error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSandboxSpec {
    /// Pod uid.
    pub uid: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// 0 for the first sandbox, then one more each time.
    pub attempt: u32,
    /// Host name in the pod; the host's own with the host's network.
    pub hostname: String,
    /// `/etc/resolv.conf`; the machine's own when all three lists are empty.
    pub dns: DnsConfig,
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
    /// Directory for log files; made by the runtime. [`ContainerSpec::log_path`] is relative to it.
    pub log_dir: PathBuf,
    /// Cgroup to put the pod in, absolute in the hierarchy; the runtime's default when empty.
    pub cgroup_parent: String,
    /// Which namespaces are the host's, and which are shared.
    pub namespaces: Namespaces,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: Map,
    /// Security of the sandbox itself; it does not apply to containers. `privileged` must be set when any
    /// container of the pod will be privileged.
    pub security: SecurityContext,
    /// Handler of the RuntimeClass; empty for the default. Only [`Action::CreateSandbox`] goes by it: what is made in
    /// a sandbox is run by what runs the sandbox.
    pub runtime_handler: String,
    /// Labels to keep with it.
    pub labels: Map,
    /// Annotations to keep with it; a simulated runtime reads its behaviour here.
    pub annotations: Map,
}

impl PodSandboxSpec {
    /// `namespace/name`, as errors name a pod.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Contents of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields of v1.PodDNSConfig")]
pub struct DnsConfig {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// A port of the host that leads to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// Protocol.
    pub protocol: Protocol,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the host.
    pub host_port: u16,
    /// Address on the host; empty for all.
    pub host_ip: String,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' names")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// Which namespaces a pod shares with what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// `hostNetwork`.
    pub host_network: bool,
    /// `hostIPC`.
    pub host_ipc: bool,
    /// `hostPID`, `shareProcessNamespace` or neither.
    pub pid: PidNamespace,
}

/// Whose processes a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PidNamespace {
    /// Its own.
    #[default]
    Container,
    /// Those of the pod.
    Pod,
    /// Those of the machine.
    Host,
}

/// What a container is for; real runtimes do not care, a simulated one lets init containers end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// One of `spec.containers`.
    #[default]
    Main,
    /// One of `spec.initContainers` that must end before the next begins.
    Init,
    /// One of `spec.initContainers` with `restartPolicy: Always`.
    Sidecar,
    /// One of `spec.ephemeralContainers`.
    Ephemeral,
}

/// How to make a container. Identity is pod uid, `name` and `attempt`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerSpec {
    /// Name in the pod spec.
    pub name: String,
    /// Restart count.
    pub attempt: u32,
    /// What it is for.
    pub role: Role,
    /// Image id or name, present on the machine.
    pub image: String,
    /// Image as the pod spec has it, reported back in [`crate::ObservedContainer::image`].
    pub image_name: String,
    /// Replaces the image's entrypoint unless empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments unless empty.
    pub args: Vec<String>,
    /// Replaces the image's working directory unless empty.
    pub working_dir: String,
    /// Environment, in order; added to the image's.
    pub env: Vec<(String, String)>,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Limits.
    pub resources: Resources,
    /// Privileges.
    pub security: SecurityContext,
    /// Log file, relative to [`PodSandboxSpec::log_dir`].
    pub log_path: String,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input is kept open for attach.
    pub stdin: bool,
    /// Whether standard input closes when the first attached client leaves.
    pub stdin_once: bool,
    /// Id of a running container of the same sandbox whose processes it sees, instead of what the sandbox's
    /// [`Namespaces::pid`] says (`targetContainerName`).
    pub processes_of: Option<String>,
    /// Labels to keep with it.
    pub labels: Map,
    /// Annotations to keep with it; see [`SPEC_HASH`].
    pub annotations: Map,
}

/// A directory or file of the host in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// On the host; must exist, with symbolic links resolved.
    pub host_path: PathBuf,
    /// In the container.
    pub container_path: String,
    /// Whether it can only be read.
    pub read_only: bool,
    /// Whether later mounts show on the other side.
    pub propagation: Propagation,
}

/// `mountPropagation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Neither way (`None`).
    #[default]
    Private,
    /// The host's show in the container.
    HostToContainer,
    /// Both ways; needs privileges.
    Bidirectional,
}

/// A device of the host in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// On the host.
    pub host_path: String,
    /// In the container.
    pub container_path: String,
    /// Of `rwm`: read, write, mknod.
    pub permissions: String,
}

/// Limits of a container; 0 means none (`oom_score_adj`: as it is).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Relative weight; 1024 is one CPU (upstream `MilliCPUToShares`).
    pub cpu_shares: i64,
    /// CPU time in each period, microseconds.
    pub cpu_quota_us: i64,
    /// Length of the period, microseconds; 0 is taken as 100,000.
    pub cpu_period_us: i64,
    /// Most memory, bytes.
    pub memory_limit_bytes: i64,
    /// Who is killed first when the machine is out of memory, -1000 to 1000.
    pub oom_score_adj: i64,
}

/// Privileges of a container or sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityContext {
    /// User; the image's own when `None`.
    pub uid: Option<i64>,
    /// Group; needs `uid`.
    pub gid: Option<i64>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// All capabilities, all devices, no masks.
    pub privileged: bool,
    /// Capabilities to add, without `CAP_`; `ALL` for all.
    pub add_capabilities: Vec<String>,
    /// Capabilities to drop.
    pub drop_capabilities: Vec<String>,
    /// Whether the root file system can only be read.
    pub read_only_root: bool,
    /// Whether no process can gain privileges (`allowPrivilegeEscalation: false`).
    pub no_new_privileges: bool,
    /// Paths that cannot be seen; `None` for the runtime's usual ones.
    pub masked_paths: Option<Vec<String>>,
    /// Paths that can only be read; `None` for the runtime's usual ones.
    pub read_only_paths: Option<Vec<String>>,
    /// SELinux label; the runtime makes one when `None`, and leaves it out where the machine has no SELinux.
    pub selinux: Option<SelinuxLabel>,
    /// System call filter.
    pub seccomp: Profile,
    /// AppArmor profile; `None` for the runtime's own where the kernel has AppArmor.
    pub apparmor: Option<Profile>,
}

/// Parts of an SELinux label; the empty ones are the runtime's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelinuxLabel {
    /// `system_u`.
    pub user: String,
    /// `system_r`.
    pub role: String,
    /// `container_t`.
    pub r#type: String,
    /// `s0:c1,c2`.
    pub level: String,
}

/// Which security profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// None.
    #[default]
    Unconfined,
    /// The runtime's own.
    RuntimeDefault,
    /// A profile on the machine: a file (seccomp) or a loaded profile's name (AppArmor).
    Localhost(String),
}
