//! What a runtime reports. Facts only: no phase, no readiness, no judgement.

use std::{collections::BTreeMap, net::IpAddr};

use meta::Timestamp;

/// All that a runtime has of one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedPod {
    /// Pod uid.
    pub uid: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Sandboxes, newest attempt first; never empty unless only orphaned containers are left.
    pub sandboxes: Vec<ObservedSandbox>,
    /// Containers of all sandboxes, by name, then newest attempt first.
    pub containers: Vec<ObservedContainer>,
}

impl ObservedPod {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandboxes.first()
    }

    /// The newest container of a name.
    pub fn container(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|container| container.name == name)
    }
}

/// Whether a sandbox holds its namespaces and addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    /// Usable.
    Ready,
    /// Stopped, or its holder process died; containers in it cannot be started.
    NotReady,
}

/// One sandbox: the namespaces and addresses that a pod's containers share.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedSandbox {
    /// Runtime id.
    pub id: String,
    /// 0 for the first sandbox of a pod, then one more each time.
    pub attempt: u32,
    /// State.
    pub state: SandboxState,
    /// When it was created.
    pub created_at: Timestamp,
    /// Addresses, primary first; empty with the host's network or when not ready.
    pub ips: Vec<IpAddr>,
    /// Whether it shares the host's network.
    pub host_network: bool,
    /// Labels as given.
    pub labels: BTreeMap<String, String>,
    /// Annotations as given.
    pub annotations: BTreeMap<String, String>,
}

/// Life of a container.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// Made, not yet started.
    Created,
    /// Its process runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Its process is gone, or never came to be (then `started_at` is `None`).
    Exited {
        /// When it was started.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
        /// Exit code; 128+n when killed by signal n.
        exit_code: i32,
        /// `Completed`, `Error`, `OOMKilled`, `StartError` or the runtime's own word.
        reason: String,
        /// Details; may be empty.
        message: String,
    },
    /// The runtime cannot tell (its records are damaged). Remove and create anew.
    Unknown,
}

/// One container, in any state.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedContainer {
    /// Runtime id.
    pub id: String,
    /// Its sandbox.
    pub sandbox_id: String,
    /// Name in the pod spec.
    pub name: String,
    /// Restart count when it was created.
    pub attempt: u32,
    /// State.
    pub state: ContainerState,
    /// When it was created.
    pub created_at: Timestamp,
    /// Image as it was asked for.
    pub image: String,
    /// What it resolved to: a repository digest where there is one, else the image id.
    pub image_id: String,
    /// Labels as given.
    pub labels: BTreeMap<String, String>,
    /// Annotations as given; the node keeps its spec hash here ([`crate::action::SPEC_HASH`]).
    pub annotations: BTreeMap<String, String>,
    /// Log file on this machine; empty when the runtime has none.
    pub log_path: String,
}

impl ObservedContainer {
    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    /// The exit code, once it has one.
    pub fn exit_code(&self) -> Option<i32> {
        match self.state {
            ContainerState::Exited { exit_code, .. } => Some(exit_code),
            ContainerState::Created | ContainerState::Running { .. } | ContainerState::Unknown => None,
        }
    }
}
