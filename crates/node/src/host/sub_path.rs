//! `subPath`: a path inside a volume that a container may have filled with symbolic links.
//!
//! Guarantees: the kernel resolves the path beneath the volume (`openat2`, `RESOLVE_BENEATH`), and
//! what it found is pinned by a bind mount below the pod's own directory, so that nothing the
//! container does later changes what is mounted (CVE-2017-1002101). Blocking.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{HostError, Result, mounts};

/// Pins `sub_path` of the volume at `volume` to `pin`.
pub(super) fn pin(volume: &Path, sub_path: &str, pin: &Path) -> Result<PathBuf> {
    let found = open(volume, sub_path)?;
    if mounts::is_mount_point(pin)? {
        mounts::unmount_below(pin)?;
    }
    let metadata =
        rustix::fs::fstat(&found).map_err(|error| HostError::io("inspect", volume.join(sub_path), error))?;
    if let Some(parent) = pin.parent() {
        fs::create_dir_all(parent).map_err(|error| HostError::io("create directory", parent, error))?;
    }
    if FileType::from_raw_mode(metadata.st_mode).is_dir() {
        fs::create_dir_all(pin).map_err(|error| HostError::io("create directory", pin, error))?;
    } else {
        fs::write(pin, "").map_err(|error| HostError::io("create file", pin, error))?;
    }
    mounts::bind(Path::new(&format!("/proc/self/fd/{}", found.as_raw_fd())), pin)?;
    Ok(pin.to_path_buf())
}

/// Opens `sub_path` beneath `volume`, making the directories that are missing.
fn open(volume: &Path, sub_path: &str) -> Result<OwnedFd> {
    let fail = |error: Errno| match error {
        Errno::XDEV | Errno::LOOP => {
            HostError::Refused(format!("subPath {sub_path:?} leads out of its volume"))
        }
        error => HostError::io("open", volume.join(sub_path), error),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, volume, flags | OFlags::DIRECTORY, Mode::empty()).map_err(fail)?;
    match rustix::fs::openat2(&root, sub_path, flags, Mode::empty(), ResolveFlags::BENEATH) {
        Ok(found) => return Ok(found),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(fail(error)),
    }
    let mut dir = root;
    for part in sub_path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o750)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(fail(error)),
        }
        // One component at a time cannot leave `dir` unless it is a link, which is refused here: a
        // path that needs directories made does not get to cross links.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        dir = rustix::fs::openat2(&dir, part, flags, Mode::empty(), resolve).map_err(fail)?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_inside_the_volume() {
        let base = tempfile::tempdir().unwrap();
        let volume = base.path().join("v");
        fs::create_dir_all(volume.join("real")).unwrap();
        fs::write(base.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("real", volume.join("inside")).unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("outside")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("etc")).unwrap();
        for (path, ok) in [
            ("real", true),
            ("inside", true),
            ("new/deep", true),
            ("outside", false),
            ("etc", false),
            ("etc/x", false),
        ] {
            assert_eq!(open(&volume, path).is_ok(), ok, "{path}");
        }
        assert!(volume.join("new/deep").is_dir());
    }
}
