//! Mounts below the node's directories. Blocking; needs the privilege to mount.

use std::{
    ffi::CString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags};

use super::{HostError, Result};

/// Mounts a tmpfs.
pub(super) fn tmpfs(at: &Path, options: &str) -> Result<()> {
    let options =
        CString::new(options).map_err(|_| HostError::Refused("a mount option has a NUL".to_owned()))?;
    rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
        .map_err(|error| HostError::io("mount tmpfs at", at, error))
}

/// Makes `from` appear at `at`.
pub(super) fn bind(from: &Path, at: &Path) -> Result<()> {
    rustix::mount::mount_bind(from, at).map_err(|error| HostError::io("bind mount at", at, error))
}

/// Whether something is mounted exactly there.
pub(super) fn is_mount_point(path: &Path) -> Result<bool> {
    let Some(path) = as_mounted(path)? else { return Ok(false) };
    Ok(mount_points()?.contains(&path))
}

/// Unmounts everything at or below `dir`, the deepest first, and says whether nothing is left: only
/// then is it safe to remove the directory.
pub(super) fn unmount_below(dir: &Path) -> Result<()> {
    let Some(dir) = as_mounted(dir)? else { return Ok(()) };
    for mounted in mount_points()?.into_iter().rev().filter(|mounted| mounted.starts_with(&dir)) {
        rustix::mount::unmount(&mounted, UnmountFlags::DETACH)
            .map_err(|error| HostError::io("unmount", &mounted, error))?;
    }
    match mount_points()?.into_iter().find(|mounted| mounted.starts_with(&dir)) {
        Some(left) => Err(HostError::Refused(format!("{} is still mounted", left.display()))),
        None => Ok(()),
    }
}

/// The path as the kernel lists it, without symbolic links: the data directory may be reached by one. None
/// where nothing is, so that nothing can be mounted there.
fn as_mounted(path: &Path) -> Result<Option<PathBuf>> {
    match path.canonicalize() {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HostError::io("resolve", path, error)),
    }
}

/// Mount points in the order they were mounted.
fn mount_points() -> Result<Vec<PathBuf>> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read(path).map_err(|error| HostError::io("read", path, error))?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescape)
        .collect())
}

/// `\040` and its like, as the kernel writes blanks in paths.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte == b'\\'
            && let Some((octal, after)) = tail.split_at_checked(3)
            && let Some(value) =
                std::str::from_utf8(octal).ok().and_then(|text| u8::from_str_radix(text, 8).ok())
        {
            out.push(value);
            rest = after;
        } else {
            out.push(*byte);
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn blanks_in_paths() {
        assert_eq!(unescape(b"/a\\040b/c\\134d"), Path::new("/a b/c\\d"));
        assert_eq!(unescape(b"/plain").as_os_str().as_bytes(), b"/plain");
    }

    #[test]
    fn what_is_mounted_is_found_through_a_symbolic_link() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let [real, link, volume] = ["real", "link", "volume"].map(|name| root.path().join(name));
        for dir in [real.join("pin"), volume.clone()] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(volume.join("precious"), "data").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        if let Err(error) = bind(&volume, &link.join("pin")) {
            eprintln!("skipped: this machine does not let root mount: {error}");
            return;
        }
        assert!(is_mount_point(&link.join("pin")).unwrap());
        unmount_below(&link).unwrap();
        assert!(!is_mount_point(&link.join("pin")).unwrap());
        assert_eq!(fs::read_dir(link.join("pin")).unwrap().count(), 0);
        assert_eq!(fs::read(volume.join("precious")).unwrap(), b"data");
        unmount_below(&root.path().join("nowhere")).unwrap();
    }

    #[test]
    fn a_tmpfs_comes_and_goes() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().canonicalize().unwrap().join("with blank");
        fs::create_dir(&dir).unwrap();
        if let Err(error) = tmpfs(&dir, "mode=1777,size=65536") {
            eprintln!("skipped: this machine does not let root mount: {error}");
            return;
        }
        assert!(is_mount_point(&dir).unwrap());
        fs::write(dir.join("big"), vec![0; 128 * 1024]).unwrap_err();
        unmount_below(root.path()).unwrap();
        assert!(!is_mount_point(&dir).unwrap());
    }
}
