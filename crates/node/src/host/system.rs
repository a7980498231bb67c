//! The real machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use runtime::action::DnsConfig;

use super::{Host, HostError, Result, filesystem, mounts, network, sub_path, volume};
use crate::{
    dns, log,
    node::{Measured, measure},
    probe::Target,
    volume::VolumePlan,
};

/// Most of a termination message that is kept (upstream `MaxContainerTerminationMessageLength`).
const MESSAGE_BYTES_MAX: usize = 4096;

/// Effects below `root` (pods' directories) and `local_root` (directories of PersistentVolumes).
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
    local_root: PathBuf,
}

impl System {
    /// Keeps pods' files in `root/pods` and makes local volumes below `local_root`.
    pub fn new(root: impl Into<PathBuf>, local_root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), local_root: local_root.into() }
    }

    /// Unmounts what volumes of pods have mounted, once their containers have ended: files in memory are gone
    /// then, as after a restart of the machine; everything on disk stays.
    pub async fn unmount(&self) -> Result<()> {
        let pods = self.root.join("pods");
        blocking(move || mounts::unmount_below(&pods)).await
    }

    fn pod_dir(&self, uid: &str) -> Result<PathBuf> {
        // The uid comes from the API server; it becomes a path all the same.
        if uid.is_empty() || uid.contains('/') || uid.starts_with('.') {
            return Err(HostError::Refused(format!("pod uid {uid:?} cannot name a directory")));
        }
        Ok(self.root.join("pods").join(uid))
    }
}

/// Runs file-system work where blocking is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(HostError::Refused(format!("file-system work was cut short: {error}"))),
    }
}

#[async_trait]
impl Host for System {
    fn is_simulated(&self) -> bool {
        false
    }

    async fn set_up_volume(&self, uid: &str, plan: &VolumePlan) -> Result<PathBuf> {
        let dir = self.pod_dir(uid)?.join("volumes").join(&plan.name);
        let (local_root, plan) = (self.local_root.clone(), plan.clone());
        blocking(move || volume::set_up(&dir, &local_root, &plan)).await
    }

    async fn sub_path(&self, uid: &str, key: &str, volume: &Path, path: &str) -> Result<PathBuf> {
        let pin = self.pod_dir(uid)?.join("volume-subpaths").join(key);
        let (volume, path) = (volume.to_path_buf(), path.to_owned());
        blocking(move || sub_path::pin(&volume, &path, &pin)).await
    }

    async fn tear_down_volumes(&self, uid: &str) -> Result<()> {
        let dir = self.pod_dir(uid)?;
        blocking(move || {
            mounts::unmount_below(&dir)?;
            remove(&dir.join("volume-subpaths"))?;
            remove(&dir.join("volumes"))
        })
        .await
    }

    async fn forget_pod(&self, uid: &str, log_dir: &Path) -> Result<()> {
        let (dir, log_dir) = (self.pod_dir(uid)?, log_dir.to_path_buf());
        blocking(move || {
            mounts::unmount_below(&dir)?;
            remove(&dir)?;
            remove(&log_dir)
        })
        .await
    }

    async fn pods(&self) -> Result<Vec<String>> {
        let dir = self.root.join("pods");
        blocking(move || {
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(HostError::io("read directory", dir, error)),
            };
            let names =
                entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
            names
                .collect::<std::io::Result<Vec<String>>>()
                .map_err(|error| HostError::io("read directory", dir, error))
        })
        .await
    }

    async fn write_hosts(&self, uid: &str, contents: &str) -> Result<PathBuf> {
        let path = self.pod_dir(uid)?.join("etc-hosts");
        let contents = contents.to_owned();
        blocking(move || {
            // In place, not by renaming: the file is bind-mounted into containers.
            write(&path, contents.as_bytes(), 0o644)?;
            Ok(path)
        })
        .await
    }

    async fn termination_file(&self, uid: &str, container: &str, attempt: u32) -> Result<PathBuf> {
        let path = self.pod_dir(uid)?.join("containers").join(container).join(attempt.to_string());
        blocking(move || {
            write(&path, b"", 0o666)?;
            Ok(path)
        })
        .await
    }

    async fn termination_message(&self, uid: &str, container: &str, attempt: u32) -> Result<String> {
        let path = self.pod_dir(uid)?.join("containers").join(container).join(attempt.to_string());
        blocking(move || log::tail_of_file(&path, MESSAGE_BYTES_MAX)).await
    }

    async fn own_hosts(&self) -> Result<String> {
        read_or_empty("/etc/hosts").await
    }

    async fn own_dns(&self) -> Result<DnsConfig> {
        // systemd-resolved's real servers are in a file of their own; the usual one names its stub.
        let behind_stub = read_or_empty("/run/systemd/resolve/resolv.conf").await?;
        if !behind_stub.is_empty() {
            return Ok(dns::parse_resolv_conf(&behind_stub));
        }
        Ok(dns::parse_resolv_conf(&read_or_empty("/etc/resolv.conf").await?))
    }

    async fn probe(&self, target: &Target, timeout: Duration) -> std::result::Result<(), String> {
        match tokio::time::timeout(timeout, network::probe(target)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
        }
    }

    async fn measure(&self) -> Result<Measured> {
        let root = self.root.clone();
        blocking(move || measure::machine(&root)).await
    }

    async fn remove_local_volume(&self, path: &Path) -> Result<()> {
        let (root, path) = (self.local_root.clone(), path.to_path_buf());
        blocking(move || filesystem::remove_below(&root, &path)).await
    }

    async fn rotate_log(&self, path: &Path, max_bytes: u64, keep: usize) -> Result<bool> {
        let path = path.to_path_buf();
        blocking(move || log::rotate(&path, max_bytes, keep)).await
    }
}

async fn read_or_empty(path: &'static str) -> Result<String> {
    blocking(move || match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(HostError::io("read", path, error)),
    })
    .await
}

fn write(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| HostError::io("create directory", parent, error))?;
    }
    fs::write(path, contents).map_err(|error| HostError::io("write", path, error))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| HostError::io("set the mode of", path, error))
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(HostError::io("remove directory", dir, error)),
    }
}
