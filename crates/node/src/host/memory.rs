//! A machine that is only remembered. For simulated nodes and tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use runtime::action::DnsConfig;

use super::{Host, Result};
use crate::{node::Measured, probe::Target, volume::VolumePlan};

/// Remembers which pods have volumes; every network probe is answered "healthy".
#[derive(Debug, Default)]
pub struct Memory {
    measured: Measured,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<String, BTreeSet<String>>,
    removed: Vec<PathBuf>,
}

impl Memory {
    /// A machine of this size.
    pub fn new(measured: Measured) -> Self {
        Self { measured, state: Mutex::default() }
    }

    /// Names of the volumes that a pod has.
    pub fn volumes(&self, uid: &str) -> Vec<String> {
        self.state().pods.get(uid).map(|volumes| volumes.iter().cloned().collect()).unwrap_or_default()
    }

    /// Local volumes that were removed.
    pub fn removed(&self) -> Vec<PathBuf> {
        self.state().removed.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path(uid: &str, rest: &str) -> PathBuf {
    Path::new("/memory").join(uid).join(rest)
}

#[async_trait]
impl Host for Memory {
    fn is_simulated(&self) -> bool {
        true
    }

    async fn set_up_volume(&self, uid: &str, plan: &VolumePlan) -> Result<PathBuf> {
        self.state().pods.entry(uid.to_owned()).or_default().insert(plan.name.clone());
        Ok(path(uid, &plan.name))
    }

    async fn sub_path(&self, _uid: &str, _key: &str, volume: &Path, sub_path: &str) -> Result<PathBuf> {
        Ok(volume.join(sub_path))
    }

    async fn tear_down_volumes(&self, uid: &str) -> Result<()> {
        self.state().pods.remove(uid);
        Ok(())
    }

    async fn forget_pod(&self, uid: &str, _log_dir: &Path) -> Result<()> {
        self.state().pods.remove(uid);
        Ok(())
    }

    async fn pods(&self) -> Result<Vec<String>> {
        Ok(self.state().pods.keys().cloned().collect())
    }

    async fn write_hosts(&self, uid: &str, _contents: &str) -> Result<PathBuf> {
        Ok(path(uid, "etc-hosts"))
    }

    async fn termination_file(&self, uid: &str, container: &str, _attempt: u32) -> Result<PathBuf> {
        Ok(path(uid, container))
    }

    async fn termination_message(&self, _uid: &str, _container: &str, _attempt: u32) -> Result<String> {
        Ok(String::new())
    }

    async fn own_hosts(&self) -> Result<String> {
        Ok(String::new())
    }

    async fn own_dns(&self) -> Result<DnsConfig> {
        Ok(DnsConfig::default())
    }

    async fn probe(&self, _target: &Target, _timeout: Duration) -> std::result::Result<(), String> {
        Ok(())
    }

    async fn measure(&self) -> Result<Measured> {
        Ok(self.measured.clone())
    }

    async fn remove_local_volume(&self, path: &Path) -> Result<()> {
        self.state().removed.push(path.to_path_buf());
        Ok(())
    }

    async fn rotate_log(&self, _path: &Path, _max_bytes: u64, _keep: usize) -> Result<bool> {
        Ok(false)
    }
}
