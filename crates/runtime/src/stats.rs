//! What a runtime says of itself and of the resources in use.

use meta::Timestamp;

/// Name and version of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Such as `containerd`.
    pub name: String,
    /// Such as `1.6.20`.
    pub version: String,
}

/// Readiness of the runtime and of the pod network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Containers can be run.
    pub runtime: Readiness,
    /// Pods can get an address.
    pub network: Readiness,
    /// Names that a RuntimeClass may have as its handler, in order; the empty one is the default.
    pub handlers: Vec<String>,
}

/// Ready, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Ready.
    Ready,
    /// Not ready.
    NotReady {
        /// One CamelCase word.
        reason: String,
        /// For a reader: what to do.
        message: String,
    },
}

impl Readiness {
    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready)
    }
}

/// Resources in use now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Running containers.
    pub containers: Vec<ContainerStats>,
    /// The file system that images and writable layers are on; `None` when the runtime has none.
    pub image_filesystem: Option<FilesystemUsage>,
}

/// Resource use of one running container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStats {
    /// Container id.
    pub id: String,
    /// Container name.
    pub name: String,
    /// Uid of its pod.
    pub pod_uid: String,
    /// When it was measured.
    pub at: Timestamp,
    /// CPU time since it started, nanoseconds.
    pub cpu_nanoseconds: u64,
    /// Memory that cannot be reclaimed easily, bytes.
    pub memory_working_set_bytes: u64,
    /// Writable layer, bytes.
    pub writable_layer_bytes: u64,
}

/// Use of a file system by the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// Directory on it.
    pub mountpoint: String,
    /// Bytes the runtime uses.
    pub used_bytes: u64,
    /// Inodes the runtime uses.
    pub used_inodes: u64,
}
