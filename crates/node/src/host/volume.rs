//! Volumes on a real disk. Blocking; [`super::System`] calls it off the runtime's threads.
//!
//! Files of configMap, secret, downwardAPI and projected volumes change all at once: they live in a
//! timestamped directory, `..data` is a symbolic link to it, each visible name is a link through
//! `..data`, and a refresh renames a new link over the old one (upstream `atomic_writer.go`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{HostError, Result, filesystem, mounts};
use crate::volume::{File, Kind, VolumePlan};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";
/// Size of the tmpfs of a Memory emptyDir that names none: the kernel's own default, half of memory.
const TMPFS_DEFAULT: &str = "";

/// Makes or refreshes one volume whose own directory is `dir`; `local_root` is where this node makes
/// directories for PersistentVolumes.
pub(super) fn set_up(dir: &Path, local_root: &Path, plan: &VolumePlan) -> Result<PathBuf> {
    match &plan.kind {
        Kind::HostPath { path, kind } => {
            filesystem::host_path(path, kind)?;
            real(path)
        }
        Kind::Persistent { path, create } => {
            persistent(path, *create, local_root)?;
            let path = real(path)?;
            if path.starts_with(local_root) {
                own(&path, plan)?;
            }
            Ok(path)
        }
        Kind::Empty { memory, size_limit_bytes } => {
            let fresh = make_dir(dir, 0o777)?;
            if *memory && !mounts::is_mount_point(dir)? {
                let size = match size_limit_bytes {
                    0 => TMPFS_DEFAULT.to_owned(),
                    bytes => format!(",size={bytes}"),
                };
                mounts::tmpfs(dir, &format!("mode=1777{size}"))?;
                own(dir, plan)?;
            } else if fresh {
                own(dir, plan)?;
            }
            Ok(dir.to_path_buf())
        }
        Kind::Files(files) => {
            make_dir(dir, 0o755)?;
            write_files(dir, files, plan.fs_group)?;
            Ok(dir.to_path_buf())
        }
    }
}

fn real(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|error| HostError::io("resolve", path, error))
}

/// Makes a directory with exactly this mode; true when it did not exist.
fn make_dir(dir: &Path, mode: u32) -> Result<bool> {
    if dir.is_dir() {
        return Ok(false);
    }
    fs::create_dir_all(dir).map_err(|error| HostError::io("create directory", dir, error))?;
    set_mode(dir, mode)?;
    Ok(true)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| HostError::io("set the mode of", path, error))
}

/// A directory for a PersistentVolume. Below our own root it is made open to any user, as
/// local-path provisioners do, because the pod may run as anyone.
fn persistent(path: &Path, create: bool, local_root: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if !create {
        let why = "does not exist or is no directory: make it, or remove the volume";
        return Err(HostError::Refused(format!("directory {} of the volume {why}", path.display())));
    }
    let ours =
        path.starts_with(local_root) && path.components().all(|part| part != std::path::Component::ParentDir);
    make_dir(path, if ours { 0o777 } else { 0o755 }).map(drop)
}

fn own(dir: &Path, plan: &VolumePlan) -> Result<()> {
    match plan.fs_group {
        Some(group) => filesystem::own_by_group(dir, group, plan.on_root_mismatch),
        None => Ok(()),
    }
}

/// Replaces the contents of `dir` by `files`, atomically, unless they are the same already.
fn write_files(dir: &Path, files: &BTreeMap<String, File>, group: Option<i64>) -> Result<()> {
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && is_same(&dir.join(old), files)?
    {
        return link_names(dir, files);
    }
    let next = next_name(old.as_deref());
    let fresh = dir.join(&next);
    if fresh.exists() {
        // A former try was cut short.
        remove_dir(&fresh)?;
    }
    make_dir(&fresh, 0o755)?;
    for (path, file) in files {
        write_file(&fresh, path, file, group)?;
    }
    let link = dir.join(DATA_NEW);
    match fs::remove_file(&link) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(HostError::io("remove", link, error)),
    }
    symlink(&next, &link).map_err(|error| HostError::io("link", &link, error))?;
    fs::rename(&link, &data).map_err(|error| HostError::io("rename", &link, error))?;
    link_names(dir, files)?;
    match old {
        Some(old) => remove_dir(&dir.join(old)),
        None => Ok(()),
    }
}

/// Two names take turns with a counter: no clock is needed to tell generations apart.
fn next_name(old: Option<&Path>) -> String {
    let number = old
        .and_then(Path::to_str)
        .and_then(|name| name.strip_prefix("..generation_"))
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0);
    format!("..generation_{}", number.wrapping_add(1))
}

