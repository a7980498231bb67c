//! Checks, owners and removal of paths. Blocking.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Component, Path},
};

use rustix::fs::{AtFlags, CWD, Gid, Uid};

use super::{HostError, Result};

/// Verifies, and where the type says so makes, the path of a hostPath volume (upstream
/// `pkg/volume/hostpath`).
pub(super) fn host_path(path: &Path, kind: &str) -> Result<()> {
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(HostError::Refused(format!("hostPath {} must not contain \"..\"", path.display())));
    }
    let found = fs::metadata(path).map(|metadata| metadata.file_type()).ok();
    let fail = |what: &str| {
        Err(HostError::Refused(format!("hostPath type check failed: {} is not {what}", path.display())))
    };
    match kind {
        "" => match found {
            Some(_) => Ok(()),
            // Without a type the runtime upstream makes a missing directory.
            None => create_dir(path),
        },
        "DirectoryOrCreate" => match found {
            Some(kind) if kind.is_dir() => Ok(()),
            Some(_) => fail("a directory"),
            None => create_dir(path),
        },
        "FileOrCreate" => match found {
            Some(kind) if kind.is_file() => Ok(()),
            Some(_) => fail("a file"),
            None => create_file(path),
        },
        "Directory" if found.is_some_and(|kind| kind.is_dir()) => Ok(()),
        "File" if found.is_some_and(|kind| kind.is_file()) => Ok(()),
        "Socket" if found.is_some_and(|kind| kind.is_socket()) => Ok(()),
        "CharDevice" if found.is_some_and(|kind| kind.is_char_device()) => Ok(()),
        "BlockDevice" if found.is_some_and(|kind| kind.is_block_device()) => Ok(()),
        "Directory" => fail("a directory"),
        "File" => fail("a file"),
        "Socket" => fail("a socket file"),
        "CharDevice" => fail("a character device"),
        "BlockDevice" => fail("a block device"),
        other => Err(HostError::Refused(format!("hostPath type {other:?} is unknown"))),
    }
}

fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| HostError::io("create directory", path, error))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|error| HostError::io("set the mode of", path, error))
}

fn create_file(path: &Path) -> Result<()> {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map(drop)
        .map_err(|error| HostError::io("create file", path, error))
}

/// Gives a path to a user and group; links are not followed.
pub(super) fn chown(path: &Path, uid: Option<i64>, gid: Option<i64>) -> Result<()> {
    let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
    let (uid, gid) = (id(uid).map(Uid::from_raw), id(gid).map(Gid::from_raw));
    rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| HostError::io("change the owner of", path, error))
}

/// `fsGroup`: everything below `root` belongs to `group` and can be read and written by it, and
/// directories hand the group on (upstream `SetVolumeOwnership`). With `on_root_mismatch` a volume
/// whose root is as it should be is left alone.
pub(super) fn own_by_group(root: &Path, group: i64, on_root_mismatch: bool) -> Result<()> {
    let metadata = fs::symlink_metadata(root).map_err(|error| HostError::io("inspect", root, error))?;
    let wanted = 0o2770;
    let matches = i64::from(metadata.gid()) == group && metadata.mode() & wanted == wanted;
    if on_root_mismatch && matches {
        return Ok(());
    }
    // The root last: were the walk cut short, it would be done again.
    walk(root, group)?;
    own_one(root, group)
}

fn walk(dir: &Path, group: i64) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|error| HostError::io("read directory", dir, error))? {
        let entry = entry.map_err(|error| HostError::io("read directory", dir, error))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| HostError::io("inspect", &path, error))?;
        if kind.is_dir() {
            walk(&path, group)?;
        }
        own_one(&path, group)?;
    }
    Ok(())
}

fn own_one(path: &Path, group: i64) -> Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(|error| HostError::io("inspect", path, error))?;
    chown(path, None, Some(group))?;
    if metadata.file_type().is_symlink() {
        return Ok(());
    }
    let bits = if metadata.is_dir() { 0o2770 } else { 0o660 };
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777 | bits))
        .map_err(|error| HostError::io("set the mode of", path, error))
}

/// Removes the directory of a released volume, only strictly below `root`.
pub(super) fn remove_below(root: &Path, path: &Path) -> Result<()> {
    let refuse = |why: &str| {
        Err(HostError::Refused(format!("will not remove {}: {why} {}", path.display(), root.display())))
    };
    if !path.is_absolute()
        || path.components().any(|part| matches!(part, Component::ParentDir | Component::CurDir))
    {
        return refuse("the path is not a plain one below");
    }
    let Ok(rest) = path.strip_prefix(root) else { return refuse("it is not below") };
    if rest.as_os_str().is_empty() {
        return refuse("it is the root itself,");
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return refuse("it is not below");
    };
    let real_root = root.canonicalize().map_err(|error| HostError::io("resolve", root, error))?;
    let real_parent = match parent.canonicalize() {
        Ok(parent) => parent,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(HostError::io("resolve", parent, error)),
    };
    if !real_parent.starts_with(&real_root) {
        return refuse("a symbolic link leads out of");
    }
    let target = real_parent.join(name);
    let removed = match fs::symlink_metadata(&target) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&target),
        Ok(_) => fs::remove_file(&target),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(HostError::io("remove", target, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_path_types() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let check = |name: &str, kind: &str| {
            host_path(&root.path().join(name), kind)
                .err()
                .map(|error| error.to_string().replace(&root.path().display().to_string(), ""))
        };
        for (name, kind, expected) in [
            ("file", "File", None),
            ("file", "Directory", Some("hostPath type check failed: /file is not a directory")),
            ("file", "DirectoryOrCreate", Some("hostPath type check failed: /file is not a directory")),
            ("file", "Socket", Some("hostPath type check failed: /file is not a socket file")),
            ("absent", "File", Some("hostPath type check failed: /absent is not a file")),
            ("absent", "Directory", Some("hostPath type check failed: /absent is not a directory")),
            ("made/deep", "DirectoryOrCreate", None),
            ("made/deep", "Directory", None),
            ("made/f", "FileOrCreate", None),
            ("made/f", "FileOrCreate", None),
            ("plain", "", None),
            ("a/../b", "", Some("hostPath /a/../b must not contain \"..\"")),
            ("file", "Odd", Some("hostPath type \"Odd\" is unknown")),
        ] {
            assert_eq!(check(name, kind).as_deref(), expected, "{name} {kind}");
        }
    }

    #[test]
    fn removal_stays_below_the_root() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("volumes");
        fs::create_dir_all(root.join("pvc-1/data")).unwrap();
        fs::create_dir(base.path().join("precious")).unwrap();
        std::os::unix::fs::symlink(base.path(), root.join("out")).unwrap();
        for bad in [
            root.clone(),
            base.path().join("precious"),
            root.join("../precious"),
            root.join("out/precious"),
            Path::new("relative").to_path_buf(),
        ] {
            assert!(matches!(remove_below(&root, &bad), Err(HostError::Refused(_))), "{}", bad.display());
        }
        assert!(base.path().join("precious").exists());
        remove_below(&root, &root.join("pvc-1")).unwrap();
        assert!(!root.join("pvc-1").exists());
        remove_below(&root, &root.join("pvc-1")).unwrap();
        remove_below(&root, &root.join("out")).unwrap();
        assert!(base.path().join("precious").exists(), "a link is removed, not what it leads to");
    }
}
