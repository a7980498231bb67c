//! The machine under the node, as far as it is not the container runtime: directories, mounts, log
//! files, probes over the network, measurements. [`System`] does it; [`Memory`] remembers it, so that
//! a simulated node touches neither disk nor network.

mod filesystem;
mod memory;
mod mounts;
mod network;
mod sub_path;
mod system;
mod volume;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use runtime::action::DnsConfig;

pub use memory::Memory;
pub use system::System;

use crate::{node::Measured, probe::Target, volume::VolumePlan};

/// A host effect that failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The operating system said no.
    #[error("{step} {path}: {source}")]
    Io {
        /// What was attempted.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// What was asked for contradicts what is there; waiting does not help.
    #[error("{0}")]
    Refused(String),
}

impl HostError {
    /// Wraps an error of the operating system.
    pub fn io(step: &'static str, path: impl Into<PathBuf>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { step, path: path.into(), source: source.into() }
    }
}

/// What a host call returns.
pub type Result<T> = std::result::Result<T, HostError>;

/// Effects on the machine. Every method may be called again after it failed or was dropped.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Whether containers have no processes: hooks and probes are then not carried out.
    fn is_simulated(&self) -> bool;

    /// Makes or refreshes a volume and returns where it is. Files change atomically.
    async fn set_up_volume(&self, uid: &str, plan: &VolumePlan) -> Result<PathBuf>;

    /// Where `sub_path` inside the volume at `volume` is, safe against symbolic links that lead out
    /// of it; made as a directory when it does not exist.
    async fn sub_path(&self, uid: &str, key: &str, volume: &Path, sub_path: &str) -> Result<PathBuf>;

    /// Takes the pod's volumes away. Ephemeral contents are lost, persistent ones stay.
    async fn tear_down_volumes(&self, uid: &str) -> Result<()>;

    /// Removes what is left of a pod: volumes, files, and `log_dir`.
    async fn forget_pod(&self, uid: &str, log_dir: &Path) -> Result<()>;

    /// Pods that have a directory on this machine.
    async fn pods(&self) -> Result<Vec<String>>;

    /// Writes the pod's `/etc/hosts`.
    async fn write_hosts(&self, uid: &str, contents: &str) -> Result<PathBuf>;

    /// Makes the file behind `terminationMessagePath`.
    async fn termination_file(&self, uid: &str, container: &str, attempt: u32) -> Result<PathBuf>;

    /// Reads it, at most 4096 bytes; empty when there is none.
    async fn termination_message(&self, uid: &str, container: &str, attempt: u32) -> Result<String>;

    /// The machine's `/etc/hosts`.
    async fn own_hosts(&self) -> Result<String>;

    /// The machine's resolver configuration.
    async fn own_dns(&self) -> Result<DnsConfig>;

    /// Performs a probe or hook over the network; the error says why the answer is not healthy.
    async fn probe(&self, target: &Target, timeout: Duration) -> std::result::Result<(), String>;

    /// Size and load of the machine.
    async fn measure(&self) -> Result<Measured>;

    /// Removes the directory of a released volume. Refuses anything that is not strictly below the
    /// configured root.
    async fn remove_local_volume(&self, path: &Path) -> Result<()>;

    /// Moves a log file aside when it has outgrown `max_bytes`, keeping `keep` older ones; true when
    /// the runtime has to reopen it.
    async fn rotate_log(&self, path: &Path, max_bytes: u64, keep: usize) -> Result<bool>;
}
