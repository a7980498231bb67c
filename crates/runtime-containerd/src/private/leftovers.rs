//! What pods leave in the kernel after their containerd has ended: mounts and the bridge.

use std::path::PathBuf;

use runtime::{Error, ErrorKind, Result, Step};
use rustix::mount::{UnmountFlags, unmount};
use tokio::process::Command;

use super::{Settings, missing::Programs};

/// Takes it away.
pub(super) async fn remove(settings: &Settings, programs: &Programs) -> Result<()> {
    let failed = |message: String| Error::new(Step::Shutdown, "containerd", ErrorKind::Internal, message);
    let mounts = tokio::fs::read_to_string("/proc/self/mounts")
        .await
        .map_err(|error| failed(format!("cannot read /proc/self/mounts: {error}")))?;
    // The kernel lists paths without symbolic links.
    let directory = settings.directory.canonicalize().unwrap_or_else(|_gone| settings.directory.clone());
    for mount in below(&mounts, &directory.to_string_lossy()) {
        unmount(&mount, UnmountFlags::DETACH)
            .map_err(|error| failed(format!("cannot unmount {}: {error}", mount.display())))?;
    }
    let bridge = PathBuf::from("/sys/class/net").join(&settings.bridge);
    if let (Some(ip), true) = (&programs.ip, bridge.exists()) {
        let said = Command::new(ip).args(["link", "delete", &settings.bridge]).output().await;
        match said {
            Ok(said) if said.status.success() => {}
            Ok(said) => {
                let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
                return Err(failed(format!("cannot delete the bridge {}: {why}", settings.bridge)));
            }
            Err(error) => return Err(failed(format!("cannot run {}: {error}", ip.display()))),
        }
    }
    Ok(())
}

/// Mount points below a directory, innermost first. The kernel writes a space as `\040`.
fn below(mounts: &str, directory: &str) -> Vec<PathBuf> {
    let prefix = format!("{}/", directory.trim_end_matches('/'));
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|path| path.replace("\\040", " "))
        .filter(|path| path.starts_with(&prefix))
        .map(PathBuf::from)
        .collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_is_unmounted_and_the_innermost_first() {
        let mounts = "overlay / overlay rw 0 0\ntmpfs /d tmpfs rw 0 0\na /d/x\\040y a rw 0 0\nb /d/x\\040y/z b rw 0 0\nc /dx c rw 0 0\n";
        assert_eq!(below(mounts, "/d"), [PathBuf::from("/d/x y/z"), PathBuf::from("/d/x y")]);
    }
}