fn is_same(current: &Path, files: &BTreeMap<String, File>) -> Result<bool> {
    for (path, file) in files {
        let path = current.join(path);
        let Ok(metadata) = fs::metadata(&path) else { return Ok(false) };
        if !metadata.is_file() {
            return Ok(false);
        }
        let data = fs::read(&path).map_err(|error| HostError::io("read", &path, error))?;
        if data != file.data {
            return Ok(false);
        }
    }
    Ok(count_files(current)? == files.len())
}

fn count_files(dir: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir).map_err(|error| HostError::io("read directory", dir, error))? {
        let entry = entry.map_err(|error| HostError::io("read directory", dir, error))?;
        let path = entry.path();
        count += if path.is_dir() { count_files(&path)? } else { 1 };
    }
    Ok(count)
}

fn write_file(root: &Path, path: &str, file: &File, group: Option<i64>) -> Result<()> {
    let path = root.join(path);
    if let Some(parent) = path.parent() {
        make_dir(parent, 0o755)?;
    }
    fs::write(&path, &file.data).map_err(|error| HostError::io("write", &path, error))?;
    // Upstream's SetVolumeOwnership lets the group read whatever the mode said.
    let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
    set_mode(&path, mode)?;
    if file.uid.is_some() || group.is_some() {
        filesystem::chown(&path, file.uid, group)?;
    }
    Ok(())
}

/// A link through `..data` for each top-level name; links of names that are gone go as well.
fn link_names(dir: &Path, files: &BTreeMap<String, File>) -> Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)
                .map_err(|error| HostError::io("link", &link, error))?;
        }
    }
    for entry in fs::read_dir(dir).map_err(|error| HostError::io("read directory", dir, error))? {
        let entry = entry.map_err(|error| HostError::io("read directory", dir, error))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            fs::remove_file(entry.path()).map_err(|error| HostError::io("remove", entry.path(), error))?;
        }
    }
    Ok(())
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(HostError::io("remove directory", dir, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str, u32)]) -> BTreeMap<String, File> {
        list.iter()
            .map(|(path, data, mode)| {
                ((*path).to_owned(), File { data: data.as_bytes().to_vec(), mode: *mode, uid: None })
            })
            .collect()
    }

    fn plan(kind: Kind) -> VolumePlan {
        VolumePlan { name: "v".into(), kind, fs_group: None, on_root_mismatch: false }
    }

    #[test]
    fn files_change_all_at_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("v");
        let set =
            |list: &[(&str, &str, u32)]| set_up(&dir, root.path(), &plan(Kind::Files(files(list)))).unwrap();
        set(&[("a", "1", 0o644), ("d/e", "2", 0o400)]);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_link(dir.join("d")).unwrap(), Path::new("..data/d"));
        assert_eq!(fs::metadata(dir.join("d/e")).unwrap().permissions().mode() & 0o777, 0o400);
        let first = fs::read_link(dir.join(DATA)).unwrap();
        set(&[("a", "1", 0o644), ("d/e", "2", 0o400)]);
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), first, "unchanged contents are left alone");
        set(&[("a", "changed", 0o644)]);
        assert_ne!(fs::read_link(dir.join(DATA)).unwrap(), first);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "changed");
        assert!(fs::symlink_metadata(dir.join("d")).is_err(), "the link of a key that is gone is gone");
        assert!(!dir.join(first).exists(), "the former generation is removed");
        set(&[]);
        assert_eq!(count_files(&dir.join(fs::read_link(dir.join(DATA)).unwrap())).unwrap(), 0);
    }

    #[test]
    fn a_crash_between_writing_and_renaming_is_repaired() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("v");
        let wanted = plan(Kind::Files(files(&[("a", "1", 0o644)])));
        set_up(&dir, root.path(), &wanted).unwrap();
        fs::create_dir(dir.join("..generation_2")).unwrap();
        fs::write(dir.join("..generation_2/half"), "x").unwrap();
        symlink("..generation_2", dir.join(DATA_NEW)).unwrap();
        set_up(&dir, root.path(), &plan(Kind::Files(files(&[("a", "2", 0o644)])))).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "2");
        assert!(!dir.join("..data/half").exists());
    }

    #[test]
    fn persistent_directories() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("pvc-1");
        let absent = plan(Kind::Persistent { path: path.clone(), create: false });
        let error = set_up(&root.path().join("v"), root.path(), &absent).unwrap_err();
        assert!(error.to_string().contains("does not exist"), "{error}");
        let wanted = plan(Kind::Persistent { path: path.clone(), create: true });
        let got = set_up(&root.path().join("v"), root.path(), &wanted).unwrap();
        assert_eq!(got, path.canonicalize().unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        fs::write(path.join("row"), "kept").unwrap();
        set_up(&root.path().join("v"), root.path(), &wanted).unwrap();
        assert_eq!(fs::read_to_string(path.join("row")).unwrap(), "kept");
    }
}
