//! The layout of the data directory.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{cli, error::Failure};

/// Everything a cluster keeps, below one directory that only its owner can read.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Where the user or the defaults say it is; nothing is made.
    pub(crate) fn locate(options: &cli::DataDir) -> Result<Self, Failure> {
        if let Some(path) = &options.data_dir {
            let path = std::path::absolute(path)
                .map_err(|error| Failure::of(format!("find {}", path.display()), error))?;
            return Ok(Self(path));
        }
        if rustix::process::geteuid().is_root() {
            return Ok(Self(PathBuf::from("/var/lib/keelson")));
        }
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        match state.or_else(home) {
            Some(state) => Ok(Self(state.join("keelson"))),
            None => Err(Failure::new("neither XDG_STATE_HOME nor HOME is set")
                .advise("say where the cluster shall live with --data-dir DIR")),
        }
    }

    /// Makes the directory, private to its owner.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        let failed = |error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::PermissionDenied => "choose a directory you may write to with --data-dir DIR",
                io::ErrorKind::StorageFull => "free some space, or choose another disk with --data-dir DIR",
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                    "this is a file: choose another place with --data-dir DIR"
                }
                _ => "choose another place with --data-dir DIR",
            };
            Failure::of(format!("prepare the data directory {}", self.0.display()), error).advise(advice)
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(failed)?;
        let metadata = fs::metadata(&self.0).map_err(failed)?;
        let (owner, me) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != me {
            let what =
                format!("the data directory {} belongs to user {owner}, not to user {me}", self.0.display());
            return Err(Failure::new(what)
                .advise("run keelson as its owner, or choose another place with --data-dir DIR"));
        }
        // Before its mode is changed: somebody may have named /tmp or a home directory.
        if let Some(other) = self.foreign().map_err(failed)? {
            let what = format!("{} is no data directory of keelson: it holds {other:?}", self.0.display());
            return Err(Failure::new(what).advise("name a new or an empty directory with --data-dir DIR"));
        }
        let mut permissions = metadata.permissions();
        if permissions.mode() & 0o077 != 0 {
            permissions.set_mode(0o700);
            fs::set_permissions(&self.0, permissions).map_err(failed)?;
        }
        Ok(())
    }

    /// Something in a directory that no keelson has used.
    fn foreign(&self) -> io::Result<Option<std::ffi::OsString>> {
        if [self.pki(), self.store(), self.containerd()].iter().any(|own| own.exists()) {
            return Ok(None);
        }
        let names = fs::read_dir(&self.0)?.map(|entry| entry.map(|entry| entry.file_name()));
        // The first an empty disk of its own has, the second is all that a node has made that was killed at once.
        let ours = |name: &std::ffi::OsString| name == "lost+found" || self.pid_file().ends_with(name);
        let foreign = names.filter(|name| name.as_ref().map_or(true, |name| !ours(name)));
        foreign.take(1).next().transpose()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.0.join("admin.kubeconfig")
    }

    /// For a part that runs as a process of its own.
    pub(crate) fn part_kubeconfig(&self, part: &str) -> PathBuf {
        self.0.join(format!("{part}.kubeconfig"))
    }

    pub(crate) fn containerd(&self) -> PathBuf {
        self.0.join("containerd")
    }

    /// Volumes, mounts and logs of the node agent.
    pub(crate) fn node(&self) -> PathBuf {
        self.0.join("node")
    }

    /// Where local-path volumes are made.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// The process that runs the cluster.
    /// Where scheduler and controller manager answer over gRPC, while the cluster runs.
    pub(crate) fn rpc_file(&self) -> PathBuf {
        self.path().join("rpc.address")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.0.join("keelson.pid")
    }

    /// The process in the pid file, where it is alive and is this program.
    pub(crate) fn running(&self) -> Option<rustix::process::Pid> {
        let pid = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        if name.trim() == "keelson" { rustix::process::Pid::from_raw(pid) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_an_empty_or_an_own_directory_is_taken_and_no_other_is_touched() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| DataDir(root.path().join(name));
        for (name, holds, expected) in [
            ("new", None, Ok(0o700)),
            ("empty", Some(""), Ok(0o700)),
            ("disk", Some("lost+found"), Ok(0o700)),
            ("killed", Some("keelson.pid"), Ok(0o700)),
            ("own", Some("store"), Ok(0o700)),
            ("home", Some(".profile"), Err(0o755)),
        ] {
            let data = at(name);
            if let Some(holds) = holds {
                fs::create_dir_all(data.path().join(holds)).unwrap();
                fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).unwrap();
            }
            let prepared = data.prepare();
            let seen = mode(data.path());
            assert_eq!(prepared.map(|()| seen).map_err(|_| seen), expected, "{name}");
        }
        let file = at("file");
        fs::write(file.path(), "x").unwrap();
        assert!(file.prepare().unwrap_err().to_string().contains("this is a file"));
    }
}
